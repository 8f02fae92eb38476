"""The temperature of a reward model's log-odds: numbers worked by hand, and effects."""

from __future__ import annotations

import math

import numpy as np
import pytest

from trainer.calibration import COLDEST, HOTTEST, crossed_calibration_error, fit_temperature
from trainer.statistics import expected_calibration_error, reliability


def pairs(size: float, right: int, wrong: int) -> list[float]:
    """So many pairs that the model orders rightly and wrongly, each by the same difference."""
    return [size] * right + [-size] * wrong


def test_the_share_of_right_pairs_decides() -> None:
    """All differences ±2. The most likely p = σ(2/T) solves, with Platt's target t = (n+1)/(n+2):
    right pairs say t, wrong ones 1 − t; p = (r·t + w·(1 − t)) / n. r = 30, w = 10: t = 41/42,
    p = (30 · 41 + 10 · 1) / (42 · 40) = 1240/1680; T = 2 / log(1240/440)."""
    assert fit_temperature(pairs(2.0, 30, 10)) == pytest.approx(2 / math.log(1240 / 440), rel=1e-6)


def test_certainty_that_is_earned_stays() -> None:
    """Differences that are the true log-odds want T = 1."""
    dice = np.random.default_rng(0)
    d = dice.normal(0, 2, 20_000)
    right = dice.random(20_000) < 1 / (1 + np.exp(-np.abs(d)))
    signed = np.where(right, np.abs(d), -np.abs(d))
    assert fit_temperature(signed) == pytest.approx(1.0, abs=0.03)
    assert fit_temperature(3 * signed) == pytest.approx(3.0, abs=0.09)


def test_it_makes_a_boaster_honest() -> None:
    """Differences of ±4 mean 98 %, and 70 % are right: an error of .28, with T fitted .00."""
    d = np.array(pairs(4.0, 70, 30))
    before = expected_calibration_error(reliability(d))
    after = expected_calibration_error(reliability(d / fit_temperature(d)))
    assert before == pytest.approx(1 / (1 + math.exp(-4)) - 0.7, abs=1e-9)
    assert after == pytest.approx(0.0, abs=0.01)


def test_order_at_chance_or_below_says_nothing_at_any_temperature() -> None:
    assert fit_temperature(pairs(1.0, 10, 30)) == pytest.approx(HOTTEST)
    assert fit_temperature(pairs(1.0, 20, 20)) == pytest.approx(HOTTEST)


def test_no_mistake_is_no_infinite_certainty() -> None:
    # t = (n + 1)/(n + 2) = 51/52, so σ(1/T) = 51/52 and T = 1 / log 51
    assert fit_temperature(pairs(1.0, 50, 0)) == pytest.approx(1 / math.log(51), rel=1e-6)
    assert 1 / math.log(51) > COLDEST


@pytest.mark.parametrize("few", [[], [3.0, -1.0], [0.0] * 40])
def test_too_little_to_fit_leaves_the_scores_alone(few: list[float]) -> None:
    assert fit_temperature(few) == 1.0


def test_the_crossed_error_uses_temperatures_of_other_prompts() -> None:
    """Hashes that begin with 0 to 4 lie in folds 0 to 4. In fold 0 everything is wrong, elsewhere
    all is right: temperatures from elsewhere make fold 0 sure of what is wrong."""
    prompts = [f"{fold:08x}" for fold in range(5) for _ in range(20)]
    d = [-1.0] * 20 + [1.0] * 80
    crossed = crossed_calibration_error(d, prompts)
    own = expected_calibration_error(reliability(np.array(d) / fit_temperature(d)))
    # fold 0: T = 1 / log 81 → sure by 81/82, right 0; the others T from 60 right and 20 wrong
    t = 81 / 82
    p = (60 * t + 20 * (1 - t)) / 80
    assert own == pytest.approx(0.0, abs=0.02)
    # confidences 81/82 (20 pairs, none right) and p (80 pairs, all right) lie in bins of their own
    assert crossed == pytest.approx(0.2 * (81 / 82) + 0.8 * (1 - p), abs=1e-6)


def test_the_crossed_error_needs_other_prompts() -> None:
    assert crossed_calibration_error([1.0] * 40, ["0" * 8] * 40) is None
