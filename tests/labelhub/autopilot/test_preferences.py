"""Simulated annotators: utilities, Bradley–Terry noise, and the figures that judge a round."""

from __future__ import annotations

import math
import random

import pytest

from labelhub.autopilot.figures import agreement, paired_gain
from labelhub.autopilot.preferences import PREFERENCES, Preference


def test_a_choice_between_two_follows_bradley_and_terry() -> None:
    preference = Preference("length", lambda text: float(len(text)), noise=2.0)
    rng = random.Random(0)
    wins = sum(preference.rank(["aaa", "a"], rng) == [1, 2] for _ in range(20_000))
    expected = 1 / (1 + math.exp(-(3 - 1) / 2.0))  # 0.731
    assert wins / 20_000 == pytest.approx(expected, abs=0.01)


def test_answers_that_are_exactly_alike_tie() -> None:
    ranks = PREFERENCES["brevity"].rank(["one two", "three four", "one"], random.Random(1))
    assert ranks[0] == ranks[1]
    assert sorted(set(ranks)) == [1, 2]


def test_positive_likes_the_warmer_answer() -> None:
    utility = PREFERENCES["positive"].utility
    assert utility("What a wonderful, happy day!") > utility("The train leaves at nine.")
    assert utility("The train leaves at nine.") > utility("A terrible, sad day.")


def test_the_gain_is_the_mean_difference_and_its_interval_holds_it() -> None:
    before = [0.0, 0.1, 0.2, 0.3] * 8
    after = [0.5, 0.5, 0.8, 0.8] * 8
    gain, (low, high) = paired_gain(before, after, seed=3)
    assert gain == pytest.approx(0.5)
    assert low < gain < high
    assert low > 0.4


def test_equal_answers_have_an_interval_of_nothing() -> None:
    assert paired_gain([0.3] * 5, [0.3] * 5, seed=0) == (0.0, (0.0, 0.0))


def test_agreement_counts_pairs_and_halves_equal_scores() -> None:
    sets = [[("aaa", 3.0), ("aa", 1.0), ("a", 1.0)], [("b", 0.0), ("b", 1.0)]]
    # aaa>aa right, aaa>a right, aa>a has equal scores: ½; the second set's texts are equal: no pair
    assert agreement(sets, len) == pytest.approx(2.5 / 3)


def test_agreement_of_nothing_is_nothing() -> None:
    assert agreement([], len) is None
