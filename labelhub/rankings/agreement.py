"""How far people agree about the order of the same answers. Pure.

A set's opinions are a mapping from each annotator to a weak order (rules.py): thing → rank, 1 =
best, equal = tie. The unit of every figure is the answer set, since the pairs of one set hang
together: to count them one by one would make every interval too narrow.

- Pairwise agreement: of the pairs that two annotators both order, how many they order alike. This
  is what InstructGPT publishes (72.6 ± 1.5 %, arXiv 2203.02155, section 3.4).
- τ-b: Kendall's rank correlation with ties in both (`rules.kendall_tau_b`), mean over all pairs of
  annotators.
- W: Kendall's coefficient of concordance of all annotators of a set, corrected for ties, mean over
  sets (Kendall and Babington Smith 1939; Siegel and Castellan 1988, section 9.3).
- α: Krippendorff's reliability with the ordinal metric (Krippendorff, Computing Krippendorff's
  Alpha-Reliability, 2011), each answer a unit, each rank a value.

Non-goals: nothing is weighed here and nobody is judged; that is for consensus.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import TypeVar

import numpy as np

from labelhub.rankings.estimates import Figure, Floats, bootstrapped, groups_of, ratio
from labelhub.rankings.rules import agreement, kendall_tau_b

__all__ = [
    "NEEDED_SETS",
    "PUBLISHED",
    "PUBLISHED_ERROR",
    "Figure",
    "kendall_tau_b",
    "kendall_w",
    "krippendorff_alpha",
    "krippendorff_ordinal",
    "mean_tau_b",
    "mean_w",
    "middle_places",
    "pairwise_agreement",
]

T = TypeVar("T", bound=Hashable)
A = TypeVar("A", bound=Hashable)
Order = Mapping[T, int]
Opinions = Mapping[A, Order[T]]

# Agreement of InstructGPT's training labelers with each other and its standard error (section 3.4).
PUBLISHED, PUBLISHED_ERROR = 0.726, 0.015
# Fewer shared sets than this say more about chance than about people.
NEEDED_SETS = 20


def pairwise_agreement(
    sets: Iterable[Opinions[A, T]], *, of: A | None = None, needed: int = NEEDED_SETS
) -> Figure:
    """The share of pairs that two annotators order alike, of those that both order.

    `of` keeps only the comparisons of one annotator with others.
    """
    parts = []
    for opinions in sets:
        counts = [agreement(one, other) for one, other in _comparisons(opinions, of)]
        parts.append((sum(alike for alike, _ in counts), sum(both for _, both in counts)))
    return ratio(parts, needed=needed)


def mean_tau_b(
    sets: Iterable[Opinions[A, T]], *, of: A | None = None, needed: int = NEEDED_SETS
) -> Figure:
    """Mean τ-b over all pairs of annotators; where one of the two ties all, there is none."""
    parts = []
    for opinions in sets:
        taus = [kendall_tau_b(one, other) for one, other in _comparisons(opinions, of)]
        known = [tau for tau in taus if tau is not None]
        parts.append((sum(known), len(known)))
    return ratio(parts, needed=needed, span=(-1.0, 1.0))


def mean_w(sets: Iterable[Opinions[A, T]], *, needed: int = NEEDED_SETS) -> Figure:
    """Mean of Kendall's W over the sets in which it exists."""
    values = (kendall_w(list(opinions.values())) for opinions in sets)
    return ratio([(value, 1) for value in values if value is not None], needed=needed)


def _comparisons(opinions: Opinions[A, T], of: A | None) -> Iterator[tuple[Order[T], Order[T]]]:
    if of is None:
        yield from combinations(opinions.values(), 2)
    elif of in opinions:
        own = opinions[of]
        yield from ((own, order) for who, order in opinions.items() if who != of)


def middle_places(ranks: Order[T]) -> dict[T, int]:
    """Twice the mean place of each thing, so that it is whole: 1, 2, 2, 3 becomes 2, 5, 5, 8.

    Dense ranks of two orders cannot be put side by side where one has more ties: the last of
    1, 1, 1, 2 and the last of 1, 2, 3, 4 are both the last. Mean places say so.
    """
    values = list(ranks.values())
    return {
        one: 2 * sum(other < rank for other in values) + values.count(rank) + 1
        for one, rank in ranks.items()
    }


def kendall_w(orders: Sequence[Order[T]]) -> float | None:
    """Concordance from 0 to 1 of m orders of the same k things, corrected for ties.

    W = 12 S / (m² (k³ − k) − m ΣT), S = sum of squared deviations of the things' rank sums from
    their mean, T = Σ(t³ − t) over the ties of one order. None for a single order, a single thing,
    or when every order ties all. Only things that all orders hold are compared.
    """
    if len(orders) < 2:
        return None
    things = [thing for thing in orders[0] if all(thing in order for order in orders)]
    m, k = len(orders), len(things)
    ties, sums = 0, [0.0] * k
    for order in orders:
        places = middle_places({thing: order[thing] for thing in things})
        sums = [total + places[thing] / 2 for total, thing in zip(sums, things, strict=True)]
        ties += sum(size**3 - size for size in Counter(places.values()).values())
    spread = sum((total - m * (k + 1) / 2) ** 2 for total in sums)
    most = m * m * (k**3 - k) - m * ties
    return 12 * spread / most if most else None


# --- Krippendorff's α


def krippendorff_ordinal(sets: Sequence[Opinions[A, T]]) -> float | None:
    """Ordinal α of the ranks as they are given; None when nobody's ranks differ."""
    return krippendorff_alpha(sets, needed=0).value


def krippendorff_alpha(sets: Iterable[Opinions[A, T]], *, needed: int = NEEDED_SETS) -> Figure:
    """Ordinal α with its interval.

    A place means nothing beside a place among more or fewer things: sets of each size have an α of
    their own, and the figure is their mean by the number of ranks in them.
    """
    shared = [opinions for opinions in sets if len(opinions) > 1]
    domains = _domains(shared)
    starts, width = {}, 0
    for size, domain in domains.items():
        starts[size] = width
        width += len(domain) ** 2
    groups = groups_of(len(shared))
    rows = np.zeros((len(set(groups)), width))
    for group, opinions in zip(groups, shared, strict=True):
        size = _size(opinions)
        matrix = _coincidences(opinions, domains[size]).ravel()
        rows[group, starts[size] : starts[size] + len(matrix)] += matrix
    widths = [len(domain) for domain in domains.values()]
    return bootstrapped(
        rows,
        lambda sums: _alpha_of_sums(sums, widths),
        n=len(shared),
        needed=needed,
        span=(-1.0, 1.0),
    )


def _size(opinions: Opinions[A, T]) -> int:
    return max(len(order) for order in opinions.values())


def _domains(sets: Sequence[Opinions[A, T]]) -> dict[int, dict[int, int]]:
    """For each size of set: the index of each value that occurs there, in order."""
    found: dict[int, set[int]] = {}
    for opinions in sets:
        values = found.setdefault(_size(opinions), set())
        for order in opinions.values():
            values.update(order.values())
    return {
        size: {value: n for n, value in enumerate(sorted(values))}
        for size, values in sorted(found.items())
    }


def _coincidences(opinions: Opinions[A, T], domain: Mapping[int, int]) -> Floats:
    """(values, values): how often two annotators gave these two values to the same thing.

    Each thing counts as often as it was ranked: its m (m − 1) ordered pairs weigh 1 / (m − 1).
    """
    matrix = np.zeros((len(domain), len(domain)))
    given: dict[T, list[int]] = {}
    for order in opinions.values():
        for thing, rank in order.items():
            given.setdefault(thing, []).append(domain[rank])
    for values in given.values():
        for n, one in enumerate(values):
            for other in values[n + 1 :]:
                matrix[one, other] += 1 / (len(values) - 1)
                matrix[other, one] += 1 / (len(values) - 1)
    return matrix


def _alpha_of_sums(sums: Floats, widths: Sequence[int]) -> Floats:
    """(b, columns) → (b,): the mean of the sizes' α, each by its number of values."""
    total, weight = np.zeros(len(sums)), np.zeros(len(sums))
    start = 0
    for width in widths:
        matrix = sums[:, start : start + width * width].reshape(-1, width, width)
        start += width * width
        alpha, values = _alpha(matrix)
        known = np.isfinite(alpha)
        total += np.where(known, alpha, 0) * np.where(known, values, 0)
        weight += np.where(known, values, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(total / weight)


def _alpha(matrix: Floats) -> tuple[Floats, Floats]:
    """(b, v, v) coincidences → α and the number of values, each (b,).

    α = 1 − (n − 1) Σ o_ck δ_ck / Σ n_c n_k δ_ck. The ordinal metric δ_ck, the square of the values
    from c to k with both ends counted half, is the squared distance of the values' middles.
    """
    counts = matrix.sum(axis=2)
    middles = counts.cumsum(axis=1) - counts / 2
    apart = (middles[:, :, None] - middles[:, None, :]) ** 2
    n = counts.sum(axis=1)
    seen = (matrix * apart).sum(axis=(1, 2))
    expected = (counts[:, :, None] * counts[:, None, :] * apart).sum(axis=(1, 2))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(1 - (n - 1) * seen / expected), n
