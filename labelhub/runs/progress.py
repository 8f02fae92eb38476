"""What the watchers of trainer processes report: leases, events, ends.

Every write names the attempt. A watcher whose lease was taken over finds no row of its attempt and
learns so that it is too late.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import F, Q
from django.utils import timezone

from labelhub.accounts.actions import audit
from labelhub.registry.actions import register_output
from labelhub.registry.models import ModelVersion
from labelhub.runs import rules
from labelhub.runs.folder import read_report, run_folder
from labelhub.runs.models import Run, RunEvent, RunInput
from labelhub.runs.signals import run_ended

State = Run.State
_MOST = 2**31 - 1  # in a column of whole numbers


@dataclass(frozen=True)
class Line:
    """One parsed line of events.jsonl and where it begins."""

    offset: int
    event: dict[str, Any]


def take_lease(run_id: int) -> Run | None:
    """Take the run if nobody's lease on it lives: a conditional update, so one of many wins."""
    now = timezone.now()
    free = Q(lease_until__isnull=True) | Q(lease_until__lt=now)
    taken = (
        Run.objects.filter(pk=run_id, state__in=[State.QUEUED, State.RUNNING, State.STOPPING])
        .filter(free)
        .update(attempt=F("attempt") + 1, lease_until=_lease_end(now))
    )
    return Run.objects.get(pk=run_id) if taken == 1 else None


def mark_running(run: Run, process_group: int) -> bool:
    """Record the trainer's process group; False when a stop or another watcher came first."""
    changed = (
        _mine(run)
        .filter(state__in=[State.QUEUED, State.RUNNING])
        .update(
            state=State.RUNNING,
            process_group=process_group,
            started=run.started or timezone.now(),
            error="",
            error_code="",
        )
    )
    return bool(changed == 1)


def renew_lease(run: Run) -> str | None:
    """Prolong the lease; returns the run's present state, or None when the lease was lost.

    Called twice a second, so it writes only once a sixth of the lease is over: else each run that
    trains would take the database's one writer (SQLite) for nothing.
    """
    now = timezone.now()
    held = _mine(run).values_list("state", "lease_until").first()
    if held is None:
        return None
    state, until = held
    due = until is None or until < _lease_end(now) - timedelta(
        seconds=settings.RUN_LEASE_SECONDS / 6
    )
    if due and _mine(run).update(lease_until=_lease_end(now)) != 1:
        return None
    return str(state)


def record_events(run: Run, lines: Sequence[Line]) -> None:
    """Store a batch of event lines; one that is stored already (read again) is left as it is."""
    RunEvent.objects.bulk_create(
        [
            RunEvent(
                run=run,
                attempt=run.attempt,
                offset=line.offset,
                at=datetime.fromtimestamp(float(line.event.get("t", 0.0)), UTC),
                kind=str(line.event.get("kind", ""))[:12],
                step=_whole(line.event.get("step")),
                data={k: v for k, v in line.event.items() if k not in {"t", "kind", "step"}},
            )
            for line in lines
        ],
        ignore_conflicts=True,
    )
    changes = _progress([line.event for line in lines])
    if changes:
        _mine(run).update(**changes)


def _progress(events: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The newest step, total and time left among the events."""
    changes: dict[str, Any] = {}
    for event in events:
        if event.get("kind") == "metric" and _whole(event.get("step")) is not None:
            changes["step"] = _whole(event["step"])
        if _whole(event.get("total")) is not None:
            changes["total"] = _whole(event["total"])
        if isinstance(event.get("eta_s"), int | float):
            changes["eta_seconds"] = float(event["eta_s"])
    return changes


def _whole(value: object) -> int | None:
    """A whole number that a column can hold; what is larger is cut off there."""
    if not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return min(int(value), _MOST)


@transaction.atomic
def end_run(run: Run, *, code: int) -> str | None:
    """Write down how the trainer ended; returns the new state, None when the lease was lost."""
    row = Run.objects.select_for_update().filter(pk=run.pk, attempt=run.attempt).first()
    if row is None or row.state in rules.ENDED:
        return None
    state = rules.state_after_exit(
        code,
        stop_asked=row.state == State.STOPPING,
        attempts_left=_hard_ends(row) < rules.MAX_ATTEMPTS,
    )
    row.state, row.lease_until, row.process_group, row.eta_seconds = state, None, None, None
    if state == State.FINISHED:
        _take_in(row)
    if state == State.FAILED:
        row.error_code, row.error = failure_of(row, code)
    if state in rules.ENDED:
        row.ended = timezone.now()
        audit(by=None, action=f"run.{state}", target=row, stage=row.stage, exit_code=code)
        transaction.on_commit(lambda: run_ended.send(sender=Run, run_id=row.pk))
    row.save()
    return state


def fail_run(run: Run, message: str) -> None:
    """A run that could not even be started says why."""
    ended = _mine(run).update(
        state=State.FAILED,
        error_code=Run.Failure.NOT_STARTED,
        error=message,
        lease_until=None,
        process_group=None,
        ended=timezone.now(),
    )
    if ended:
        run_ended.send(sender=Run, run_id=run.pk)


def _take_in(run: Run) -> None:
    """Read the finished run's report and register its weights as a new version."""
    run.report = read_report(run.pk)
    run.error = run.error_code = ""
    kind = rules.output_kind(run.stage, run.config)
    if kind:
        run.output = register_output(
            project=run.project,
            kind=kind,
            folder=run_folder(run.pk) / "out",
            parents=_parents(run),
            metrics={k: v for k, v in run.report.items() if not isinstance(v, list)},
            by=run.created_by,
        )


def _parents(run: Run) -> dict[str, ModelVersion]:
    """The versions that the run read, by role; of winners that it learned, writer and judge."""
    read = RunInput.objects.filter(run=run, version__isnull=False).select_related("version")
    found = {link.role: link.version for link in read if link.version}
    # Every version that rankings went into stays a descendant of what was trained on them.
    chose = RunInput.objects.filter(run__winners__used_by__run=run, version__isnull=False)
    names = {"policy": "writer", "reward": "judge"}
    for link in chose.filter(role__in=names).select_related("version"):
        if link.version:
            found[names[link.role]] = link.version
    return found


def _hard_ends(run: Run) -> int:
    """How often this run's trainer began; starts that a stop ended in good order do not count."""
    orderly = run.events.filter(kind="stopped").count()
    return run.attempt - orderly


def failure_of(run: Run, code: int) -> tuple[str, str]:
    """What kind of failure it was, and the trainer's own last words or what its exit code tells."""
    last = run.events.filter(kind="failed").order_by("offset").last()
    if last and last.attempt == run.attempt and last.data.get("message"):
        return known_failure(last.data), str(last.data["message"])
    if code < 0:
        return Run.Failure.KILLED, (
            f"The trainer was ended by signal {-code} {rules.MAX_ATTEMPTS} times; often the memory "
            "was full. Lower the batch size or end other programs, then resume."
        )
    where = run_folder(run.pk)
    return Run.Failure.EXITED, f"The trainer ended with code {code}; see trainer.log in {where}."


def known_failure(data: dict[str, Any]) -> str:
    """The kind of failure that an event tells; a kind that nobody knows here is unexpected."""
    code = data.get("code")
    return str(code) if code in Run.Failure.values else Run.Failure.UNEXPECTED


def last_words(log: str) -> str:
    """The last line of a log that is not empty."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def parse_lines(chunk: bytes, start: int) -> tuple[list[Line], int]:
    """Split whole lines off `chunk`, which begins at `start` in the file; returns the next start.

    A last line without its newline is still being written and stays for the next time.
    """
    lines: list[Line] = []
    offset = start
    for raw in chunk.splitlines(keepends=True):
        if not raw.endswith(b"\n"):
            break
        try:
            event = json.loads(raw)
        except ValueError:
            event = {"kind": "damaged", "t": 0.0, "line": raw.decode("utf-8", "replace")[:200]}
        if isinstance(event, dict):
            lines.append(Line(offset, event))
        offset += len(raw)
    return lines, offset


def _mine(run: Run) -> Any:
    return Run.objects.filter(pk=run.pk, attempt=run.attempt)


def _lease_end(now: datetime) -> datetime:
    return now + timedelta(seconds=settings.RUN_LEASE_SECONDS)
