"""The figures of a round, measured with the hidden preference. Pure."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from itertools import combinations
from statistics import fmean

RESAMPLES = 4000


def paired_gain(
    before: Sequence[float], after: Sequence[float], *, seed: int
) -> tuple[float, tuple[float, float]]:
    """Mean gain and its 95 % interval: percentile bootstrap over prompts, pairs kept together."""
    gains = [new - old for old, new in zip(before, after, strict=True)]
    rng = random.Random(seed)
    means = sorted(fmean(rng.choices(gains, k=len(gains))) for _ in range(RESAMPLES))
    low, high = means[int(0.025 * RESAMPLES)], means[int(0.975 * RESAMPLES) - 1]
    return fmean(gains), (low, high)


def agreement(
    sets: Iterable[Sequence[tuple[str, float]]], utility: Callable[[str], float]
) -> float | None:
    """Share of answer pairs that the scores order as the noise-free utility does.

    Each set is a list of (text, score) of one prompt. Pairs of equal utility say nothing and are
    left out; equal scores count one half. None when no pair is left.
    """
    right = 0.0
    pairs = 0
    for answers in sets:
        judged = [(utility(text), score) for text, score in answers]
        for (u_a, s_a), (u_b, s_b) in combinations(judged, 2):
            if u_a == u_b:
                continue
            pairs += 1
            right += 0.5 if s_a == s_b else float((s_a > s_b) == (u_a > u_b))
    return right / pairs if pairs else None
