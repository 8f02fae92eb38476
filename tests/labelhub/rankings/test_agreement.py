"""Agreement: worked by hand, equal to SciPy and krippendorff, and never NaN."""

from __future__ import annotations

import math
import warnings
from itertools import combinations
from typing import Any

import krippendorff
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import friedmanchisquare, kendalltau

from labelhub.rankings.agreement import (
    kendall_w,
    krippendorff_alpha,
    krippendorff_ordinal,
    mean_tau_b,
    mean_w,
    middle_places,
    pairwise_agreement,
)
from labelhub.rankings.rules import dense, mean_agreement
from tests.labelhub.rankings.real import as_ranks, three_raters

Ranks = dict[str, int]


def order(*ranks: int) -> Ranks:
    """Ranks of a, b, c, …"""
    return dict(zip("abcdefghi", ranks, strict=False))


def opinions(*orders: Ranks) -> dict[str, Ranks]:
    """One set's orders, by ann, ben, cleo, …"""
    return dict(zip(["ann", "ben", "cleo", "dan", "eve"], orders, strict=False))


def weak_orders(k: int) -> st.SearchStrategy[Ranks]:
    """Dense weak orders of k things, ties and all."""
    ranks = st.lists(st.integers(1, k), min_size=k, max_size=k)
    return ranks.map(lambda drawn: dense(order(*drawn)))


# A few people's orders of the same three to six things.
one_set = st.integers(3, 6).flatmap(lambda k: st.lists(weak_orders(k), min_size=2, max_size=5))
# Several sets of four things; who ranks is not the same in each.
several_sets = st.lists(
    st.lists(weak_orders(4), min_size=2, max_size=4).map(lambda drawn: opinions(*drawn)),
    min_size=1,
    max_size=6,
)


# --- pairwise agreement


def test_agreement_is_the_share_of_pairs_that_both_order_alike() -> None:
    # a<b<c<d against b<a<c=d: 4 of 5. a<b against a<b: 1 of 1. Together 5 of 6.
    sets = [
        opinions(order(1, 2, 3, 4), order(2, 1, 3, 3)),
        opinions(order(1, 2), order(1, 2)),
    ]
    figure = pairwise_agreement(sets)
    assert figure.value == pytest.approx(5 / 6)
    assert figure.n == 2


def test_agreement_of_one_person_leaves_the_others_differences_out() -> None:
    # ann and ben agree, cleo turns both round: 1 of 3 together, 1 of 2 for ann, 0 of 2 for cleo.
    sets = [opinions(order(1, 2), order(1, 2), order(2, 1))]
    assert pairwise_agreement(sets).value == pytest.approx(1 / 3)
    assert pairwise_agreement(sets, of="ann").value == pytest.approx(1 / 2)
    assert pairwise_agreement(sets, of="cleo").value == 0


def test_a_set_that_somebody_else_ranked_says_nothing_about_her() -> None:
    sets = [opinions(order(1, 2), order(1, 2))]
    figure = pairwise_agreement(sets, of="cleo")
    assert (figure.value, figure.n, figure.enough) == (None, 0, False)


@settings(deadline=None)
@given(several_sets)
def test_agreement_counts_what_the_rules_count(sets: list[dict[str, Ranks]]) -> None:
    counts = [mean_agreement(list(one.values())) for one in sets]
    alike, both = sum(a for a, _ in counts), sum(b for _, b in counts)
    assert pairwise_agreement(sets).value == (alike / both if both else None)


# --- τ-b


def test_tau_is_the_mean_over_pairs_of_people() -> None:
    # Three people: two agree (1), the third is reversed to both (−1, −1): mean −1/3.
    sets = [opinions(order(1, 2, 3), order(1, 2, 3), order(3, 2, 1))]
    assert mean_tau_b(sets).value == pytest.approx(-1 / 3)


@settings(deadline=None)
@given(several_sets)
def test_tau_is_that_of_scipy(sets: list[dict[str, Ranks]]) -> None:
    taus = [
        kendalltau(list(one.values()), list(other.values()), variant="b").statistic
        for orders in sets
        for one, other in combinations(orders.values(), 2)
    ]
    known = [tau for tau in taus if not math.isnan(tau)]
    ours = mean_tau_b(sets).value
    if known:
        assert ours == pytest.approx(sum(known) / len(known), abs=1e-12)
    else:
        assert ours is None


# --- W


def test_w_of_full_concord_is_one_and_of_opposites_is_zero() -> None:
    assert kendall_w([order(1, 2, 3)] * 3) == 1
    assert kendall_w([order(1, 2, 3), order(3, 2, 1)]) == 0


def test_w_by_hand_without_ties() -> None:
    # Rank sums 4, 5, 9 around 6: S = 4 + 1 + 9 = 14; W = 12 · 14 / (9 · 24) = 7/9.
    orders = [order(1, 2, 3), order(2, 1, 3), order(1, 2, 3)]
    assert kendall_w(orders) == pytest.approx(7 / 9)


def test_w_by_hand_with_ties() -> None:
    # Places 1, 2, 3 and 1, 2½, 2½: sums 2, 4½, 5½ around 4: S = 4 + ¼ + 2¼ = 6½.
    # T = 2³ − 2 = 6; W = 12 · 6.5 / (4 · 24 − 2 · 6) = 78 / 84.
    assert kendall_w([order(1, 2, 3), order(1, 2, 2)]) == pytest.approx(78 / 84)


def test_w_of_too_little_is_none_and_not_nan() -> None:
    assert kendall_w([]) is None
    assert kendall_w([order(1, 2, 3)]) is None
    assert kendall_w([order(1), order(1)]) is None
    assert kendall_w([order(1, 1, 1), order(1, 1, 1)]) is None


@settings(deadline=None)
@given(one_set)
def test_w_is_friedmans_chi_square_over_its_greatest_value(orders: list[Ranks]) -> None:
    ours = kendall_w(orders)
    if all(len(set(one.values())) == 1 for one in orders):
        assert ours is None  # SciPy divides by zero
        return
    things = list(orders[0])
    chi2 = friedmanchisquare(*([one[thing] for one in orders] for thing in things)).statistic
    assert ours == pytest.approx(chi2 / (len(orders) * (len(things) - 1)), abs=1e-9)


@settings(deadline=None)
@given(one_set)
def test_w_does_not_depend_on_how_ties_are_numbered(orders: list[Ranks]) -> None:
    assert kendall_w([middle_places(one) for one in orders]) == kendall_w(orders)


# --- α


def test_alpha_by_hand() -> None:
    # Two things, two people: ann 1, 2 and ben 1, 1. Coincidences: o11 = 2, o12 = o21 = 1, so
    # n1 = 3, n2 = 1, n = 4, and δ12 = (3 + 1 − (3 + 1) / 2)² = 4.
    # α = 1 − (n − 1) · (1 · 4 + 1 · 4) / (3 · 1 · 4 + 1 · 3 · 4) = 1 − 3 · 8 / 24 = 0.
    assert krippendorff_ordinal([opinions(order(1, 2), order(1, 1))]) == pytest.approx(0)


def test_alpha_of_full_concord_is_one() -> None:
    assert krippendorff_ordinal([opinions(order(1, 2, 3), order(1, 2, 3))]) == pytest.approx(1)


def test_alpha_of_nobody_who_says_anything_is_none_and_not_nan() -> None:
    assert krippendorff_ordinal([]) is None
    assert krippendorff_ordinal([opinions(order(1, 2))]) is None
    assert krippendorff_ordinal([opinions(order(1, 1), order(1, 1))]) is None


def table(sets: list[dict[str, Ranks]]) -> Any:
    """(people, answers) with NaN where somebody did not rank."""
    people = sorted({who for one in sets for who in one})
    columns = [
        [one[who][thing] if who in one else np.nan for who in people]
        for one in sets
        for thing in next(iter(one.values()))
    ]
    return np.array(columns, dtype=float).T


@settings(deadline=None)
@given(several_sets)
def test_alpha_is_that_of_krippendorff(sets: list[dict[str, Ranks]]) -> None:
    ours = krippendorff_ordinal(sets)
    ranks = table(sets)
    if len(np.unique(ranks[~np.isnan(ranks)])) == 1:
        assert ours is None  # the library refuses a single value
        return
    theirs = krippendorff.alpha(reliability_data=ranks, level_of_measurement="ordinal")
    assert ours == pytest.approx(theirs, abs=1e-9)


def test_alpha_of_sets_of_two_sizes_is_the_mean_by_their_values() -> None:
    # The pairs are reversed: o12 = o21 = 2, n = 4, α = 1 − 3 · (4 · 4) / (8 · 4) = −½ of 4 values.
    # The triples agree: α = 1 of 6 values. (4 · −½ + 6 · 1) / 10 = 0.4.
    sets = [opinions(order(1, 2), order(2, 1)), opinions(order(1, 2, 3), order(1, 2, 3))]
    assert krippendorff_ordinal(sets) == pytest.approx(0.4)


def test_the_last_of_two_orders_has_the_same_place_however_many_tie_before_it() -> None:
    assert middle_places(order(1, 1, 1, 2)) == order(4, 4, 4, 8)
    assert middle_places(order(1, 2, 3, 4)) == order(2, 4, 6, 8)
    assert middle_places(order(1, 2, 2, 3)) == order(2, 5, 5, 8)


# --- on three professionals who scored the same ten translations


def test_professional_raters_of_translations_agree_as_far_as_is_known() -> None:
    sets = as_ranks(three_raters())
    tau, w = mean_tau_b(sets), mean_w(sets)
    assert (len(sets), w.n) == (377, 375)
    assert tau.value == pytest.approx(0.307, abs=0.0005)
    assert w.value == pytest.approx(0.547, abs=0.0005)
    for figure in (tau, w):
        assert figure.enough
        assert figure.bounds is not None
        assert figure.bounds[0] < (figure.value or 0) < figure.bounds[1]


def test_alpha_of_the_professionals_is_that_of_krippendorff() -> None:
    sets = as_ranks(three_raters())
    theirs = krippendorff.alpha(reliability_data=table(sets), level_of_measurement="ordinal")
    assert krippendorff_ordinal(sets) == pytest.approx(theirs, abs=1e-9)


# --- every figure


FIGURES = [pairwise_agreement, mean_tau_b, mean_w, krippendorff_alpha]


@pytest.mark.parametrize("figure_of", FIGURES)
@settings(deadline=None)
@given(sets=several_sets)
def test_no_figure_is_ever_nan_and_each_lies_in_its_interval(
    figure_of: Any, sets: list[dict[str, Ranks]]
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = figure_of(sets)
    if figure.value is None:
        assert figure.bounds is None
        assert not figure.enough
    else:
        assert figure.low <= figure.value <= figure.high
        assert -1 <= figure.low <= figure.high <= 1


@pytest.mark.parametrize("figure_of", FIGURES)
def test_nineteen_sets_are_too_few_and_twenty_are_enough(figure_of: Any) -> None:
    sets = [opinions(order(1, 2, 3), order(1, 3, 2))] * 20
    few, enough = figure_of(sets[:19]), figure_of(sets)
    assert (few.enough, few.n, few.missing) == (False, 19, 1)
    assert (enough.enough, enough.n, enough.missing) == (True, 20, 0)


@pytest.mark.parametrize("figure_of", FIGURES)
def test_people_and_answers_may_be_named_otherwise(figure_of: Any) -> None:
    sets = [
        opinions(order(1, 2, 2), order(2, 1, 3)),
        opinions(order(1, 2, 3), order(3, 1, 2), order(1, 1, 2)),
    ]
    renamed = [
        {who.upper(): {f"answer {thing}": rank for thing, rank in reversed(given.items())}
         for who, given in reversed(one.items())}
        for one in sets
    ]  # fmt: skip
    assert figure_of(renamed).value == pytest.approx(figure_of(sets).value)
