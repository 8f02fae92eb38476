"""A person's data is deleted, the opinions are wanted anew, and what was made of it is named."""

from __future__ import annotations

import uuid
from collections.abc import Callable

import pytest

from labelhub.accounts.models import AuditEntry, User
from labelhub.assignments.models import Slot
from labelhub.projects.models import Project
from labelhub.prompts.models import AnswerSet
from labelhub.rankings.actions import Forgotten, flag_answer, forget_person
from labelhub.rankings.models import (
    Flag,
    QualityReport,
    Ranking,
    RankingItem,
    RankingRevision,
    Skip,
)
from labelhub.rankings.queries import usable_rankings
from labelhub.rounds.models import Round
from labelhub.runs.actions import take_snapshot
from tests.factories import make_answer_set, make_project, make_version
from tests.labelhub.rankings.desk import (
    BEST_FIRST,
    WORST_FIRST,
    correct,
    only,
    pass_on,
    rank,
    states,
    take,
)

pytestmark = pytest.mark.django_db
Kind, Purpose = Slot.Kind, AnswerSet.Purpose


@pytest.fixture
def answer_set(project: Project) -> AnswerSet:
    return make_answer_set(project, slots=2)


def test_all_that_the_person_gave_is_gone(
    answer_set: AnswerSet, project: Project, ann: User, ben: User, ada: User
) -> None:
    correct(rank(answer_set, ann), ann, WORST_FIRST)
    pass_on(make_answer_set(project, slots=1), ann)
    flag_answer(answer=answer_set.answers.first(), note="Rude.", by=ann)
    kept = rank(answer_set, ben)
    QualityReport.objects.create(project=project, rankings=2, figures={str(ann.pk): 1})
    found = forget_person(project=project, user=ann, by=ada)
    assert found == Forgotten(rankings=1, revisions=1, skips=1, flags=1, snapshots=())
    assert list(Ranking.objects.all()) == [kept]
    assert RankingItem.objects.count() == 4
    for kind in (RankingRevision, Skip, Flag, QualityReport):
        assert not kind.objects.exists(), kind
    assert not Slot.objects.filter(holder=ann).exists()
    entry = AuditEntry.objects.get(action="person.forget")
    assert (entry.actor_name, entry.details["user"]) == ("ada", ann.pk)


def test_the_opinion_is_wanted_anew(answer_set: AnswerSet, project: Project, ann: User) -> None:
    rank(answer_set, ann)
    forget_person(project=project, user=ann, by=ann)
    assert states(answer_set) == ["open", "open"]
    assert rank(answer_set, ann, BEST_FIRST).pk  # nothing stands in the way of beginning again


@pytest.mark.parametrize("state", ["reward", "promoted", "rejected"])
def test_not_in_a_round_that_went_on(
    answer_set: AnswerSet, project: Project, ann: User, state: str
) -> None:
    base = make_version()
    turn = Round.objects.create(
        project=project, number=1, policy_in=base, reward_base=base, state=state
    )
    turn.answer_sets.add(answer_set)
    rank(answer_set, ann)
    forget_person(project=project, user=ann, by=ann)
    assert sorted(states(answer_set)) == ["closed", "open"]


def test_a_round_that_is_being_ranked_asks_again(
    answer_set: AnswerSet, project: Project, ann: User
) -> None:
    base = make_version()
    turn = Round.objects.create(
        project=project, number=1, policy_in=base, reward_base=base, state="rank"
    )
    turn.answer_sets.add(answer_set)
    rank(answer_set, ann)
    forget_person(project=project, user=ann, by=ann)
    assert states(answer_set) == ["open", "open"]


def test_not_of_a_retired_prompt_nor_of_a_set_that_is_set_aside(
    answer_set: AnswerSet, project: Project, ann: User, ben: User
) -> None:
    retired = make_answer_set(project, slots=1)
    for one in (retired, answer_set):
        rank(one, ann)
    retired.prompt.retired = True
    retired.prompt.save()
    pass_on(answer_set, ben, "harmful")
    forget_person(project=project, user=ann, by=ann)
    assert states(retired) == ["closed"]
    assert states(answer_set) == ["closed", "closed"]


def test_not_when_nobody_is_left_who_could_give_it(project: Project, ann: User, ben: User) -> None:
    only(project, ann, ben)
    answer_set = make_answer_set(project, slots=2)
    rank(answer_set, ann)
    rank(answer_set, ben)
    project.memberships.filter(user=ann).delete()
    forget_person(project=project, user=ann, by=ann)
    assert sorted(states(answer_set)) == ["closed", "done"]


def test_much_work_is_forgotten_in_few_questions(
    project: Project, ann: User, django_assert_max_num_queries: Callable
) -> None:
    for _ in range(12):
        rank(make_answer_set(project, slots=1), ann)
    with django_assert_max_num_queries(60):
        assert forget_person(project=project, user=ann, by=ann).rankings == 12


def test_what_is_in_hand_goes_back_to_the_queue(
    answer_set: AnswerSet, project: Project, ann: User
) -> None:
    take(answer_set, ann)
    forget_person(project=project, user=ann, by=ann)
    assert states(answer_set) == ["open", "open"]


@pytest.mark.parametrize(
    ("purpose", "kind"), [(Purpose.GOLD, Kind.GOLD), (Purpose.TUTORIAL, Kind.TUTORIAL)]
)
def test_sets_made_for_the_person_are_closed(
    project: Project, ann: User, purpose: str, kind: str
) -> None:
    done, held = (make_answer_set(project, purpose=purpose) for _ in range(2))
    rank(done, ann, kind=kind)
    take(held, ann, kind=kind)
    forget_person(project=project, user=ann, by=ann)
    assert states(done, kind) == states(held, kind) == ["closed"]
    assert not Slot.objects.filter(holder=ann).exists()


def test_a_decision_is_wanted_anew_and_the_opinions_count_meanwhile(
    answer_set: AnswerSet, project: Project, ann: User, ben: User, ada: User
) -> None:
    rank(answer_set, ann, BEST_FIRST)
    rank(answer_set, ben, WORST_FIRST)
    rank(answer_set, ada, kind=Kind.REVIEW)
    forget_person(project=project, user=ada, by=ada)
    assert states(answer_set, Kind.REVIEW) == ["open"]
    assert usable_rankings(project).count() == 2


def test_snapshots_keep_their_count_and_lose_the_link(
    answer_set: AnswerSet, project: Project, ann: User, ben: User, ada: User
) -> None:
    rank(answer_set, ann)
    bens = rank(answer_set, ben)
    snapshot = take_snapshot(project=project, rankings=usable_rankings(project), by=ada)
    found = forget_person(project=project, user=ann, by=ada)
    assert found.snapshots == (snapshot.pk,)
    snapshot.refresh_from_db()
    assert (snapshot.count, snapshot.items.count()) == (2, 2)
    assert list(snapshot.rankings.all()) == [bens]


def test_other_projects_and_other_people_are_left_alone(
    answer_set: AnswerSet, project: Project, ann: User, ben: User
) -> None:
    elsewhere = make_answer_set(make_project("elsewhere", annotators=[ann]), slots=1)
    kept = {rank(elsewhere, ann), rank(answer_set, ben)}
    pass_on(make_answer_set(project, slots=1), ben)
    assert forget_person(project=project, user=ann, by=ann).rankings == 0
    assert set(Ranking.objects.all()) == kept
    assert Skip.objects.count() == 1


def test_forgetting_twice_finds_nothing_more(
    answer_set: AnswerSet, project: Project, ann: User
) -> None:
    rank(answer_set, ann, idempotency_key=uuid.uuid4())
    assert forget_person(project=project, user=ann, by=ann).rankings == 1
    again = forget_person(project=project, user=ann, by=ann)
    assert again == Forgotten(rankings=0, revisions=0, skips=0, flags=0, snapshots=())
