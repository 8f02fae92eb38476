"""A round from its start to the decision; the trainer's files are written by hand here."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from labelhub.accounts.models import User
from labelhub.assignments.actions import claim_review
from labelhub.assignments.models import Slot
from labelhub.lib.errors import Refused
from labelhub.projects.models import Project
from labelhub.prompts.actions import retire_prompt
from labelhub.prompts.models import AnswerSet
from labelhub.registry.models import LivePolicy
from labelhub.rounds import actions, progress
from labelhub.rounds.models import Round
from labelhub.rounds.rules import WATCHED_PROMPTS, RoundConfig
from labelhub.runs import actions as run_actions
from labelhub.runs import launcher
from labelhub.runs.folder import read_lines
from labelhub.runs.models import Run
from tests import factories
from tests.labelhub.rankings import desk
from tests.labelhub.rounds.turns import CONFIG, compared, end, finish, furnish, generated


@pytest.fixture
def ready(project: Project, var: Path) -> Project:
    """A project with a policy, three prompts to train on and two held out."""
    return furnish(project)


def rank_everything(turn: Round, annotators: list[User]) -> None:
    for slot in Slot.objects.filter(answer_set__rounds=turn):
        factories.make_ranking(slot.answer_set, annotators[0])
        slot.delete()


def test_a_round_goes_once_around(ready: Project, ann: User, ada: User) -> None:
    turn = actions.start_round(project=ready, by=ada, config=CONFIG)
    assert turn.state == "generate"

    finish(turn, lines=generated(turn))
    assert progress.advance(turn.pk) == "rank"
    turn.refresh_from_db()
    sets = turn.answer_sets.filter(purpose=AnswerSet.Purpose.RANK)
    assert sets.count() == 2
    assert all(answer_set.answers.count() == 3 for answer_set in sets)
    assert progress.open_opinions(turn) == 2
    assert progress.advance(turn.pk) is None, "nobody has ranked yet"

    rank_everything(turn, [ann])
    assert progress.advance(turn.pk) == "reward"
    turn.refresh_from_db()
    assert turn.snapshot is not None
    assert turn.snapshot.count == 2

    finish(turn, output="reward")
    assert progress.advance(turn.pk) == "ppo"
    turn.refresh_from_db()
    finish(turn, output="policy")
    assert progress.advance(turn.pk) == "evaluate"
    turn.refresh_from_db()

    run = progress.current_run(turn)
    assert run is not None
    finish(turn, lines=compared(run))
    assert progress.advance(turn.pk) == "decide"
    turn.refresh_from_db()
    pairs = turn.answer_sets.filter(purpose=AnswerSet.Purpose.COMPARE)
    assert [[answer.text for answer in pair.answers.all()] for pair in pairs] == [
        ["reference 0", "policy 0"],
        ["reference 1", "policy 1"],
    ]
    assert progress.advance(turn.pk) is None, "a decision is a person's"

    actions.decide(round=turn, promote=True, by=ada)
    assert LivePolicy.objects.get(project=ready).version == turn.policy_out


def begin_to_train(project: Project, ada: User, **config: Any) -> Round:
    """A round whose models are there, and no run of PPO yet."""
    turn = actions.start_round(project=project, by=ada, config=CONFIG | config)
    for field, kind in (("reward", "reward"), ("policy_out", "policy")):
        name = f"everyday/{kind}-v1"
        setattr(turn, field, factories.make_version(name, kind=kind, project=project, number=1))
    return turn


def held_out_in(project: Project) -> set[int]:
    return set(project.prompts.filter(held_out=True).values_list("pk", flat=True))


def test_no_stage_learns_from_a_held_out_prompt(ready: Project, ada: User) -> None:
    turn = begin_to_train(ready, ada)
    held_out = held_out_in(ready)
    for stage in ("generate", "ppo"):
        run = progress.begin_stage(turn, stage)
        assert not held_out & set(run.data["prompts"])
        assert set(run.data) - {"prompts"} == ({"heldout"} if stage == "ppo" else set())
    end(run)
    assert set(progress.begin_stage(turn, "evaluate").data["prompts"]) == held_out


def test_ppo_is_watched_on_held_out_prompts(ready: Project, ada: User) -> None:
    """All that the round measures its gain on, where they are few; its spec has them in a file."""
    run = progress.begin_stage(begin_to_train(ready, ada), "ppo")
    assert set(run.data["heldout"]) == held_out_in(ready)
    folder = launcher.prepare_folder(run)
    spec = json.loads((folder / "spec.json").read_text())
    assert spec["inputs"]["heldout"] == "data/heldout.jsonl"
    trained, watched = (
        {line["prompt"][0]["content"] for line in read_lines(folder / spec["inputs"][role])}
        for role in ("prompts", "heldout")
    )
    assert watched == {"Test 0?", "Test 1?"}
    assert not trained & watched


def test_of_many_held_out_prompts_ppo_is_watched_on_some(project: Project, ada: User) -> None:
    furnish(project, held_out=WATCHED_PROMPTS + 4)
    turn = begin_to_train(project, ada, heldout_prompts=WATCHED_PROMPTS + 2)
    measured = set(progress.heldout_prompts(turn, RoundConfig.from_json(turn.config)))
    watched = progress.begin_stage(turn, "ppo").data["heldout"]
    assert len(set(watched)) == len(watched) == WATCHED_PROMPTS
    assert set(watched) < {prompt.pk for prompt in measured}
    # A try after a failure is watched on the same ones.
    assert progress.begin_stage(turn, "ppo").data["heldout"] == watched


def test_ppo_goes_unwatched_where_nothing_is_held_out(project: Project, ada: User) -> None:
    turn = begin_to_train(furnish(project, held_out=0), ada)
    assert set(progress.begin_stage(turn, "ppo").data) == {"prompts"}


def test_the_evaluation_reads_how_the_training_went(ready: Project, ada: User) -> None:
    turn = begin_to_train(ready, ada)
    ppo = end(progress.begin_stage(turn, "ppo"))
    Run.objects.filter(pk=ppo.pk).update(report={"history": [{"step": 0, "kl": 0.0}]})
    evaluation = progress.begin_stage(turn, "evaluate")
    assert evaluation.inputs.get(role="history").source == ppo
    folder = launcher.prepare_folder(evaluation)
    spec = json.loads((folder / "spec.json").read_text())
    figures = json.loads((folder / spec["inputs"]["history"]).read_text())
    assert figures["history"] == [{"step": 0, "kl": 0.0}]


def test_in_step_mode_nothing_begins_by_itself(ready: Project, ada: User) -> None:
    turn = actions.start_round(project=ready, by=ada, config=CONFIG, mode="step")
    finish(turn, lines=generated(turn))
    assert progress.advance(turn.pk) is None
    assert actions.step_round(round=turn, by=ada).state == "rank"


def test_a_step_is_refused_while_the_stage_is_not_complete(ready: Project, ada: User) -> None:
    turn = actions.start_round(project=ready, by=ada, config=CONFIG, mode="step")
    with pytest.raises(Refused, match="not complete"):
        actions.step_round(round=turn, by=ada)


def test_one_open_round_at_a_time(ready: Project, ada: User) -> None:
    actions.start_round(project=ready, by=ada, config=CONFIG)
    with pytest.raises(Refused, match="open already"):
        actions.start_round(project=ready, by=ada, config=CONFIG)


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"promts": 3}, "promts is no setting"),
        ({"answers": 12}, "answers is 12; choose a value from 2 to 9"),
        ({"steps": "many"}, "steps is 'many'; give a number"),
        ({"prompts": 9}, "wants 9 prompts and the project has 3"),
        ({"episodes": 30}, "give a multiple of config.answers_per_prompt"),
    ],
)
def test_a_wrong_setting_is_refused_in_one_sentence(
    ready: Project, ada: User, config: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(Refused, match=sentence):
        actions.start_round(project=ready, by=ada, config=CONFIG | config)


def test_ranking_can_be_closed_early_and_what_is_there_is_trained_on(
    ready: Project, ann: User, ada: User
) -> None:
    turn = actions.start_round(project=ready, by=ada, config=CONFIG)
    finish(turn, lines=generated(turn))
    progress.advance(turn.pk)
    turn.refresh_from_db()
    with pytest.raises(Refused, match="no ranking yet"):
        actions.close_ranking(round=turn, by=ada)
    slot = Slot.objects.filter(answer_set__rounds=turn).first()
    assert slot is not None
    factories.make_ranking(slot.answer_set, ann)
    slot.delete()
    assert actions.close_ranking(round=turn, by=ada).state == "reward"
    assert turn.snapshot is not None
    assert turn.snapshot.count == 1


def test_a_failed_stage_waits_and_can_be_resumed(ready: Project, ada: User) -> None:
    turn = actions.start_round(project=ready, by=ada, config=CONFIG)
    run = progress.current_run(turn)
    assert run is not None
    Run.objects.filter(pk=run.pk).update(state="failed", error="The disk is full.")
    assert progress.advance(turn.pk) is None
    actions.resume_round(round=turn, by=ada)
    run.refresh_from_db()
    assert run.state == "queued"


def test_prompts_that_fewer_rounds_used_come_first(ready: Project, ada: User) -> None:
    first = actions.start_round(project=ready, by=ada, config=CONFIG)
    used = set(first.prompts.values_list("pk", flat=True))
    actions.abandon_round(round=first, by=ada)
    second = actions.start_round(project=ready, by=ada, config=CONFIG)
    unused = set(ready.prompts.filter(held_out=False).values_list("pk", flat=True)) - used
    assert unused <= set(second.prompts.values_list("pk", flat=True))


def test_the_config_travels_to_the_trainer(ready: Project, ada: User) -> None:
    turn = actions.start_round(project=ready, by=ada, config=CONFIG)
    run = progress.current_run(turn)
    assert run is not None
    # What the round does not say, the project does.
    assert run.config == {"answers": 3, "max_new_tokens": 96, "temperature": 1.0}
    assert json.loads(json.dumps(turn.config))["languages"] == ["en"]


# --- how the ranking of a round comes to its end


@pytest.fixture
def ranking(ready: Project, ada: User, monkeypatch: pytest.MonkeyPatch) -> Round:
    """A round whose two sets wait for one opinion each; no trainer starts after them."""
    monkeypatch.setattr(run_actions, "enqueue_on_commit", lambda *_args: None)
    turn = actions.start_round(project=ready, by=ada, config=CONFIG)
    finish(turn, lines=generated(turn))
    progress.advance(turn.pk)
    turn.refresh_from_db()
    return turn


def sets_of(turn: Round) -> list[AnswerSet]:
    return list(turn.answer_sets.filter(purpose=AnswerSet.Purpose.RANK).order_by("pk"))


def state_of(turn: Round) -> str:
    turn.refresh_from_db()
    return turn.state


def test_a_skip_that_closes_the_last_slot_lets_the_round_go_on(
    ranking: Round, ann: User, django_capture_on_commit_callbacks: Callable
) -> None:
    first, second = sets_of(ranking)
    with django_capture_on_commit_callbacks(execute=True):
        desk.rank(first, ann, (1, 2, 3))
    assert state_of(ranking) == "rank"
    with django_capture_on_commit_callbacks(execute=True):
        desk.pass_on(second, ann, "harmful")
    assert state_of(ranking) == "reward"
    assert ranking.snapshot is not None
    assert ranking.snapshot.count == 1


def test_the_last_ranking_lets_the_round_go_on(
    ranking: Round, ann: User, django_capture_on_commit_callbacks: Callable
) -> None:
    for answer_set in sets_of(ranking):
        with django_capture_on_commit_callbacks(execute=True):
            desk.rank(answer_set, ann, (1, 2, 3))
    assert state_of(ranking) == "reward"


def test_a_round_of_which_all_was_skipped_waits_for_an_admin(
    ranking: Round, ann: User, django_capture_on_commit_callbacks: Callable
) -> None:
    for answer_set in sets_of(ranking):
        with django_capture_on_commit_callbacks(execute=True):
            desk.pass_on(answer_set, ann, "private")
    assert progress.open_opinions(ranking) == 0
    assert progress.advance(ranking.pk) is None
    assert state_of(ranking) == "rank"


def test_nobody_waits_for_opinions_on_a_retired_prompt(
    ranking: Round, ann: User, ada: User
) -> None:
    first, second = sets_of(ranking)
    desk.rank(first, ann, (1, 2, 3))
    retire_prompt(prompt=second.prompt, by=ada)
    assert progress.advance(ranking.pk) == "reward"


def test_a_round_waits_for_the_reviewers_decision_and_trains_on_it_alone(
    ranking: Round, ann: User, ben: User, ada: User, django_capture_on_commit_callbacks: Callable
) -> None:
    first, second = sets_of(ranking)
    factories.make_slot(first)
    with django_capture_on_commit_callbacks(execute=True):
        desk.rank(second, ann, (1, 2, 3))
        desk.rank(first, ann, (1, 2, 3))
        desk.rank(first, ben, (3, 2, 1))
    assert state_of(ranking) == "rank"
    with django_capture_on_commit_callbacks(execute=True):
        slot = claim_review(project=ranking.project, by=ada)
        assert slot is not None
        decision = desk.submit(slot, ada, (2, 1, 3))
    assert state_of(ranking) == "reward"
    assert ranking.snapshot is not None
    trained_on = set(ranking.snapshot.rankings.all())
    assert decision in trained_on
    assert {one.answer_set for one in trained_on} == {first, second}
    assert len(trained_on) == 2


def test_known_rankings_and_repeats_train_nothing(ranking: Round, ann: User) -> None:
    first, second = sets_of(ranking)
    for purpose, original in (("gold", None), ("repeat", first)):
        known = AnswerSet.objects.create(prompt=first.prompt, purpose=purpose, original=original)
        ranking.answer_sets.add(known)
        factories.make_ranking(known, ann, [])
    opinions = {desk.rank(one, ann, (1, 2, 3)) for one in (first, second)}
    assert set(progress.round_rankings(ranking)) == opinions
