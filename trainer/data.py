"""Reads what people ranked and turns it into what a loss can use.

Every line of a file is checked when it is read; a broken one is refused with file, line, what is
wrong and what to do. Rankings stay weak orders until the last moment: pairs exist only as index
tensors beside the scores (`pairs_of`).

Choices
- Held-out prompts are chosen by a hash of the prompt alone, so a prompt that was held out in one
  round is held out in the next, whatever else the file holds.
- Batches are cut by their number of tokens after padding, from rows sorted by length.
Not here: losses, models, files written by a stage.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from itertools import combinations
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from trainer.events import RunError
from trainer.types import RunContext, padded

R = TypeVar("R", "Ranking", "Pair", "Prompt")
Messages = tuple[dict[str, str], ...]

ROLES = ("system", "user", "assistant")
GAPS = {"slightly": 1.0, "clearly": 2.0, "much": 3.0}


class DataError(RunError):
    """A data file is missing or broken; the message names file, line, fault and remedy."""

    code = "data"


class _Fault(ValueError):
    """What is wrong inside one line; the reader adds file and line."""


@dataclass(frozen=True, slots=True)
class Prompt:
    id: str
    messages: Messages


@dataclass(frozen=True, slots=True)
class Answer:
    """What is read of one line of answers.jsonl."""

    id: str
    messages: Messages
    text: str


@dataclass(frozen=True, slots=True)
class Ranking:
    """One weak order of K answers by one annotator.

    `ranks` stands beside `answer_ids`: dense from 1 = best, equal = tie. `gaps` has one number for
    each step from a rank to the next, best first: 1 slightly, 2 clearly, 3 much better, 0 not said.
    """

    messages: Messages
    answer_ids: tuple[str, ...]
    texts: tuple[str, ...]
    ranks: tuple[int, ...]
    gaps: tuple[float, ...]
    annotator: str = ""
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Pair:
    """One prompt with the answer that is to be learned."""

    messages: Messages
    answer: str


@dataclass(frozen=True, slots=True)
class Pairs:
    """All C(K,2) pairs of a batch of rankings, as indices into the flat scores of their answers.

    Notation: p pairs, g rankings. In a tied pair `better` is merely the answer that stands first.
    """

    better: Tensor  # (p,) long
    worse: Tensor  # (p,) long
    tied: Tensor  # (p,) bool
    gap: Tensor  # (p,) float32, summed over the steps between the two ranks
    distance: Tensor  # (p,) long, difference of the dense ranks, 0 for a tie
    ranking: Tensor  # (p,) long, 0 … g-1
    weight: Tensor  # (g,) float32

    def to(self, device: torch.device) -> "Pairs":
        """The same pairs on a device."""
        return Pairs(*(getattr(self, part.name).to(device) for part in fields(self)))


# files --------------------------------------------------------------------------------------------


def read_rankings(path: Path) -> list[Ranking]:
    """Read rankings.jsonl.

    Answers may come back in other lines (overlap); inside a line each stands once.
    """
    rankings = []
    for number, record in _records(path, "rankings"):
        with _at(path, number):
            rankings.append(parse_ranking(record))
    return rankings


def read_weighty(path: Path) -> list[Ranking]:
    """The rankings that count: one of weight 0 takes no place in a step either."""
    weighty = [ranking for ranking in read_rankings(path) if ranking.weight]
    if not weighty:
        raise DataError(f"{path}: every ranking has weight 0; give some of them a weight.")
    return weighty


def read_pairs(path: Path) -> list[Pair]:
    """Read pairs.jsonl: {"prompt": [messages], "answer": text}; other keys are passed over."""
    pairs = []
    for number, record in _records(path, "pairs"):
        with _at(path, number):
            answer = record.get("answer")
            if not isinstance(answer, str) or not answer.strip():
                raise _Fault("'answer' must be text that is not empty: what is to be learned?")
            pairs.append(Pair(_messages(record.get("prompt")), answer))
    return pairs


def read_documents(path: Path) -> list[tuple[int, str]]:
    """Read raw text of .jsonl: {"text"} a line; (line number, text), other keys passed over."""
    documents = []
    for number, record in _records(path, "documents"):
        with _at(path, number):
            text = record.get("text")
            if not isinstance(text, str):
                raise _Fault(f"'text' must be text, not {json.dumps(text)}: give each line one.")
            documents.append((number, text))
    return documents


def read_prompts(path: Path) -> list[Prompt]:
    """Read prompts.jsonl; every id stands once."""
    seen: dict[str, int] = {}
    prompts = []
    for number, record in _records(path, "prompts"):
        with _at(path, number):
            prompt = Prompt(_identifier(record, "id"), _messages(record.get("prompt")))
            _once(prompt.id, number, seen)
        prompts.append(prompt)
    return prompts


def read_answers(path: Path) -> list[Answer]:
    """Read answers.jsonl; every id stands once."""
    seen: dict[str, int] = {}
    answers = []
    for number, record in _records(path, "answers"):
        with _at(path, number):
            answer = _answer(record)
            _once(answer.id, number, seen)
        answers.append(answer)
    return answers


@contextmanager
def _at(path: Path, number: int) -> Iterator[None]:
    try:
        yield
    except _Fault as fault:
        raise DataError(f"{path}:{number}: {fault}") from None


def _records(path: Path, what: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Each line of a JSON-lines file that is not blank, as (line number, object)."""
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        raise DataError(
            f"{path} is not there: write the {what} to it, one JSON object a line."
        ) from None
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror}): check path and permissions."
        ) from error
    if not any(line.strip() for line in lines):
        raise DataError(f"{path} is empty: it must hold at least one line of {what}.")
    for number, line in enumerate(lines, start=1):
        if line.strip():
            with _at(path, number):
                record = _json_object(line)
            yield number, record


def _json_object(line: bytes) -> dict[str, Any]:
    try:
        record = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError:
        raise _Fault("not UTF-8 text: save the file as UTF-8.") from None
    except ValueError as error:
        raise _Fault(
            f"not valid JSON ({error}): every line must be one whole JSON object."
        ) from None
    if not isinstance(record, dict):
        raise _Fault("the line must be a JSON object in braces.")
    return record


def _once(identifier: str, number: int, seen: dict[str, int]) -> None:
    if identifier in seen:
        raise _Fault(
            f"id '{identifier}' stands in line {seen[identifier]} too: give every line its own id."
        )
    seen[identifier] = number


# one line -----------------------------------------------------------------------------------------


def parse_ranking(record: Mapping[str, Any]) -> Ranking:
    """Check one record of rankings.jsonl."""
    messages = _messages(record.get("prompt"))
    answers = record.get("answers")
    if not isinstance(answers, list) or not all(isinstance(answer, dict) for answer in answers):
        raise _Fault("'answers' must be a list of objects with id and text.")
    if len(answers) < 2:
        raise _Fault(f"'answers' has {len(answers)} entry: a ranking needs at least two.")
    ids = tuple(_identifier(answer, "id") for answer in answers)
    twice = next((one for one in ids if ids.count(one) > 1), None)
    if twice is not None:
        raise _Fault(f"answer '{twice}' stands twice in 'answers': name each answer once.")
    ranks = _dense(_ranks(record.get("ranks"), ids))
    return Ranking(
        messages=messages,
        answer_ids=ids,
        texts=tuple(_text(answer) for answer in answers),
        ranks=ranks,
        gaps=_gaps(record.get("gaps"), max(ranks) - 1),
        annotator=_annotator(record.get("annotator")),
        weight=_weight(record.get("weight", 1.0)),
    )


def _answer(record: Mapping[str, Any]) -> Answer:
    return Answer(
        id=_identifier(record, "id"),
        messages=_messages(record.get("prompt")),
        text=_text(record),
    )


def _identifier(record: Mapping[str, Any], key: str) -> str:
    value = record.get(key)
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise _Fault(f"'{key}' must be a name (text that is not empty), not {json.dumps(value)}.")
    return str(value)


def _text(record: Mapping[str, Any]) -> str:
    text = record.get("text")
    if not isinstance(text, str):
        raise _Fault(f"'text' must be text, not {json.dumps(text)}: give every answer its text.")
    return text


def _messages(value: Any) -> Messages:
    """A conversation that ends with the user's turn."""
    if not isinstance(value, list) or not value:
        raise _Fault("'prompt' must be a list of messages with role and content.")
    for message in value:
        if not isinstance(message, dict) or not isinstance(message.get("content"), str):
            raise _Fault(
                "every message of 'prompt' must be an object with role and content (text)."
            )
        if message.get("role") not in ROLES:
            raise _Fault(
                f"role {json.dumps(message.get('role'))} is unknown: use {', '.join(ROLES)}."
            )
    if value[-1]["role"] != "user":
        raise _Fault(
            f"'prompt' ends with the {value[-1]['role']}'s turn: it must end with the user's."
        )
    return tuple({"role": message["role"], "content": message["content"]} for message in value)


def _ranks(value: Any, ids: Sequence[str]) -> tuple[int, ...]:
    if not isinstance(value, dict):
        raise _Fault("'ranks' must be an object that gives every answer's id a rank, 1 = best.")
    missing = [one for one in ids if one not in value]
    if missing:
        raise _Fault(
            f"'ranks' leaves out answer '{missing[0]}': rank every answer, equal ranks for a tie."
        )
    unknown = [one for one in value if one not in ids]
    if unknown:
        raise _Fault(
            f"'ranks' names '{unknown[0]}', which is not among the answers: check the ids."
        )
    for one in ids:
        rank = value[one]
        if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
            raise _Fault(
                f"the rank of '{one}' is {json.dumps(rank)}: ranks are whole numbers from 1 = best."
            )
    return tuple(value[one] for one in ids)


def _dense(ranks: Sequence[int]) -> tuple[int, ...]:
    """The same weak order without holes: 1, 3, 3, 7 becomes 1, 2, 2, 3."""
    order = {rank: place for place, rank in enumerate(sorted(set(ranks)), start=1)}
    return tuple(order[rank] for rank in ranks)


def _gaps(value: Any, steps: int) -> tuple[float, ...]:
    """Strengths between neighbouring ranks; no list, or an entry of null, says nothing (0)."""
    if value is None:
        return (0.0,) * steps
    if not isinstance(value, list) or len(value) != steps:
        raise _Fault(
            f"'gaps' must be a list of {steps}, one entry for each step from a rank to the next."
        )
    return tuple(_gap(entry) for entry in value)


def _gap(entry: Any) -> float:
    if entry is None:
        return 0.0
    if isinstance(entry, str) and entry in GAPS:
        return GAPS[entry]
    if isinstance(entry, bool) or not isinstance(entry, int | float) or not 0 <= entry < math.inf:
        raise _Fault(
            f"gap {json.dumps(entry)} is unknown: use {', '.join(GAPS)}, or a number from 0."
        )
    return float(entry)


def _annotator(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise _Fault(f"'annotator' must be a name, not {json.dumps(value)}.")
    return str(value)


def _weight(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise _Fault(f"'weight' is {json.dumps(value)}: it must be a number from 0.")
    return float(value)


# pairs and splits ---------------------------------------------------------------------------------


def pairs_of(rankings: Sequence[Ranking]) -> Pairs:
    """All pairs of all rankings.

    The scores they index are those of the answers, ranking after ranking, as they stand.
    """
    rows: list[tuple[int, int, bool, float, int, int]] = []
    first = 0
    for number, ranking in enumerate(rankings):
        for i, j in combinations(range(len(ranking.ranks)), 2):
            if ranking.ranks[i] > ranking.ranks[j]:
                i, j = j, i
            high, low = ranking.ranks[i], ranking.ranks[j]
            gap = sum(ranking.gaps[high - 1 : low - 1])
            rows.append((first + i, first + j, high == low, gap, low - high, number))
        first += len(ranking.ranks)
    better, worse, tied, gap_, distance, number_ = zip(*rows, strict=True) if rows else ((),) * 6
    return Pairs(
        better=torch.tensor(better, dtype=torch.long),
        worse=torch.tensor(worse, dtype=torch.long),
        tied=torch.tensor(tied, dtype=torch.bool),
        gap=torch.tensor(gap_, dtype=torch.float32),
        distance=torch.tensor(distance, dtype=torch.long),
        ranking=torch.tensor(number_, dtype=torch.long),
        weight=torch.tensor([ranking.weight for ranking in rankings], dtype=torch.float32),
    )


def prompt_hash(messages: Messages) -> str:
    """sha256 of the conversation, the same on every machine and in every round."""
    text = json.dumps(list(messages), sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def split_by_prompt(rankings: Sequence[R], fraction: float) -> tuple[list[R], list[R]]:
    """Part rankings (pairs, prompts) into (training, held out) so that no prompt is on both sides.

    A prompt is held out when its hash, read as a number from 0 to 1, lies below `fraction`. If
    chance would leave a side empty, the nearest prompt goes there; a single prompt always trains.
    """
    place = [int(prompt_hash(ranking.messages)[:15], 16) / 16**15 for ranking in rankings]
    prompts = sorted(set(place))
    if fraction <= 0 or len(prompts) < 2:
        return list(rankings), []
    border = min(max(fraction, math.nextafter(prompts[0], 1)), prompts[-1])
    training = [ranking for ranking, at in zip(rankings, place, strict=True) if at >= border]
    heldout = [ranking for ranking, at in zip(rankings, place, strict=True) if at < border]
    return training, heldout


def shared_prompts(some: Sequence[R], others: Sequence[R]) -> set[str]:
    """Hashes of the prompts that stand on both sides."""
    one, other = ({prompt_hash(line.messages) for line in lines} for lines in (some, others))
    return one & other


def with_heldout(
    context: RunContext, lines: Sequence[R], read: Callable[[Path], Sequence[R]], fraction: float
) -> tuple[list[R], list[R]]:
    """(training, held out): the lines of the input `heldout`, else a share of the prompts.

    Somebody else's test may share prompts with what is trained on (13 of 1,171 in HH-RLHF, cut to
    the last turns): that is told, not refused, and nothing is taken out of either.
    """
    given = context.input("heldout") if "heldout" in context.spec.inputs else None
    training, heldout = parted(lines, read, given, fraction)
    if given is not None and (shared := shared_prompts(training, heldout)):
        count = sum(prompt_hash(line.messages) in shared for line in heldout)
        message = (
            f"{count} of the {len(heldout)} lines of the input heldout have a prompt that is "
            "trained on as well, which may flatter the figures; take them out of one of the two."
        )
        context.emit("alert", code="heldout_trained_on", message=message)
    return training, heldout


def rankings_of(context: RunContext, fraction: float) -> tuple[list[Ranking], list[Ranking]]:
    """(training, held out) of the input `rankings`, as with_heldout gives them; each has a weight.

    Refuses training rankings of which none prefers anything.
    """
    lines = read_weighty(context.input("rankings"))
    training, heldout = with_heldout(context, lines, read_weighty, fraction)
    if not any(max(ranking.ranks) > 1 for ranking in training):
        raise RunError(
            "Every training ranking that has a weight is one single tie, from which nothing can be "
            "learned; add rankings that prefer something."
        )
    return training, heldout


def parted(
    lines: Sequence[R], read: Callable[[Path], Sequence[R]], heldout: Path | None, fraction: float
) -> tuple[list[R], list[R]]:
    """(training, held out): the lines of the file `heldout`, without one a share of the prompts."""
    if heldout is None:
        return split_by_prompt(lines, fraction)
    return list(lines), list(read(heldout))


# tokens -------------------------------------------------------------------------------------------


def length_buckets(lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Indices sorted by length and cut where a padded batch would hold more than `max_tokens`
    tokens.

    Shortest first; the sort is stable, so the same lengths always give the same batches.
    """
    order = sorted(range(len(lengths)), key=lambda i: lengths[i])
    parts = cut_in_order([lengths[index] for index in order], max_tokens)
    return [[order[place] for place in part] for part in parts]


def cut_in_order(lengths: Sequence[int], max_tokens: float) -> list[list[int]]:
    """Indices as they stand, cut where a padded batch would hold more than `max_tokens` tokens; one
    row at least stands in each part.
    """
    parts: list[list[int]] = []
    widest = 0
    for index, length in enumerate(lengths):
        widest = max(widest, length)
        if parts and (len(parts[-1]) + 1) * padded(widest) <= max_tokens:
            parts[-1].append(index)
        else:
            parts.append([index])
            widest = length
    return parts
