"""Correcting one's own ranking of today: what stood before is kept, and what is frozen stays."""

from __future__ import annotations

import uuid
from datetime import timedelta

import pytest
from django.utils import timezone

from labelhub.accounts.models import AuditEntry, User
from labelhub.assignments.models import Slot
from labelhub.lib.errors import Refused
from labelhub.projects.models import Project
from labelhub.prompts.models import AnswerSet
from labelhub.rankings.actions import UNCHANGEABLE, freeze
from labelhub.rankings.models import Ranking
from labelhub.rankings.queries import facts_of, why_not_correctable
from labelhub.rankings.rules import Feedback, ItemFeedback
from labelhub.rankings.signals import ranking_submitted
from tests.factories import make_answer_set
from tests.labelhub.rankings.desk import (
    BEST_FIRST,
    WORST_FIRST,
    answer_ids,
    correct,
    heard,
    places_in,
    rank,
    submit,
    take,
)

pytestmark = pytest.mark.django_db
Kind, Purpose = Slot.Kind, AnswerSet.Purpose


@pytest.fixture
def ranking(project: Project, ann: User) -> Ranking:
    """What ann has just ranked, with a word on the first answer."""
    answer_set = make_answer_set(project, slots=1)
    first = answer_ids(answer_set)[0]
    said = Feedback(ideal_answer="Better.", items={first: ItemFeedback(likert=2, critique="Hm.")})
    return rank(answer_set, ann, BEST_FIRST, gaps=[1, None, 3], feedback=said)


def fresh(ranking: Ranking) -> Ranking:
    return Ranking.objects.get(pk=ranking.pk)


def yesterday(ranking: Ranking) -> None:
    Ranking.objects.filter(pk=ranking.pk).update(created=timezone.now() - timedelta(days=1))


def refused_because(code: str, ranking: Ranking, by: User, **said: object) -> None:
    with pytest.raises(Refused) as refused:
        correct(ranking, by, WORST_FIRST, **said)
    assert refused.value.code == code


# --- what changes, and what is kept


def test_the_new_order_stands_in_the_place_of_the_old_one(ranking: Ranking, ann: User) -> None:
    correct(ranking, ann, (2, 1, 1, 3), gaps=[2, None])
    stored = fresh(ranking)
    assert places_in(stored) == (2, 1, 1, 3)
    assert list(stored.items.order_by("answer__n").values_list("gap", flat=True)) == [
        None,
        2,
        2,
        None,
    ]
    assert (stored.revision, stored.slot_id) == (2, ranking.slot_id)


def test_what_stood_before_is_kept_whole(ranking: Ranking, ann: User) -> None:
    before = facts_of(fresh(ranking))
    correct(ranking, ann, WORST_FIRST, feedback=Feedback())
    kept = ranking.revisions.get()
    assert (kept.n, kept.facts) == (1, before)
    assert kept.facts["ideal_answer"] == "Better."
    assert kept.facts["idempotency_key"] == str(ranking.idempotency_key)
    by_answer = {item["answer_id"]: item for item in kept.facts["items"]}
    first, *_rest, last = answer_ids(ranking.answer_set)
    assert by_answer[first] == {
        **{"answer_id": first, "rank": 1, "gap": 1, "likert": 2, "critique": "Hm."},
        **{"attributes": [], "spans": [], "position": by_answer[first]["position"]},
    }
    assert by_answer[last]["rank"] == 4


def test_the_cards_stay_where_they_were_shown(ranking: Ranking, ann: User) -> None:
    shown = list(ranking.items.order_by("position").values_list("answer", flat=True))
    correct(ranking, ann, WORST_FIRST)
    assert list(fresh(ranking).items.order_by("position").values_list("answer", flat=True)) == shown


def test_what_was_said_beside_the_order_is_replaced(ranking: Ranking, ann: User) -> None:
    second = answer_ids(ranking.answer_set)[1]
    said = Feedback(all_bad=True, items={second: ItemFeedback(likert=5)})
    correct(ranking, ann, BEST_FIRST, feedback=said)
    stored = fresh(ranking)
    assert (stored.all_bad, stored.ideal_answer) == (True, "")
    assert dict(stored.items.values_list("answer__n", "likert")) == {
        0: None,
        1: 5,
        2: None,
        3: None,
    }


def test_without_feedback_what_was_said_stays(ranking: Ranking, ann: User) -> None:
    ranking.project.attributes = []  # the questions may have changed since
    ranking.project.save()
    correct(ranking, ann, WORST_FIRST)
    stored = fresh(ranking)
    assert stored.ideal_answer == "Better."
    assert stored.items.get(answer__n=0).critique == "Hm."


def test_the_time_of_the_correction_is_added(ranking: Ranking, ann: User) -> None:
    correct(ranking, ann, WORST_FIRST, duration_ms=8_000, active_ms=1_000)
    stored = fresh(ranking)
    assert (stored.duration_ms, stored.active_ms) == (50_000, 41_000)
    assert ranking.revisions.get().facts["duration_ms"] == 42_000


def test_it_follows_the_guidelines_of_now(ranking: Ranking, project: Project, ann: User) -> None:
    newer = project.guidelines.create(version=2, text="Prefer the kinder answer.")
    correct(ranking, ann, WORST_FIRST)
    assert fresh(ranking).guidelines == newer
    assert ranking.revisions.get().facts["guidelines_id"] == ranking.guidelines_id


def test_a_second_correction_keeps_both_former_orders(ranking: Ranking, ann: User) -> None:
    again = correct(ranking, ann, (1, 1, 2, 2))
    correct(again, ann, WORST_FIRST)
    orders = [
        [item["rank"] for item in sorted(one.facts["items"], key=lambda item: item["answer_id"])]
        for one in ranking.revisions.order_by("n")
    ]
    assert orders == [[1, 2, 3, 4], [1, 1, 2, 2]]
    assert fresh(ranking).revision == 3


def test_it_leaves_a_line_in_the_audit_log_and_teaches_nobody_twice(
    ranking: Ranking, ann: User
) -> None:
    with heard(ranking_submitted) as said:
        correct(ranking, ann, WORST_FIRST)
    assert said == []
    entry = AuditEntry.objects.get(action="ranking.correct")
    assert (entry.target, entry.details) == (f"ranking:{ranking.pk}", {"revision": 2})


# --- the same again


def test_the_same_correction_again_changes_nothing(ranking: Ranking, ann: User) -> None:
    key = uuid.uuid4()
    correct(ranking, ann, WORST_FIRST, idempotency_key=key)
    again = correct(ranking, ann, (1, 1, 1, 1), idempotency_key=key, revision=1)
    assert places_in(again) == WORST_FIRST
    assert (again.revision, ranking.revisions.count()) == (2, 1)


def test_a_correction_that_was_corrected_since_is_recognised(ranking: Ranking, ann: User) -> None:
    key = uuid.uuid4()
    once = correct(ranking, ann, WORST_FIRST, idempotency_key=key)
    correct(once, ann, (1, 1, 2, 2))
    assert places_in(correct(ranking, ann, WORST_FIRST, idempotency_key=key)) == (1, 1, 2, 2)


def test_the_first_submit_again_is_still_recognised(project: Project, ann: User) -> None:
    slot, key = take(make_answer_set(project), ann), uuid.uuid4()
    ranking = submit(slot, ann, idempotency_key=key)
    correct(ranking, ann, WORST_FIRST)
    again = submit(slot, ann, BEST_FIRST, idempotency_key=key)
    assert (again.pk, places_in(again)) == (ranking.pk, WORST_FIRST)


def test_a_second_tab_hears_that_it_was_changed_meanwhile(ranking: Ranking, ann: User) -> None:
    correct(ranking, ann, WORST_FIRST)
    with pytest.raises(Refused, match="changed meanwhile") as refused:
        correct(ranking, ann, (1, 1, 1, 2), revision=1)
    assert refused.value.code == "changed"
    assert places_in(fresh(ranking)) == WORST_FIRST


def test_the_key_of_another_ranking_is_refused(
    ranking: Ranking, project: Project, ann: User
) -> None:
    other = rank(make_answer_set(project), ann)
    with pytest.raises(Refused, match="submit key"):
        correct(ranking, ann, WORST_FIRST, idempotency_key=other.idempotency_key)
    assert places_in(fresh(ranking)) == BEST_FIRST


# --- what is refused


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ({"ranks": {}}, "incomplete"),
        ({"gaps": [1]}, "bad_gap"),
        ({"sha256": {}}, "other_text"),
        ({"feedback": Feedback(ideal_answer="x" * 20_001)}, "bad_feedback"),
    ],
)
def test_it_is_checked_like_a_submit(
    ranking: Ranking, ann: User, said: dict[str, object], code: str
) -> None:
    refused_because(code, ranking, ann, **said)
    assert not ranking.revisions.exists()
    assert fresh(ranking).revision == 1


def test_another_persons_ranking_is_not_there(
    ranking: Ranking, ben: User, ada: User, mallory: User
) -> None:
    for somebody in (ben, ada, mallory):
        refused_because("not_yours", ranking, somebody)


def test_who_left_the_project_corrects_nothing(
    ranking: Ranking, project: Project, ann: User
) -> None:
    project.memberships.filter(user=ann).delete()
    refused_because("not_yours", ranking, ann)


def test_a_ranking_in_a_snapshot_stays_as_it_is(ranking: Ranking, ann: User) -> None:
    freeze([ranking.pk])
    refused_because("frozen", ranking, ann)


def test_freezing_again_keeps_the_first_moment(ranking: Ranking) -> None:
    freeze([ranking.pk])
    moment = fresh(ranking).frozen_at
    freeze([ranking.pk])
    assert moment is not None
    assert fresh(ranking).frozen_at == moment


def test_only_rankings_of_today_can_be_corrected(ranking: Ranking, ann: User) -> None:
    yesterday(ranking)
    refused_because("not_today", ranking, ann)


def test_what_was_ranked_in_the_tutorial_stays(project: Project, ann: User) -> None:
    lesson = make_answer_set(project, purpose=Purpose.TUTORIAL)
    refused_because("tutorial", rank(lesson, ann, kind=Kind.TUTORIAL), ann)


def test_every_reason_has_its_sentence() -> None:
    assert set(UNCHANGEABLE) == {"tutorial", "frozen", "not_today"}


# --- known rankings look like any other


@pytest.mark.parametrize("kind", [Kind.GOLD, Kind.REPEAT])
def test_a_known_ranking_can_be_corrected_like_any_other(
    project: Project, ann: User, kind: str
) -> None:
    ranking = rank(make_answer_set(project, purpose=Purpose.GOLD), ann, kind=kind)
    assert places_in(correct(ranking, ann, WORST_FIRST)) == WORST_FIRST


def test_a_known_ranking_closes_with_those_around_it(
    ranking: Ranking, project: Project, ann: User, ben: User
) -> None:
    bens = rank(make_answer_set(project, purpose=Purpose.GOLD), ben, kind=Kind.GOLD)
    anns = rank(make_answer_set(project, purpose=Purpose.GOLD), ann, kind=Kind.GOLD)
    freeze([ranking.pk])
    assert why_not_correctable(fresh(anns)) == "frozen"
    assert why_not_correctable(fresh(bens)) == ""
    later = rank(make_answer_set(project, purpose=Purpose.GOLD), ann, kind=Kind.GOLD)
    assert why_not_correctable(fresh(later)) == ""
