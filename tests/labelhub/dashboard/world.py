"""A round of ada's project in any state, with the runs, answers and rankings that belong to it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.utils import timezone

from labelhub.accounts.models import User
from labelhub.projects.models import Project
from labelhub.prompts.models import Answer, AnswerSet
from labelhub.registry.models import LivePolicy, ModelVersion, Parent
from labelhub.rounds.models import Comparison, Round, RoundRun
from labelhub.runs.models import Run, RunEvent, RunInput
from tests import factories

CONFIG = {
    "prompts": 2, "answers": 4, "overlap": 1, "max_new_tokens": 32, "temperature": 1.0,
    "languages": ["en"], "steps": 14, "episodes": 64, "kl_budget": 12.0, "heldout_prompts": 2,
    "reward_epochs": 2,
}  # fmt: skip
REWARD_REPORT = {
    "pair_accuracy": 0.68, "ci95": [0.65, 0.71], "pairs": 412,
    "length_baseline": 0.57, "length_baseline_ci95": [0.53, 0.61],
}  # fmt: skip
PPO_REPORT = {"kl": 8.6, "steps": 14, "score_before": 0.0, "score_after": 0.9}
GAIN_REPORT = {
    "score_before": 0.1, "score_after": 0.7, "gain": 0.6, "ci95_of_gain": [0.4, 0.8], "prompts": 64
}  # fmt: skip


def live(project: Project, version: ModelVersion | None = None) -> ModelVersion:
    """Let a version (the base) write the project's answers."""
    chosen = version or factories.make_version("tiny-base")
    LivePolicy.objects.update_or_create(project=project, defaults={"version": chosen})
    return chosen


def make_round(project: Project, state: str = Round.State.PPO, **fields: Any) -> Round:
    """A round in this state; what earlier stages would have left is up to the test."""
    base = factories.make_version("tiny-base")
    fields.setdefault("number", 1)
    fields.setdefault("config", CONFIG)
    return Round.objects.create(
        project=project, state=state, policy_in=base, reward_base=base, **fields
    )


def make_run(turn: Round, stage: str, state: str = Run.State.RUNNING, **fields: Any) -> Run:
    """A run of one of the round's stages, with its input."""
    ended = timezone.now() if state in ("finished", "failed", "stopped") else None
    fields.setdefault("attempt", 0 if state == "queued" else 1)
    run = Run.objects.create(project=turn.project, stage=stage, state=state, ended=ended, **fields)
    RoundRun.objects.create(round=turn, run=run, stage=stage)
    RunInput.objects.create(run=run, role="policy", version=turn.policy_in)
    return run


def tell(run: Run, kind: str, step: int | None = None, *, attempt: int = 1, **data: Any) -> None:
    """One more event of the run."""
    RunEvent.objects.create(
        run=run, attempt=attempt, offset=run.events.count() * 100, at=timezone.now(),
        kind=kind, step=step, data=data,
    )  # fmt: skip


def add_sets(turn: Round, count: int = 2) -> list[AnswerSet]:
    """Answer sets to rank, with one open slot each."""
    sets = [factories.make_answer_set(turn.project, slots=1) for _ in range(count)]
    turn.answer_sets.add(*sets)
    turn.prompts.add(*(one.prompt for one in sets))
    return sets


def rank(sets: Iterable[AnswerSet], by: User) -> None:
    """Fill the open slots of these sets."""
    for one in sets:
        one.slots.all().delete()
        factories.make_ranking(one, by)


def make_output(turn: Round, kind: str) -> ModelVersion:
    """What a training stage of the round made, with the round's policy as a parent."""
    version = factories.make_version(
        f"{turn.project.slug}/{kind}-v{turn.number}", kind=kind, project=turn.project,
        number=turn.number,
    )  # fmt: skip
    Parent.objects.create(child=version, parent=turn.policy_in, role="policy")
    return version


def decided(project: Project) -> Round:
    """A round with everything that leads up to the decision."""
    turn = make_round(project, Round.State.DECIDE)
    make_run(turn, "generate", Run.State.FINISHED)
    reward = make_run(turn, "reward", Run.State.FINISHED, report=REWARD_REPORT)
    ppo = make_run(turn, "ppo", Run.State.FINISHED, report=PPO_REPORT, config={"kl_budget": 12.0})
    make_run(turn, "evaluate", Run.State.FINISHED, report=GAIN_REPORT)
    reward.output = turn.reward = make_output(turn, "reward")
    ppo.output = turn.policy_out = make_output(turn, "policy")
    for one in (reward, ppo, turn):
        one.save()
    prompt = factories.make_prompt(project, "What now?", held_out=True)
    compare(turn, prompt, "I do not know.", "Let us see together!", 0.1, 0.7)
    return turn


def compare(
    turn: Round, prompt: Any, before: str, after: str, low: float | None, high: float | None
) -> AnswerSet:
    """Both policies' answers to one held-out prompt."""
    pair = AnswerSet.objects.create(prompt=prompt, purpose=AnswerSet.Purpose.COMPARE)
    versions = (turn.policy_in, turn.policy_out or turn.policy_in)
    for n, (version, text, score) in enumerate(
        zip(versions, (before, after), (low, high), strict=True)
    ):
        Answer.objects.create(
            answer_set=pair, n=n, version=version, text=text, sha256=factories.sha256(text),
            sampling={} if score is None else {"score": score},
        )  # fmt: skip
    turn.answer_sets.add(pair)
    return pair


def compare_blind(
    turn: Round, scores: Iterable[tuple[float, float]], state: str = "closed"
) -> Comparison:
    """The round's blind comparison: a pair with one open slot for each pair of scores."""
    ended = timezone.now() if state == "closed" else None
    comparison = Comparison.objects.create(
        project=turn.project, round=turn, before=turn.policy_in,
        after=turn.policy_out or make_output(turn, "policy"), state=state, ended=ended,
        run=turn.runs.filter(stage="evaluate").latest("pk"),
    )  # fmt: skip
    for n, (low, high) in enumerate(scores):
        prompt = factories.make_prompt(turn.project, held_out=True)
        pair = compare(turn, prompt, f"Old answer {n}", f"New answer {n}", low, high)
        comparison.answer_sets.add(pair)
        if state == "open":
            factories.make_slot(pair)
    return comparison


def say(comparison: Comparison, by: User, outcomes: Iterable[int]) -> None:
    """One opinion on each pair: 1 prefers the new answer, −1 the old one, 0 neither."""
    frozen = timezone.now() if comparison.state == "closed" else None
    places = {1: (2, 1), 0: (1, 1), -1: (1, 2)}
    pairs = comparison.answer_sets.order_by("pk")
    for pair, outcome in zip(pairs, outcomes, strict=False):
        pair.slots.all().delete()
        factories.make_ranking(pair, by, places[outcome], frozen_at=frozen)
