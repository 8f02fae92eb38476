"""Reads about runs: how far one is, what it measured, what happened in it.

A resumed run repeats the events after its checkpoint, so figures are keyed by step and the later
line of the file wins. Nothing here opens a run's folder: what is not in the database is not shown.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import F, Q, QuerySet
from django.http import Http404
from django.utils.translation import gettext as _

from labelhub.accounts.models import User
from labelhub.projects.models import Project
from labelhub.rankings.queries import best_lines, export_lines, ideal_lines
from labelhub.registry.models import ModelVersion, Parent
from labelhub.runs import rules
from labelhub.runs.models import Corpus, Run, RunEvent, RunInput, Snapshot, SnapshotItem

# The states in which a run is not over and nobody has to do anything.
LIVING = (Run.State.QUEUED, Run.State.RUNNING, Run.State.STOPPING)

Series = dict[str, list[tuple[int, float]]]


@dataclass(frozen=True)
class Progress:
    """How far a run is: `share` from 0 to 1, None while nothing is known yet."""

    share: float | None
    step: int
    total: int
    eta_seconds: float | None


@dataclass(frozen=True)
class Attempt:
    """One start of the trainer for a run."""

    number: int
    started: datetime
    ended: datetime | None
    outcome: str  # "running", "finished", "failed", "stopped" or "lost"
    resumed_from: int | None
    device: str
    threads: int | None


@dataclass(frozen=True)
class Sample:
    """An answer of the policy in training to one of the run's fixed prompts."""

    step: int | None
    prompt: str
    text: str
    score: float | None


def runs_of(project: Project) -> QuerySet[Run]:
    """The project's runs, newest first."""
    return Run.objects.filter(project=project).select_related("output").order_by("-id")


def get_run_or_404(project: Project, run_id: int) -> Run:
    """One run of the project."""
    run = (
        Run.objects.filter(project=project, pk=run_id)
        .select_related("project", "output", "created_by")
        .first()
    )
    if run is None:
        raise Http404(_("There is no such run in this project."))
    return run


def snapshots_of(project: Project, holds: str | None = None) -> QuerySet[Snapshot]:
    """The project's snapshots, newest first: all, or those of rankings or of pairs."""
    rows = Snapshot.objects.filter(project=project).order_by("-id")
    if holds is None:
        return rows
    rankings = Snapshot.Kind.RANKINGS
    return rows.filter(kind=rankings) if holds == "rankings" else rows.exclude(kind=rankings)


def corpora_of(project: Project) -> QuerySet[Corpus]:
    """The texts that a project may pretrain on: its own first, then those of the whole house."""
    rows = Corpus.objects.filter(Q(project=project) | Q(project=None))
    return rows.order_by(F("project").asc(nulls_last=True), "name")


def reports_of(project: Project) -> QuerySet[Run]:
    """The finished runs whose figures over the steps can be read by others, newest first."""
    return _finished(project, rules.REPORTING_STAGES)


def writings_of(project: Project) -> QuerySet[Run]:
    """The finished runs that left answers, newest first."""
    return _finished(project, rules.WRITING_STAGES)


def _finished(project: Project, stages: frozenset[str]) -> QuerySet[Run]:
    done = Run.objects.filter(project=project, stage__in=stages, state=Run.State.FINISHED)
    return done.order_by("-id")


def inputs_of(run: Run) -> QuerySet[RunInput]:
    """What the run reads, by role."""
    return run.inputs.select_related("version", "snapshot", "corpus", "source").order_by("role")


def is_living(run: Run) -> bool:
    """Whether the run is queued, running or on its way to a stop."""
    return run.state in LIVING


def progress_of(run: Run) -> Progress:
    """How far the run is, from the steps it reported; a finished run is whole."""
    if run.state == Run.State.FINISHED:
        return Progress(1.0, run.step, run.total, None)
    share = min(run.step / run.total, 1.0) if run.total else None
    beat = _last_heartbeat(run) if run.state in LIVING else {}
    told = number(beat, "stage_progress")
    if told is not None:
        share = min(max(told, share or 0.0, 0.0), 1.0)
    eta = run.eta_seconds if run.eta_seconds is not None else number(beat, "eta_s")
    return Progress(share, run.step, run.total, eta if run.state in LIVING else None)


def _last_heartbeat(run: Run) -> dict[str, Any]:
    event = (
        RunEvent.objects.filter(run=run, kind="heartbeat", attempt=run.attempt)
        .order_by("-offset")
        .first()
    )
    return event.data if event else {}


def number(data: dict[str, Any], *keys: str) -> float | None:
    """The finite number at a path of keys, None when there is none: reports may miss any figure."""
    value: Any = data
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return _finite(value)


def interval(data: dict[str, Any], key: str) -> tuple[float, float] | None:
    """The interval [low, high] under `key`, None when it is missing or incomplete."""
    value = data.get(key)
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        return None
    low, high = _finite(value[0]), _finite(value[1])
    return None if low is None or high is None else (low, high)


def _finite(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if math.isfinite(value) else None


def metric_series(run: Run) -> Series:
    """Every numeric figure of the run's metric events: name → [(step, value) …] by step."""
    rows = RunEvent.objects.filter(run=run, kind="metric", step__isnull=False)
    return series_from(rows.order_by("offset").values_list("step", "data"))


def series_from(rows: Iterable[tuple[int | None, Any]]) -> Series:
    """Turn (step, data) rows in file order into series; of a repeated step the later row wins."""
    found: dict[str, dict[int, float]] = {}
    for step, data in rows:
        if step is None or not isinstance(data, dict):
            continue
        for name, raw in data.items():
            value = _finite(raw)
            if value is not None and name not in ("step", "total"):
                found.setdefault(name, {})[step] = value
    return {name: sorted(points.items()) for name, points in found.items()}


def report_with_names(run: Run) -> dict[str, Any]:
    """The run's report; annotators, whom the trainer knows by number, by their names.

    Somebody who is gone keeps the number.
    """
    report: dict[str, Any] = run.report
    parts = report.get("by_annotator")
    if not isinstance(parts, dict):
        return report
    numbers = [key for key in parts if key.isascii() and key.isdigit()]
    known = User.objects.filter(pk__in=numbers).values_list("pk", "username")
    names = {str(pk): name for pk, name in known}
    return report | {"by_annotator": {names.get(key, key): part for key, part in parts.items()}}


def newest_test_of(version: ModelVersion, project: Project) -> Run | None:
    """The last finished evaluation in which this version was what was tested."""
    tested = Run.objects.filter(project=project, stage=Run.Stage.EVALUATE, state=Run.State.FINISHED)
    role = "reward" if version.kind == "reward" else "policy"
    runs = tested.filter(inputs__version=version, inputs__role=role)
    if version.kind == "reward":
        # Where policies are compared the reward model is the judge.
        runs = runs.exclude(inputs__role="policy")
    return runs.order_by("-pk").first()


def samples_of(run: Run) -> list[Sample]:
    """The newest answers that the policy in training wrote to the run's fixed prompts."""
    newest = RunEvent.objects.filter(run=run, kind="sample").order_by("-offset").first()
    rows = newest.data.get("samples") if newest else None
    if newest is None or not isinstance(rows, list):
        return []
    return [_sample(newest.step, row) for row in rows if isinstance(row, dict)]


def _sample(step: int | None, row: dict[str, Any]) -> Sample:
    messages = row.get("prompt")
    last = messages[-1] if isinstance(messages, list) and messages else {}
    asked = last.get("content", "") if isinstance(last, dict) else ""
    return Sample(step, str(asked), str(row.get("text", "")), number(row, "score"))


def alerts_of(runs: Iterable[Run]) -> list[RunEvent]:
    """What a person should look at, newest first; an alarm repeated after a resume counts once."""
    rows = RunEvent.objects.filter(run__in=list(runs), kind="alert").order_by("id")
    unique = {(event.run_id, event.step, event.data.get("code")): event for event in rows}
    return sorted(unique.values(), key=lambda event: event.pk, reverse=True)


def log_of(run: Run, limit: int = 60) -> list[RunEvent]:
    """The events to read as a log, newest first: all but figures, samples and signs of life."""
    rows = RunEvent.objects.filter(run=run).exclude(kind__in=["metric", "heartbeat", "sample"])
    return list(rows.order_by("-offset")[:limit])


def events_after(run: Run, offset: int, limit: int = 500) -> QuerySet[RunEvent]:
    """The run's events that begin after `offset` in its file (-1: from the first), in order."""
    return RunEvent.objects.filter(run=run, offset__gt=offset).order_by("offset")[:limit]


def attempts_of(run: Run) -> list[Attempt]:
    """Each start of the trainer and how it ended, newest first."""
    rows = RunEvent.objects.filter(run=run).exclude(kind__in=["metric", "sample", "alert"])
    starts: dict[int, RunEvent] = {}
    ends: dict[int, RunEvent] = {}
    for event in rows.exclude(kind="heartbeat").order_by("offset"):
        if event.kind == "started":
            starts.setdefault(event.attempt, event)
        elif event.kind in ("finished", "failed", "stopped"):
            ends[event.attempt] = event
    return [
        _attempt(run, starts[attempt], ends.get(attempt))
        for attempt in sorted(starts, reverse=True)
    ]


def _attempt(run: Run, start: RunEvent, end: RunEvent | None) -> Attempt:
    resumed, threads = number(start.data, "resumed_from"), number(start.data, "threads")
    if end is not None:
        outcome = end.kind
    else:
        outcome = "running" if start.attempt == run.attempt and is_living(run) else "lost"
    return Attempt(
        number=start.attempt,
        started=start.at,
        ended=end.at if end else None,
        outcome=outcome,
        resumed_from=int(resumed) if resumed else None,
        device=str(start.data.get("device") or ""),
        threads=int(threads) if threads else None,
    )


def latest_metrics(run: Run) -> dict[str, float]:
    """The newest value of each figure among the run's last metric events."""
    rows = RunEvent.objects.filter(run=run, kind="metric").order_by("-offset")[:5]
    newest: dict[str, float] = {}
    for event in reversed(rows):
        values = ((name, _finite(raw)) for name, raw in event.data.items())
        newest |= {name: value for name, value in values if value is not None}
    return newest


# --- what was trained on what


def snapshot_lines(snapshot: Snapshot) -> Iterator[dict[str, Any]]:
    """The lines that the trainer reads of a snapshot: rankings with what each counts, or pairs.

    Of somebody whose data was deleted since, the lines are missing.
    """
    if snapshot.kind in (Snapshot.Kind.FILE, Snapshot.Kind.WINNERS):
        return map(json.loads, snapshot.file.text.removesuffix("\n").split("\n"))
    if snapshot.kind == Snapshot.Kind.IDEAL:
        return ideal_lines(snapshot.rankings.all())
    if snapshot.kind == Snapshot.Kind.BEST:
        return best_lines(snapshot.rankings.all())
    weights = snapshot.items.filter(ranking__isnull=False).values_list("ranking_id", "weight")
    return export_lines(snapshot.rankings.all(), dict(weights))


def touched_by(project: Project, user: User) -> tuple[list[Snapshot], list[ModelVersion]]:
    """What a person's rankings went into: snapshots, and all versions that descend from them.

    Both oldest first. Ask before the person's data is deleted: the links go with it.
    """
    snapshots = Snapshot.objects.filter(project=project, rankings__annotator=user).distinct()
    found = list(snapshots.order_by("pk"))
    made = _made_from([one.pk for one in found])
    versions = _with_descendants({pk for outputs in made.values() for pk in outputs})
    return found, list(ModelVersion.objects.filter(pk__in=versions).order_by("pk"))


def trained_by(ranking_ids: Iterable[int]) -> dict[int, list[ModelVersion]]:
    """The policies that descend from each of these rankings, oldest first; {} for none."""
    items = SnapshotItem.objects.filter(ranking__in=list(ranking_ids))
    held: dict[int, set[int]] = defaultdict(set)  # snapshots by ranking
    for ranking, snapshot in items.values_list("ranking_id", "snapshot_id"):
        held[ranking].add(snapshot)
    made = _made_from({one for snapshots in held.values() for one in snapshots})
    descendants = {one: _with_descendants(set(outputs)) for one, outputs in made.items()}
    policies = ModelVersion.objects.filter(kind=ModelVersion.Kind.POLICY).in_bulk(
        {pk for versions in descendants.values() for pk in versions}
    )
    found: dict[int, list[ModelVersion]] = {}
    for ranking, snapshots in held.items():
        made_of_it = {pk for one in snapshots for pk in descendants.get(one, ())}
        if known := sorted(made_of_it & set(policies)):
            found[ranking] = [policies[pk] for pk in known]
    return found


def _made_from(snapshot_ids: Iterable[int]) -> dict[int, list[int]]:
    """The versions that runs made of each of these snapshots."""
    read = RunInput.objects.filter(snapshot__in=list(snapshot_ids), run__output__isnull=False)
    made: dict[int, list[int]] = defaultdict(list)
    for snapshot, output in read.values_list("snapshot_id", "run__output_id"):
        made[snapshot].append(output)
    return made


def _with_descendants(version_ids: set[int]) -> set[int]:
    """These versions and everything that was made of them, in one query for each generation."""
    known, newest = set(version_ids), set(version_ids)
    while newest:
        children = Parent.objects.filter(parent__in=newest).values_list("child_id", flat=True)
        newest = set(children) - known
        known |= newest
    return known
