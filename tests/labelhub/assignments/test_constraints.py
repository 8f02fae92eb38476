"""Each promise about slots is kept by the database itself: here each is broken once."""

from __future__ import annotations

import uuid
from collections.abc import Callable

import pytest
from django.utils import timezone

from labelhub.accounts.models import User
from labelhub.assignments.models import Pool, Slot
from labelhub.projects.models import Project
from labelhub.prompts.models import AnswerSet
from tests.factories import hold, make_answer_set, make_pool, make_slot
from tests.labelhub.constraints import names_of, refused_by

pytestmark = pytest.mark.django_db
State = Slot.State
Break = Callable[[AnswerSet, User], object]


def same_number(answer_set: AnswerSet, ann: User) -> None:
    make_slot(answer_set, n=0)
    make_slot(answer_set, n=0)


def two_slots_of_one_set(answer_set: AnswerSet, ann: User) -> None:
    make_slot(answer_set, state=State.DONE, holder=ann)
    hold(make_slot(answer_set), ann)


def same_token(answer_set: AnswerSet, ann: User) -> None:
    token, now = uuid.uuid4(), timezone.now()
    for _ in range(2):
        make_slot(answer_set, state=State.HELD, lease_token=token, lease_until=now)


def unknown_state(answer_set: AnswerSet, ann: User) -> None:
    make_slot(answer_set, state="lost")


def held_without_a_lease(answer_set: AnswerSet, ann: User) -> None:
    make_slot(answer_set, state=State.HELD, holder=ann, lease_token=uuid.uuid4())


def unknown_kind(answer_set: AnswerSet, ann: User) -> None:
    make_slot(answer_set, kind="exam")


def open_but_held(answer_set: AnswerSet, ann: User) -> None:
    make_slot(answer_set, state=State.OPEN, holder=ann)


BROKEN: dict[str, Break] = {
    "slot_n_once_per_set": same_number,
    "one_slot_per_annotator_and_set": two_slots_of_one_set,
    "lease_token_once": same_token,
    "slot_state_known": unknown_state,
    "slot_kind_known": unknown_kind,
    "held_slot_has_a_lease": held_without_a_lease,
    "open_slot_has_no_holder": open_but_held,
}


def test_every_constraint_is_broken_here() -> None:
    of_slots = {(Slot, name) for name in BROKEN}
    assert names_of(Slot, Pool) == of_slots | {(Pool, "pool_once_per_project")}


def test_a_language_and_skill_have_one_pool(project: Project) -> None:
    make_pool(project, "en", "law")
    refused_by(
        Pool,
        "pool_once_per_project",
        lambda: Pool.objects.create(project=project, language="en", skill="law"),
    )


@pytest.mark.parametrize("name", BROKEN)
def test_the_database_refuses(name: str, project: Project, ann: User) -> None:
    answer_set = make_answer_set(project)
    refused_by(Slot, name, lambda: BROKEN[name](answer_set, ann))


def test_closed_slots_of_one_person_and_set_may_be_many(project: Project, ann: User) -> None:
    answer_set = make_answer_set(project)
    for _ in range(2):
        make_slot(answer_set, state=State.CLOSED, holder=ann)
    assert Slot.objects.count() == 2
