"""Weak orders, forms and agreement as pure functions."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kendalltau

from labelhub.rankings.rules import (
    NOT_A_RANK,
    agreement,
    all_weak_orders,
    dense,
    gaps_of,
    is_rank,
    kendall_tau_b,
    mean_agreement,
    pairs,
    parse_form,
    tiers,
)

ranks_of_k = st.integers(2, 9).flatmap(
    lambda k: st.lists(st.integers(1, 9), min_size=k, max_size=k)
)


def order(*ranks: int) -> dict[str, int]:
    """Ranks of a, b, c, …"""
    return dict(zip("abcdefghi", ranks, strict=False))


def test_there_are_as_many_weak_orders_as_fubini_counted() -> None:
    assert [sum(1 for _ in all_weak_orders(n)) for n in range(6)] == [1, 1, 3, 13, 75, 541]


def test_the_three_orders_of_two() -> None:
    assert list(all_weak_orders(2)) == [(1, 1), (1, 2), (2, 1)]


def test_dense_leaves_no_rank_out_and_keeps_ties() -> None:
    assert dense(order(1, 3, 3, 7)) == order(1, 2, 2, 3)
    assert dense(order(40, 40, 5)) == order(2, 2, 1)
    assert dense({}) == {}


@given(ranks_of_k)
def test_dense_changes_no_pair(ranks: list[int]) -> None:
    made = dense(order(*ranks))
    assert set(made.values()) == set(range(1, len(set(ranks)) + 1))
    assert pairs(made) == pairs(order(*ranks))


def test_pairs_put_the_better_one_first() -> None:
    better, ties = pairs(order(2, 1, 2))
    assert better == [("b", "a"), ("b", "c")]
    assert ties == [("a", "c")]


@given(ranks_of_k)
def test_k_things_make_all_their_pairs(ranks: list[int]) -> None:
    better, ties = pairs(order(*ranks))
    assert len(better) + len(ties) == math.comb(len(ranks), 2)


def test_tiers_go_from_best_to_worst() -> None:
    assert tiers(order(2, 1, 2, 3)) == [["b"], ["a", "c"], ["d"]]


def test_there_is_a_gap_for_each_step() -> None:
    assert gaps_of([(2, None), (1, 3), (2, None), (3, None)]) == [3, None]
    assert gaps_of([(1, None), (1, 2), (2, None)]) == [2]
    assert gaps_of([(1, None), (1, None)]) == []


# --- the form


def test_a_form_gives_ranks_by_answer() -> None:
    fields = {"rank-12": "2", "rank-7": " 1 ", "token": "rank-9", "csrfmiddlewaretoken": "x"}
    assert parse_form(fields) == {12: 2, 7: 1}


def test_an_empty_field_has_no_place_yet() -> None:
    assert parse_form({"rank-12": "", "rank-7": "1"}) == {7: 1}


@pytest.mark.parametrize("value", ["first", "1.5", "-1", "²", "1" * 19, "٣"])
def test_what_is_no_whole_number_is_no_rank(value: str) -> None:
    assert parse_form({"rank-7": value}) == {7: NOT_A_RANK}
    assert not is_rank(NOT_A_RANK)


def test_a_field_that_names_no_answer_is_passed_over() -> None:
    assert parse_form({"rank-": "1", "rank-x": "1", "rank-1-2": "1", "ranks": "1"}) == {}


@pytest.mark.parametrize(("value", "is_one"), [(1, True), (40, True), (0, False), (True, False)])
def test_a_rank_is_a_whole_number_from_one(value: int, is_one: bool) -> None:
    assert is_rank(value) is is_one


# --- agreement


def test_agreement_counts_the_pairs_that_both_order() -> None:
    # a<b<c<d against b<a<c=d: of six pairs, c-d is tied by the other one and a-b is swapped.
    assert agreement(order(1, 2, 3, 4), order(2, 1, 3, 3)) == (4, 5)


def test_agreement_of_one_who_ties_all_says_nothing() -> None:
    assert agreement(order(1, 2, 3), order(1, 1, 1)) == (0, 0)


def test_agreement_looks_at_what_both_ranked() -> None:
    assert agreement({"a": 1, "b": 2, "x": 3}, {"b": 2, "a": 1, "y": 3}) == (1, 1)


def test_three_annotators_make_three_comparisons() -> None:
    # ab-ab agrees, ab-ba and ab-ba do not: one of three.
    assert mean_agreement([order(1, 2), order(1, 2), order(2, 1)]) == (1, 3)


def test_tau_of_an_order_with_itself_and_with_its_reverse() -> None:
    assert kendall_tau_b(order(1, 2, 3, 4), order(1, 2, 3, 4)) == 1
    assert kendall_tau_b(order(1, 2, 3, 4), order(4, 3, 2, 1)) == -1


def test_tau_of_three_by_hand() -> None:
    # b<a<c against c<a<b: every one of the three pairs is reversed.
    assert kendall_tau_b(order(2, 1, 3), order(2, 3, 1)) == -1
    # a<b<c against a<c<b: two pairs agree, one does not: (2 - 1) / 3.
    assert kendall_tau_b(order(1, 2, 3), order(1, 3, 2)) == pytest.approx(1 / 3)
    # a<b<c against a<b=c: two agree, one is tied: 2 / sqrt(3 · 2).
    assert kendall_tau_b(order(1, 2, 3), order(1, 2, 2)) == pytest.approx(2 / math.sqrt(6))


def test_tau_with_one_who_ties_all_is_none_and_not_nan() -> None:
    assert kendall_tau_b(order(1, 1, 1), order(1, 2, 3)) is None
    assert kendall_tau_b(order(1), order(1)) is None


@given(
    st.integers(3, 9).flatmap(
        lambda k: st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4)), min_size=k, max_size=k)
    )
)
def test_tau_is_that_of_scipy(both: list[tuple[int, int]]) -> None:
    one, other = zip(*both, strict=True)
    ours = kendall_tau_b(order(*one), order(*other))
    if len(set(one)) == 1 or len(set(other)) == 1:
        assert ours is None
    else:
        assert ours == pytest.approx(kendalltau(one, other, variant="b").statistic, abs=1e-12)
