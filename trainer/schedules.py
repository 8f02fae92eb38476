"""How fast a run learns: the rate over its steps, and what a reward run settles by itself.

Choices: a share depends on the step alone, so a run that is resumed needs nothing kept.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from trainer.config import RewardConfig

#: rankings that a step of a reward run has at least, and pairs that it has as a rule
FEWEST, PAIRS = 4, 24
#: its peak rate in up to so many steps
RATE, CALM = 1e-3, 64


def linear(step: int, total: int, warmup: float = 0.0) -> float:
    """Share of the peak rate: linear up over the warm-up, then linear down to 0."""
    rising = max(1, round(warmup * total))
    return min((step + 1) / rising, (total - step) / max(1, total - rising + 1), 1.0)


def settled(config: RewardConfig, answers: Sequence[int]) -> RewardConfig:
    """The settings with step size and rate where they were left open, for rankings of so many
    answers each.

    A first round's hundred rankings of four learn well at 1e-3 with 24 pairs a step. With thousands
    of single pairs, four a step, the same rate led to chance (docs/log.md): so few say little, and
    Adam goes as far on noise as on a signal. So a step has as many pairs as there, and the rate
    times √steps, how far noise leads, is no more than it was in `CALM` steps.
    """
    pairs = pairs_in(answers)
    per_step = config.rankings_per_step or max(FEWEST, round(PAIRS * len(answers) / max(1, pairs)))
    config = dataclasses.replace(config, rankings_per_step=per_step)
    calm = min(1.0, math.sqrt(CALM / max(1, steps_in(config, len(answers)))))
    return dataclasses.replace(config, lr=config.lr or RATE * calm)


def pairs_in(answers: Sequence[int]) -> int:
    """All pairs of rankings of so many answers each, ties among them."""
    return sum(math.comb(count, 2) for count in answers)


def steps_in(config: RewardConfig, rankings: int) -> int:
    """Optimiser steps of a whole reward run."""
    return config.epochs * -(-rankings // config.rankings_per_step)
