"""Work for one person by name."""

from __future__ import annotations

import pytest
from django.utils import timezone

from labelhub.accounts.models import AuditEntry, User
from labelhub.assignments.actions import assign, claim_next, release, unassign
from labelhub.assignments.models import Slot
from labelhub.assignments.queries import assignable_sets, reserved_for
from labelhub.lib.errors import Refused
from labelhub.projects.models import Project
from labelhub.rankings.models import Skip
from tests.factories import (
    hold,
    make_answer_set,
    make_project,
    make_prompt,
    make_ranking,
    make_slot,
    make_user,
)

pytestmark = pytest.mark.django_db
State = Slot.State


def test_one_open_slot_of_each_set_gets_the_name(project: Project, ann: User, ada: User) -> None:
    sets = [make_answer_set(project, slots=2) for _ in range(3)]
    assert assign(project=project, answer_sets=sets, to=ann, by=ada) == 3
    assert {slot.answer_set for slot in reserved_for(ann, project)} == set(sets)
    assert Slot.objects.filter(reserved_for=None).count() == 3
    entry = AuditEntry.objects.get(action="slots.assign")
    assert (entry.details["to"], entry.details["answer_sets"]) == ("ann", 3)


def test_assigning_again_changes_nothing(project: Project, ann: User, ada: User) -> None:
    sets = [make_answer_set(project, slots=2)]
    assign(project=project, answer_sets=sets, to=ann, by=ada)
    assert assign(project=project, answer_sets=sets, to=ann, by=ada) == 0
    assert Slot.objects.filter(reserved_for=ann).count() == 1


def test_two_people_get_a_slot_each(project: Project, ann: User, ben: User, ada: User) -> None:
    answer_set = make_answer_set(project, slots=1)
    for person in (ann, ben):
        assert assign(project=project, answer_sets=[answer_set], to=person, by=ada) == 1
    # One was open; for ben one more is wanted.
    assert [slot.reserved_for for slot in answer_set.slots.order_by("n")] == [ann, ben]


def test_where_all_are_taken_one_more_is_wanted(
    project: Project, ann: User, ben: User, ada: User
) -> None:
    done, closed = make_answer_set(project), make_answer_set(project)
    make_ranking(done, ben)
    make_slot(closed, state=State.CLOSED)
    assign(project=project, answer_sets=[done, closed], to=ann, by=ada)
    for answer_set in (done, closed):
        slot = answer_set.slots.get(reserved_for=ann)
        assert (slot.n, slot.state) == (1, State.OPEN)
    assert claim_next(project=project, by=ann) is not None


def test_nobody_is_assigned_what_they_had(project: Project, ann: User, ada: User) -> None:
    ranked, held, skipped = (make_answer_set(project, slots=2) for _ in range(3))
    make_ranking(ranked, ann)
    hold(held.slots.get(n=0), ann)
    Skip.objects.create(
        slot=skipped.slots.get(n=0), answer_set=skipped, annotator=ann, reason="other"
    )
    sets = [ranked, held, skipped]
    assert list(assignable_sets(project, ann)) == []
    assert assign(project=project, answer_sets=sets, to=ann, by=ada) == 0
    assert not Slot.objects.filter(reserved_for=ann).exists()


def test_sets_of_another_project_are_left_alone(project: Project, ann: User, ada: User) -> None:
    elsewhere = make_answer_set(make_project(annotators=[ann]), slots=1)
    assert assign(project=project, answer_sets=[elsewhere], to=ann, by=ada) == 0


@pytest.mark.parametrize("who", ["stranger", "paused", "robot"])
def test_only_who_is_there_can_be_assigned_work(
    project: Project, ann: User, ada: User, mallory: User, who: str
) -> None:
    robot = make_user("robot", is_simulated=True)
    project.memberships.create(user=robot)
    project.memberships.filter(user=ann).update(paused_at=timezone.now())
    person = {"stranger": mallory, "paused": ann, "robot": robot}[who]
    with pytest.raises(Refused, match="not paused"):
        assign(project=project, answer_sets=[make_answer_set(project)], to=person, by=ada)


def test_a_name_stays_on_what_was_left(project: Project, ann: User, ben: User, ada: User) -> None:
    answer_set = make_answer_set(project, slots=1)
    assign(project=project, answer_sets=[answer_set], to=ann, by=ada)
    slot = claim_next(project=project, by=ann)
    release(slot_id=slot.pk, token=slot.lease_token, by=ann)
    assert claim_next(project=project, by=ben) is None
    assert claim_next(project=project, by=ann).pk == slot.pk


def test_taking_the_name_off_gives_it_to_all(
    project: Project, ann: User, ben: User, ada: User
) -> None:
    answer_set = make_answer_set(project, slots=1)
    assign(project=project, answer_sets=[answer_set], to=ann, by=ada)
    assert unassign(project=project, to=ann, by=ada) == 1
    assert unassign(project=project, to=ann, by=ada) == 0
    assert claim_next(project=project, by=ben).answer_set == answer_set


def test_what_can_be_assigned_is_chosen_by_language_and_topic(project: Project, ann: User) -> None:
    kinds = [("en", "law"), ("zh", "law"), ("en", "")]
    sets = [
        make_answer_set(project, prompt=make_prompt(project, language=code, topic=topic), slots=1)
        for code, topic in kinds
    ]
    make_answer_set(project)  # nothing is wanted on it
    assert list(assignable_sets(project, ann)) == sets
    assert list(assignable_sets(project, ann, language="en")) == [sets[0], sets[2]]
    assert list(assignable_sets(project, ann, topic="law")) == sets[:2]
    assert list(assignable_sets(project, ann, language="zh", topic="law")) == [sets[1]]
