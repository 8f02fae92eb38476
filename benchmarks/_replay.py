"""Real rankings to replay, as numbers: what the label benchmarks share.

Choices
- The files of `LABELHUB_DATA` (default ../shared/data) are read as they are; a folder that is
  missing is said by name.
- An answer's features are the mean of a frozen SmolLM2's states over the answer's tokens: a state
  from the middle says more about an answer than the last token's (docs/log.md). They are computed
  once and kept under var/bench/.
- Prompts keep their last tokens, answers their first ones: on two cores whole texts would take
  longer than all the rest.
Not here: heads, budgets, intervals.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from trainer.config import resolve_path
from trainer.data import length_buckets
from trainer.modeling import (
    chat_ids,
    collate,
    load_policy,
    load_tokenizer,
    lower_result,
    shares_prompts,
)
from trainer.packing import packed
from trainer.placement import Placement, choose_dtype

Floats = NDArray[np.float64]

ROOT = Path(__file__).resolve().parent.parent
VAR = Path(os.environ.get("LABELHUB_VAR") or ROOT / "var")
DATA = Path(os.environ.get("LABELHUB_DATA") or ROOT.parent / "shared" / "data")
#: layers that run (of 30), last tokens kept of a prompt, first tokens kept of an answer
DEPTH, PROMPT_TOKENS, ANSWER_TOKENS = 16, 64, 128


class Missing(Exception):
    """Data that is not there, in one sentence."""


@dataclass(frozen=True)
class Set:
    """One prompt with its answers, each annotator's ranks (1 = best, equal = tie) beside them."""

    group: str  # sets of one conversation are never parted between training and test
    messages: tuple[dict[str, str], ...]
    texts: tuple[str, ...]
    ranks: dict[str, tuple[int, ...]]


# --- files


def read_lines(name: str) -> Iterator[dict[str, Any]]:
    """The JSON lines of a file of DATA."""
    path = DATA / name
    if not path.is_file():
        raise Missing(f"{path} is not there: set LABELHUB_DATA to the folder of the data.")
    text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    for line in text.splitlines():
        yield json.loads(line)


def read_hh(name: str) -> list[Set]:
    """Pairs of Anthropic HH-RLHF; the few that differ before the last turn are left out."""
    sets = []
    for line in read_lines(f"hh_rlhf/{name}.jsonl.gz"):
        (prompt, good), (other, bad) = (_last_turn(line[key]) for key in ("chosen", "rejected"))
        if prompt == other and good != bad:
            sets.append(Set(prompt, _dialogue(prompt), (good, bad), {"crowd": (1, 2)}))
    return sets


def _last_turn(transcript: str) -> tuple[str, str]:
    prompt, _, answer = transcript.rpartition("\n\nAssistant:")
    return prompt, answer.strip()


def _dialogue(prompt: str) -> tuple[dict[str, str], ...]:
    """The turns of “\\n\\nHuman: …\\n\\nAssistant: …” as messages."""
    messages = []
    for turn in prompt.split("\n\nHuman:")[1:]:
        asked, *answers = turn.split("\n\nAssistant:")
        messages.append({"role": "user", "content": asked.strip()})
        messages += [{"role": "assistant", "content": said.strip()} for said in answers]
    return tuple(messages)


def read_oasst(name: str) -> list[Set]:
    """Answer groups of Open-Assistant with their consensus rank."""
    sets = []
    for line in read_lines(name):
        turns = [
            {"role": "user" if turn["role"] == "prompter" else "assistant", "content": turn["text"]}
            for turn in line["history"]
        ]
        messages = (*turns, {"role": "user", "content": line["prompt"]})
        answers = line["answers"]
        ranks = tuple(answer["rank"] + 1 for answer in answers)
        texts = tuple(answer["text"] for answer in answers)
        sets.append(Set(messages[0]["content"], messages, texts, {"consensus": ranks}))
    return sets


def read_mqm() -> list[Set]:
    """Translations with the penalty that each of three raters gave them: less is better."""
    sets = []
    for line in read_lines("wmt_mqm_zhen/wmt23_zhen_3raters.jsonl.gz"):
        answers = line["answers"]
        penalties = {
            rater: [answer["mqm_by_rater"][rater] for answer in answers]
            for rater in answers[0]["mqm_by_rater"]
        }
        messages = ({"role": "user", "content": line["prompt"]},)
        texts = tuple(answer["text"] for answer in answers)
        ranks = {rater: _ranks(values) for rater, values in sorted(penalties.items())}
        sets.append(Set(line["doc"], messages, texts, ranks))
    return sets


def _ranks(penalties: Sequence[float]) -> tuple[int, ...]:
    """Dense ranks from 1, the least penalty first."""
    place = {value: rank for rank, value in enumerate(sorted(set(penalties)), start=1)}
    return tuple(place[value] for value in penalties)


# --- features


def features(name: str, sets: Sequence[Set], model: str = "smollm2") -> list[Floats]:
    """(K, d) features of each set's answers; computed once, then read from var/bench/."""
    known = [[set_.messages, set_.texts] for set_ in sets]
    settings = json.dumps([model, DEPTH, PROMPT_TOKENS, ANSWER_TOKENS, known], ensure_ascii=False)
    key = hashlib.sha256(settings.encode()).hexdigest()[:16]
    path = VAR / "bench" / "features" / f"{name}-{key}.safetensors"
    if not path.is_file():
        begun = time.monotonic()
        flat = _compute(sets, model)
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({"features": flat}, path)
        print(f"features of {name}: {len(flat)} answers, {time.monotonic() - begun:.0f} s")
    flat = load_file(path)["features"].astype(np.float64)
    borders = np.cumsum([len(set_.texts) for set_ in sets])[:-1]
    return np.split(flat, borders)


@torch.no_grad()
def _compute(sets: Sequence[Set], model: str) -> NDArray[np.float32]:
    """Mean state over each answer's tokens behind `DEPTH` layers, all answers in a row."""
    path = resolve_path(model, ROOT)
    tokenizer = load_tokenizer(path)
    place = Placement(torch.device("cpu"), choose_dtype("auto", torch.device("cpu"), path))
    policy = load_policy(path, place)
    rows = [_row(tokenizer, one) for one in sets]
    pad = int(tokenizer.pad_token_id)
    together = shares_prompts(policy, next(row[0] for row in rows if len(row[0]) >= 4), pad)
    parts = [(n, k, row) for n, whole in enumerate(rows) for k, row in _parts(whole, together)]
    sizes = [len(prompt) + sum(map(len, answers)) for _, _, (prompt, answers) in parts]
    found: dict[tuple[int, int], torch.Tensor] = {}
    with packed(policy, rows=1024, norms=False):
        for bucket in length_buckets(sizes, 1024):
            batch = collate([parts[place][2] for place in bucket], pad)
            states = lower_result(policy, batch, DEPTH)
            states = states[0] if isinstance(states, tuple) else states
            for b, place in enumerate(bucket):
                n, first, (_, answers) = parts[place]
                for k in range(len(answers)):
                    own = batch.segments[b] == k + 1
                    found[n, first + k] = states[b, own].float().mean(0)
    return torch.stack([found[key] for key in sorted(found)]).numpy()


Row = tuple[list[int], list[list[int]]]


def _row(tokenizer: Any, one: Set) -> Row:
    prompt = chat_ids(tokenizer, one.messages)[-PROMPT_TOKENS:]
    end = int(tokenizer.eos_token_id)
    answers = [
        [*tokenizer(text, add_special_tokens=False)["input_ids"][:ANSWER_TOKENS], end]
        for text in one.texts
    ]
    return prompt, answers


def _parts(row: Row, together: bool) -> Iterator[tuple[int, Row]]:
    """The row in parts that fit a batch, each with the number of its first answer."""
    prompt, answers = row
    step = 4 if together else 1
    for first in range(0, len(answers), step):
        yield first, (prompt, answers[first : first + step])
