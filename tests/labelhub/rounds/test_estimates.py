"""The win rate and its interval, by hand and against SciPy."""

from __future__ import annotations

import itertools

import pytest
from scipy import stats

from labelhub.rounds.estimates import WinRate, majority, parted, wilson, win_rate


@pytest.mark.parametrize(("wins", "n"), [(0, 5), (5, 5), (1, 40), (23, 40), (450, 1000)])
def test_without_ties_the_interval_is_that_of_scipy(wins: int, n: int) -> None:
    wanted = stats.binomtest(wins, n).proportion_ci(method="wilson")
    assert wilson(wins, n) == pytest.approx((wanted.low, wanted.high), abs=1e-6)


def test_an_interval_by_hand() -> None:
    # 8 of 10 at z = 2: middle (.8 + 4/20) / (1 + 4/10) = 5/7; half 2/1.4 · √(.016 + .01) = .23035
    assert wilson(8, 10, z=2.0) == pytest.approx((5 / 7 - 0.230350, 5 / 7 + 0.230350), abs=1e-6)


def test_of_nothing_nothing_is_known() -> None:
    assert wilson(0, 0) == (0.0, 1.0)
    nothing = WinRate()
    assert (nothing.value, nothing.bounds, nothing.advice) == (None, None, "")


def test_ties_are_half_a_win_each() -> None:
    rate = win_rate([1, 5, 0, 0, -2, 0])
    assert rate == WinRate(wins=2, ties=3, losses=1)
    assert rate.value == pytest.approx(3.5 / 6)
    assert WinRate(ties=9).value == 0.5


def test_an_interval_with_ties_holds_the_truth_at_least_as_often_as_it_says() -> None:
    """All outcomes of 12 prompts, weighed: wins .3, ties .5, losses .2, so the truth is .55."""
    truth, n = 0.55, 12
    covered = 0.0
    for wins, ties in itertools.product(range(n + 1), repeat=2):
        if wins + ties <= n:
            losses = n - wins - ties
            low, high = wilson(wins + ties / 2, n)
            chance = stats.multinomial.pmf([wins, ties, losses], n, [0.3, 0.5, 0.2])
            covered += chance * (low <= truth <= high)
    assert covered > 0.95


def test_the_other_way_round_it_is_the_same() -> None:
    forth, back = WinRate(wins=14, ties=4, losses=2), WinRate(wins=2, ties=4, losses=14)
    assert forth.bounds is not None
    assert back.bounds is not None
    assert forth.bounds == pytest.approx((1 - back.bounds[1], 1 - back.bounds[0]))
    assert (forth.advice, back.advice) == ("promote", "reject")


@pytest.mark.parametrize(
    ("rate", "advice"),
    [
        (WinRate(wins=30, losses=10), "promote"),
        (WinRate(wins=22, losses=18), "unclear"),
        (WinRate(ties=40), "unclear"),
        (WinRate(wins=10, losses=30), "reject"),
        (WinRate(wins=3), "unclear"),  # three of three: 44 % to 100 %
        (WinRate(wins=4), "promote"),  # four of four: 51 % to 100 %
    ],
)
def test_the_interval_against_a_half_gives_the_advice(rate: WinRate, advice: str) -> None:
    assert rate.advice == advice


@pytest.mark.parametrize(
    ("opinions", "outcome"),
    [([], 0), ([1], 1), ([2, -1], 0), ([1, 0, 0], 1), ([-3, 1, -1], -1), ([0, 0], 0)],
)
def test_a_pairs_outcome_is_what_most_say(opinions: list[int], outcome: int) -> None:
    assert majority(opinions) == outcome


def test_people_and_the_reward_model_part_only_where_it_prefers_the_new_one() -> None:
    likes, unsure, dislikes = WinRate(wins=40), WinRate(wins=5, losses=5), WinRate(losses=40)
    assert parted(unsure, reward=likes)
    assert parted(dislikes, reward=likes)
    assert not parted(likes, reward=likes)
    assert not parted(dislikes, reward=dislikes)
    assert not parted(WinRate(), reward=likes), "nobody has said anything yet"
