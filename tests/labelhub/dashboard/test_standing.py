"""Where a round stands: six steps, one sentence, and what may be asked of it."""

from __future__ import annotations

from datetime import timedelta

import pytest

from labelhub.accounts.models import User
from labelhub.dashboard.standing import gates_of, how_far, standing_of
from labelhub.projects.models import Project
from labelhub.rounds.models import Round
from labelhub.runs.models import Run
from labelhub.runs.queries import progress_of
from tests import factories
from tests.labelhub.dashboard import world

pytestmark = pytest.mark.django_db


def states(turn: Round) -> list[str]:
    return [step.state for step in standing_of(turn).steps]


def step(turn: Round, key: str) -> tuple[str, str]:
    found = next(one for one in standing_of(turn).steps if one.key == key)
    return found.figure, found.detail


def test_a_running_stage_is_now_and_the_stages_before_it_are_done(project: Project) -> None:
    turn = world.make_round(project, Round.State.PPO)
    world.make_run(turn, "ppo", step=9, total=14, eta_seconds=372)
    assert states(turn) == ["done", "done", "done", "now", "todo", "todo"]
    standing = standing_of(turn)
    assert standing.sentence == (
        "Nothing needs you now: the training of the policy is under way, about 6 min left."
    )
    assert standing.now is not None
    assert standing.now.share == pytest.approx(9 / 14)
    assert standing.may == {"stop", "abandon", "mode"}


def test_a_heartbeat_moves_the_bar_between_two_steps(project: Project) -> None:
    turn = world.make_round(project, Round.State.REWARD)
    run = world.make_run(turn, "reward", step=10, total=100)
    world.tell(run, "heartbeat", stage_progress=0.37, eta_s=50)
    standing = standing_of(turn)
    assert standing.now is not None
    assert standing.now.share == pytest.approx(0.37)
    assert standing.now.left == "about 50 s left"


def test_a_heartbeat_of_an_earlier_attempt_says_nothing(project: Project) -> None:
    turn = world.make_round(project, Round.State.REWARD)
    run = world.make_run(turn, "reward", attempt=2, step=10, total=100)
    world.tell(run, "heartbeat", attempt=1, stage_progress=0.9, eta_s=5)
    standing = standing_of(turn)
    assert standing.now is not None
    assert standing.now.share == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("state", "sentence", "tone", "may"),
    [
        (
            Run.State.QUEUED,
            "Waits for a free worker on the accelerator queue: "
            "the training of the policy comes next.",
            "now",
            {"stop", "abandon", "mode"},
        ),
        (
            Run.State.STOPPING,
            "Is being stopped: the trainer saves a checkpoint first.",
            "now",
            {"abandon", "mode"},
        ),
        (
            Run.State.STOPPED,
            "Was stopped and keeps its checkpoint: it waits for you to resume it.",
            "bad",
            {"resume", "abandon", "mode"},
        ),
        (
            Run.State.FAILED,
            "Failed and waits for you: read the reason, mend it, then resume.",
            "bad",
            {"resume", "abandon", "mode"},
        ),
    ],
)
def test_each_state_of_a_run_has_its_sentence(
    state: str, sentence: str, tone: str, may: set[str], project: Project
) -> None:
    turn = world.make_round(project)
    world.make_run(turn, "ppo", state)
    standing = standing_of(turn)
    assert (standing.sentence, standing.tone, standing.may) == (sentence, tone, may)


def test_only_the_newest_run_of_a_stage_counts(project: Project) -> None:
    turn = world.make_round(project)
    world.make_run(turn, "ppo", Run.State.FAILED, error="Out of memory.")
    world.make_run(turn, "ppo", Run.State.RUNNING)
    standing = standing_of(turn)
    assert standing.tone == "now"
    assert standing.failed is None


def test_a_finished_stage_waits_for_its_admin_only_in_step_mode(project: Project) -> None:
    turn = world.make_round(project, mode=Round.Mode.STEP)
    world.make_run(turn, "ppo", Run.State.FINISHED, report=world.PPO_REPORT)
    standing = standing_of(turn)
    assert "Waits for you: take the next step." in standing.sentence
    assert "step" in standing.may
    Round.objects.update(mode=Round.Mode.AUTO)
    turn.refresh_from_db()
    standing = standing_of(turn)
    assert "begins in a moment" in standing.sentence
    assert "step" not in standing.may


def test_ranking_waits_for_people_and_counts_what_is_left(project: Project, ann: User) -> None:
    turn = world.make_round(project, Round.State.RANK)
    sets = world.add_sets(turn, 3)
    assert standing_of(turn).sentence == ("Waits for annotators: 3 of 3 opinions are still wanted.")
    assert "close_ranking" not in standing_of(turn).may, "there is nothing to train on yet"
    world.rank(sets[:2], ann)
    standing = standing_of(turn)
    assert standing.sentence == "Waits for annotators: 1 of 3 opinions is still wanted."
    assert "close_ranking" in standing.may
    assert step(turn, "rank") == ("2 of 3", "by 1 person")
    assert standing.now is not None
    assert standing.now.share == pytest.approx(2 / 3)


def test_a_set_on_which_opinions_differ_waits_for_a_reviewer(project: Project, ann: User) -> None:
    turn = world.make_round(project, Round.State.RANK)
    disputed = factories.make_answer_set(project)
    turn.answer_sets.add(disputed)
    factories.make_ranking(disputed, ann)
    factories.make_slot(disputed, kind="review")
    assert standing_of(turn).sentence == "Waits for a reviewer: on 1 set the opinions differ."


def test_simulated_annotators_never_pass_for_people(project: Project, ann: User) -> None:
    Project.objects.filter(pk=project.pk).update(is_simulated=True)
    User.objects.filter(pk=ann.pk).update(is_simulated=True)
    ann.refresh_from_db()
    project.refresh_from_db()
    turn = world.make_round(project, Round.State.RANK)
    sets = world.add_sets(turn, 2)
    world.rank(sets[:1], ann)
    standing = standing_of(turn)
    assert standing.sentence == "Simulated annotators are ranking: 1 of 2 opinions is to come."
    assert step(turn, "rank") == ("1 of 2", "by 1 simulated annotator")


def test_the_figures_of_a_whole_round(project: Project) -> None:
    turn = world.decided(project)
    assert states(turn) == ["done", "done", "done", "done", "done", "person"]
    assert step(turn, "reward") == ("68\u202f% ±\u00a03", "right; length alone 57\u202f%")
    assert step(turn, "ppo") == ("14 steps", "KL 8.6 of 12 nats")
    assert step(turn, "evaluate") == (
        "+0.6 ±\u00a00.2",
        "gain in score, n = 64 held-out prompts",
    )
    assert step(turn, "decide") == ("your decision", "everyday/policy-v1")
    assert standing_of(turn).may == {"promote", "reject"}


def test_people_who_ranked_the_same_answers_have_an_agreement(project: Project, ann: User) -> None:
    turn = world.decided(project)
    world.rank(world.add_sets(turn, 1), ann)
    report = world.REWARD_REPORT | {
        "annotator_agreement": {"agreement": 0.72, "ci95": [0.7, 0.74], "pairs": 900}
    }
    turn.runs.filter(stage="reward").update(report=report)
    assert step(turn, "rank") == ("1", "annotators agree 72\u202f% ±\u00a02")


def test_a_report_with_gaps_is_too_few_and_no_error(project: Project) -> None:
    turn = world.decided(project)
    Run.objects.filter(stage="reward").update(
        report={"pair_accuracy": None, "ci95": None, "pairs": 0, "length_baseline": None}
    )
    Run.objects.filter(stage="ppo").update(report={})
    Run.objects.filter(stage="evaluate").update(report={"score_before": None})
    assert step(turn, "reward") == ("too few", "right on held-out pairs")
    assert step(turn, "ppo")[1] == "KL not measured yet"
    assert step(turn, "evaluate") == ("too few", "no gain could be measured")
    assert {gate.state for gate in gates_of(standing_of(turn).facts, 0)} == {"todo", "good"}


def test_an_ended_round_asks_for_nothing(project: Project) -> None:
    turn = world.decided(project)
    turn.state = Round.State.PROMOTED
    turn.save()
    standing = standing_of(turn)
    assert (standing.tone, standing.may, standing.now) == ("done", frozenset(), None)
    assert states(turn)[-1] == "done"


def test_a_round_that_was_abandoned_did_not_do_its_later_steps(project: Project) -> None:
    turn = world.make_round(project, Round.State.REJECTED)
    world.make_run(turn, "generate", Run.State.FINISHED)
    assert states(turn) == ["done", "todo", "todo", "todo", "todo", "done"]
    assert step(turn, "decide") == ("ended early", "without a new policy")


# --- the gates


def gate_states(turn: Round, alerts: int = 0) -> list[str]:
    return [gate.state for gate in gates_of(standing_of(turn).facts, alerts)]


def test_every_gate_is_met_by_a_good_round(project: Project) -> None:
    assert gate_states(world.decided(project)) == ["good"] * 5


@pytest.mark.parametrize(
    ("stage", "change", "place", "state"),
    [
        ("reward", {"ci95": [0.49, 0.8]}, 0, "unclear"),
        ("reward", {"ci95": [0.3, 0.45]}, 0, "bad"),
        ("reward", {"length_baseline": 0.66}, 1, "unclear"),
        ("reward", {"length_baseline": 0.69}, 1, "bad"),
        ("ppo", {"kl": 12.1}, 2, "bad"),
        ("evaluate", {"ci95_of_gain": [-0.1, 0.5]}, 4, "unclear"),
        ("evaluate", {"ci95_of_gain": [-0.5, -0.1]}, 4, "bad"),
    ],
)
def test_a_gate_shows_what_speaks_against_a_promotion(
    stage: str, change: dict[str, object], place: int, state: str, project: Project
) -> None:
    turn = world.decided(project)
    run = turn.runs.get(stage=stage)
    run.report = run.report | change
    run.save()
    assert gate_states(turn)[place] == state


def test_an_alarm_closes_its_gate(project: Project) -> None:
    assert gate_states(world.decided(project), alerts=2)[3] == "bad"


# --- how far a run is


@pytest.mark.parametrize(
    ("stage", "state", "fields", "words"),
    [
        ("ppo", "queued", {}, ["waits for a free worker"]),
        ("ppo", "running", {}, ["the trainer starts"]),
        ("ppo", "running", {"step": 1200, "total": 4000, "eta_seconds": 372},
         ["step 1\u202f200 of 4\u202f000", "about 6 min left"]),
        ("ppo", "stopping", {"step": 3, "total": 9, "eta_seconds": 372}, ["step 3 of 9"]),
        ("generate", "running", {"step": 3, "total": 9}, ["3 of 9 prompts answered"]),
        ("ppo", "failed", {}, ["took 40 s"]),
    ],
)  # fmt: skip
def test_how_far_a_run_is_in_words(
    project: Project, stage: str, state: str, fields: dict[str, int], words: list[str]
) -> None:
    run = world.make_run(world.make_round(project), stage, state, **fields)
    if run.ended:
        run.started = run.ended - timedelta(seconds=40)
    assert how_far(run, progress_of(run)) == words
