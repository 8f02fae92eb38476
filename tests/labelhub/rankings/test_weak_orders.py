"""All 75 weak orders of four answers, from the browser's form to the trainer's pairs and back.

What is to come out is worked out here from the order alone, pair by pair, by answers' names. So an
inverse permutation, a lost tie or a swapped position on the way cannot go unseen.
"""

from __future__ import annotations

import json
import uuid
from itertools import combinations

import pytest
from django.http import QueryDict

from labelhub.accounts.models import User
from labelhub.assignments.actions import claim_next
from labelhub.projects.models import Project
from labelhub.rankings import rules
from labelhub.rankings.actions import submit_ranking
from labelhub.rankings.models import Ranking
from labelhub.rankings.queries import export_lines
from tests.factories import make_answer_set

NAMES = ("ash", "birch", "cedar", "date")
ORDERS = list(rules.all_weak_orders(4))

Pair = tuple[str, str]


def expected_pairs(order: tuple[int, ...]) -> tuple[set[Pair], set[frozenset[str]]]:
    """(better, worse) and tied names of an order that gives a rank to each of NAMES."""
    better, tied = set(), set()
    for (one, rank), (other, rank_of_other) in combinations(zip(NAMES, order, strict=True), 2):
        if rank == rank_of_other:
            tied.add(frozenset({one, other}))
        else:
            better.add((one, other) if rank < rank_of_other else (other, one))
    return better, tied


def rank_as_a_browser_does(project: Project, by: User, order: tuple[int, ...]) -> Ranking:
    """Fields in the order in which the cards stand, ranks with holes as a page may send them."""
    answer_set = make_answer_set(project, answers=NAMES, slots=1)
    slot = claim_next(project=project, by=by)
    assert slot.answer_set == answer_set
    rank_of = dict(zip(NAMES, order, strict=True))
    form = QueryDict(mutable=True)
    form["token"], form["key"] = str(slot.lease_token), str(uuid.uuid4())
    for answer in answer_set.answers.order_by("?"):
        form[rules.field_name(answer.pk)] = str(3 * rank_of[answer.text] - 2)
    return submit_ranking(
        slot_id=slot.pk,
        token=form["token"],
        ranks=rules.parse_form(QueryDict(form.urlencode())),
        idempotency_key=form["key"],
        duration_ms=60_000,
        active_ms=50_000,
        by=by,
    )


def test_four_things_have_75_weak_orders() -> None:
    assert len(set(ORDERS)) == 75
    # By the number of tiers: 1 of one, 14 of two, 36 of three, 24 of four.
    assert [sum(max(order) == tiers for order in ORDERS) for tiers in (1, 2, 3, 4)] == [
        1,
        14,
        36,
        24,
    ]


@pytest.mark.django_db
def test_every_order_survives_the_way_to_the_trainer(project: Project, ann: User) -> None:
    from trainer.data import pairs_of, parse_ranking

    by_order = {order: rank_as_a_browser_does(project, ann, order) for order in ORDERS}
    lines = [json.dumps(line) for line in export_lines(Ranking.objects.all())]
    assert len(lines) == 75
    read = dict(zip(by_order, map(parse_ranking, map(json.loads, lines)), strict=True))

    for order, ranking in read.items():
        stored = by_order[order].items.values_list("answer__text", "rank")
        assert dict(stored) == dict(zip(NAMES, order, strict=True))
        assert dict(zip(ranking.texts, ranking.ranks, strict=True)) == dict(stored)

        pairs = pairs_of([ranking])
        columns = zip(pairs.better.tolist(), pairs.worse.tolist(), pairs.tied.tolist(), strict=True)
        better, tied = set(), set()
        for one, other, is_tie in columns:
            names = ranking.texts[one], ranking.texts[other]
            tied.add(frozenset(names)) if is_tie else better.add(names)
        assert (better, tied) == expected_pairs(order)
        assert len(pairs.better) == 6


@pytest.mark.parametrize("order", ORDERS, ids=lambda order: "".join(map(str, order)))
def test_pairs_by_the_rules_are_those_of_the_order(order: tuple[int, ...]) -> None:
    better, ties = rules.pairs(dict(zip(NAMES, order, strict=True)))
    assert (set(better), {frozenset(tie) for tie in ties}) == expected_pairs(order)
    assert len(better) + len(ties) == 6
