"""Weak orders: rankings of a few things in which ties are allowed. Pure.

A weak order is a mapping from each thing to its rank, a whole number: 1 = best, equal = tie. It is
dense when no rank between 1 and the last is left out; only dense ones are stored, so that one order
has one form. Ranks are kept, never positions in a list: a list of names sorted by rank is
the inverse permutation, and mixing the two up stores 14 of the 24 orders of 4 answers wrongly.

Not here: what a tie means to a loss, weights of annotators, consensus of several.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from itertools import combinations, product
from typing import Generic, NamedTuple, TypeVar

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
