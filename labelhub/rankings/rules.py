"""Weak orders: rankings of a few things in which ties are allowed, and what is said beside. Pure.

A weak order is a mapping from each thing to its rank, a whole number: 1 = best, equal = tie. It is
dense when no rank between 1 and the last is left out; only dense ones are stored, so that one order
has one form. Ranks are kept, never positions in a list: a list of names sorted by rank is
the inverse permutation, and mixing the two up stores 14 of the 24 orders of 4 answers wrongly.

Beside the order stand the facts of `Feedback`: they are kept as they were said, and no pair is ever
made from them.

Not here: what a tie means to a loss, weights of annotators, consensus of several.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import combinations, product
from typing import Any, Final, Generic, NamedTuple, TypeVar

T = TypeVar("T", bound=Hashable)

# What `parse_form` makes of a field that holds no number; no rank is below 1.
NOT_A_RANK = 0
FIELD = "rank-"


class Pairs(NamedTuple, Generic[T]):
    """All pairs of a weak order."""

    better_worse: list[tuple[T, T]]
    ties: list[tuple[T, T]]


def dense(ranks: Mapping[T, int]) -> dict[T, int]:
    """The same order without left-out ranks: 1, 3, 3, 7 becomes 1, 2, 2, 3."""
    places = {rank: place for place, rank in enumerate(sorted(set(ranks.values())), start=1)}
    return {one: places[rank] for one, rank in ranks.items()}


def all_weak_orders(n: int) -> Iterator[tuple[int, ...]]:
    """Every dense weak order of n things: 1, 3, 13, 75, 541 … of them (the Fubini numbers)."""
    for ranks in product(range(1, n + 1), repeat=n):
        if set(ranks) == set(range(1, max(ranks, default=0) + 1)):
            yield ranks


def pairs(ranks: Mapping[T, int]) -> Pairs[T]:
    """The C(K, 2) pairs that an order of K things says something about, ties apart."""
    found: Pairs[T] = Pairs([], [])
    for one, other in combinations(ranks, 2):
        if ranks[one] == ranks[other]:
            found.ties.append((one, other))
        elif ranks[one] < ranks[other]:
            found.better_worse.append((one, other))
        else:
            found.better_worse.append((other, one))
    return found


# --- what a browser sends


def field_name(answer_id: int) -> str:
    """The name of the form field that holds an answer's rank."""
    return f"{FIELD}{answer_id}"


def parse_form(fields: Mapping[str, str]) -> dict[int, int]:
    """The ranks in form fields `rank-<answer id>`; other fields are passed over.

    An empty field is left out (that answer has no place yet); anything that is no whole number
    becomes NOT_A_RANK, so that the one check of ranks refuses it with the one sentence.
    """
    ranks = {}
    for name in fields:
        number, value = name.removeprefix(FIELD), str(fields[name]).strip()
        if name.startswith(FIELD) and is_whole(number) and value:
            ranks[int(number)] = int(value) if is_whole(value) else NOT_A_RANK
    return ranks


def is_whole(text: str) -> bool:
    """Digits only, and no more of them than a rank or an id can have."""
    return text.isascii() and text.isdigit() and len(text) <= 18


def is_rank(value: object) -> bool:
    """A whole number from 1; True is none, though Python counts it as 1."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


# --- agreement


def agreement(one: Mapping[T, int], other: Mapping[T, int]) -> tuple[int, int]:
    """(pairs ordered alike, pairs that both order): pairs that either ties do not count.

    Only things that both rank are compared.
    """
    signs = _signs(one, other)
    both = [(a, b) for a, b in signs if a and b]
    return sum(a == b for a, b in both), len(both)


def kendall_tau_b(one: Mapping[T, int], other: Mapping[T, int]) -> float | None:
    """Rank correlation from -1 to 1 with ties in both (Kendall 1945); None if either ties all.

    tau-b = (C - D) / sqrt((P - ties in one) (P - ties in other)), over the P pairs of things that
    both rank.
    """
    signs = _signs(one, other)
    spread = math.sqrt(sum(a != 0 for a, _ in signs) * sum(b != 0 for _, b in signs))
    return sum(a * b for a, b in signs) / spread if spread else None


def _signs(one: Mapping[T, int], other: Mapping[T, int]) -> list[tuple[int, int]]:
    """For each pair of what both rank: which of the two is better, by each (-1, 0 = tie, 1)."""
    shared = [key for key in one if key in other]
    return [
        (_sign(one[a] - one[b]), _sign(other[a] - other[b])) for a, b in combinations(shared, 2)
    ]


def _sign(number: int) -> int:
    return (number > 0) - (number < 0)


def mean_agreement(orders: Sequence[Mapping[T, int]]) -> tuple[int, int]:
    """`agreement` summed over all pairs of annotators who ranked the same set."""
    counts = [agreement(one, other) for one, other in combinations(orders, 2)]
    return sum(alike for alike, _ in counts), sum(both for _, both in counts)


def tiers(ranks: Mapping[T, int]) -> list[list[T]]:
    """The things of each rank, best first."""
    by_rank: dict[int, list[T]] = {}
    for one, rank in ranks.items():
        by_rank.setdefault(rank, []).append(one)
    return [by_rank[rank] for rank in sorted(by_rank)]


def gaps_of(items: Iterable[tuple[int, int | None]]) -> list[int | None]:
    """From each item's (rank, gap to the next rank) to one gap for each step, best first."""
    by_rank: dict[int, int | None] = {}
    for rank, gap in items:
        by_rank[rank] = gap if gap is not None else by_rank.get(rank)
    return [by_rank[rank] for rank in sorted(by_rank)][:-1]


def mean_tau(orders: Sequence[Mapping[T, int]]) -> float | None:
    """Mean tau-b over all pairs of these orders of one set; None when no pair has one."""
    taus = [kendall_tau_b(one, other) for one, other in combinations(orders, 2)]
    known = [tau for tau in taus if tau is not None]
    return sum(known) / len(known) if known else None


# --- what is said beside the order

LIKERT: Final = (1, 7)
GOOD, BAD = "good", "bad"
MAX_NOTE: Final = 500
MAX_CRITIQUE: Final = 5_000
MAX_IDEAL: Final = 20_000
MAX_SPANS: Final = 50  # marked places in one answer


@dataclass(frozen=True)
class Span:
    """A place marked in an answer, from `start` up to `end`.

    Both count characters (code points) of the answer as it is read: `lib.markdown.plain` of its
    text. `quote` is what stands there, so that a place can be proved and found again.
    """

    start: int
    end: int
    quote: str
    tag: str  # GOOD or BAD
    note: str = ""


@dataclass(frozen=True)
class ItemFeedback:
    """What is said of one answer beside its rank."""

    likert: int | None = None
    attributes: tuple[str, ...] = ()  # keys of the project's questions that were answered yes
    critique: str = ""
    spans: tuple[Span, ...] = ()


@dataclass(frozen=True)
class Feedback:
    """What is said of an answer set beside the order; `items` by answer id."""

    all_bad: bool = False
    refusal_right: bool = False
    ideal_answer: str = ""
    items: Mapping[int, ItemFeedback] = field(default_factory=dict)


class BadFeedback(ValueError):
    """This feedback cannot be kept. `reason` is a key of `rankings.actions.REASONS`."""

    def __init__(self, reason: str, **values: object) -> None:
        super().__init__(f"{reason} {values}")
        self.reason = reason
        self.values = values


def checked_feedback(
    feedback: Feedback, *, read: Mapping[int, str], attributes: Collection[str]
) -> Feedback:
    """The feedback as it is kept; raises BadFeedback.

    `read` holds each answer of the set by id, as it is read; `attributes` the keys that the
    project asks about.
    """
    if any(pk not in read for pk in feedback.items):
        raise BadFeedback("unknown_answer")
    ideal = feedback.ideal_answer.strip()
    if len(ideal) > MAX_IDEAL:
        raise BadFeedback("long_ideal", limit=MAX_IDEAL)
    items = {pk: _checked_item(item, read[pk], attributes) for pk, item in feedback.items.items()}
    return replace(feedback, ideal_answer=ideal, items=items)


def _checked_item(item: ItemFeedback, text: str, attributes: Collection[str]) -> ItemFeedback:
    low, high = LIKERT
    if item.likert is not None and (not is_rank(item.likert) or not low <= item.likert <= high):
        raise BadFeedback("likert", low=low, high=high)
    for key in item.attributes:
        if key not in attributes:
            raise BadFeedback("attribute", key=str(key)[:40])
    critique = item.critique.strip()
    if len(critique) > MAX_CRITIQUE:
        raise BadFeedback("long_critique", limit=MAX_CRITIQUE)
    if len(item.spans) > MAX_SPANS:
        raise BadFeedback("many_spans", limit=MAX_SPANS)
    return ItemFeedback(
        likert=item.likert,
        attributes=tuple(dict.fromkeys(item.attributes)),
        critique=critique,
        spans=tuple(_checked_span(span, text) for span in item.spans),
    )


def _checked_span(span: Span, text: str) -> Span:
    if span.tag not in (GOOD, BAD):
        raise BadFeedback("span_tag")
    if not 0 <= span.start < span.end <= len(text) or text[span.start : span.end] != span.quote:
        raise BadFeedback("span_place", quote=span.quote[:40])
    note = span.note.strip()
    if len(note) > MAX_NOTE:
        raise BadFeedback("long_note", limit=MAX_NOTE)
    return replace(span, note=note)


def spans_to_json(spans: Iterable[Span]) -> list[dict[str, Any]]:
    """The marked places as the database and the browser keep them."""
    return [asdict(span) for span in spans]


def spans_from_json(rows: object) -> tuple[Span, ...]:
    """The marked places in a list of objects; raises BadFeedback when it is something else."""
    if not isinstance(rows, list):
        raise BadFeedback("span_form")
    return tuple(_span(row) for row in rows)


def _span(row: object) -> Span:
    names = {"start": int, "end": int, "quote": str, "tag": str}
    if not isinstance(row, Mapping) or any(type(row.get(k)) is not v for k, v in names.items()):
        raise BadFeedback("span_form")
    note = row.get("note", "")
    if not isinstance(note, str):
        raise BadFeedback("span_form")
    return Span(row["start"], row["end"], row["quote"], row["tag"], note)


# --- where a skipped set goes

REQUEUE, EXPERT, SET_ASIDE, RETIRE = "requeue", "expert", "set_aside", "retire"

# requeue: back to the queue, for others. expert: to those who have the skill. set_aside: nobody is
# asked until an admin has looked at it. retire: to others first; when a second person says the
# same, the prompt is asked no more.
ROUTES: Final[dict[str, str]] = {
    "unclear": RETIRE,
    "expert": EXPERT,
    "language": REQUEUE,
    "identical": REQUEUE,
    "fault": REQUEUE,
    "private": SET_ASIDE,
    "harmful": SET_ASIDE,
    "other": REQUEUE,
}
EXPERT_SKILL: Final = "expert"
RETIRE_AFTER: Final = 2  # people who must say so


def route(reason: str, *, said_by: int) -> str:
    """Where a set goes for a skip with this reason, which so many people gave by now."""
    way = ROUTES[reason]
    return REQUEUE if way == RETIRE and said_by < RETIRE_AFTER else way


def expert_skill(skill: str) -> str:
    """The skill that is asked for when a set needs an expert: the prompt's own if it names one."""
    return skill or EXPERT_SKILL
