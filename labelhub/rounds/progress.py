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
from labelhub.prompts.models import AnswerSet
from labelhub.prompts.queries import usable_prompts
from labelhub.prompts.rules import draw
from labelhub.rankings.models import Ranking
from labelhub.rankings.queries import usable_rankings
from labelhub.registry.models import ModelVersion
from labelhub.rounds import comparing, verdicts
from labelhub.rounds.models import Comparison, Round, RoundRun
from labelhub.rounds.rules import (
    STAGES,
    WATCHED_PROMPTS,
    RoundConfig,
    stage_config,
    stage_seed,
)
from labelhub.rounds.scoring import score_when_it_helps, stop_scoring
from labelhub.runs.actions import start_run, take_snapshot
from labelhub.runs.folder import read_lines, run_folder
from labelhub.runs.models import Run

State = Round.State
# The states in which people are asked, and about which of the round's sets.
_ASKED = {State.RANK: AnswerSet.Purpose.RANK, State.COMPARE: AnswerSet.Purpose.COMPARE}


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
    elif turn.state == State.COMPARE:
        _end_comparison(turn)
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
    if turn.state == State.COMPARE:
        # Even when everything was skipped: then people said nothing, and an admin decides.
        return not open_opinions(turn)
    if turn.state in STAGES:
        run = current_run(turn)
        return run is not None and run.state == Run.State.FINISHED
    return False  # a decision is a person's, and an ended round waits for nothing


def open_opinions(turn: Round) -> int:
    """How many opinions and decisions on this round's answer sets are still wanted.

    Nobody is offered an open slot of a retired prompt, so nobody waits for it.
    """
    purpose = _ASKED.get(State(turn.state), AnswerSet.Purpose.RANK)
    wanted = Slot.objects.filter(answer_set__rounds=turn, answer_set__purpose=purpose)
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
    inputs: dict[str, ModelVersion | Run | None]
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
        data = {
            "prompts": _ids(turn.prompts.order_by("pk")),
            "heldout": watched_prompts(turn, config),
        }
    else:
        inputs = {
            "policy": turn.policy_out,
            "reference": turn.policy_in,
            "reward": turn.reward,
            "history": _finished(turn, "ppo"),
        }
        data = {"prompts": _ids(heldout_prompts(turn, config))}
    run = start_run(
        project=turn.project,
        stage=stage,
        config=stage_config(stage, config),
        inputs={role: thing for role, thing in inputs.items() if thing is not None},
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


def watched_prompts(turn: Round, config: RoundConfig) -> list[int]:
    """Some of them: what the policy in training answers there warns, and nothing learns from it."""
    held_out = dict.fromkeys(_ids(heldout_prompts(turn, config)), 0)
    return sorted(draw(held_out, WATCHED_PROMPTS, turn.seed))


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
        written[line["prompt_id"]].append(comparing.stored_answer(line, turn.policy_in, run))
    sets = [
        create_answer_set(prompt=prompts[key], answers=answers, purpose=AnswerSet.Purpose.RANK)
        for key, answers in written.items()
    ]
    turn.answer_sets.add(*sets)
    open_for_ranking(project=turn.project, answer_sets=sets, overlap=config.overlap)
    score_when_it_helps(turn)
    turn.state = State.RANK


def _take_in_comparison(turn: Round) -> None:
    """Store the held-out answers of both policies; let people compare them if that is wanted."""
    run = _finished(turn, "evaluate")
    pairs = comparing.take_in_pairs(run)
    turn.answer_sets.add(*pairs)
    asked = comparing.begin_for_round(turn, run, pairs)
    turn.state = State.COMPARE if asked and verdicts.open_opinions(asked) else State.DECIDE
    if asked and turn.state == State.DECIDE:
        comparing.close(asked, by=None)


def _end_comparison(turn: Round) -> None:
    """Every opinion that can still come is there: the decision may follow from them."""
    comparison = Comparison.objects.select_for_update().get(round=turn)
    comparing.close(comparison, by=None)
    turn.state = State.DECIDE


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
