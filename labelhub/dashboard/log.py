"""A run's events as sentences.

What the trainer itself says is English; beside it stands, in the reader's language, what kind of
thing happened.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from labelhub.runs.models import Run, RunEvent
from labelhub.runs.progress import known_failure

# The alarms of the trainer by their codes.
ALERTS: Final[dict[str, Any]] = {
    "kl_budget": gettext_lazy("The KL budget is spent: training stopped within it."),
    "second_parts": gettext_lazy("The second reward model falls while the score rises."),
    "ensemble_parts": gettext_lazy("The ensemble's lowest member falls while the score rises."),
    "spread_doubled": gettext_lazy("The ensemble's members disagree more and more."),
    "length_drift": gettext_lazy("The length of the answers changed by more than half."),
    "entropy_collapse": gettext_lazy("The policy hardly varies its words any more."),
    "distinct_collapse": gettext_lazy("The answers repeat themselves."),
    "missing_ends": gettext_lazy("Many answers no longer come to their end."),
    "damaged_checkpoint": gettext_lazy("A checkpoint was damaged and is passed over."),
    "no_heldout": gettext_lazy("Nothing held out could be tested, so nobody knows how good it is."),
    "heldout_trained_on": gettext_lazy("Some of what is held out is trained on as well."),
    "no_normalisation": gettext_lazy("The reward model's scores are used as they are."),
    "reward_at_chance": gettext_lazy("The reward model may be guessing."),
    "reward_no_better_than_length": gettext_lazy(
        "The reward model knows no more than the length of the answers."
    ),
}

_RESUME_ONCE = gettext_lazy(
    "Resume it once; if it fails again, trainer.log in the run's folder tells more."
)
# What to do about a failed run, by the kind of its failure.
REMEDIES: Final[dict[str, Any]] = {
    Run.Failure.SPEC: gettext_lazy(
        "Do it again with changes; resuming it would fail the same way."
    ),
    Run.Failure.DATA: gettext_lazy("Mend what it reads, then do it again with that."),
    Run.Failure.REFUSED: gettext_lazy(
        "Do it again with changes, or mend what the sentence names and resume it."
    ),
    Run.Failure.DIVERGED: gettext_lazy("Do it again with a lower learning rate."),
    Run.Failure.MEMORY: gettext_lazy(
        "Do it again with less at once (a smaller batch, shorter texts, an adapter); or end other "
        "programs and resume it."
    ),
    Run.Failure.DISK: gettext_lazy("Make room, then resume it."),
    Run.Failure.PERMISSION: gettext_lazy("Let the worker use that file, then resume it."),
    Run.Failure.UNEXPECTED: _RESUME_ONCE,
    Run.Failure.NOT_STARTED: gettext_lazy("Mend what the sentence names, then resume it."),
    Run.Failure.KILLED: gettext_lazy(
        "Often the memory was full: do it again with less at once, or end other programs and "
        "resume it."
    ),
    Run.Failure.EXITED: _RESUME_ONCE,
}

# Failures that would come again if the run were only resumed.
NEEDS_CHANGES: Final = frozenset(
    {
        Run.Failure.SPEC,
        Run.Failure.DATA,
        Run.Failure.REFUSED,
        Run.Failure.DIVERGED,
        Run.Failure.MEMORY,
    }
)


@dataclass(frozen=True)
class LogLine:
    """One event: in the reader's words, and in the trainer's."""

    at: datetime
    kind: str
    step: int | None
    words: str
    said: str


def log_line(event: RunEvent) -> LogLine:
    """One event in words; an unknown kind is shown by its name, so that nothing is hidden."""
    said = str(event.data.get("message") or "")
    words = _words(event.kind, event.step, event.data)
    return LogLine(event.at, event.kind, event.step, words, said)


def _words(kind: str, step: int | None, data: dict[str, Any]) -> str:
    if kind == "started":
        return _started(data)
    if kind == "checkpoint":
        return _("Checkpoint at step %(n)s.") % {"n": step}
    if kind == "finished":
        return _("Finished.")
    if kind == "failed":
        kind_of_it = str(Run.Failure(known_failure(data)).label) if data.get("code") else ""
        return " ".join(part for part in (_("Failed."), kind_of_it) if part)
    if kind == "stopped":
        return _("Stopped; it can be resumed.")
    if kind == "alert":
        where = _("Step %(n)s: ") % {"n": step} if step is not None else ""
        code = str(data.get("code") or "")
        return where + str(ALERTS.get(code, code))
    return kind


def _started(data: dict[str, Any]) -> str:
    facts = [str(data[key]) for key in ("device", "dtype") if data.get(key)]
    where = f" ({', '.join(facts)})" if facts else ""
    if data.get("resumed_from"):
        return _("Resumed after step %(n)s%(where)s.") % {"n": data["resumed_from"], "where": where}
    return _("Started%(where)s.") % {"where": where}
