"""Figures and their intervals, against numbers worked by hand and SciPy."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from trainer.statistics import (
    best_of,
    best_of_kl,
    best_of_weights,
    bootstrap_mean,
    clustered_ratio,
    clustered_share,
    distinct,
    expected_calibration_error,
    fit_gao,
    kendall_tau_b,
    pair_outcomes,
    paired_bootstrap,
    reliability,
    t95,
    wilson,
)

# Student's t and Wilson


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 5, 8, 15, 40, 1000])
def test_students_t_is_that_of_scipy(degrees: int) -> None:
    assert t95(degrees) == pytest.approx(stats.t.ppf(0.975, degrees), rel=2e-3)


@pytest.mark.parametrize(("successes", "n"), [(0, 1), (0, 20), (7, 10), (50, 100), (199, 200)])
def test_wilson_is_that_of_scipy(successes: int, n: int) -> None:
    wanted = stats.binomtest(successes, n).proportion_ci(method="wilson")
    assert wilson(successes, n) == pytest.approx((wanted.low, wanted.high), abs=1e-9)


def test_nothing_seen_leaves_everything_possible() -> None:
    assert wilson(0, 0) == (0.0, 1.0)


# shares of clustered pairs


def test_single_pairs_have_nearly_wilsons_interval() -> None:
    """With every pair a cluster of its own only Student's t and the factor G/(G-1) are left."""
    outcomes = [1.0] * 140 + [0.0] * 60
    share = clustered_share(outcomes, range(200))
    assert share is not None
    assert (share.value, share.n) == (0.7, 200)
    assert share.ci95 == pytest.approx(wilson(140, 200), abs=2e-3)


def test_pairs_that_repeat_each_other_count_as_one() -> None:
    """Six equal outcomes a prompt tell as much as one: 30 clusters, as if n were 30."""
    per_prompt = [1.0] * 21 + [0.0] * 9
    outcomes = np.repeat(per_prompt, 6)
    clusters = np.repeat(range(30), 6).tolist()
    together, single = clustered_share(outcomes, clusters), clustered_share(per_prompt, range(30))
    assert together is not None
    assert single is not None
    assert together.value == single.value == pytest.approx(0.7)
    assert together.ci95 == pytest.approx(single.ci95, abs=1e-9)


def test_pairs_that_balance_each_other_make_nobody_surer() -> None:
    """One right and one wrong in each of ten prompts: no spread between prompts, yet the interval
    is that of 20 pairs, shortened only by Student's t.
    """
    share = clustered_share([1.0, 0.0] * 10, np.repeat(range(10), 2).tolist())
    assert share is not None
    worth = 20 * (stats.norm.ppf(0.975) / t95(9)) ** 2
    assert share.ci95 == pytest.approx(wilson(worth / 2, worth), abs=1e-9)


def test_all_right_is_not_certain() -> None:
    share = clustered_share([1.0] * 60, np.repeat(range(10), 6).tolist())
    assert share is not None
    assert share.high == pytest.approx(1.0)
    assert 0.6 < share.low < 0.75  # ten prompts: Wilson gives .72, Student's t a little less


def test_a_ratio_counts_clusters() -> None:
    """Σs/Σn = 6/4. What is left of each is 2 − 1.5·1 = ½ and 4 − 1.5·3 = −½, so the error is
    √(2 · ½) / 4 = ¼, and Student's t at one degree of freedom 12.706.
    """
    ratio = clustered_ratio([2.0, 4.0], [1, 3])
    assert ratio is not None
    assert (ratio.value, ratio.n) == (1.5, 2)
    assert ratio.ci95 == pytest.approx([1.5 - 12.706 / 4, 1.5 + 12.706 / 4])


def test_a_ratio_of_one_cluster_has_every_interval_and_one_of_nothing_is_none() -> None:
    alone = clustered_ratio([3.0], [2])
    assert alone is not None
    assert (alone.value, alone.low, alone.high) == (1.5, -math.inf, math.inf)
    assert clustered_ratio([], []) is None
    assert clustered_ratio([0.0], [0]) is None


def test_the_interval_of_a_ratio_covers_what_is_true() -> None:
    """300 corpora of 30 uneven documents around a mean of 2: some 95 % of the intervals hold it."""
    dice = np.random.default_rng(5)
    held = 0
    for _ in range(300):
        sizes = dice.integers(5, 200, 30)
        own = dice.normal(2.0, 0.5, 30)  # each document has a level of its own
        found = clustered_ratio(own * sizes, sizes)
        assert found is not None
        held += found.low <= 2.0 <= found.high
    assert 0.90 <= held / 300 <= 0.99


def test_no_pairs_have_no_share() -> None:
    assert clustered_share([], []) is None


def test_one_prompt_tells_hardly_anything() -> None:
    share = clustered_share([1.0, 1.0, 0.0, 1.0], ["only"] * 4)
    assert share is not None
    assert share.high - share.low > 0.9


@pytest.mark.parametrize("groups", [12, 40])
def test_the_interval_covers_the_truth_as_often_as_it_says(groups: int) -> None:
    """Prompts differ in difficulty (beta), six pairs each; the naive interval is far too short."""
    dice = np.random.default_rng(5)
    ours = naive = 0
    for _ in range(600):
        difficulty = dice.beta(2.1, 0.9, size=groups)  # mean 0.7, correlated pairs
        outcomes = (dice.random((groups, 6)) < difficulty[:, None]).astype(float)
        share = clustered_share(outcomes.ravel(), np.repeat(range(groups), 6).tolist())
        assert share is not None
        ours += share.low <= 0.7 <= share.high
        low, high = wilson(outcomes.sum(), outcomes.size)
        naive += low <= 0.7 <= high
    assert 0.92 <= ours / 600 <= 0.985
    assert naive / 600 < 0.9


def test_an_equal_score_is_half_right() -> None:
    assert pair_outcomes([2.0, -0.1, 0.0]).tolist() == [1.0, 0.0, 0.5]


# Kendall


@pytest.mark.parametrize("seed", range(20))
def test_tau_b_is_that_of_scipy_with_ties_on_both_sides(seed: int) -> None:
    dice = np.random.default_rng(seed)
    a, b = dice.integers(0, 4, size=(2, 7))
    wanted = stats.kendalltau(a, b, variant="b").statistic
    found = kendall_tau_b(a, b)
    assert found == pytest.approx(wanted, abs=1e-12) if found is not None else math.isnan(wanted)


def test_tau_b_by_hand() -> None:
    # 1 2 2 3 against 1 2 3 4: 5 pairs agree, none disagree, one is tied on the left: 5 / √(5·6)
    assert kendall_tau_b([1, 2, 2, 3], [1, 2, 3, 4]) == pytest.approx(5 / math.sqrt(30))


def test_tau_of_a_constant_is_unknown() -> None:
    assert kendall_tau_b([1, 1, 1], [1, 2, 3]) is None


# calibration


def test_calibration_error_by_hand() -> None:
    """Four pairs of confidence .75, half of them right: |.5 − .75| = .25; four of confidence .95,
    all right: |1 − .95| = .05; mean .15."""
    three, nineteen = math.log(3), math.log(19)  # odds to one
    points = reliability([three, three, -three, -three] + [nineteen] * 4, bins=5)
    assert [(point.pairs, point.accuracy) for point in points] == [(4, 0.5), (4, 1.0)]
    assert [point.confidence for point in points] == pytest.approx([0.75, 0.95])
    assert expected_calibration_error(points) == pytest.approx(0.15)


def test_outcomes_drawn_from_the_model_are_calibrated() -> None:
    dice = np.random.default_rng(0)
    log_odds = dice.normal(0, 1.5, size=20_000)
    first_wins = dice.random(20_000) < 1 / (1 + np.exp(-log_odds))
    error = expected_calibration_error(reliability(np.where(first_wins, log_odds, -log_odds)))
    assert error is not None
    assert error < 0.015
    doubled = reliability(np.where(first_wins, 2 * log_odds, -2 * log_odds))
    assert (expected_calibration_error(doubled) or 0) > 0.05  # too sure of itself


def test_a_pair_falls_into_the_bin_that_holds_its_confidence() -> None:
    (point,) = reliability([math.log(3), -math.log(3)], bins=5)  # ¾, between .7 and .8
    assert (point.low, point.high) == pytest.approx((0.7, 0.8))


def test_certain_pairs_fall_into_the_last_bin() -> None:
    (point,) = reliability([50.0, 60.0], bins=10)
    assert (point.low, point.high, point.confidence) == pytest.approx((0.95, 1.0, 1.0))


def test_no_pairs_have_no_calibration() -> None:
    assert reliability([]) == []
    assert expected_calibration_error([]) is None


# bootstrap


def test_the_bootstrap_interval_is_that_of_scipy() -> None:
    dice = np.random.default_rng(3)
    before = dice.normal(0, 1, 80)
    after = before + dice.normal(0.3, 0.5, 80)
    found = paired_bootstrap(before, after)
    wanted = stats.bootstrap(
        (after - before,), np.mean, n_resamples=10_000, method="percentile", rng=dice
    ).confidence_interval
    assert found is not None
    assert found.value == pytest.approx(float(np.mean(after) - np.mean(before)))
    assert found.ci95 == pytest.approx([wanted.low, wanted.high], abs=0.01)
    assert found.n == 80


def test_pairing_takes_out_what_both_sides_share() -> None:
    dice = np.random.default_rng(4)
    before = dice.normal(0, 10, 50)
    found = paired_bootstrap(before, before + 1)
    assert found is not None
    assert found.ci95 == pytest.approx([1.0, 1.0])


@pytest.mark.parametrize("bootstrap", [bootstrap_mean, lambda x: paired_bootstrap(x, x)])
def test_one_prompt_has_no_interval(bootstrap: Callable[[list[float]], object]) -> None:
    assert bootstrap([1.0]) is None


def test_the_same_seed_gives_the_same_interval() -> None:
    values = np.random.default_rng(0).normal(size=30)
    assert bootstrap_mean(values, seed=1) == bootstrap_mean(values, seed=1)
    assert bootstrap_mean(values, seed=1) != bootstrap_mean(values, seed=2)


# diversity


def test_distinct_by_hand() -> None:
    """Of single words 3 of 7 differ, of pairs ab ba ab ab 2 of 4, of triples aba bab both."""
    answers = [["a", "b", "a", "b"], ["a", "b"], ["c"]]
    assert distinct(answers, 1) == pytest.approx(3 / 7)
    assert distinct(answers, 2) == pytest.approx(2 / 4)
    assert distinct(answers, 3) == 1.0
    assert distinct([["c"], []], 2) is None


# best of n


def test_the_best_of_n_costs_that_much_kl() -> None:
    """log 4 − ¾ = 1.3862944 − 0.75."""
    assert best_of_kl(1) == 0.0
    assert best_of_kl(2) == pytest.approx(0.1931472, abs=1e-7)
    assert best_of_kl(4) == pytest.approx(0.6362944, abs=1e-7)


def test_chances_to_be_the_best_by_hand() -> None:
    """Of the six pairs of four the highest is the 2nd in one, the 3rd in two, the 4th in three."""
    assert best_of_weights(4, 2).tolist() == pytest.approx([0, 1 / 6, 2 / 6, 3 / 6])
    assert best_of_weights(4, 1).tolist() == [0.25] * 4
    assert best_of_weights(4, 4).tolist() == [0, 0, 0, 1]
    for wrong in (0, 5):
        with pytest.raises(ValueError, match="cannot be estimated from 4 answers"):
            best_of_weights(4, wrong)


def test_the_best_of_two_by_hand() -> None:
    """Pairs of 5, 1, 3: their highest are 5, 5, 3."""
    assert best_of([[5.0, 1.0, 3.0]], 2).tolist() == pytest.approx([13 / 3])
    # the same pairs bring 10, 10 and 40 of what stands beside
    assert best_of([[5.0, 1.0, 3.0]], 2, [[10.0, 70.0, 40.0]]).tolist() == pytest.approx([20.0])


def test_equal_answers_are_chosen_equally_often() -> None:
    """Pairs of 2, 2, 0: the first two tie once and win once each, so each is taken 1½ times."""
    for order in ([6.0, 0.0, 9.0], [0.0, 6.0, 9.0]):
        assert best_of([[2.0, 2.0, 0.0]], 2, [order]).tolist() == pytest.approx([3.0])


def test_the_estimate_of_the_best_of_n_is_unbiased() -> None:
    """Of n numbers from the unit square's side the highest is n/(n + 1) on average."""
    scores = np.random.default_rng(0).random((4000, 6))
    for n in (1, 2, 3, 6):
        found = best_of(scores, n)
        assert found.mean() == pytest.approx(n / (n + 1), abs=4 * found.std() / math.sqrt(4000))


# Gao's curves


def test_best_of_n_bends_with_the_distance() -> None:
    """2 + d(3 − ½d) at d = 1, 2, 4 is 4.5, 6, 6; highest at d = 3."""
    curve = fit_gao([1.0, 4.0, 16.0], [4.5, 6.0, 6.0], "bon", 2.0)
    assert curve is not None
    assert (curve.start, curve.alpha, curve.beta) == pytest.approx((2.0, 3.0, 0.5))
    assert curve.residual == pytest.approx(0.0, abs=1e-9)
    assert curve.best_kl == pytest.approx(9.0)
    assert curve.at(3.0) == pytest.approx(6.5)
    assert curve.at(0.0) == 2.0


def test_learning_bends_with_the_logarithm() -> None:
    """1 + d(2 − log d) at d = 0, 1, e, e² is 1, 3, 1 + e, 1; highest where log d = 1."""
    e = math.e
    curve = fit_gao([0.0, 1.0, e**2, e**4], [1.0, 3.0, 1 + e, 1.0], "rl")
    assert curve is not None
    assert (curve.start, curve.alpha, curve.beta) == pytest.approx((1.0, 2.0, 1.0))
    assert curve.best_kl == pytest.approx(e**2)
    assert curve.points == 4


def test_least_squares_go_through_the_middle() -> None:
    """Twice the same d with scores 1 and 3, once another: the residuals are −1, 1 and 0."""
    curve = fit_gao([1.0, 1.0, 4.0], [1.0, 3.0, 4.0], "bon", 0.0)
    assert curve is not None
    assert curve.at(1.0) == pytest.approx(2.0)
    assert curve.at(2.0) == pytest.approx(4.0)
    assert curve.residual == pytest.approx(math.sqrt(2 / 3))


def test_a_curve_that_only_rises_has_no_highest_place() -> None:
    rising = fit_gao([1.0, 4.0], [1.0, 2.0], "bon", 0.0)
    assert rising is not None
    assert rising.beta == pytest.approx(0.0)
    assert rising.best_kl is None
    falling = fit_gao([1.0, 4.0], [-2.0, -6.0], "bon", 0.0)
    assert falling is not None
    assert falling.best_kl is None


@pytest.mark.parametrize("kl", [[], [1.0], [2.0, 2.0, 2.0], [0.0, 0.0, 1.0]])
def test_points_that_do_not_decide_a_curve_have_none(kl: list[float]) -> None:
    assert fit_gao(kl, [1.0] * len(kl), "rl") is None
