"""Who is offered what: languages, skills, names, roles and pauses."""

from __future__ import annotations

import pytest
from django.utils import timezone

from labelhub.accounts.models import User
from labelhub.assignments.actions import claim_next, hand_back, release
from labelhub.assignments.models import Slot
from labelhub.assignments.queries import queue_counts, who_may_take
from labelhub.projects.models import Membership, Project
from labelhub.prompts.models import AnswerSet
from tests.factories import (
    hold,
    make_answer_set,
    make_pool,
    make_project,
    make_prompt,
    make_slot,
    make_user,
)
from tests.labelhub.assignments.chance import StartAt

pytestmark = pytest.mark.django_db
State = Slot.State


def seat(project: Project, user: User, **fields: object) -> None:
    Membership.objects.filter(project=project, user=user).update(**fields)


def open_set(project: Project, **prompt: str) -> AnswerSet:
    return make_answer_set(project, prompt=make_prompt(project, **prompt), slots=1)


def given(project: Project, by: User) -> list[AnswerSet]:
    """All that this person is given, one set after the other."""
    sets = []
    while slot := claim_next(project=project, by=by):
        sets.append(slot.answer_set)
        Slot.objects.filter(pk=slot.pk).update(state=State.DONE, lease_token=None, lease_until=None)
    return sets


def test_who_names_no_language_is_offered_all(project: Project, ann: User) -> None:
    sets = [open_set(project, language=code) for code in ("en", "zh", "de")]
    assert queue_counts(project, ann).left_for_me == 3
    assert set(given(project, ann)) == set(sets)


def test_others_are_offered_their_languages(project: Project, ann: User, ben: User) -> None:
    english, chinese = open_set(project, language="en"), open_set(project, language="zh")
    seat(project, ann, languages=["zh", "fr"])
    seat(project, ben, languages=["en"])
    assert queue_counts(project, ann).left_for_me == 1
    assert given(project, ann) == [chinese]
    assert given(project, ben) == [english]


def test_work_that_needs_a_skill_goes_to_who_has_it(project: Project, ann: User, ben: User) -> None:
    plain, medical = open_set(project), open_set(project, skill="medicine")
    seat(project, ben, skills=["medicine"])
    assert given(project, ann) == [plain]
    assert given(project, ben) == [medical]


@pytest.mark.parametrize("role", ["reviewer", "admin"])
def test_reviewers_and_admins_have_all_skills(project: Project, ann: User, role: str) -> None:
    medical = open_set(project, skill="medicine")
    seat(project, ann, role=role)
    assert given(project, ann) == [medical]


def test_a_band_that_lies_in_two_pools_is_one_ring(project: Project) -> None:
    for language, shuffle in (("en", 10), ("zh", 20), ("en", 30)):
        prompt = make_prompt(project, language=language)
        make_slot(make_answer_set(project, prompt=prompt), priority=4.0, shuffle=shuffle)
    # A lower band, in a pool that has no other work.
    prompt = make_prompt(project, language="de")
    make_slot(make_answer_set(project, prompt=prompt), priority=1.0, shuffle=15)
    order = []
    for start in (11, 11, 11, 11):
        annotator = make_user()
        project.memberships.create(user=annotator)
        slot = claim_next(project=project, by=annotator, rng=StartAt(start))
        order.append((slot.pool.language, slot.shuffle))
    assert order == [("zh", 20), ("en", 30), ("en", 10), ("de", 15)]


def test_what_bears_ones_name_comes_first_and_to_nobody_else(
    project: Project, ann: User, ben: User
) -> None:
    urgent = make_slot(make_answer_set(project), priority=9.0)
    named = make_slot(make_answer_set(project), priority=1.0, reserved_for=ann)
    assert claim_next(project=project, by=ben).pk == urgent.pk
    assert claim_next(project=project, by=ann).pk == named.pk
    release(slot_id=urgent.pk, token=Slot.objects.get(pk=urgent.pk).lease_token, by=ben)
    assert queue_counts(project, ben).left_for_me == 1


def test_what_bears_ones_name_needs_no_skill(project: Project, ann: User) -> None:
    prompt = make_prompt(project, skill="law", language="zh")
    slot = make_slot(make_answer_set(project, prompt=prompt), reserved_for=ann)
    seat(project, ann, languages=["en"])
    assert claim_next(project=project, by=ann).pk == slot.pk


def test_who_pauses_is_given_nothing(project: Project, ann: User) -> None:
    open_set(project)
    seat(project, ann, paused_at=timezone.now())
    assert claim_next(project=project, by=ann) is None
    assert queue_counts(project, ann).left_for_me == 0


def test_simulated_annotators_do_not_rank_for_people() -> None:
    robot = make_user("robot", is_simulated=True)
    project = make_project(annotators=[robot])
    open_set(project)
    assert claim_next(project=project, by=robot) is None
    assert queue_counts(project, robot).left_for_me == 0


def test_handing_back_frees_what_is_held_and_what_bears_the_name(
    project: Project, ann: User, ben: User
) -> None:
    held = hold(open_set(project).slots.get(), ann)
    named = make_slot(make_answer_set(project), reserved_for=ann)
    elsewhere = hold(open_set(make_project(annotators=[ann])).slots.get(), ann)
    bens = hold(open_set(project).slots.get(), ben)
    assert hand_back(project=project, user=ann) == 2
    found = Slot.objects.in_bulk([held.pk, named.pk, elsewhere.pk, bens.pk])
    assert (found[held.pk].state, found[held.pk].holder) == (State.OPEN, None)
    assert (found[named.pk].state, found[named.pk].reserved_for) == (State.OPEN, None)
    assert found[elsewhere.pk].holder == ann
    assert found[bens.pk].holder == ben
    assert hand_back(project=project, user=ann) == 0


def test_those_who_may_take_work_are_there_and_able(
    project: Project, ann: User, ben: User, ada: User
) -> None:
    project.memberships.create(user=make_user("robot", is_simulated=True))
    project.memberships.create(user=make_user("gone", is_active=False))
    seat(project, ann, languages=["en"])
    seat(project, ben, languages=["zh"], skills=["law"])

    def names(pool_language: str, skill: str = "") -> set[str]:
        pool = make_pool(project, pool_language, skill)
        return set(who_may_take(project, pool).values_list("user__username", flat=True))

    assert names("en") == {"ann", "ada"}
    assert names("zh", "law") == {"ben", "ada"}
    seat(project, ben, paused_at=timezone.now())
    assert names("zh", "law") == {"ada"}
