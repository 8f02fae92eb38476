"""Sets that a reviewer decides, and those that a newcomer learns from."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from labelhub.accounts.models import User
from labelhub.assignments.actions import (
    claim_next,
    claim_review,
    claim_tutorial,
    open_review,
    release,
    release_expired,
    settle,
)
from labelhub.assignments.models import Slot
from labelhub.assignments.queries import attempt_of, project_counts, queue_counts, tutorial_sets
from labelhub.lib.errors import Refused
from labelhub.projects.models import Project
from labelhub.prompts.models import AnswerSet
from labelhub.rankings.models import Gold
from tests.factories import hold, make_answer_set, make_project, make_prompt, make_slot, make_user

pytestmark = pytest.mark.django_db
State, Kind = Slot.State, Slot.Kind


def finish(slot: Slot) -> None:
    """As if it had been ranked."""
    Slot.objects.filter(pk=slot.pk).update(state=State.DONE, lease_token=None, lease_until=None)


# --- reviews


@pytest.fixture
def rex(project: Project) -> User:
    """Reviews."""
    user = make_user("rex")
    project.memberships.create(user=user, role="reviewer")
    return user


def test_a_review_is_asked_for_once(project: Project) -> None:
    answer_set = make_answer_set(project, slots=1)
    first = open_review(answer_set)
    assert open_review(answer_set) == first
    finish(first)
    assert open_review(answer_set) == first, "it has been decided"
    assert answer_set.slots.filter(kind=Kind.REVIEW).count() == 1


def test_the_oldest_review_comes_first(project: Project, rex: User, ada: User) -> None:
    slots = [open_review(make_answer_set(project)) for _ in range(2)]
    assert claim_review(project=project, by=rex).pk == slots[0].pk
    assert claim_review(project=project, by=rex).pk == slots[0].pk, "two tabs show the same"
    assert claim_review(project=project, by=ada).pk == slots[1].pk


def test_nobody_decides_about_what_they_ranked_themselves(project: Project, rex: User) -> None:
    answer_set = make_answer_set(project)
    make_slot(answer_set, state=State.DONE, holder=rex)
    open_review(answer_set)
    assert claim_review(project=project, by=rex) is None


def test_reviewers_decide_in_languages_that_they_read(project: Project, rex: User) -> None:
    open_review(make_answer_set(project, prompt=make_prompt(project, language="zh")))
    project.memberships.filter(user=rex).update(languages=["en"])
    assert claim_review(project=project, by=rex) is None
    project.memberships.filter(user=rex).update(languages=[])
    assert claim_review(project=project, by=rex) is not None


def test_annotators_do_not_decide(project: Project, ann: User) -> None:
    open_review(make_answer_set(project))
    with pytest.raises(Refused) as refused:
        claim_review(project=project, by=ann)
    assert (refused.value.status, refused.value.code) == (403, "not_a_reviewer")


def test_strangers_are_not_told_of_reviews(project: Project, mallory: User) -> None:
    with pytest.raises(Refused) as refused:
        claim_review(project=project, by=mallory)
    assert refused.value.status == 404


def test_a_review_never_comes_through_the_queue(project: Project, rex: User) -> None:
    open_review(make_answer_set(project))
    assert claim_next(project=project, by=rex) is None
    claim_review(project=project, by=rex)
    assert claim_next(project=project, by=rex) is None
    counts = project_counts(project)
    assert (counts.open, counts.held, counts.total) == (0, 0, 0)
    assert queue_counts(project, rex).left_for_me == 0


def test_a_review_that_is_left_waits_for_the_next_reviewer(
    project: Project, rex: User, ada: User
) -> None:
    open_review(make_answer_set(project))
    slot = claim_review(project=project, by=rex)
    release(slot_id=slot.pk, token=slot.lease_token, by=rex)
    again = claim_review(project=project, by=ada)
    assert (again.pk, again.kind) == (slot.pk, Kind.REVIEW)
    Slot.objects.update(lease_until=timezone.now() - timedelta(minutes=1))
    assert release_expired() == 1
    assert Slot.objects.get().state == State.OPEN


def test_late_work_stays_on_a_slot_of_its_kind(project: Project, rex: User, ada: User) -> None:
    answer_set = make_answer_set(project, slots=1)
    review = open_review(answer_set)
    hold(review, ada)
    chosen, late = settle(slot=review, by=rex)
    assert (chosen.kind, chosen.state, chosen.holder, late) == (
        Kind.REVIEW,
        State.DONE,
        rex,
        True,
    )
    assert answer_set.slots.get(kind=Kind.OPINION).state == State.OPEN


def test_late_work_lands_on_no_slot_that_bears_anothers_name(
    project: Project, ann: User, ben: User
) -> None:
    answer_set = make_answer_set(project)
    named = make_slot(answer_set, reserved_for=ben)
    taken = hold(make_slot(answer_set), ben)
    chosen, _late = settle(slot=taken, by=ann)
    assert chosen.pk not in {named.pk, taken.pk}
    assert chosen.claimed_at is not None


# --- the tutorial


@pytest.fixture
def course(ann: User, ada: User) -> Project:
    """A project with a tutorial of two sets, in an order of its own, and one set to rank."""
    project = make_project("course", annotators=[ann], admins=[ada])
    for place in (2, 1):
        lesson(project, place)
    make_answer_set(project, slots=1)
    return project


def lesson(project: Project, place: int, **prompt: str) -> AnswerSet:
    answer_set = make_answer_set(project, prompt=make_prompt(project, **prompt), purpose="tutorial")
    Gold.objects.create(answer_set=answer_set, ranks={}, place=place)
    return answer_set


def attempt(project: Project, by: User, *, again: bool = False) -> list[AnswerSet]:
    """Do all of the tutorial; what was shown."""
    shown = []
    slot = claim_tutorial(project=project, by=by, again=again)
    while slot:
        assert slot.kind == Kind.TUTORIAL
        shown.append(slot.answer_set)
        finish(slot)
        slot = claim_tutorial(project=project, by=by)
    return shown


def test_before_the_tutorial_there_is_no_real_work(course: Project, ann: User) -> None:
    with pytest.raises(Refused, match="tutorial") as refused:
        claim_next(project=course, by=ann)
    assert refused.value.code == "unqualified"
    assert not Slot.objects.exclude(state=State.OPEN).exists()


def test_who_is_qualified_or_steers_needs_none(course: Project, ann: User, ada: User) -> None:
    assert claim_next(project=course, by=ada) is not None
    course.memberships.filter(user=ann).update(qualified_at=timezone.now())
    make_answer_set(course, slots=1)
    assert claim_next(project=course, by=ann).kind == Kind.OPINION


def test_without_a_tutorial_in_ones_language_nobody_is_held_up(course: Project, ann: User) -> None:
    prompt = make_prompt(course, language="zh")
    chinese = make_answer_set(course, prompt=prompt, slots=1)
    course.memberships.filter(user=ann).update(languages=["zh"])
    assert tutorial_sets(course, ann) == []
    assert claim_next(project=course, by=ann).answer_set == chinese


def test_a_retired_tutorial_holds_up_nobody(course: Project, ann: User) -> None:
    AnswerSet.objects.filter(purpose="tutorial").update(retired=True)
    assert claim_next(project=course, by=ann) is not None


def test_the_tutorial_comes_in_its_order_and_ends(course: Project, ann: User) -> None:
    shown = attempt(course, ann)
    assert [one.gold.place for one in shown] == [1, 2]
    assert shown == tutorial_sets(course)
    assert claim_tutorial(project=course, by=ann) is None
    assert [slot.answer_set for slot in attempt_of(ann, course)] == shown


def test_a_set_of_the_tutorial_in_hand_stays_in_hand(course: Project, ann: User) -> None:
    slots = {claim_tutorial(project=course, by=ann).pk for _ in range(3)}
    assert len(slots) == 1
    with pytest.raises(Refused, match="tutorial"):
        claim_next(project=course, by=ann)


def test_one_that_was_left_is_given_again(course: Project, ann: User) -> None:
    slot = claim_tutorial(project=course, by=ann)
    release(slot_id=slot.pk, token=slot.lease_token, by=ann)
    assert Slot.objects.get(pk=slot.pk).state == State.CLOSED
    assert claim_tutorial(project=course, by=ann).pk == slot.pk


def test_another_attempt_shows_copies(course: Project, ann: User) -> None:
    first = attempt(course, ann)
    second = attempt(course, ann, again=True)
    third = attempt(course, ann, again=True)
    for later in (second, third):
        assert [one.original for one in later] == first
        assert {one.purpose for one in later} == {"repeat"}
    assert len({*first, *second, *third}) == 6
    assert [slot.answer_set for slot in attempt_of(ann, course)] == third


def test_in_the_middle_of_another_attempt_only_what_was_done_counts(
    course: Project, ann: User
) -> None:
    attempt(course, ann)
    slot = claim_tutorial(project=course, by=ann, again=True)
    finish(slot)
    assert attempt_of(ann, course) == [slot]
    following = claim_tutorial(project=course, by=ann)
    assert following.answer_set.original == tutorial_sets(course)[1]


def test_a_set_that_is_new_in_the_tutorial_is_done_once(course: Project, ann: User) -> None:
    attempt(course, ann)
    attempt(course, ann, again=True)
    added = lesson(course, 3)
    assert attempt(course, ann) == [added]


def test_everybody_has_an_attempt_of_their_own(course: Project, ann: User) -> None:
    bea = make_user("bea")
    course.memberships.create(user=bea)
    slots = [claim_tutorial(project=course, by=one) for one in (ann, bea)]
    assert slots[0].answer_set == slots[1].answer_set
    assert slots[0].pk != slots[1].pk
