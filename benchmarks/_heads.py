"""Linear reward heads on fixed features, fitted to whole rankings: what the label benchmarks share.

Choices
- The loss is the trainer's: all pairs of a ranking are one element, a tie is a target of ½, an
  annotator's weight multiplies (trainer/losses.py). With features that do not move it is convex, so
  Newton's steps end at its one minimum and a benchmark measures labels, not optimisers.
- A member of an ensemble sees the rankings with n · Dirichlet(1, …, 1) weights of its own (Rubin
  1981) and is drawn to a start of its own instead of 0, so that members also differ where nothing
  was labelled. The starts of all members add up to 0: their mean is not moved by them.
- Features are rotated to their principal axes on the pool, without its labels, and the axes with
  the least variance are dropped: ten times less work.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

AXES = 256
STEPS = 12


@dataclass(frozen=True)
class Pairs:
    """All pairs of some rankings; p pairs, d features."""

    difference: Floats  # (p, d) features of the better minus the worse (of a tie: either way)
    target: Floats  # (p,) 1, or ½ for a tie
    ranking: Ints  # (p,) which ranking the pair belongs to, 0 … g-1
    share: Floats  # (p,) 1 / pairs of its ranking

    def of(self, rankings: Sequence[int] | Ints) -> Pairs:
        """The pairs of some rankings only, numbered anew in this order."""
        place = np.full(int(self.ranking.max(initial=-1)) + 1, -1)
        place[np.asarray(rankings, dtype=np.int64)] = np.arange(len(rankings))
        number = place[self.ranking]
        kept = number >= 0
        return Pairs(self.difference[kept], self.target[kept], number[kept], self.share[kept])


def pairs_of(features: Sequence[Floats], ranks: Sequence[Sequence[int]]) -> Pairs:
    """All pairs of rankings (1 = best, equal = tie), given the (K, d) features of their answers."""
    difference, target, ranking, share = [], [], [], []
    for number, (rows, order) in enumerate(zip(features, ranks, strict=True)):
        found = list(combinations(range(len(order)), 2))
        for i, j in found:
            better, worse = (i, j) if order[i] <= order[j] else (j, i)
            difference.append(rows[better] - rows[worse])
            target.append(1.0 if order[i] != order[j] else 0.5)
            ranking.append(number)
            share.append(1 / len(found))
    return Pairs(np.array(difference), np.array(target), np.array(ranking), np.array(share))


def principal(features: Sequence[Floats], pool: Sequence[int] | Ints) -> list[Floats]:
    """Every feature with deviation 1 on the pool, then the pool's first principal axes."""
    known = np.concatenate([features[number] for number in pool])
    mean, std = known.mean(0), known.std(0)
    std[std == 0] = 1
    scaled = (known - mean) / std
    _, axes = np.linalg.eigh(scaled.T @ scaled)  # the least variance first
    return [(rows - mean) / std @ axes[:, : -AXES - 1 : -1] for rows in features]


def fit_head(pairs: Pairs, weight: Floats, ridge: float, start: Floats) -> Floats:
    """The head (d,) of least Σ weight · loss(ranking) + ridge/2 · |head − start|².

    weight (g,) counts the rankings. Newton's method; a step is halved while it does not lower the
    loss.
    """
    counts = weight[pairs.ranking] * pairs.share
    head = start.copy()
    now = _loss(pairs, counts, ridge, start, head)
    for _ in range(STEPS):
        better = _sigmoid(pairs.difference @ head)
        slope = pairs.difference.T @ (counts * (better - pairs.target)) + ridge * (head - start)
        curve = (pairs.difference * (counts * better * (1 - better))[:, None]).T @ pairs.difference
        curve[np.diag_indices_from(curve)] += ridge
        move = np.linalg.solve(curve, slope)
        while (then := _loss(pairs, counts, ridge, start, head - move)) > now + 1e-12:
            move = move / 2
            if np.abs(move).max() < 1e-12:
                break
        head, before, now = head - move, now, then
        if before - now < 1e-7 * (1 + abs(before)):
            break
    return head


def _loss(pairs: Pairs, counts: Floats, ridge: float, start: Floats, head: Floats) -> float:
    odds = pairs.difference @ head
    each = np.logaddexp(0, odds) - pairs.target * odds  # −t log σ(x) − (1 − t) log σ(−x)
    return float(counts @ each + ridge / 2 * np.sum((head - start) ** 2))


def _sigmoid(odds: Floats) -> Floats:
    return np.exp(-np.logaddexp(0, -odds))


def fit_ensemble(
    pairs: Pairs, rankings: int, ridge: float, members: int, dice: np.random.Generator
) -> Floats:
    """Heads (M, d) of an ensemble."""
    starts = dice.normal(size=(members, pairs.difference.shape[1])) / np.sqrt(ridge)
    starts -= starts.mean(0)
    shares = dice.dirichlet(np.ones(rankings), size=members) * rankings
    drawn = zip(shares, starts, strict=True)
    return np.stack([fit_head(pairs, share, ridge, start) for share, start in drawn])


def outcomes(pairs: Pairs, head: Floats) -> Floats:
    """1 where the better answer scores higher, 0 where lower, ½ where equal; ties are left out."""
    return (np.sign(pairs.difference[pairs.target == 1] @ head) + 1) / 2


def surprise(pairs: Pairs, head: Floats) -> Floats:
    """−log-probability of each untied pair, in nats."""
    return np.logaddexp(0, -(pairs.difference[pairs.target == 1] @ head))


def choose_ridge(
    pairs: Pairs, groups: Sequence[str], grid: Sequence[float], seed: int = 0
) -> float:
    """The ridge of least held-out loss in five folds of conversations."""
    names = sorted(set(groups))
    order = np.random.default_rng(seed).permutation(len(names))
    fold = {name: int(place) % 5 for name, place in zip(names, order, strict=True)}
    folds = np.array([fold[group] for group in groups])
    losses = []
    for ridge in grid:
        total = 0.0
        for number in range(5):
            training, test = np.flatnonzero(folds != number), np.flatnonzero(folds == number)
            start = np.zeros(pairs.difference.shape[1])
            head = fit_head(pairs.of(training), np.ones(len(training)), ridge, start)
            total += float(surprise(pairs.of(test), head).sum())
        losses.append(total)
    return grid[int(np.argmin(losses))]
