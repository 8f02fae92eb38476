"""The figures of the label benchmarks, on cases that are worked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks import _replay, active_learning, reliability
from benchmarks._heads import fit_ensemble, fit_head, outcomes, pairs_of, principal, surprise
from benchmarks._replay import Set
from benchmarks.active_learning import Curve, isotonic, note, saving

LOG_3 = math.log(3)


def rows(*values: float) -> np.ndarray:
    """Answers with one feature."""
    return np.array(values)[:, None]


# heads


def test_a_ranking_becomes_its_pairs_with_the_better_one_first() -> None:
    pairs = pairs_of([rows(5.0, 1.0, 3.0)], [(2, 1, 2)])
    assert pairs.difference[:, 0].tolist() == [-4.0, 2.0, -2.0]
    assert pairs.target.tolist() == [1.0, 0.5, 1.0]
    assert pairs.share.tolist() == pytest.approx([1 / 3] * 3)


def test_a_head_is_where_the_ridge_and_the_loss_pull_alike() -> None:
    """One pair of difference 1: the slope −σ(−w) + ridge · w is 0 at w = log 3 for a ridge of
    ¼ / log 3."""
    pairs = pairs_of([rows(1.0, 0.0)], [(1, 2)])
    head = fit_head(pairs, np.ones(1), 0.25 / LOG_3, np.zeros(1))
    assert head[0] == pytest.approx(LOG_3, abs=1e-6)


def test_a_tie_draws_both_together() -> None:
    """From a start of 5 with hardly any ridge: the loss of a tie is least at 0."""
    pairs = pairs_of([rows(1.0, 0.0)], [(1, 1)])
    head = fit_head(pairs, np.ones(1), 1e-9, np.full(1, 5.0))
    assert head[0] == pytest.approx(0, abs=1e-3)


def test_a_weight_of_2_is_the_ranking_twice() -> None:
    some = [rows(1.0, 0.0), rows(0.0, 2.0)]
    heavy = fit_head(pairs_of(some, [(1, 2), (1, 2)]), np.array([2.0, 1.0]), 0.1, np.zeros(1))
    twice = fit_head(pairs_of([some[0], *some], [(1, 2)] * 3), np.ones(3), 0.1, np.zeros(1))
    assert heavy[0] == pytest.approx(twice[0], abs=1e-9)


def test_without_labels_members_are_their_starts_and_their_mean_is_0() -> None:
    """Features that never differ teach nothing."""
    pairs = pairs_of([np.zeros((2, 3))], [(1, 2)])
    heads = fit_ensemble(pairs, 1, 4.0, 6, np.random.default_rng(0))
    assert heads.shape == (6, 3)
    assert heads.mean(0).tolist() == pytest.approx([0, 0, 0], abs=1e-12)
    assert heads.std() == pytest.approx(0.5, abs=0.2)  # 1/√4


def test_an_even_score_is_half_right_and_costs_one_bit() -> None:
    pairs = pairs_of([rows(1.0, 1.0), rows(LOG_3, 0.0)], [(1, 2), (1, 2)])
    assert outcomes(pairs, np.ones(1)).tolist() == [0.5, 1.0]
    assert surprise(pairs, np.ones(1)).tolist() == pytest.approx([math.log(2), -math.log(0.75)])


def test_some_rankings_are_numbered_anew_in_the_order_asked() -> None:
    pairs = pairs_of([rows(1.0, 0.0), rows(2.0, 0.0), rows(3.0, 0.0)], [(1, 2)] * 3)
    some = pairs.of([2, 0])
    by_number = dict(zip(some.ranking.tolist(), some.difference[:, 0].tolist(), strict=True))
    assert by_number == {0: 3.0, 1: 1.0}


def test_principal_axes_keep_distances_between_standardised_features() -> None:
    dice = np.random.default_rng(1)
    features = [dice.normal(size=(3, 4)) for _ in range(5)]
    turned = principal(features, range(5))
    whole = np.concatenate(features)
    before = (features[0][0] - features[0][1]) / whole.std(0)
    assert np.linalg.norm(turned[0][0] - turned[0][1]) == pytest.approx(np.linalg.norm(before))


# label saving


def test_a_dip_is_spread_over_its_neighbours() -> None:
    assert isotonic(np.array([1.0, 3.0, 2.0, 4.0])).tolist() == [1.0, 2.5, 2.5, 4.0]


def test_half_the_labels_to_the_same_place_is_a_saving_of_one_half() -> None:
    uniform, active = np.array([0.5, 0.55, 0.6]), np.array([0.5, 0.6, 0.6])
    assert saving((100, 200, 400), uniform, active) == pytest.approx(0.5)  # 200 instead of 400


def test_between_budgets_a_straight_line_is_drawn() -> None:
    """active reaches .6 half way from 200 to 400 labels: 300 of 400."""
    uniform, active = np.array([0.5, 0.55, 0.6]), np.array([0.5, 0.55, 0.65])
    assert saving((100, 200, 400), uniform, active) == pytest.approx(0.25)


def test_more_labels_to_the_same_place_is_a_loss() -> None:
    """uniform has at 200 labels what active has at 400: twice as many, −100 %."""
    uniform, active = np.array([0.5, 0.6, 0.7]), np.array([0.5, 0.55, 0.6])
    assert saving((100, 200, 400), uniform, active) == pytest.approx(-1.0)


def test_equal_curves_save_nothing() -> None:
    curve = np.array([0.5, 0.6, 0.55])
    assert saving((100, 200, 400), curve, curve) == 0


def test_a_test_is_summed_by_conversation() -> None:
    pairs = pairs_of([rows(1.0, 0.0), rows(0.0, 1.0), rows(2.0, 0.0)], [(1, 2)] * 3)
    curve = Curve()
    note(curve, pairs, ["a", "b", "a"], np.ones(1))
    assert curve.right == {"a": [2.0], "b": [0.0]}
    assert curve.pairs == {"a": 2, "b": 1}


def test_the_disputed_come_first_and_a_share_is_drawn_at_random() -> None:
    """Two heads that want the opposite part over sets whose answers differ, and only there."""
    features = [rows(0.0, 0.0) for _ in range(8)] + [rows(9.0, 0.0), rows(8.0, 0.0)]
    heads = np.array([[1.0], [-1.0]])
    dice = np.random.default_rng(3)
    picked = active_learning.disputed(range(10), features, range(10), heads, 2, 0.0, dice)
    assert sorted(picked) == [8, 9]
    picked = active_learning.disputed(range(10), features, range(10), heads, 5, 0.2, dice)
    assert len(set(picked)) == 5
    assert {8, 9} <= set(picked)


# reliability


def make_sets() -> list[Set]:
    messages = ({"role": "user", "content": "Translate."},)
    ranks = {"ann": (1, 2, 3), "ben": (1, 3, 2), "cleo": (2, 1, 3)}
    return [Set(f"d{n}", messages, ("x", "y", "z"), ranks) for n in range(10)]


def test_the_majority_counts_each_pair_by_most_raters() -> None:
    """x before y: 2 of 3; x before z: all; y before z: 2 of 3."""
    difference, owner = reliability.majority(make_sets()[:1], [0], [rows(3.0, 2.0, 1.0)])
    assert difference[:, 0].tolist() == [1.0, 2.0, 1.0]
    assert owner == ["d0"] * 3


def test_a_fifth_of_the_sets_gets_three_opinions_and_the_others_one() -> None:
    given = reliability.opinions(make_sets(), range(10), 0.2, {}, seed=0)
    counts = np.bincount([one.set for one in given])
    assert sorted(counts.tolist()) == [1] * 8 + [3] * 2


def test_a_spoilt_rater_orders_at_random_or_the_wrong_way_round_and_no_other_does() -> None:
    sets = make_sets()
    spoilt = {"ben": "random", "cleo": "turned"}
    given = reliability.opinions(sets, range(10), 1.0, spoilt, seed=0)
    own = {rater: [one.ranks for one in given if one.rater == rater] for rater in sets[0].ranks}
    assert set(own["ann"]) == {(1, 2, 3)}
    assert len(set(own["ben"])) > 1
    assert all(sorted(ranks) == [1, 2, 3] for ranks in own["ben"])
    assert set(own["cleo"]) == {(2, 3, 1)}


def test_opinions_on_one_pair_are_pooled_to_the_same_head() -> None:
    """What one rater says twice as loud as the other, and a tie: the fit does not change."""
    features = [rows(1.0, 0.0, 3.0)]
    given = [
        reliability.Opinion(0, "ann", (1, 2, 3)),
        reliability.Opinion(0, "ben", (2, 1, 1)),
    ]
    pooled = reliability.pooled(given, features, {"ann": 2.0, "ben": 1.0})
    assert len(pooled.target) == 3
    whole = pairs_of([features[0], features[0]], [(1, 2, 3), (2, 1, 1)])
    apart = fit_head(whole, np.array([4 / 3, 2 / 3]), 0.3, np.zeros(1))
    together = fit_head(pooled, np.ones(1), 0.3, np.zeros(1))
    assert together[0] == pytest.approx(apart[0], abs=1e-6)


# files


def test_a_dialogue_is_read_turn_by_turn() -> None:
    prompt, answer = _replay._last_turn(
        "\n\nHuman: Hello?\n\nAssistant: Yes?\n\nHuman: Why?\n\nAssistant: Because."
    )
    assert answer == "Because."
    assert [(m["role"], m["content"]) for m in _replay._dialogue(prompt)] == [
        ("user", "Hello?"),
        ("assistant", "Yes?"),
        ("user", "Why?"),
    ]


def test_penalties_become_dense_ranks_the_least_first() -> None:
    assert _replay._ranks([5.0, 0.0, 1.0, 5.0]) == (3, 1, 2, 3)


def test_a_folder_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from pathlib import Path

    monkeypatch.setattr(_replay, "DATA", Path("/nowhere"))
    with pytest.raises(_replay.Missing, match="set LABELHUB_DATA"):
        _replay.read_hh("helpful-base.dev")
