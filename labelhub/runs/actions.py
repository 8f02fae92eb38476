"""What people ask for about runs and snapshots."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from django.db import transaction
from django.db.models import QuerySet
from django.utils.translation import gettext as _

from labelhub.accounts.actions import audit
from labelhub.accounts.models import User
from labelhub.lib.errors import Refused
from labelhub.lib.queue import enqueue_on_commit
from labelhub.projects.models import Project
from labelhub.prompts.models import Answer, Prompt
from labelhub.rankings.actions import freeze
from labelhub.rankings.models import Ranking
from labelhub.rankings.quality import reliability
from labelhub.registry.actions import register_base
from labelhub.registry.models import ModelVersion
from labelhub.runs import launcher, rules, tasks
from labelhub.runs.models import Corpus, Run, RunInput, Snapshot, SnapshotItem
from labelhub.runs.queries import snapshot_lines
from labelhub.runs.signals import run_ended
from labelhub.runs.stages import Thing, fits

State = Run.State


@transaction.atomic
def take_snapshot(*, project: Project, rankings: QuerySet[Ranking], by: User | None) -> Snapshot:
    """Freeze a list of rankings under the hash of the lines that the trainer will read.

    From here on nobody can correct them. Where annotators are weighed, each ranking keeps what it
    counts by how reliable its annotator is at this moment; otherwise all count the same.
    """
    # Locked first: a correction that is on its way ends before, or finds its ranking frozen.
    locked = rankings.filter(project=project).select_for_update(no_key=True, of=("self",))
    voices = dict(locked.order_by("pk").values_list("pk", "annotator_id"))
    if not voices:
        raise Refused(_("There is no ranking yet to take a snapshot of."))
    freeze(voices)
    weights = reliability(project) if project.weigh_annotators else {}
    snapshot = Snapshot.objects.create(project=project, count=len(voices), created_by=by)
    SnapshotItem.objects.bulk_create(
        [
            SnapshotItem(snapshot=snapshot, ranking_id=pk, weight=weights.get(annotator, 1.0))
            for pk, annotator in voices.items()
        ],
        batch_size=500,
    )
    return seal(snapshot, by)


def seal(snapshot: Snapshot, by: User | None) -> Snapshot:
    """Write down how many lines the trainer will read of a new snapshot, and their hash."""
    digest, count = hashlib.sha256(), 0
    for row in snapshot_lines(snapshot):
        digest.update(json.dumps(row, ensure_ascii=False).encode() + b"\n")
        count += 1
    snapshot.sha256, snapshot.count = digest.hexdigest(), count
    snapshot.save(update_fields=["sha256", "count"])
    audit(by=by, action="snapshot.take", target=snapshot, count=count, sha256=snapshot.sha256)
    return snapshot


def check_config(stage: str, config: dict[str, Any]) -> None:
    """Refuse a stage's settings before anything is planned with them."""
    launcher.check_config(stage, config)


@transaction.atomic
def start_run(
    *,
    project: Project,
    stage: str,
    config: dict[str, Any],
    inputs: Mapping[str, Thing],
    seed: int,
    by: User | None,
    snapshot: Snapshot | None = None,
    data: dict[str, Any] | None = None,
) -> Run:
    """Queue one execution of a stage; what the trainer would refuse is refused here.

    `inputs` are what it reads, by role; `snapshot` is short for one in the role of its lines.
    `data` names the prompts and answers that it reads, by role, as numbers of rows.
    """
    if stage not in Run.Stage.values:
        raise Refused(_("There is no stage “%(stage)s”.") % {"stage": stage}, status=400)
    things = {**inputs, **({snapshot.holds: snapshot} if snapshot else {})}
    rows = {role: ids for role, ids in (data or {}).items() if ids}
    launcher.check_spec(stage, config, [*things, *rows], seed)
    kinds = launcher.stage_facts(stage).kinds
    for role, thing in things.items():
        _check_input(project, role, kinds[role], thing)
    for role, ids in rows.items():
        _check_rows(project, stage, role, kinds[role], ids)
    _refuse_shared(rows)
    run = Run.objects.create(
        project=project, stage=stage, config=config, seed=seed, data=rows, created_by=by
    )
    RunInput.objects.bulk_create(
        [RunInput(run=run, role=role, **{_field(thing): thing}) for role, thing in things.items()]
    )
    audit(by=by, action="run.start", target=run, stage=stage, config=config)
    enqueue_on_commit(tasks.watch_run, run.pk)
    return run


def _field(thing: Thing) -> str:
    """The column of RunInput that such a thing stands in."""
    fields = {ModelVersion: "version", Snapshot: "snapshot", Corpus: "corpus", Run: "source"}
    return fields[type(thing)]


def _check_input(project: Project, role: str, kind: str, thing: Thing) -> None:
    """Refuse what cannot be read in this role, and what belongs to another project."""
    if not fits(kind, thing):
        told = thing.kind if isinstance(thing, ModelVersion) else type(thing)._meta.verbose_name
        raise Refused(
            _("%(thing)s is no %(role)s: it is of the kind “%(kind)s”.")
            % {"thing": thing, "role": role, "kind": told},
            status=400,
            role=role,
        )
    if thing.project_id not in {None, project.pk}:
        raise Refused(_("%(thing)s belongs to another project.") % {"thing": thing}, role=role)


def _check_rows(project: Project, stage: str, role: str, kind: str, ids: list[int]) -> None:
    """Refuse numbers that are not this project's, and held-out prompts where a policy learns."""
    if kind not in rules.ROW_KINDS:
        raise Refused(
            _("“%(role)s” is not read as a list of numbers.") % {"role": role},
            status=400,
            role=role,
        )
    if kind == "prompts":
        known = set(Prompt.objects.filter(project=project, pk__in=ids).values_list("pk", flat=True))
    else:
        answers = Answer.objects.filter(answer_set__prompt__project=project, pk__in=ids)
        known = set(answers.values_list("pk", flat=True))
    if missing := sorted(set(ids) - known):
        words = _("These numbers are not in this project: %(numbers)s.")
        raise Refused(words % {"numbers": _some(missing)}, status=400, role=role)
    if role == "prompts" and stage in rules.LEARN_FROM_PROMPTS:
        _refuse_held_out(ids, role)


def _refuse_held_out(ids: list[int], role: str) -> None:
    held = Prompt.objects.filter(pk__in=ids, held_out=True).order_by("pk")
    if found := list(held.values_list("pk", flat=True)):
        words = _("These prompts are held out, no stage trains on them: %(numbers)s.")
        raise Refused(words % {"numbers": _some(found)}, status=400, role=role)


def _refuse_shared(rows: Mapping[str, list[int]]) -> None:
    """Refuse to watch a policy on prompts that it learns from: there any gain looks real."""
    if shared := sorted(set(rows.get("prompts", ())) & set(rows.get("heldout", ()))):
        words = _("The policy learns from these prompts, watch it on others: %(numbers)s.")
        raise Refused(words % {"numbers": _some(shared)}, status=400, role="heldout")


def _some(numbers: list[int]) -> str:
    shown = ", ".join(map(str, numbers[:5]))
    return shown if len(numbers) <= 5 else f"{shown}, …"


@transaction.atomic
def stop_run(*, run: Run, by: User | None) -> Run:
    """Ask a run to stop: a waiting one stops at once, a running one saves a checkpoint first."""
    run = Run.objects.select_for_update().get(pk=run.pk)
    if run.state in rules.ENDED:
        raise Refused(_("This run has ended already."))
    if run.state == State.STOPPING:
        return run
    if run.state == State.QUEUED and run.lease_until is None:
        run.state = State.STOPPED
        run_id = run.pk
        transaction.on_commit(lambda: run_ended.send(sender=Run, run_id=run_id))
    else:
        run.state = State.STOPPING
    run.save(update_fields=["state"])
    audit(by=by, action="run.stop", target=run)
    return run


@transaction.atomic
def resume_run(*, run: Run, by: User | None) -> Run:
    """Queue a stopped or failed run again; the trainer goes on from its last checkpoint."""
    run = Run.objects.select_for_update().get(pk=run.pk)
    if not rules.may_move(run.state, State.QUEUED) or run.state == State.RUNNING:
        raise Refused(_("Only a stopped or failed run can be resumed."))
    run.state, run.error, run.error_code = State.QUEUED, "", ""
    run.ended, run.lease_until = None, None
    run.save(update_fields=["state", "error", "error_code", "ended", "lease_until"])
    audit(by=by, action="run.resume", target=run)
    enqueue_on_commit(tasks.watch_run, run.pk)
    return run


def add_base(*, source: str, name: str | None = None, by: User | None) -> ModelVersion:
    """Make and register a base model: `smollm2`, `tiny`, a local folder, or a hub id."""
    name = name or source.rstrip("/").split("/")[-1]
    folder = launcher.prepare_base(source, name)
    return register_base(name=name, folder=folder, by=by)
