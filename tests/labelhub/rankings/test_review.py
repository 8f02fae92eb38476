"""Where opinions differ a reviewer decides; and which submits have consequences at all."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from labelhub.accounts.models import User
from labelhub.assignments.actions import claim_review
from labelhub.assignments.models import Slot
from labelhub.projects.models import Project
from labelhub.prompts.models import AnswerSet
from labelhub.rankings.actions import skip
from labelhub.rankings.models import Ranking
from labelhub.rankings.queries import usable_rankings
from labelhub.rankings.rules import mean_tau
from labelhub.rankings.signals import ranking_submitted
from tests.factories import make_answer_set, make_project, make_prompt, make_ranking, make_user
from tests.labelhub.rankings.desk import (
    BEST_FIRST,
    WORST_FIRST,
    correct,
    heard,
    pass_on,
    rank,
    seat,
    states,
    submit,
)

pytestmark = pytest.mark.django_db
Kind, Purpose = Slot.Kind, AnswerSet.Purpose


@pytest.fixture
def shared(project: Project) -> AnswerSet:
    """A set on which two opinions are wanted."""
    return make_answer_set(project, slots=2)


def reviews(answer_set: AnswerSet) -> list[str]:
    return states(answer_set, Kind.REVIEW)


def disagree(answer_set: AnswerSet, one: User, other: User) -> tuple[Ranking, Ranking]:
    return rank(answer_set, one, BEST_FIRST), rank(answer_set, other, WORST_FIRST)


# --- when a reviewer is asked


def test_opposite_opinions_go_to_a_reviewer(shared: AnswerSet, ann: User, ben: User) -> None:
    disagree(shared, ann, ben)
    assert reviews(shared) == ["open"]


def test_like_opinions_need_no_reviewer(shared: AnswerSet, ann: User, ben: User) -> None:
    rank(shared, ann, (1, 2, 3, 4))
    rank(shared, ben, (2, 1, 3, 4))  # tau-b = (5 - 1) / 6
    assert reviews(shared) == []


def test_the_project_says_how_far_they_may_differ(
    shared: AnswerSet, project: Project, ann: User, ben: User
) -> None:
    project.review_below = 0.7
    project.save()
    rank(shared, ann, (1, 2, 3, 4))
    rank(shared, ben, (2, 1, 3, 4))
    assert reviews(shared) == ["open"]


def test_a_project_may_want_no_reviews(
    shared: AnswerSet, project: Project, ann: User, ben: User
) -> None:
    project.review_below = None
    project.save()
    disagree(shared, ann, ben)
    assert reviews(shared) == []


def test_nobody_is_asked_before_the_last_opinion_is_in(
    project: Project, ann: User, ben: User
) -> None:
    answer_set = make_answer_set(project, slots=3)
    disagree(answer_set, ann, ben)
    assert reviews(answer_set) == []
    rank(answer_set, seat(project, "cid"), WORST_FIRST)
    assert reviews(answer_set) == ["open"]  # (-1 + -1 + 1) / 3 < 0


def test_a_tie_of_all_says_neither_yes_nor_no(shared: AnswerSet, ann: User, ben: User) -> None:
    rank(shared, ann, BEST_FIRST)
    rank(shared, ben, (1, 1, 1, 1))
    assert reviews(shared) == []


def test_a_skip_may_leave_the_opinions_that_differ(project: Project, ann: User, ben: User) -> None:
    answer_set = make_answer_set(project, slots=3)
    disagree(answer_set, ann, ben)
    pass_on(answer_set, seat(project, "cid"), "harmful")
    assert states(answer_set) == ["done", "done", "closed"]
    assert reviews(answer_set) == ["open"]


def test_a_correction_may_part_opinions_that_were_alike(
    shared: AnswerSet, ann: User, ben: User
) -> None:
    rank(shared, ann)
    bens = rank(shared, ben)
    correct(bens, ben, WORST_FIRST)
    assert reviews(shared) == ["open"]


def test_simulated_annotators_have_no_reviewers() -> None:
    robots = [make_user(f"robot{n}", is_simulated=True) for n in range(2)]
    project = make_project(annotators=robots, is_simulated=True, admins=[make_user("boss")])
    answer_set = make_answer_set(project, slots=2)
    disagree(answer_set, *robots)
    assert reviews(answer_set) == []


def test_nobody_waits_for_a_reviewer_who_cannot_come(
    shared: AnswerSet, ann: User, ada: User
) -> None:
    disagree(shared, ann, ada)  # the only one who may decide has an opinion of her own
    assert reviews(shared) == []


def test_a_decided_set_is_not_asked_about_again(
    shared: AnswerSet, project: Project, ann: User, ben: User, ada: User
) -> None:
    anns, _bens = disagree(shared, ann, ben)
    submit(claim_review(project=project, by=ada), ada)
    correct(anns, ann, (1, 2, 4, 3))
    assert reviews(shared) == ["done"]


# --- the decision


def test_a_decision_stands_for_the_set_and_the_opinions_beside_it(
    shared: AnswerSet, project: Project, ann: User, ben: User, ada: User
) -> None:
    disagree(shared, ann, ben)
    slot = claim_review(project=project, by=ada)
    decision = submit(slot, ada, (2, 1, 3, 4))
    assert (decision.adjudicates, decision.slot_id) == (True, slot.pk)
    assert list(usable_rankings(project)) == [decision]
    assert shared.rankings.count() == 3
    assert states(shared) == ["done", "done"]


def test_an_opinion_decides_nothing(shared: AnswerSet, ann: User) -> None:
    assert rank(shared, ann).adjudicates is False


def test_a_reviewer_cannot_decide_about_an_opinion_of_their_own(
    shared: AnswerSet, project: Project, ann: User, ben: User
) -> None:
    rita = seat(project, "rita", "reviewer")
    disagree(shared, ann, rita)
    assert reviews(shared) == ["open"]
    assert claim_review(project=project, by=rita) is None


def test_a_skipped_review_is_for_the_other_reviewers(
    shared: AnswerSet, project: Project, ann: User, ben: User, ada: User
) -> None:
    rita = seat(project, "rita", "reviewer")
    disagree(shared, ann, ben)
    pass_on_review(claim_review(project=project, by=ada), ada)
    assert reviews(shared) == ["open"]
    pass_on_review(claim_review(project=project, by=rita), rita)
    assert reviews(shared) == ["closed"]


def pass_on_review(slot: Slot, by: User) -> None:
    skip(slot_id=slot.pk, token=slot.lease_token, reason="other", note="", by=by)


# --- what may be trained on


def test_one_voice_for_each_person_and_set_may_be_trained_on(
    project: Project, ann: User, ben: User
) -> None:
    answer_set = make_answer_set(project)
    both = {make_ranking(answer_set, ann), make_ranking(answer_set, ben)}
    for purpose in (Purpose.GOLD, Purpose.TUTORIAL, Purpose.COMPARE):
        make_ranking(make_answer_set(project, purpose=purpose), ann)
    again = AnswerSet.objects.create(
        prompt=answer_set.prompt, purpose=Purpose.REPEAT, original=answer_set
    )
    make_ranking(again, ann, [])
    held_out = make_prompt(project, held_out=True)
    make_ranking(make_answer_set(project, prompt=held_out), ann)
    make_ranking(make_answer_set(project), make_user("robot", is_simulated=True))
    make_ranking(make_answer_set(make_project("elsewhere", annotators=[ann])), ann)
    assert set(usable_rankings(project)) == both


@pytest.mark.parametrize(
    ("purpose", "kind"),
    [
        (Purpose.GOLD, Kind.GOLD),
        (Purpose.TUTORIAL, Kind.TUTORIAL),
    ],
)
def test_what_decides_nothing_is_told_to_nobody(
    project: Project,
    ann: User,
    purpose: str,
    kind: str,
    django_capture_on_commit_callbacks: Callable,
) -> None:
    answer_set = make_answer_set(project, purpose=purpose)
    with heard(ranking_submitted) as said, django_capture_on_commit_callbacks(execute=True):
        ranking = rank(answer_set, ann, kind=kind)
    assert (said, ranking.adjudicates) == ([], False)


def test_opinions_and_decisions_are_told(
    shared: AnswerSet,
    project: Project,
    ann: User,
    ben: User,
    ada: User,
    django_capture_on_commit_callbacks: Callable,
) -> None:
    with heard(ranking_submitted) as said, django_capture_on_commit_callbacks(execute=True):
        opinions = disagree(shared, ann, ben)
        decision = submit(claim_review(project=project, by=ada), ada)
    assert [one["ranking_id"] for one in said] == [*(one.pk for one in opinions), decision.pk]


# --- the rule alone


def test_the_mean_is_taken_over_all_pairs_of_opinions() -> None:
    up, down, swapped = (dict(enumerate(o)) for o in ((1, 2, 3), (3, 2, 1), (2, 1, 3)))
    assert mean_tau([up, down]) == -1
    # up-down -1, up-swapped (2 - 1) / 3, down-swapped (1 - 2) / 3
    assert mean_tau([up, down, swapped]) == pytest.approx(-1 / 3)


def test_without_two_orders_there_is_no_mean() -> None:
    tied = {1: 1, 2: 1}
    assert mean_tau([]) is None
    assert mean_tau([{1: 1, 2: 2}]) is None
    assert mean_tau([tied, {1: 1, 2: 2}]) is None
