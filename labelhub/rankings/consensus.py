"""One order out of several people's, in two ways. Pure.

- Ranked pairs (Tideman 1987, Social Choice and Welfare 4): majorities are locked in from the
  widest to the narrowest unless they would close a circle. One person, one vote; nothing is fitted.
- Bradley–Terry with the reliability of each annotator, the model of CrowdBT (Chen, Bennett,
  Collins-Thompson and Horvitz, WSDM 2013): every answer i has a score s_i, every annotator k a
  reliability η_k, and k prefers i to j with probability η_k σ(s_i − s_j) + (1 − η_k) σ(s_j − s_i).
  η = 1 follows the scores, ½ is a coin, less than ½ turns them round. A tie counts as half a
  preference each way.

Choices. CrowdBT fits scores and reliabilities together. With two or three opinions on a set that
finds everybody reliable: the scores of each set bend to whoever is believed, and a person who
ranked at random among professionals came out at .99. So reliabilities come first, and only from how
people agree with *others*: if each preference is right with probability η = (1 + a) / 2, two people
agree as often as a_j a_k says, one factor of their agreements (Spearman 1904; Parisi, Strino,
Nadler and Kluger, PNAS 2014), and nobody is compared with anything that she helped to make. Then
scores are fitted with the reliabilities held. Scores have a normal prior of variance 1, which keeps
unanimous sets finite; the fit is a generalised EM: no step ever lowers the posterior. numpy, since
100,000 rankings of four are 600,000 pairs.

What is ranked in several sets must bear several names (answer ids do): scores of one set say
nothing about another, only the reliabilities are shared.

Non-goals: rankings are never replaced by a consensus; it stands beside them.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, groupby
from typing import Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from labelhub.rankings.estimates import Floats
from labelhub.rankings.rules import agreement, dense

T = TypeVar("T", bound=Hashable)
A = TypeVar("A", bound=Hashable)
Order = Mapping[T, int]
Integers = NDArray[np.int64]

SCORE_VARIANCE = 1.0
# A person of whom nothing is known, among people of whom nothing is known.
UNKNOWN = 0.875
# How many pairs shared with people like the others each person is given beforehand.
PRIOR_PAIRS = 50
# The least that people are thought to know on the whole, however much they contradict each other.
LEAST_SIGNAL = 0.2
SUREST = 0.98
CONVERGED, MOST_STEPS = 1e-5, 1000
# Scores that differ by less than this say the same: a preference of 50.25 %.
SAME_SCORE = 0.01
LEAST_WEIGHT = 0.05


# --- ranked pairs


def ranked_pairs(orders: Sequence[Order[T]]) -> dict[T, int]:
    """The dense ranks of Tideman's method; what no majority parts is a tie.

    A majority's width is the number of people who prefer one less those who prefer the other.
    Majorities of one width are locked in together; those that would stand on a circle with each
    other or with wider ones are left out together. So nothing hangs on names or on the order of the
    opinions, where Tideman breaks such ties by a chance voter.
    """
    things = list(dict.fromkeys(thing for order in orders for thing in order))
    beats: dict[T, set[T]] = {thing: set() for thing in things}
    majorities = sorted(_majorities(orders, things), key=lambda one: -one[0])
    for _width, group in groupby(majorities, key=lambda one: one[0]):
        edges = [(better, worse) for _, better, worse in group]
        tried = {thing: set(worse) for thing, worse in beats.items()}
        for better, worse in edges:
            tried[better].add(worse)
        for better, worse in edges:
            if not _leads(worse, better, tried):
                beats[better].add(worse)
    return _layers(things, beats)


def _majorities(orders: Sequence[Order[T]], things: Sequence[T]) -> list[tuple[int, T, T]]:
    """(width, better, worse) of each pair that is not even."""
    found = []
    for one, other in combinations(things, 2):
        both = [order for order in orders if one in order and other in order]
        width = sum((o[one] < o[other]) - (o[one] > o[other]) for o in both)
        if width:
            found.append((abs(width), one, other) if width > 0 else (abs(width), other, one))
    return found


def _leads(start: T, goal: T, beats: Mapping[T, set[T]]) -> bool:
    """Whether a chain of victories goes from `start` to `goal`."""
    reached, waiting = {start}, [start]
    while waiting:
        one = waiting.pop()
        if one == goal:
            return True
        waiting += beats[one] - reached
        reached |= beats[one]
    return False


def _layers(things: Sequence[T], beats: Mapping[T, set[T]]) -> dict[T, int]:
    """Rank 1 for what nothing beats, then the same again for what is left."""
    ranks: dict[T, int] = {}
    left, rank = set(things), 1
    while left:
        beaten = {worse for better in left for worse in beats[better]}
        ranks |= dict.fromkeys(left - beaten, rank)
        left &= beaten
        rank += 1
    return {thing: ranks[thing] for thing in things}


# --- how reliable each annotator is


def reliabilities(
    orders_by_annotator: Mapping[A, Sequence[Order[T]]],
    *,
    held: Mapping[A, float] | None = None,
) -> dict[A, float]:
    """How probably each annotator's preference is right, from 0 to 1.

    Compared are orders of the same things by different people. `held` reliabilities are taken as
    they are: a known ranking is an annotator who almost never errs. With a = 2η − 1 the squares of
    (share alike − share unlike) − a_j a_k, weighed by the pairs that both order, are made small by
    turns; PRIOR_PAIRS pull everybody towards what the group is like.
    """
    fixed = held or {}
    annotators = list(orders_by_annotator)
    signs, pairs = _agreements(orders_by_annotator)
    typical = _typical_signal(signs, pairs)
    free = np.array([one not in fixed for one in annotators], dtype=np.bool_)
    signal = np.array([2 * fixed[one] - 1 if one in fixed else typical for one in annotators])
    prior = PRIOR_PAIRS * typical**2
    for _ in range(MOST_STEPS):
        wanted = (signs @ signal + prior * typical) / (pairs @ signal**2 + prior)
        # Half way only: all at once, two people could change places for ever.
        halfway = (signal + np.clip(wanted, -SUREST, SUREST)) / 2
        step = np.where(free, halfway - signal, 0.0)
        signal = signal + step
        if np.abs(step).max(initial=0.0) < CONVERGED:
            break
    return dict(zip(annotators, ((1 + signal) / 2).tolist(), strict=True))


def _agreements(orders_by_annotator: Mapping[A, Sequence[Order[T]]]) -> tuple[Floats, Floats]:
    """(annotators, annotators): pairs ordered alike less those ordered unlike, and pairs of both.

    The diagonal is empty: nobody is compared with himself.
    """
    of_set: dict[frozenset[T], list[tuple[int, Order[T]]]] = {}
    for k, orders in enumerate(orders_by_annotator.values()):
        for order in orders:
            of_set.setdefault(frozenset(order), []).append((k, order))
    m = len(orders_by_annotator)
    signs, pairs = np.zeros((m, m)), np.zeros((m, m))
    for opinions in of_set.values():
        for (j, one), (k, other) in combinations(opinions, 2):
            if j != k:
                alike, both = agreement(one, other)
                signs[j, k] += 2 * alike - both
                pairs[j, k] += both
    return signs + signs.T, pairs + pairs.T


def _typical_signal(signs: Floats, pairs: Floats) -> float:
    """The a that all would have if all were alike, as a square root of the mean agreement."""
    unknown = 2 * UNKNOWN - 1
    square = (signs.sum() / 2 + PRIOR_PAIRS * unknown**2) / (pairs.sum() / 2 + PRIOR_PAIRS)
    return max(LEAST_SIGNAL, math.sqrt(max(0.0, float(square))))


# --- Bradley–Terry


class Consensus(NamedTuple, Generic[T, A]):
    """The score of each thing (higher is better) and the reliability of each annotator, 0 to 1."""

    scores: dict[T, float]
    reliability: dict[A, float]


def bradley_terry(
    orders_by_annotator: Mapping[A, Sequence[Order[T]]],
    *,
    held: Mapping[A, float] | None = None,
) -> Consensus[T, A]:
    """Reliabilities from agreement with others, then scores from all preferences.

    `held` reliabilities are taken as they are; where all are held, only scores are fitted.
    """
    believed = reliabilities(orders_by_annotator, held=held)
    model = Model.of(orders_by_annotator, believed)
    for _ in range(MOST_STEPS):
        if model.improve() < CONVERGED:
            break
    return Consensus(dict(zip(model.things, model.scores.tolist(), strict=True)), believed)


@dataclass
class Model(Generic[T]):
    """Preferences as arrays, and the scores that are believed so far."""

    things: list[T]
    better: Integers  # (preferences,) index of the thing preferred
    worse: Integers  # (preferences,)
    weight: Floats  # (preferences,) 1, or ½ for each half of a tie
    eta: Floats  # (preferences,) reliability of the annotator
    scores: Floats  # (things,)

    @classmethod
    def of(
        cls,
        orders_by_annotator: Mapping[A, Sequence[Order[T]]],
        reliability: Mapping[A, float],
    ) -> Model[T]:
        """Nothing is believed of the scores yet."""
        index: dict[T, int] = {}
        rows: list[tuple[int, int, float, float]] = []
        for who, orders in orders_by_annotator.items():
            eta = reliability[who]
            for order in orders:
                ranked = [(index.setdefault(thing, len(index)), r) for thing, r in order.items()]
                for (one, rank), (other, other_rank) in combinations(ranked, 2):
                    if rank == other_rank:
                        rows += [(one, other, 0.5, eta), (other, one, 0.5, eta)]
                    else:
                        pair = (one, other) if rank < other_rank else (other, one)
                        rows.append((*pair, 1.0, eta))
        table = np.array(rows, dtype=np.float64).reshape(-1, 4)
        return cls(
            things=list(index),
            better=table[:, 0].astype(np.int64),
            worse=table[:, 1].astype(np.int64),
            weight=table[:, 2],
            eta=table[:, 3],
            scores=np.zeros(len(index)),
        )

    def posterior(self) -> float:
        """The logarithm of likelihood times prior, up to a constant: what `improve` raises."""
        wins = self._wins()
        likelihood = self.weight @ np.log(self.eta * wins + (1 - self.eta) * (1 - wins))
        return float(likelihood - self.scores @ self.scores / (2 * SCORE_VARIANCE))

    def improve(self) -> float:
        """One step; returns how far any score moved.

        First how probably each preference followed the scores, q = ησ / (ησ + (1 − η)(1 − σ)), then
        the scores climb: a pair's second derivative is at most ¼, so ½ of a thing's number of pairs
        bounds all that hang on it, and the step is safe.
        """
        wins, n = self._wins(), len(self.scores)
        followed = self.eta * wins / (self.eta * wins + (1 - self.eta) * (1 - wins))
        pull = self.weight * (followed - wins)
        won, lost = np.bincount(self.better, pull, n), np.bincount(self.worse, pull, n)
        slope = won - lost - self.scores / SCORE_VARIANCE
        pairs = np.bincount(self.better, self.weight, n) + np.bincount(self.worse, self.weight, n)
        step = slope / (pairs / 2 + 1 / SCORE_VARIANCE)
        self.scores = self.scores + step
        return float(np.abs(step).max(initial=0.0))

    def _wins(self) -> Floats:
        """σ(s_better − s_worse) of each preference."""
        return np.asarray(1 / (1 + np.exp(self.scores[self.worse] - self.scores[self.better])))


def ranks_of(scores: Mapping[T, float]) -> dict[T, int]:
    """Dense ranks of scores, the highest first; neighbours that are all but equal are a tie."""
    ranks: dict[T, int] = {}
    rank, last = 0, float("inf")
    for thing in sorted(scores, key=lambda one: -scores[one]):
        if last - scores[thing] > SAME_SCORE:
            rank += 1
        ranks[thing], last = rank, scores[thing]
    return dense({thing: ranks[thing] for thing in scores})


def weights_of(reliability: Mapping[A, float], rankings: Mapping[A, int]) -> dict[A, float]:
    """What each annotator's rankings are to count in training; their mean over `rankings` is 1.

    A preference that follows the scores with probability η carries a signal of 2η − 1 in noise that
    is the same for all, and the best sum of such signals weighs each by its size. Nobody is trained
    against: η ≤ ½ weighs next to nothing, never less.
    """
    raw = {one: max(LEAST_WEIGHT, 2 * eta - 1) for one, eta in reliability.items()}
    count = sum(rankings.get(one, 0) for one in raw)
    mean = sum(raw[one] * rankings.get(one, 0) for one in raw) / count if count else 0.0
    return {one: value / mean if mean else 1.0 for one, value in raw.items()}
