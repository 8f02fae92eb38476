"""The loop's engine: `advance` looks at a round and takes the next step that is due.

It may be called at any time, by anybody, as often as one likes: it holds the round's row while it
looks, so each step is taken once. Signals call it at once, a periodic sweep calls it again: a lost
message delays a round and never stops it.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from django.db import transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from labelhub.assignments.actions import open_for_ranking
from labelhub.assignments.models import Slot
from labelhub.prompts.actions import create_answer_set
from labelhub.prompts.models import AnswerSet, Prompt
from labelhub.prompts.queries import usable_prompts
from labelhub.rankings.models import Ranking
from labelhub.rankings.queries import usable_rankings
from labelhub.registry.models import ModelVersion
from labelhub.rounds.models import Round, RoundRun
from labelhub.rounds.rules import STAGES, RoundConfig, stage_config, stage_seed
from labelhub.rounds.scoring import score_when_it_helps, stop_scoring
from labelhub.runs.actions import start_run, take_snapshot
from labelhub.runs.folder import read_lines, run_folder
from labelhub.runs.models import Run

State = Round.State
# what a line of answers.jsonl tells about how the answer was drawn
SAMPLING = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty", "score")


@transaction.atomic
def advance(round_id: int, *, asked: bool = False) -> str | None:
    """Take the next step of a round if it is due; returns the new state, None if nothing was due.

    In step mode a new stage begins only when an admin asked for it.
    """
    turn = Round.objects.select_for_update().filter(pk=round_id).first()
    if turn is None or not work_done(turn):
        return None
    if turn.mode == Round.Mode.STEP and not asked:
        return None
    if turn.state == State.PLANNED:
        _start(turn, "generate")
    elif turn.state == State.GENERATE:
        _open_ranking(turn)
    elif turn.state == State.RANK:
        stop_scoring(turn)
        _start(turn, "reward")
    elif turn.state == State.REWARD:
        turn.reward = _output(turn, "reward")
        _start(turn, "ppo")
    elif turn.state == State.PPO:
        turn.policy_out = _output(turn, "ppo")
        _start(turn, "evaluate")
    elif turn.state == State.EVALUATE:
        _take_in_comparison(turn)
    else:
        return None
    turn.save()
    return str(turn.state)


def work_done(turn: Round) -> bool:
    """Whether what the present state waits for is complete."""
    if turn.state == State.PLANNED:
        return True
    if turn.state == State.RANK:
        # Everything may have been skipped: then there is nothing to train on, and an admin decides.
        return not open_opinions(turn) and round_rankings(turn).exists()
    if turn.state in STAGES:
        run = current_run(turn)
        return run is not None and run.state == Run.State.FINISHED
    return False  # a decision is a person's, and an ended round waits for nothing


def open_opinions(turn: Round) -> int:
    """How many opinions and decisions on this round's answer sets are still wanted.

    Nobody is offered an open slot of a retired prompt, so nobody waits for it.
    """
    wanted = Slot.objects.filter(
        answer_set__rounds=turn, answer_set__purpose=AnswerSet.Purpose.RANK
    )
    free = Q(state=Slot.State.OPEN, answer_set__prompt__retired=False)
    return wanted.filter(free | Q(state=Slot.State.HELD)).count()


def current_run(turn: Round) -> Run | None:
    """The newest run of the stage that the round is in."""
    link = (
        RoundRun.objects.filter(round=turn, stage=turn.state)
        .select_related("run")
        .order_by("-run_id")
        .first()
    )
    return link.run if link else None


def begin_stage(turn: Round, stage: str) -> Run:
    """Queue the run of one stage (also a fresh one after a failure)."""
    config = RoundConfig.from_json(turn.config)
    inputs: dict[str, ModelVersion | None]
    data: dict[str, Any] = {}
    if stage == "generate":
        inputs = {"policy": turn.policy_in}
        data = {"prompts": _ids(turn.prompts.order_by("pk"))}
    elif stage == "reward":
        if turn.snapshot is None:
            turn.snapshot = take_snapshot(
                project=turn.project, rankings=round_rankings(turn), by=turn.created_by
            )
        inputs = {"base": turn.reward_base}
    elif stage == "ppo":
        inputs = {"policy": turn.policy_in, "reward": turn.reward}
        data = {"prompts": _ids(turn.prompts.order_by("pk"))}
    else:
        inputs = {"policy": turn.policy_out, "reference": turn.policy_in, "reward": turn.reward}
        data = {"prompts": _ids(heldout_prompts(turn, config))}
    run = start_run(
        project=turn.project,
        stage=stage,
        config=stage_config(stage, config),
        inputs={role: version for role, version in inputs.items() if version is not None},
        seed=stage_seed(turn.seed, stage),
        by=turn.created_by,
        snapshot=turn.snapshot if stage == "reward" else None,
        data=data,
    )
    RoundRun.objects.create(round=turn, run=run, stage=stage)
    return run


def heldout_prompts(turn: Round, config: RoundConfig) -> Any:
    """The prompts on which the gain is measured: nothing in any round trains on them."""
    prompts = usable_prompts(turn.project, held_out=True).filter(language__in=config.languages)
    return prompts.order_by("pk")[: config.heldout_prompts]


def _start(turn: Round, stage: str) -> None:
    begin_stage(turn, stage)
    turn.state = State(stage)


def _open_ranking(turn: Round) -> None:
    """Store the generated answers as answer sets and open their slots."""
    run = _finished(turn, "generate")
    config = RoundConfig.from_json(turn.config)
    prompts = {str(prompt.pk): prompt for prompt in turn.prompts.all()}
    written: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for line in read_lines(run_folder(run.pk) / "out" / "answers.jsonl"):
        written[line["prompt_id"]].append(_answer(line, turn.policy_in, run))
    sets = [
        create_answer_set(prompt=prompts[key], answers=answers, purpose=AnswerSet.Purpose.RANK)
        for key, answers in written.items()
    ]
    turn.answer_sets.add(*sets)
    open_for_ranking(project=turn.project, answer_sets=sets, overlap=config.overlap)
    score_when_it_helps(turn)
    turn.state = State.RANK


def _take_in_comparison(turn: Round) -> None:
    """Store the held-out answers of both policies side by side: n = 0 is the old one, n = 1 new."""
    run = _finished(turn, "evaluate")
    used = {
        link.role: link.version
        for link in run.inputs.select_related("version")
        if link.version is not None
    }
    versions = {"reference": used["reference"], "policy": used["policy"]}
    pairs: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
    for line in read_lines(run_folder(run.pk) / "out" / "answers.jsonl"):
        which = str(line["model"])
        pairs[line["prompt_id"]].setdefault(which, _answer(line, versions[which], run))
    prompts = Prompt.objects.in_bulk([int(key) for key in pairs])
    sets = [
        create_answer_set(
            prompt=prompts[int(key)],
            answers=[pair["reference"], pair["policy"]],
            purpose=AnswerSet.Purpose.COMPARE,
        )
        for key, pair in pairs.items()
        if len(pair) == 2
    ]
    turn.answer_sets.add(*sets)
    turn.state = State.DECIDE


def _answer(line: dict[str, Any], version: ModelVersion, run: Run) -> dict[str, Any]:
    """One line of answers.jsonl as the prompts room stores it."""
    sampling = {key: line[key] for key in SAMPLING if key in line}
    return {
        "version": version,
        "text": line["text"],
        "seed": line.get("seed", run.seed),
        "logprob": line.get("logprob"),
        "tokens": line.get("tokens", 0),
        "finished": line.get("finished", True),
        "sampling": sampling | {"run": run.pk},
    }


def round_rankings(turn: Round) -> QuerySet[Ranking]:
    """What the reward model of this round is trained on: see `usable_rankings`."""
    return usable_rankings(turn.project).filter(answer_set__rounds=turn)


def _finished(turn: Round, stage: str) -> Run:
    return Run.objects.filter(round_run__round=turn, stage=stage, state=Run.State.FINISHED).latest(
        "pk"
    )


def _output(turn: Round, stage: str) -> ModelVersion | None:
    return _finished(turn, stage).output


def _ids(prompts: Any) -> list[int]:
    return [prompt.pk for prompt in prompts]


def end(turn: Round, state: str) -> None:
    """Close a round."""
    turn.state = State(state)
    turn.ended = timezone.now()
