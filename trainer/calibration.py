"""How sure a reward model may be: one temperature for its log-odds.

A reward model that was fitted to few rankings is too sure of itself. Dividing its differences by a
temperature T (Guo et al. 2017) makes σ(Δ/T) the share of pairs that people really order so; the
order itself stays.

Choices
- T is fitted to held-out pairs, by maximum likelihood. What they then say about calibration is
  measured with a T that was fitted to other prompts (five folds by the prompt's hash).
- Targets are those of Platt (1999): (n + 1) / (n + 2) instead of 1, so that pairs that are all in
  the right order ask for no infinite certainty.
- Below `FEWEST` pairs there is nothing to fit: T is 1.
Not here: where the scale of scores lies (scoring.Normalisation).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from trainer.statistics import expected_calibration_error, reliability

FEWEST = 20
FOLDS = 5
#: T lies between the differences' root mean square times these
COLDEST, HOTTEST = 0.01, 100.0


def fit_temperature(
    difference: ArrayLike, weight: ArrayLike | None = None, *, smooth: bool = True
) -> float:
    """The T of least loss on the untied pairs' differences r_better − r_worse (p,).

    `weight` (p,) says how much each counts; without `smooth` targets are 1.

    The loss −Σ t log σ(d/T) + (1 − t) log σ(−d/T) is convex in b = 1/T; its slope is
    Σ d (σ(b d) − t), whose root is found by halving. Where the order is no better than chance the
    root is no positive number: T is then the hottest allowed.
    """
    d = np.asarray(difference, dtype=np.float64)
    size = float(np.sqrt(np.mean(d**2))) if d.size else 0.0
    if d.size < FEWEST or size == 0.0:
        return 1.0
    target = (d.size + 1) / (d.size + 2) if smooth else 1.0
    c = np.ones_like(d) if weight is None else np.asarray(weight, dtype=np.float64)

    def slope(b: float) -> float:
        return float(np.sum(c * d * (0.5 * (1 + np.tanh(b * d / 2)) - target)))

    low, high = 1 / (HOTTEST * size), 1 / (COLDEST * size)
    if slope(low) >= 0:
        return 1 / low
    if slope(high) <= 0:
        return 1 / high
    for _ in range(60):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return 1 / math.sqrt(low * high)


def crossed_calibration_error(difference: ArrayLike, prompts: Sequence[str]) -> float | None:
    """Expected calibration error with temperatures that never saw the pair's own prompt.

    `prompts` are the hashes (hexadecimal) of the pairs' prompts; a fold is a part of the hashes.
    None where too few pairs are left to fit.
    """
    d = np.asarray(difference, dtype=np.float64)
    fold = np.array([int(prompt[:8], 16) % FOLDS for prompt in prompts], dtype=np.int64)
    cooled = np.empty_like(d)
    for number in range(FOLDS):
        inside = fold == number
        if inside.any() and np.count_nonzero(~inside) < FEWEST:
            return None
        cooled[inside] = d[inside] / fit_temperature(d[~inside])
    return expected_calibration_error(reliability(cooled))
