"""Drives rounds of the loop without people: the actions, queue and workers are the real ones.

The driver starts rounds, lets simulated annotators rank, waits for the workers, decides, and
measures with the hidden preference. It touches no weights and tells the trainer nothing.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from labelhub.accounts.models import User
from labelhub.autopilot.annotators import rank_next, seat_annotators
from labelhub.autopilot.figures import agreement, paired_gain
from labelhub.autopilot.preferences import Preference
from labelhub.lib.errors import Refused
from labelhub.projects.models import Project
from labelhub.prompts.models import Answer
from labelhub.rounds.actions import decide, resume_round, start_round
from labelhub.rounds.models import Round
from labelhub.rounds.progress import current_run, open_opinions
from labelhub.rounds.rules import ENDED
from labelhub.rounds.tasks import advance_round
from labelhub.runs.folder import read_lines, run_folder
from labelhub.runs.models import Run

POLL_SECONDS = 0.5
SECONDS_OF = {
    Round.State.GENERATE: "generate",
    Round.State.RANK: "rank",
    Round.State.REWARD: "reward",
    Round.State.PPO: "ppo",
    Round.State.EVALUATE: "evaluate",
    Round.State.COMPARE: "rank",  # they rank pairs
}


class RoundFailed(Exception):
    """A stage of the round failed; the message is the trainer's sentence."""


@dataclass
class Clock:
    """How long the round stood in each state, by the driver's own watch."""

    seconds: dict[str, float] = field(
        default_factory=lambda: dict.fromkeys(SECONDS_OF.values(), 0.0)
    )
    last: float = field(default_factory=time.monotonic)

    def charge(self, state: str) -> None:
        """Book the time since the last call on `state`."""
        now = time.monotonic()
        name = SECONDS_OF.get(Round.State(state))
        if name:
            self.seconds[name] += now - self.last
        self.last = now


def drive_round(
    project: Project,
    preference: Preference,
    *,
    config: dict[str, Any],
    seed: int,
    say: Callable[[str], None],
    workers_alive: Callable[[], None],
) -> dict[str, Any]:
    """Turn the loop once; returns the round's entry of the JSON file."""
    clock = Clock()
    annotators = seat_annotators(project)
    turn = _open_round(project, say) or start_round(
        project=project, by=None, config=config, seed=seed
    )
    while turn.state != Round.State.DECIDE:
        workers_alive()
        if turn.state in (Round.State.RANK, Round.State.COMPARE):
            _rank(turn, annotators, preference, random.Random(f"{seed}/{turn.number}"), say)
            advance_round.delay(turn.pk)
        run = current_run(turn)
        _report(turn, run, say)
        time.sleep(POLL_SECONDS)
        state = turn.state
        turn.refresh_from_db()
        clock.charge(state)
    entry = measure(turn, preference) | {
        "seconds": {name: round(value, 1) for name, value in clock.seconds.items()}
    }
    better = _score_interval(turn)[0] > 0
    decide(round=turn, promote=better, by=None)
    entry["promoted"] = better
    return entry


def _open_round(project: Project, say: Callable[[str], None]) -> Round | None:
    """The round that an earlier, interrupted command left behind: it goes on where it stood."""
    turn = project.rounds.exclude(state__in=ENDED).first()
    if turn is None:
        return None
    say(f"round {turn.number} · going on with what was left open")
    run = current_run(turn)
    if run is not None and run.state in {Run.State.STOPPED, Run.State.FAILED}:
        resume_round(round=turn, by=None)
    return turn


def _rank(
    turn: Round,
    annotators: list[User],
    preference: Preference,
    rng: random.Random,
    say: Callable[[str], None],
) -> None:
    """Let the annotators take turns until no opinion is wanted any more."""
    idle = 0
    done = 0
    while open_opinions(turn) and idle < len(annotators):
        user = annotators[done % len(annotators)]
        if rank_next(turn.project, user, preference, rng):
            idle = 0
        else:
            idle += 1
        done += 1
    count = turn.project.rankings.filter(answer_set__rounds=turn).count()
    say(f"round {turn.number} · rank: {count} rankings")


def _report(turn: Round, run: Run | None, say: Callable[[str], None]) -> None:
    if run is None:
        return
    if run.state == Run.State.FAILED:
        raise RoundFailed(f"Stage {run.stage} of round {turn.number} failed: {run.error}")
    if run.state == Run.State.STOPPED:
        raise RoundFailed(f"Stage {run.stage} of round {turn.number} was stopped.")
    left = f" · {_minutes(run.eta_seconds)} left" if run.eta_seconds else ""
    steps = f" step {run.step} of {run.total}" if run.total else ""
    say(f"round {turn.number} · {run.stage}: {run.state}{steps}{left}")


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


# --- figures


def measure(turn: Round, preference: Preference) -> dict[str, Any]:
    """The round's figures; the hidden ones on prompts that no stage trained on."""
    runs = {run.stage: run for run in turn.runs.filter(state=Run.State.FINISHED).order_by("pk")}
    reward, ppo, evaluation = (runs[s].report for s in ("reward", "ppo", "evaluate"))
    before, after = _hidden(runs["evaluate"], preference)
    gain, interval = paired_gain(before, after, seed=turn.seed)
    return {
        "round": turn.number,
        "prompts": turn.prompts.count(),
        "rankings": turn.snapshot.count if turn.snapshot else 0,
        "reward": {
            "heldout_accuracy": reward["pair_accuracy"],
            "ci95": reward["ci95"],
            "pairs": reward["pairs"],
            "agreement_with_hidden": _agreement(runs["reward"], preference),
        },
        "policy": {
            "steps": ppo["steps"],
            "episodes": ppo["episodes"],
            "kl": evaluation["kl"],
            "score_before": evaluation["score_before"],
            "score_after": evaluation["score_after"],
        },
        "hidden": {
            "before": fmean(before),
            "after": fmean(after),
            "gain": gain,
            "ci95_of_gain": list(interval),
            "prompts": len(before),
        },
        "versions": {
            "policy_in": turn.policy_in.name,
            "reward": turn.reward.name if turn.reward else "",
            "policy_out": turn.policy_out.name if turn.policy_out else "",
        },
    }


def _hidden(run: Run, preference: Preference) -> tuple[list[float], list[float]]:
    """Mean utility per held-out prompt, before and after: same prompts, same seeds."""
    utilities: dict[str, dict[str, list[float]]] = {"reference": {}, "policy": {}}
    for line in read_lines(_out(run, "answers.jsonl")):
        by_prompt = utilities[str(line["model"])]
        by_prompt.setdefault(line["prompt_id"], []).append(preference.utility(line["text"]))
    prompts = sorted(utilities["reference"])
    if prompts != sorted(utilities["policy"]):
        raise Refused("The evaluation answered different prompts before and after.")
    before, after = (
        [fmean(utilities[model][prompt]) for prompt in prompts] for model in ("reference", "policy")
    )
    return before, after


def _agreement(run: Run, preference: Preference) -> float | None:
    """How well the reward model orders held-out answers as the noise-free preference does."""
    scores = {
        int(line["id"]): line["score"] for line in read_lines(_out(run, "heldout_scores.jsonl"))
    }
    sets: dict[int, list[tuple[str, float]]] = {}
    for answer in Answer.objects.filter(pk__in=scores):
        sets.setdefault(answer.answer_set_id, []).append((answer.text, scores[answer.pk]))
    return agreement(sets.values(), preference.utility)


def _score_interval(turn: Round) -> tuple[float, float]:
    """The reward model's own 95 % interval of the gain on held-out prompts: it decides."""
    run = turn.runs.filter(stage="evaluate", state=Run.State.FINISHED).latest("pk")
    low, high = run.report["ci95_of_gain"]
    return float(low), float(high)


def _out(run: Run, name: str) -> Path:
    return run_folder(run.pk) / "out" / name
