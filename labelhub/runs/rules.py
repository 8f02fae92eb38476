"""The states of a run and the moves between them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

# queued → running → finished is the straight way. A stop asks first (stopping) so that the trainer
# can save a checkpoint; a stopped or failed run can be queued again and resumes from it.
ALLOWED: Final[dict[str, frozenset[str]]] = {
    "queued": frozenset({"running", "stopped", "failed"}),
    "running": frozenset({"stopping", "finished", "failed", "queued"}),
    "stopping": frozenset({"stopped", "finished", "failed"}),
    "stopped": frozenset({"queued"}),
    "failed": frozenset({"queued"}),
    "finished": frozenset(),
}
ENDED: Final = frozenset({"stopped", "finished", "failed"})
# A trainer that is killed this often is not tried again by itself: the cause is not chance.
MAX_ATTEMPTS: Final = 3

# Stages that change a policy by what it writes to prompts: never to held-out ones.
LEARN_FROM_PROMPTS: Final = frozenset({"ppo", "prefer", "bestofn"})
# What may be read in a role, by what the trainer calls the role's kind: kinds of model versions …
VERSION_KINDS: Final[dict[str, frozenset[str]]] = {
    "writer": frozenset({"base", "sft", "policy"}),
    "backbone": frozenset({"base", "encoder", "sft", "policy"}),
    "reward": frozenset({"reward"}),
    "tokenizer": frozenset({"base", "encoder", "sft", "policy"}),
}
# … what a snapshot holds, rows named by their numbers, and the two that stand for themselves.
SNAPSHOT_KINDS: Final = frozenset({"rankings", "pairs"})
ROW_KINDS: Final = frozenset({"prompts", "answers"})
OTHER_KINDS: Final = frozenset({"text", "report"})
# Stages whose figures over the steps the role of the kind `report` reads.
REPORTING_STAGES: Final = frozenset({"ppo"})
# Stages that leave answers.jsonl, which the role of the kind `answers` can read.
WRITING_STAGES: Final = frozenset({"generate", "bestofn", "evaluate"})

# Exit codes of `python -m trainer` (design: the trainer contract).
EXIT_FINISHED, EXIT_FAILED, EXIT_STOPPED = 0, 1, 75


def may_move(old: str, new: str) -> bool:
    """Whether a run may go from one state to another."""
    return new in ALLOWED[old]


def output_kind(stage: str, config: Mapping[str, Any]) -> str | None:
    """The kind of model version that a finished run leaves; None for a stage that makes none.

    What masked pretraining makes can only judge, not write.
    """
    if stage == "pretrain":
        return "encoder" if config.get("objective") == "masked" else "base"
    made = {
        "sft": "sft",
        "reward": "reward",
        "ppo": "policy",
        "prefer": "policy",
        "bestofn": "policy",
    }
    return made.get(stage)


def state_after_exit(code: int, *, stop_asked: bool, attempts_left: bool) -> str:
    """The run's next state when its trainer exited with `code` (negative: ended by that signal)."""
    if code == EXIT_FINISHED:
        return "finished"
    if stop_asked:
        return "stopped"
    if code == EXIT_STOPPED:
        return "queued"  # somebody ended the worker, not the run: the next worker resumes it
    if code == EXIT_FAILED:
        return "failed"
    return "queued" if attempts_left else "failed"
