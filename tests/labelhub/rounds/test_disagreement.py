"""How far an ensemble disagrees about the order of answers; all numbers worked by hand."""

from __future__ import annotations

import math

import pytest

from labelhub.rounds.rules import disagreement

LOG_2 = math.log(2)


def test_members_that_agree_do_not_disagree() -> None:
    assert disagreement([[3.0, 3.0], [1.0, 1.0]]) == pytest.approx(0, abs=1e-12)


def test_what_all_members_add_to_both_answers_does_not_count() -> None:
    """One member scores everything 5 higher: the differences are the same."""
    assert disagreement([[3.0, 8.0], [1.0, 6.0]]) == pytest.approx(0, abs=1e-12)


def test_members_that_all_call_it_even_agree() -> None:
    """A matter of taste: each is unsure, and another opinion would not tell who is right."""
    assert disagreement([[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]) == pytest.approx(0, abs=1e-12)


def test_members_that_are_sure_of_opposites_disagree_by_one_whole_bit() -> None:
    assert disagreement([[50.0, -50.0], [0.0, 0.0]]) == pytest.approx(LOG_2)


def test_half_sure_members_disagree_less() -> None:
    """p = ¾ and ¼: H(½) − H(¼) = 0.693147 − (¼ log 4 + ¾ log 4/3) = 0.693147 − 0.562335."""
    odds = math.log(3)
    assert disagreement([[odds, -odds], [0.0, 0.0]]) == pytest.approx(0.130812, abs=1e-6)


def test_three_members_are_weighed_alike() -> None:
    """p = ¾, ¾, 0: H(½) − ⅔ H(¼) − ⅓ · 0 = 0.693147 − 0.374890."""
    odds = math.log(3)
    assert disagreement([[odds, odds, -99.0], [0.0, 0.0, 0.0]]) == pytest.approx(0.318257, abs=1e-6)


def test_it_is_the_mean_over_the_pairs() -> None:
    """Both put the first on top and are sure; they turn the other two around: one pair of three."""
    assert disagreement([[200.0, 200.0], [100.0, 0.0], [0.0, 100.0]]) == pytest.approx(LOG_2 / 3)


def test_large_scores_overflow_nothing() -> None:
    assert disagreement([[1e6, -1e6], [0.0, 0.0]]) == pytest.approx(LOG_2)
    assert disagreement([[1e6, 1e6], [0.0, 0.0]]) == 0


@pytest.mark.parametrize("scores", [[], [[1.0, 2.0]], [[], []], [[1.0], [3.0]]])
def test_less_than_a_pair_or_two_members_disagree_about_nothing(scores: list[list[float]]) -> None:
    assert disagreement(scores) == pytest.approx(0, abs=1e-12)
