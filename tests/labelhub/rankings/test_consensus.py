"""Consensus: what everybody says stands, circles are ties, and a bad hand is found out."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labelhub.rankings.consensus import (
    UNKNOWN,
    Model,
    bradley_terry,
    ranked_pairs,
    ranks_of,
    reliabilities,
    weights_of,
)
from labelhub.rankings.rules import all_weak_orders, dense
from tests.labelhub.rankings.real import as_ranks, three_raters

Ranks = dict[str, int]


def order(*ranks: int) -> Ranks:
    """Ranks of a, b, c, …"""
    return dict(zip("abcdefghi", ranks, strict=False))


def fitted(orders: Sequence[Ranks]) -> Ranks:
    """Ranks by Bradley–Terry, each order by a person of her own."""
    return ranks_of(bradley_terry({n: [one] for n, one in enumerate(orders)}).scores)


METHODS = [ranked_pairs, fitted]
Method = Callable[[Sequence[Ranks]], Ranks]
# a > b > c, b > c > a, c > a > b: every one of them loses to another by two to one.
CIRCLE = [order(1, 2, 3), order(3, 1, 2), order(2, 3, 1)]
ORDERS_OF_FOUR = [order(*ranks) for ranks in all_weak_orders(4)]


# --- both methods


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("said", ORDERS_OF_FOUR, ids=lambda said: "".join(map(str, said.values())))
def test_what_all_three_say_is_the_consensus_ties_included(method: Method, said: Ranks) -> None:
    assert method([said] * 3) == said


@pytest.mark.parametrize("method", METHODS)
def test_a_single_opinion_is_its_own_consensus(method: Method) -> None:
    assert method([order(2, 1, 1, 3)]) == order(2, 1, 1, 3)


@pytest.mark.parametrize("method", METHODS)
def test_of_no_opinions_there_is_no_consensus(method: Method) -> None:
    assert method([]) == {}


@pytest.mark.parametrize("method", METHODS)
def test_two_against_one_decide(method: Method) -> None:
    assert method([order(1, 2), order(1, 2), order(2, 1)]) == order(1, 2)


@pytest.mark.parametrize("method", METHODS)
def test_opposite_opinions_make_a_tie(method: Method) -> None:
    assert method([order(1, 2, 3), order(3, 2, 1)]) == order(1, 1, 1)


@pytest.mark.parametrize("method", METHODS)
def test_a_circle_of_equals_is_a_tie(method: Method) -> None:
    assert method(CIRCLE) == order(1, 1, 1)


@pytest.mark.parametrize("method", METHODS)
def test_what_lies_outside_a_circle_keeps_its_place(method: Method) -> None:
    # d is the last for everybody, whatever goes round before it.
    assert method([{**one, "d": 4} for one in CIRCLE]) == order(1, 1, 1, 2)


some_orders = st.lists(st.sampled_from(ORDERS_OF_FOUR), min_size=1, max_size=5)


@pytest.mark.parametrize("method", METHODS)
@settings(deadline=None)
@given(orders=some_orders, seed=st.integers(0, 99))
def test_it_hangs_on_no_name_and_on_nobodys_turn(
    method: Method, orders: list[Ranks], seed: int
) -> None:
    rng = random.Random(seed)
    names = dict(zip("abcd", rng.sample(["north", "east", "south", "west"], 4), strict=True))
    shuffled = rng.sample(orders, len(orders))
    keys = rng.sample("abcd", 4)
    renamed = [{names[key]: one[key] for key in keys} for one in shuffled]
    expected = {names[key]: rank for key, rank in method(orders).items()}
    assert method(renamed) == expected


@pytest.mark.parametrize("method", METHODS)
@settings(deadline=None)
@given(orders=some_orders)
def test_a_consensus_is_a_dense_weak_order_of_all(method: Method, orders: list[Ranks]) -> None:
    found = method(orders)
    assert set(found) == set("abcd")
    assert dense(found) == found


# --- ranked pairs


@settings(deadline=None)
@given(some_orders)
def test_whom_most_prefer_to_each_other_one_is_first(orders: list[Ranks]) -> None:
    """Condorcet's criterion, which Tideman's method keeps."""
    for one in "abcd":
        if all(
            sum(o[one] < o[other] for o in orders) > sum(o[one] > o[other] for o in orders)
            for other in "abcd"
            if other != one
        ):
            found = ranked_pairs(orders)
            assert [thing for thing, rank in found.items() if rank == 1] == [one]


def test_the_narrowest_majority_of_a_circle_gives_way() -> None:
    # Seven people: a beats b by 5 to 2, b beats c by 5 to 2, c beats a by 4 to 3.
    orders = [order(1, 2, 3)] * 3 + [order(3, 1, 2)] * 2 + [order(2, 3, 1)] * 2
    assert sum(o["c"] < o["a"] for o in orders) == 4
    assert ranked_pairs(orders) == order(1, 2, 3)


def test_who_ranked_only_some_is_heard_on_those() -> None:
    assert ranked_pairs([{"a": 1, "b": 2}, {"b": 1, "c": 2}]) == order(1, 2, 3)


# --- reliabilities


def crowd(
    people: dict[str, float], sets: int = 80, seed: int = 1
) -> dict[str, list[dict[tuple[int, str], int]]]:
    """Orders of four answers in each of many sets: a is truly the best, d the worst.

    `people` says how careful each is, from ½ = at random to 1 = always right; who has a negative
    number turns the whole order round.
    """
    rng = random.Random(seed)
    found: dict[str, list[dict[tuple[int, str], int]]] = {name: [] for name in people}
    for n in range(sets):
        for name, right in people.items():
            # Each answer's merit is its true place and a noise that grows as `right` falls to ½.
            noise = 8 * (1 - abs(right)) if abs(right) > 0.5 else 1000
            merit = {key: place + rng.gauss(0, noise) for place, key in enumerate("abcd")}
            ranked = sorted(merit, key=lambda key: merit[key], reverse=right < 0)
            found[name].append({(n, key): rank for rank, key in enumerate(ranked, start=1)})
    return found


def test_a_spammer_is_hardly_better_than_a_coin() -> None:
    found = bradley_terry(crowd({"ann": 0.95, "ben": 0.95, "cleo": 0.9, "spammer": 0.5}))
    assert found.reliability["spammer"] < 0.65
    assert min(found.reliability[who] for who in ("ann", "ben", "cleo")) > 0.85


def test_who_turns_every_order_round_is_worse_than_chance() -> None:
    found = bradley_terry(crowd({"ann": 0.95, "ben": 0.95, "cleo": 0.9, "inverter": -0.95}))
    assert found.reliability["inverter"] < 0.3
    assert ranks_of({k: s for k, s in found.scores.items() if k[0] == 0}) == {
        (0, "a"): 1, (0, "b"): 2, (0, "c"): 3, (0, "d"): 4,
    }  # fmt: skip


def test_with_two_spammers_the_careful_one_is_followed() -> None:
    people = crowd({"ann": 0.95, "ben": 0.95, "one": 0.5, "other": 0.5}, sets=120)
    found = bradley_terry(people)
    right = votes = 0
    for n in range(120):
        truth = {(n, key): place for place, key in enumerate("abcd")}
        opinions = [orders[n] for orders in people.values()]
        by_vote = ranked_pairs(opinions)
        for one, other in combinations(truth, 2):
            right += found.scores[one] > found.scores[other]
            votes += by_vote[one] < by_vote[other]
    assert right > votes


def test_who_shares_no_set_with_others_is_believed_as_the_prior_says() -> None:
    found = bradley_terry({"ann": [], "ben": [order(1, 2)]})
    assert found.reliability == {"ann": UNKNOWN, "ben": UNKNOWN}


def test_a_known_ranking_outweighs_two_who_contradict_it() -> None:
    gold = [{f"{n} good": 1, f"{n} bad": 2} for n in range(60)]
    wrong = [{f"{n} good": 2, f"{n} bad": 1} for n in range(60)]
    people = {"ann": wrong, "ben": wrong, "known": gold, "cleo": gold}
    found = bradley_terry(people, held={"known": 0.99})
    assert found.reliability["known"] == 0.99
    assert found.reliability["ann"] < 0.5 < found.reliability["cleo"]


def test_of_two_who_contradict_each_other_nobody_can_say_who_is_right() -> None:
    found = reliabilities({"ann": [order(1, 2, 3)], "ben": [order(3, 2, 1)]})
    assert found["ann"] == found["ben"]


def test_two_who_agree_as_often_as_two_signals_would_are_both_that_good() -> None:
    # 800 pairs of which 580 are alike: (580 − 220) / 800 = .45 = a², a = .67, η = .835.
    sets = [{f"{n} a": 1, f"{n} b": 2} for n in range(800)]
    turned = [{f"{n} a": 2, f"{n} b": 1} for n in range(580, 800)]
    found = reliabilities({"ann": sets, "ben": sets[:580] + turned})
    assert found == {"ann": pytest.approx(0.835, abs=0.005), "ben": pytest.approx(0.835, abs=0.005)}


def test_nobody_is_compared_with_what_she_helped_to_make() -> None:
    """Three opinions on a set, hardly any agreement: a fit to all at once would believe all."""
    people = {"ann": 0.8, "ben": 0.8, "random": 0.5}
    found = reliabilities(crowd(people, sets=200))
    assert found["random"] < 0.6 < min(found["ann"], found["ben"])


def test_a_random_rater_among_professionals_is_found_out() -> None:
    """Each of the real raters in turn is given the ranks of a shuffled pack."""
    sets = as_ranks(three_raters())
    raters = sorted({rater for one in sets for rater in one})
    for spoiled in raters[:3]:
        rng = random.Random(spoiled)
        orders: dict[str, list[dict[tuple[int, str], int]]] = {rater: [] for rater in raters}
        for n, one in enumerate(sets):
            for rater, ranked in one.items():
                ranks = list(ranked.values())
                if rater == spoiled:
                    rng.shuffle(ranks)
                named = zip(ranked, ranks, strict=True)
                orders[rater].append({(n, name): rank for name, rank in named})
        found = reliabilities(orders)
        honest = [value for rater, value in found.items() if rater != spoiled]
        assert found[spoiled] < 0.6 < min(honest), spoiled


# --- Bradley–Terry


def test_held_reliabilities_score_what_comes_later() -> None:
    orders = {"ann": [order(1, 2)], "spammer": [order(2, 1)]}
    found = bradley_terry(orders, held={"ann": 0.9, "spammer": 0.5})
    assert found.scores["a"] > found.scores["b"]


@settings(max_examples=30, deadline=None)
@given(st.lists(some_orders, min_size=1, max_size=4))
def test_no_step_lowers_the_posterior_and_the_fit_comes_to_rest(
    orders_of: list[list[Ranks]],
) -> None:
    people = dict(enumerate(orders_of))
    model = Model.of(people, {who: 0.2 + 0.2 * who for who in people})
    before = model.posterior()
    for _ in range(30):
        model.improve()
        after = model.posterior()
        assert after >= before - 1e-9
        before = after
    for _ in range(1000):
        moved = model.improve()
    assert moved < 1e-5


# --- weights


def test_weights_have_the_mean_one_over_the_rankings() -> None:
    # 2η − 1 is .8 and .4; over 10 and 30 rankings their mean is .5: weights 1.6 and .8.
    found = weights_of({"ann": 0.9, "ben": 0.7}, {"ann": 10, "ben": 30})
    assert found == {"ann": pytest.approx(1.6), "ben": pytest.approx(0.8)}


def test_nobody_is_trained_against() -> None:
    found = weights_of({"ann": 0.9, "inverter": 0.1}, {"ann": 1, "inverter": 1})
    assert 0 < found["inverter"] < 0.2 < found["ann"]


def test_without_rankings_everybody_weighs_one() -> None:
    assert weights_of({"ann": 0.9}, {}) == {"ann": 1}
