"""Figures that are known only so well: a value, its 95 % interval, and what it was made from. Pure.

Choices. Every figure here is a function of sums over units (answer sets, mostly), so a bootstrap is
one product of two matrices: how often each unit was drawn × what each unit contributes. That is
why numpy does it: resampling 30,000 sets a thousand times in plain Python would take minutes. The
draws are seeded: the same rankings give the same interval. More than `GROUPS` units are gathered in
that many random groups, which are then drawn instead of them: the interval stays as wide and the
cost no longer grows.

A figure of too few units keeps its value for those who know what they do, but `enough` is False and
pages say how many are missing. A value that does not exist is None, never NaN.

Non-goals: no test of significance, no correction for many comparisons.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
# From the sums over all units of each resample (b, columns) to the figure of each (b,).
Statistic = Callable[[Floats], Floats]

Z95 = 1.959964  # the normal quantile of a 95 % interval
RESAMPLES = 1000
GROUPS = 500
SEED = 20221203


@dataclass(frozen=True, slots=True)
class Figure:
    """One estimate: `n` counts its units, `missing` how many more of them would be enough."""

    value: float | None
    low: float | None
    high: float | None
    n: int
    enough: bool
    missing: int = 0

    @property
    def bounds(self) -> tuple[float, float] | None:
        """Both ends of the interval, if there is one."""
        return None if self.low is None or self.high is None else (self.low, self.high)

    def to_json(self) -> dict[str, Any]:
        """The figure as plain JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, stored: Mapping[str, Any] | None) -> Figure:
        """The figure as it was stored; what was never stored is a figure of nothing."""
        return cls(**stored) if stored else cls(None, None, None, 0, False)


def make_figure(
    value: float | None, low: float | None, high: float | None, n: int, needed: int
) -> Figure:
    """A figure of `n` units, of which `needed` are enough."""
    known = value is not None and math.isfinite(value)
    return Figure(
        value=value if known else None,
        low=low if known else None,
        high=high if known else None,
        n=n,
        enough=known and n >= needed,
        missing=max(0, needed - n),
    )


def ratio(
    parts: Sequence[tuple[float, float]], *, needed: int, span: tuple[float, float] = (0.0, 1.0)
) -> Figure:
    """Sum of the first over sum of the second, over units; units whose second is 0 do not count.

    `span` holds the least and the greatest value that such a ratio can have.
    """
    rows = np.array([part for part in parts if part[1]], dtype=np.float64).reshape(-1, 2)
    groups = groups_of(len(rows))
    sums = np.zeros((len(set(groups)), 2))
    np.add.at(sums, groups, rows)
    return bootstrapped(sums, _ratio_of_sums, n=len(rows), needed=needed, span=span)


def _ratio_of_sums(sums: Floats) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(sums[:, 0] / sums[:, 1])


def groups_of(units: int) -> list[int]:
    """The group of each unit: one of its own, or one of GROUPS random ones of almost equal size."""
    if units <= GROUPS:
        return list(range(units))
    drawn: list[int] = (np.random.default_rng(SEED).permutation(units) % GROUPS).tolist()
    return drawn


def bootstrapped(
    parts: Floats, statistic: Statistic, *, n: int, needed: int, span: tuple[float, float]
) -> Figure:
    """A statistic of sums over `n` units, with its percentile interval (Efron 1979).

    `parts` is (groups of units, columns). Where no unit differs from another, resampling sees no
    spread at all; then the rule of three speaks (Hanley and Lippman-Hand 1983): with 95 %
    confidence at most 3 in n of all units are unlike those that were seen.
    """
    if n == 0:
        return make_figure(None, None, None, 0, needed)
    value = float(statistic(parts.sum(axis=0)[None, :])[0])
    if not math.isfinite(value):
        return make_figure(None, None, None, n, needed)
    drawn = statistic(_draws(len(parts)) @ parts)
    drawn = drawn[np.isfinite(drawn)]
    low, high = (float(edge) for edge in np.quantile(drawn, [0.025, 0.975]))
    if high - low < 1e-9:
        unseen = min(1.0, 3 / n)
        low, high = value - unseen * (value - span[0]), value + unseen * (span[1] - value)
    return make_figure(value, min(low, value), max(high, value), n, needed)


@lru_cache(maxsize=8)
def _draws(units: int) -> Floats:
    """(RESAMPLES, units): how often each unit is drawn when `units` of them are, with return."""
    drawn = np.random.default_rng(SEED).integers(units, size=(RESAMPLES, units))
    flat = drawn + units * np.arange(RESAMPLES)[:, None]
    counts = np.bincount(flat.ravel(), minlength=RESAMPLES * units)
    return counts.reshape(RESAMPLES, units).astype(np.float64)


def share(hits: int, n: int, *, needed: int) -> Figure:
    """How often something happened in n independent cases, with Wilson's interval (1927)."""
    if n == 0:
        return make_figure(None, None, None, 0, needed)
    p, z2 = hits / n, Z95 * Z95
    middle = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return make_figure(p, max(0.0, middle - half), min(1.0, middle + half), n, needed)


def median(values: ArrayLike, *, needed: int) -> Figure:
    """The median, with the interval that order statistics give without any assumption.

    The number of values below the true median is binomial(n, 1/2): its normal approximation says
    which of the sorted values to take (Conover, Practical Nonparametric Statistics, 3.2).
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    n = len(ordered)
    if n == 0:
        return make_figure(None, None, None, 0, needed)
    reach = Z95 * math.sqrt(n) / 2
    low = ordered[max(0, math.floor(n / 2 - reach))]
    high = ordered[min(n - 1, math.ceil(n / 2 + reach) - 1)]
    return make_figure(float(np.median(ordered)), float(low), float(high), n, needed)
