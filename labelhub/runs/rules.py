"""The states of a run and the moves between them. Pure."""

from __future__ import annotations

from typing import Final

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

# Exit codes of `python -m trainer` (design: the trainer contract).
EXIT_FINISHED, EXIT_FAILED, EXIT_STOPPED = 0, 1, 75


def may_move(old: str, new: str) -> bool:
    """Whether a run may go from one state to another."""
    return new in ALLOWED[old]


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
