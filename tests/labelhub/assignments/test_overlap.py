"""How many opinions are wanted on which set."""

from __future__ import annotations

import pytest
from django.utils import timezone

from labelhub.accounts.models import AuditEntry, User
from labelhub.assignments.actions import (
    claim_next,
    close_open,
    open_for_ranking,
    open_slots,
    release,
    release_held_back,
    send_to_skill,
)
from labelhub.assignments.models import Slot
from labelhub.assignments.queries import held_back
from labelhub.assignments.rules import overlap_plan, shared
from labelhub.projects.models import Project
from labelhub.prompts.models import AnswerSet
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
State, Kind = Slot.State, Slot.Kind


def plan(ids: range, **changes: float) -> dict[int, int]:
    wishes = {"overlap": 1, "shared_share": 0.2, "shared_overlap": 3, "annotators": 5} | changes
    return overlap_plan(ids, project_id=1, **wishes)


def wanted(answer_set: AnswerSet) -> int:
    return answer_set.slots.filter(kind=Kind.OPINION).exclude(state=State.CLOSED).count()


# --- the plan


def test_a_share_of_the_sets_gets_more_opinions() -> None:
    # Of 5,000 sets 1,000 are expected, the standard deviation is sqrt(5,000 · 0.2 · 0.8) = 28.
    planned = plan(range(5000))
    assert set(planned.values()) == {1, 3}
    assert 860 < list(planned.values()).count(3) < 1140


def test_a_set_has_its_part_in_the_plan_whatever_stands_beside_it() -> None:
    assert plan(range(100)) == {pk: plan(range(pk, pk + 1))[pk] for pk in range(100)}


def test_all_or_none_are_shared_if_that_is_the_share() -> None:
    assert set(plan(range(50), shared_share=0).values()) == {1}
    assert set(plan(range(50), shared_share=1).values()) == {3}


@pytest.mark.parametrize(
    ("overlap", "shared_overlap", "annotators", "expected"),
    [
        (1, 3, 5, 3),  # as wished
        (1, 3, 2, 2),  # two annotators cannot give three opinions
        (1, 3, 0, 1),  # nobody yet: what is wished for every set stays
        (4, 3, 2, 4),  # wished for by name, though there are two annotators only
    ],
)
def test_a_shared_set_wants_no_more_than_there_are_annotators(
    overlap: int, shared_overlap: int, annotators: int, expected: int
) -> None:
    assert shared(overlap, shared_overlap, annotators) == expected


# --- opening


def test_opening_for_ranking_follows_the_plan(ann: User, ben: User) -> None:
    project = make_project(annotators=[ann, ben], shared_share=0.5, shared_overlap=2)
    sets = [make_answer_set(project, answers=2) for _ in range(40)]
    opened = open_for_ranking(project=project, answer_sets=sets, overlap=1)
    counts = [wanted(one) for one in sets]
    assert len(opened) == sum(counts)
    assert set(counts) == {1, 2}
    assert len(open_for_ranking(project=project, answer_sets=sets, overlap=1)) == len(opened)
    entry = AuditEntry.objects.filter(action="slots.open").first()
    assert entry.details["answer_sets"] == 40


@pytest.mark.parametrize("gone", ["paused", "admin", "language"])
def test_only_annotators_who_are_there_and_able_are_counted(
    ann: User, ben: User, gone: str
) -> None:
    project = make_project(annotators=[ann, ben], shared_share=1, shared_overlap=3)
    changes = {
        "paused": {"paused_at": timezone.now()},
        "admin": {"role": "admin"},
        "language": {"languages": ["zh"]},
    }[gone]
    project.memberships.filter(user=ben).update(**changes)
    english = make_answer_set(project)
    open_for_ranking(project=project, answer_sets=[english], overlap=1)
    assert wanted(english) == 1


def test_simulated_projects_get_the_plain_overlap() -> None:
    robots = [make_user(is_simulated=True) for _ in range(3)]
    project = make_project(
        annotators=robots, is_simulated=True, shared_share=1, shared_overlap=3, newcomer_sets=9
    )
    answer_set = make_answer_set(project)
    open_for_ranking(project=project, answer_sets=[answer_set], overlap=1)
    claim_next(project=project, by=robots[0])
    assert wanted(answer_set) == 1


def test_sets_that_name_a_model_wait_for_an_admin(ann: User, ada: User) -> None:
    project = make_project(annotators=[ann], admins=[ada], hold_back_leaks=True)
    clean, leaking = make_answer_set(project), make_answer_set(project)
    leaking.answers.filter(n=1).update(names_model=True)
    open_for_ranking(project=project, answer_sets=[clean, leaking], overlap=1)
    assert (wanted(clean), wanted(leaking)) == (1, 0)
    assert list(held_back(project)) == [leaking]
    release_held_back(answer_set=leaking, by=ada)
    assert wanted(leaking) == 1
    assert list(held_back(project)) == []


def test_where_leaks_are_allowed_nothing_is_held_back(project: Project) -> None:
    leaking = make_answer_set(project)
    leaking.answers.update(names_model=True)
    open_for_ranking(project=project, answer_sets=[leaking], overlap=1)
    assert wanted(leaking) == 1
    assert list(held_back(project)) == []


def test_reviews_and_known_rankings_are_no_part_of_the_wish(project: Project, ann: User) -> None:
    answer_set = make_answer_set(project)
    make_slot(answer_set, kind=Kind.REVIEW)
    make_slot(answer_set, kind=Kind.GOLD, state=State.DONE, holder=ann)
    opened = open_slots(project=project, answer_sets=[answer_set], overlap=2)
    assert [slot.n for slot in opened] == [2, 3]
    open_slots(project=project, answer_sets=[answer_set], overlap=1)
    assert answer_set.slots.get(kind=Kind.REVIEW).state == State.OPEN


def test_lowering_closes_what_bears_a_name_last(project: Project, ann: User) -> None:
    answer_set = make_answer_set(project)
    make_slot(answer_set, n=0)
    named = make_slot(answer_set, n=1, reserved_for=ann)
    left = open_slots(project=project, answer_sets=[answer_set], overlap=1)
    assert left == [named]


# --- newcomers


def newcomers(ann: User, ben: User, **fields: object) -> Project:
    settings = {"newcomer_sets": 2, "shared_overlap": 3}
    return make_project("fresh", annotators=[ann, ben], **(settings | fields))


def test_the_first_sets_of_a_newcomer_are_ranked_by_others_too(ann: User, ben: User) -> None:
    project = newcomers(ann, ben)
    sets = [make_answer_set(project, slots=1) for _ in range(3)]
    counts = []
    for _ in sets:
        slot = claim_next(project=project, by=ann)
        counts.append(wanted(slot.answer_set))
        Slot.objects.filter(pk=slot.pk).update(state=State.DONE, lease_token=None, lease_until=None)
    # Two annotators: two opinions. The third set is no newcomer's any more.
    assert counts == [2, 2, 1]


def test_leaving_and_coming_back_raises_no_further(ann: User, ben: User) -> None:
    project = newcomers(ann, ben)
    answer_set = make_answer_set(project, slots=1)
    for _ in range(3):
        slot = claim_next(project=project, by=ann)
        release(slot_id=slot.pk, token=slot.lease_token, by=ann)
    assert wanted(answer_set) == 2


def test_a_set_that_others_rank_anyway_is_not_raised(ann: User, ben: User) -> None:
    project = newcomers(ann, ben)
    answer_set = make_answer_set(project, slots=1)
    make_ranking(answer_set, ben)
    claim_next(project=project, by=ann)
    assert wanted(answer_set) == 2


@pytest.mark.parametrize("role", ["reviewer", "admin"])
def test_reviewers_and_admins_are_no_newcomers(ann: User, ben: User, role: str) -> None:
    project = newcomers(ann, ben)
    project.memberships.filter(user=ann).update(role=role)
    answer_set = make_answer_set(project, slots=1)
    claim_next(project=project, by=ann)
    assert wanted(answer_set) == 1


# --- sets that others must see


def test_closing_takes_what_nobody_holds(project: Project, ann: User) -> None:
    answer_set, other = make_answer_set(project, slots=3), make_answer_set(project, slots=1)
    held = hold(answer_set.slots.get(n=1), ann)
    assert close_open(answer_sets=[answer_set]) == 2
    assert list(answer_set.slots.exclude(state=State.CLOSED)) == [held]
    assert wanted(other) == 1


def test_a_set_is_sent_to_those_with_a_skill(project: Project, ann: User, ben: User) -> None:
    prompt = make_prompt(project, language="zh")
    answer_set = make_answer_set(project, prompt=prompt, slots=2)
    project.memberships.filter(user=ben).update(skills=["expert"])
    assert send_to_skill(answer_set=answer_set, skill="expert") == 2
    assert claim_next(project=project, by=ann) is None
    slot = claim_next(project=project, by=ben)
    assert (slot.pool.language, slot.pool.skill) == ("zh", "expert")


@pytest.mark.parametrize("reason", ["harmful", "private"])
def test_what_an_admin_must_look_at_is_not_given_back(
    project: Project, ann: User, ben: User, reason: str
) -> None:
    answer_set = make_answer_set(project, slots=2)
    slot = hold(answer_set.slots.get(n=0), ann)
    skip = Skip.objects.create(
        slot=answer_set.slots.get(n=1), answer_set=answer_set, annotator=ben, reason=reason
    )
    release(slot_id=slot.pk, token=slot.lease_token, by=ann)
    assert Slot.objects.get(pk=slot.pk).state == State.CLOSED
    Skip.objects.filter(pk=skip.pk).update(handled_at=timezone.now())
    again = hold(Slot.objects.get(pk=slot.pk), ann)
    release(slot_id=again.pk, token=again.lease_token, by=ann)
    assert Slot.objects.get(pk=slot.pk).state == State.OPEN


def test_a_set_of_a_retired_prompt_is_not_given_back(project: Project, ann: User) -> None:
    answer_set = make_answer_set(project, slots=1)
    slot = hold(answer_set.slots.get(), ann)
    answer_set.prompt.retired = True
    answer_set.prompt.save()
    release(slot_id=slot.pk, token=slot.lease_token, by=ann)
    assert Slot.objects.get().state == State.CLOSED
