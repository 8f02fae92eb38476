"""A run's events as sentences."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.utils.translation import gettext as _

from labelhub.runs.models import RunEvent


@dataclass(frozen=True)
class LogLine:
    at: datetime
    kind: str
    words: str


def log_line(event: RunEvent) -> LogLine:
    """One event in words; an unknown kind is shown by its name, so that nothing is hidden."""
    return LogLine(event.at, event.kind, _words(event.kind, event.step, event.data))


def _words(kind: str, step: int | None, data: dict[str, Any]) -> str:
    message = str(data.get("message") or "")
    if kind == "started":
        return _started(data)
    if kind == "checkpoint":
        return _("Checkpoint at step %(n)s.") % {"n": step}
    if kind == "finished":
        return _("Finished.")
    if kind == "failed":
        return _("Failed: %(message)s") % {"message": message or _("no reason was given.")}
    if kind == "stopped":
        return message or _("Stopped; it can be resumed.")
    if kind == "alert":
        where = _("Step %(n)s: ") % {"n": step} if step is not None else ""
        return where + (message or str(data.get("code") or ""))
    return f"{kind} {message}".strip()


def _started(data: dict[str, Any]) -> str:
    facts = [str(data[key]) for key in ("device", "dtype") if data.get(key)]
    where = f" ({', '.join(facts)})" if facts else ""
    if data.get("resumed_from"):
        return _("Resumed after step %(n)s%(where)s.") % {"n": data["resumed_from"], "where": where}
    return _("Started%(where)s.") % {"where": where}
