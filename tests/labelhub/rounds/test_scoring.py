"""The reward ensemble reads the open sets beside the ranking, and the queue follows it."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from labelhub.accounts.models import User
from labelhub.assignments.models import Slot
from labelhub.lib.errors import Refused
from labelhub.projects.models import Project
from labelhub.prompts.models import AnswerSet
from labelhub.registry.actions import promote
from labelhub.registry.models import ModelVersion
from labelhub.rounds import actions, progress, scoring
from labelhub.rounds.models import Round
from labelhub.rounds.tasks import sweep_rounds
from labelhub.runs import launcher
from labelhub.runs.folder import run_folder, write_lines
from labelhub.runs.models import Run
from labelhub.runs.signals import run_ended
from tests import factories

ENSEMBLE = {"ensemble": {"members": 2, "spread": 0.4}}
LOG_2 = math.log(2)


@pytest.fixture
def turn(project: Project, var: Path, ada: User) -> Round:
    """A round whose two prompts have been answered; an ensemble is there from an earlier one."""
    promote(project=project, version=factories.make_version("tiny-base"), by=None)
    for n in range(2):
        factories.make_prompt(project, f"Train {n}?")
    factories.make_version(
        "everyday/reward-v1", kind="reward", project=project, number=1, metrics=ENSEMBLE
    )
    turn = actions.start_round(project=project, by=ada, config={"prompts": 2, "answers": 2})
    run = progress.current_run(turn)
    assert run is not None
    lines = [
        {"id": f"{prompt.pk}-{n}", "prompt_id": str(prompt.pk), "text": f"Answer {n}"}
        for prompt in turn.prompts.all()
        for n in range(2)
    ]
    write_lines(run_folder(run.pk) / "out" / "answers.jsonl", lines)
    Run.objects.filter(pk=run.pk).update(state=Run.State.FINISHED)
    return turn


def open_ranking(turn: Round) -> Run | None:
    """Go on to the ranking; the run that reads its sets, if there is one."""
    assert progress.advance(turn.pk) == "rank"
    turn.refresh_from_db()
    return Run.objects.filter(round_run__round=turn, stage="score").first()


def sets_of(turn: Round) -> list[AnswerSet]:
    return list(turn.answer_sets.order_by("pk"))


def finish(run: Run, members: dict[int, list[float]], std: float = 1.0) -> None:
    """Let the run end well: the members' scores by answer id."""
    lines = [{"id": str(pk), "score": 0.0, "members": some} for pk, some in members.items()]
    write_lines(run_folder(run.pk) / "out" / "scores.jsonl", lines)
    run.state = Run.State.FINISHED
    run.report = {"members": 2, "normalisation": {"mean": 0.0, "std": std}}
    run.save()


def torn_and_calm(turn: Round) -> dict[int, list[float]]:
    """Two members that are sure of opposites about the first set and agree about the second."""
    torn, calm = ([answer.pk for answer in one.answers.all()] for one in sets_of(turn))
    return {
        torn[0]: [60.0, -60.0], torn[1]: [0.0, 0.0], calm[0]: [60.0, 60.0], calm[1]: [0.0, 0.0],
    }  # fmt: skip


def test_when_ranking_opens_the_ensemble_reads_the_open_sets(turn: Round) -> None:
    run = open_ranking(turn)
    assert run is not None
    reads = {link.role: link.version.name for link in run.inputs.all()}
    assert reads == {"reward": "everyday/reward-v1"}
    answers = [answer.pk for one in sets_of(turn) for answer in one.answers.all()]
    assert sorted(run.data["answers"]) == sorted(answers)
    assert progress.open_opinions(turn) == 2, "the ranking is open meanwhile"


def test_its_result_becomes_the_disagreement_of_each_set(turn: Round) -> None:
    run = open_ranking(turn)
    assert run is not None
    finish(run, torn_and_calm(turn))
    assert scoring.take_in_scores(run.pk) == 2
    torn, calm = sets_of(turn)
    assert torn.disagreement == pytest.approx(LOG_2)
    assert calm.disagreement == pytest.approx(0, abs=1e-9)
    priority = {slot.answer_set_id: slot.priority for slot in Slot.objects.all()}
    assert priority[torn.pk] > priority[calm.pk]


def test_scores_are_read_in_log_odds(turn: Round) -> None:
    """Normalised by ½ · log 3: the difference of ±2 is ±log 3, p = ¾ and ¼, which is 0.130812."""
    run = open_ranking(turn)
    assert run is not None
    one, other = (answer.pk for answer in sets_of(turn)[0].answers.all())
    finish(run, {one: [2.0, -2.0], other: [0.0, 0.0]}, std=math.log(3) / 2)
    scoring.take_in_scores(run.pk)
    assert sets_of(turn)[0].disagreement == pytest.approx(0.130812, abs=1e-6)


def test_it_is_taken_in_when_the_run_ends(
    turn: Round, django_capture_on_commit_callbacks: Callable[..., Any]
) -> None:
    run = open_ranking(turn)
    assert run is not None
    finish(run, torn_and_calm(turn))
    with django_capture_on_commit_callbacks(execute=True):
        run_ended.send(sender=Run, run_id=run.pk)
    assert sets_of(turn)[0].disagreement == pytest.approx(LOG_2)


def test_a_lost_message_is_found_by_the_sweep(turn: Round) -> None:
    run = open_ranking(turn)
    assert run is not None
    assert scoring.waiting_scores() == []
    finish(run, torn_and_calm(turn))
    assert scoring.waiting_scores() == [run.pk]
    sweep_rounds()
    assert sets_of(turn)[0].disagreement == pytest.approx(LOG_2)
    assert scoring.waiting_scores() == []


def test_of_two_runs_the_newer_counts(turn: Round, ada: User) -> None:
    old = open_ranking(turn)
    assert old is not None
    finish(old, torn_and_calm(turn))
    new = actions.ask_for_disagreement(round=turn, by=ada)
    finish(new, {answer: [0.0, 0.0] for answer in torn_and_calm(turn)})
    assert scoring.take_in_scores(new.pk) == 2
    assert scoring.take_in_scores(old.pk) == 0
    assert sets_of(turn)[0].disagreement == pytest.approx(0, abs=1e-9)


# what does not harm the round


def test_a_failed_run_changes_nothing_and_the_round_goes_on(
    turn: Round, ann: User, django_capture_on_commit_callbacks: Callable[..., Any]
) -> None:
    run = open_ranking(turn)
    assert run is not None
    Run.objects.filter(pk=run.pk).update(state=Run.State.FAILED)
    with django_capture_on_commit_callbacks(execute=True):
        run_ended.send(sender=Run, run_id=run.pk)
    assert [one.disagreement for one in sets_of(turn)] == [None, None]
    turn.refresh_from_db()
    assert turn.state == "rank"
    rank_everything(turn, ann)
    assert progress.advance(turn.pk) == "reward"


def rank_everything(turn: Round, by: User) -> None:
    for slot in Slot.objects.filter(answer_set__rounds=turn):
        factories.make_ranking(slot.answer_set, by)
        slot.delete()


def test_the_round_does_not_wait_for_it_and_stops_it_when_ranking_is_over(
    turn: Round, ann: User
) -> None:
    run = open_ranking(turn)
    assert run is not None
    rank_everything(turn, ann)
    assert progress.advance(turn.pk) == "reward"
    run.refresh_from_db()
    assert run.state == "stopped"


def test_an_abandoned_round_stops_it(turn: Round, ada: User) -> None:
    run = open_ranking(turn)
    assert run is not None
    actions.abandon_round(round=turn, by=ada)
    run.refresh_from_db()
    assert run.state == "stopped"


def test_a_refusal_leaves_the_ranking_open(turn: Round, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise Refused("The disk is full.")

    monkeypatch.setattr(scoring, "start_run", refuse)
    assert open_ranking(turn) is None
    assert progress.open_opinions(turn) == 2


def test_without_an_ensemble_nothing_is_scored(turn: Round) -> None:
    ModelVersion.objects.filter(kind="reward").update(metrics={"pair_accuracy": 0.7})
    assert open_ranking(turn) is None


def test_nothing_is_scored_for_simulated_annotators(turn: Round) -> None:
    Project.objects.update(is_simulated=True)
    assert open_ranking(turn) is None


def test_the_newest_model_with_several_heads_is_asked(turn: Round, project: Project) -> None:
    for number, metrics in ((2, ENSEMBLE), (3, {"pair_accuracy": 0.7})):
        factories.make_version(
            f"everyday/reward-v{number}", kind="reward", project=project, number=number,
            metrics=metrics,
        )  # fmt: skip
    run = open_ranking(turn)
    assert run is not None
    assert run.inputs.get().version.number == 2


# on demand


def test_an_admin_can_ask_for_it(turn: Round, ada: User) -> None:
    first = open_ranking(turn)
    assert first is not None
    with pytest.raises(Refused, match="reading the open answers already"):
        actions.ask_for_disagreement(round=turn, by=ada)
    finish(first, torn_and_calm(turn))
    again = actions.ask_for_disagreement(round=turn, by=ada)
    assert again.created_by == ada
    assert again.pk != first.pk


def test_only_open_sets_are_read(turn: Round, ada: User, ann: User) -> None:
    first = open_ranking(turn)
    assert first is not None
    finish(first, torn_and_calm(turn))
    done, waiting = sets_of(turn)
    factories.make_ranking(done, ann)
    Slot.objects.filter(answer_set=done, state="open").delete()
    again = actions.ask_for_disagreement(round=turn, by=ada)
    assert again.data["answers"] == [answer.pk for answer in waiting.answers.order_by("pk")]


def test_it_refuses_what_cannot_be_scored(turn: Round, ada: User) -> None:
    with pytest.raises(Refused, match="not being ranked now"):
        actions.ask_for_disagreement(round=turn, by=ada)
    first = open_ranking(turn)
    assert first is not None
    finish(first, torn_and_calm(turn))
    Slot.objects.update(state="closed")
    with pytest.raises(Refused, match="No answer set is open"):
        actions.ask_for_disagreement(round=turn, by=ada)
    ModelVersion.objects.filter(kind="reward").update(metrics={})
    with pytest.raises(Refused, match="reward_ensemble 2 or more"):
        actions.ask_for_disagreement(round=turn, by=ada)


def test_a_round_trains_as_many_heads_as_it_is_told(project: Project, ada: User) -> None:
    from labelhub.rounds.rules import RoundConfig, stage_config

    assert stage_config("reward", RoundConfig(reward_ensemble=4))["ensemble"] == 4


# with the trainer itself


def test_from_the_trainer_to_the_queue(
    turn: Round, tmp_path: Path, django_capture_on_commit_callbacks: Callable[..., Any]
) -> None:
    """Two heads that want the opposite: they part over “good”, and over nothing else."""
    import hashlib

    import torch
    from safetensors.torch import save_file

    from tests.tiny import make_tiny_reward
    from trainer.manifests import write_manifest

    folder = make_tiny_reward(tmp_path, likes="good")
    heads = torch.zeros(2, 32)
    heads[0, 0], heads[1, 0] = 41.0, -39.0  # their mean is the model's own head, 1
    save_file({"weight": heads}, folder / "ensemble.safetensors")
    write_manifest(folder)
    sha256 = hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()
    ModelVersion.objects.filter(kind="reward").update(folder=str(folder), sha256=sha256)
    run = open_ranking(turn)
    assert run is not None
    torn, calm = sets_of(turn)
    for one, texts in ((torn, ["good good tea", "red tea"]), (calm, ["good tea", "good sun"])):
        for answer, text in zip(one.answers.order_by("n"), texts, strict=True):
            answer.text = text
            answer.save()
    with django_capture_on_commit_callbacks(execute=True):
        assert launcher.watch(run.pk) == "finished"
    torn, calm = sets_of(turn)
    assert torn.disagreement is not None
    assert calm.disagreement == pytest.approx(0, abs=1e-3)
    assert 0.05 < torn.disagreement <= LOG_2
    first = Slot.objects.filter(state="open").order_by("-priority").first()
    assert first is not None
    assert first.answer_set == torn
