"""What pages read about rounds."""

from __future__ import annotations

import pytest
from django.http import Http404

from labelhub.accounts.models import User
from labelhub.assignments.models import Slot
from labelhub.projects.models import Project
from labelhub.prompts.models import Answer
from labelhub.rounds import queries
from labelhub.rounds.models import Round
from labelhub.runs.models import Run
from tests import factories
from tests.labelhub.dashboard import world

pytestmark = pytest.mark.django_db


def test_the_current_round_is_the_open_one_else_the_newest(project: Project) -> None:
    assert queries.current_round(project) is None
    first = world.make_round(project, Round.State.PROMOTED, number=1)
    assert queries.current_round(project) == first
    second = world.make_round(project, Round.State.RANK, number=2)
    assert queries.current_round(project) == second


def test_a_round_is_found_by_its_number_in_its_project(project: Project) -> None:
    world.make_round(project, number=1)
    assert queries.get_round_or_404(project, 1).number == 1
    with pytest.raises(Http404):
        queries.get_round_or_404(factories.make_project("other"), 1)


def test_answers_to_compare_are_not_counted_as_answers_to_rank(project: Project) -> None:
    turn = world.decided(project)
    world.add_sets(turn, 2)
    written = queries.written(turn)
    assert (written.prompts, written.sets, written.answers) == (2, 2, 8)


def test_opinions_are_counted_by_what_became_of_their_slots(
    project: Project, ann: User, ben: User
) -> None:
    turn = world.make_round(project, Round.State.RANK)
    one, two, three, four = world.add_sets(turn, 4)
    world.rank([one], ann)
    factories.hold(two.slots.get(), ben)
    Slot.objects.filter(answer_set=four).update(state=Slot.State.CLOSED)
    ranked = queries.ranked(turn)
    assert (ranked.wanted, ranked.done, ranked.held, ranked.left) == (3, 1, 1, 2)
    assert (ranked.rankings, ranked.annotators, ranked.simulated) == (1, 1, 0)
    assert three.slots.get().state == Slot.State.OPEN


def test_people_and_simulated_annotators_are_counted_apart(project: Project, ann: User) -> None:
    robot = factories.make_user("robot", is_simulated=True)
    turn = world.make_round(project, Round.State.RANK)
    one, two = world.add_sets(turn, 2)
    world.rank([one], ann)
    world.rank([two], robot)
    ranked = queries.ranked(turn)
    assert (ranked.by_people, ranked.simulated, ranked.annotators) == (1, 1, 2)


def test_rankings_of_another_round_do_not_count(project: Project, ann: User) -> None:
    old = world.make_round(project, Round.State.PROMOTED, number=1)
    world.rank(world.add_sets(old, 2), ann)
    turn = world.make_round(project, Round.State.RANK, number=2)
    assert queries.ranked(turn).rankings == 0


def test_both_policies_answers_stand_side_by_side(project: Project) -> None:
    turn = world.decided(project)
    (pair,) = queries.compared(turn)
    assert pair.asked == "What now?"
    assert (pair.before.version, pair.after.version) == (turn.policy_in, turn.policy_out)
    assert pair.gain == pytest.approx(0.6)


def test_a_pair_without_scores_has_no_gain_and_half_a_pair_is_left_out(project: Project) -> None:
    turn = world.make_round(project, Round.State.DECIDE)
    whole = world.compare(turn, factories.make_prompt(project), "b", "a", None, 0.5)
    half = world.compare(turn, factories.make_prompt(project), "b", "a", 0.1, 0.2)
    Answer.objects.filter(answer_set=half, n=1).delete()
    pairs = queries.compared(turn)
    assert [pair.before.answer_set for pair in pairs] == [whole]
    assert pairs[0].gain is None


def test_the_newest_run_of_each_stage_is_the_one_that_counts(project: Project) -> None:
    turn = world.make_round(project)
    world.make_run(turn, "ppo", Run.State.FAILED)
    second = world.make_run(turn, "ppo")
    assert queries.latest_runs(turn) == {"ppo": second}
    assert len(queries.runs_in(turn)) == 2


def test_a_gain_needs_both_scores_or_its_own_figure() -> None:
    assert queries.gain_of({}) is None
    assert queries.gain_of({"score_before": 0.1}) is None
    told = queries.gain_of({"score_before": 0.25, "score_after": 0.75})
    assert told is not None
    assert (told.value, told.bounds, told.prompts) == (0.5, None, None)
    full = queries.gain_of(world.GAIN_REPORT)
    assert full is not None
    assert (full.value, full.bounds, full.prompts) == (0.6, (0.4, 0.8), 64)


def test_members_work_is_counted_in_the_round_and_in_all(
    project: Project, ann: User, ben: User
) -> None:
    old = world.make_round(project, Round.State.PROMOTED, number=1)
    world.rank(world.add_sets(old, 2), ann)
    turn = world.make_round(project, Round.State.RANK, number=2)
    world.rank(world.add_sets(turn, 1), ann)
    other = factories.make_project("other", annotators=[ann])
    factories.make_ranking(factories.make_answer_set(other), ann)
    work = {one.user.username: one for one in queries.members_work(project, turn)}
    assert list(work) == ["ann", "ada", "ben"], "the busiest first, then by name"
    assert (work["ann"].rankings, work["ann"].in_round) == (3, 1)
    assert work["ann"].seconds_each == 20
    assert (work["ben"].rankings, work["ben"].seconds_each, work["ben"].last) == (0, None, None)


def test_outcomes_hold_what_each_round_reported(project: Project) -> None:
    world.decided(project)
    (outcome,) = queries.outcomes(project)
    assert outcome.accuracy == 0.68
    assert outcome.accuracy_bounds == (0.65, 0.71)
    assert outcome.kl == 8.6
    assert outcome.gain is not None
    assert outcome.gain.value == 0.6


def test_prompts_are_counted_by_what_they_may_be_used_for(project: Project) -> None:
    for fields in ({}, {"language": "zh"}, {"held_out": True}, {"retired": True}):
        factories.make_prompt(project, **fields)
    counts = queries.prompt_counts(project)
    assert (counts.total, counts.free, counts.held_out, counts.retired) == (4, 2, 1, 1)
    assert counts.languages == {"en": 1, "zh": 1}
