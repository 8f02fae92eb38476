"""What people ask for about runs and snapshots."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from django.db import transaction
from django.db.models import QuerySet
from django.utils.translation import gettext as _

from labelhub.accounts.actions import audit
from labelhub.accounts.models import User
from labelhub.lib.errors import Refused
from labelhub.lib.queue import enqueue_on_commit
from labelhub.projects.models import Project
from labelhub.rankings.actions import freeze
from labelhub.rankings.models import Ranking
from labelhub.rankings.quality import reliability
from labelhub.registry.actions import register_base
from labelhub.registry.models import ModelVersion
from labelhub.runs import launcher, rules, tasks
from labelhub.runs.models import Run, RunInput, Snapshot, SnapshotItem
from labelhub.runs.queries import snapshot_lines
from labelhub.runs.signals import run_ended

State = Run.State
# Roles in which a stage reads model versions, and the kinds that may play them.
WRITERS = {ModelVersion.Kind.BASE, ModelVersion.Kind.SFT, ModelVersion.Kind.POLICY}
ROLES = {
    "policy": WRITERS,
    "reference": WRITERS,
    "base": WRITERS,
    "reward": {ModelVersion.Kind.REWARD},
}


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
    snapshot.sha256 = _hash_of_lines(snapshot)
    snapshot.save(update_fields=["sha256"])
    audit(by=by, action="snapshot.take", target=snapshot, count=len(voices), sha256=snapshot.sha256)
    return snapshot


def _hash_of_lines(snapshot: Snapshot) -> str:
    digest = hashlib.sha256()
    for row in snapshot_lines(snapshot):
        digest.update(json.dumps(row, ensure_ascii=False).encode() + b"\n")
    return digest.hexdigest()


def check_config(stage: str, config: dict[str, Any]) -> None:
    """Refuse a stage's settings before anything is planned with them."""
    launcher.check_config(stage, config)


@transaction.atomic
def start_run(
    *,
    project: Project,
    stage: str,
    config: dict[str, Any],
    inputs: dict[str, ModelVersion],
    seed: int,
    by: User | None,
    snapshot: Snapshot | None = None,
    data: dict[str, Any] | None = None,
) -> Run:
    """Queue one execution of a stage; a config that the trainer would refuse is refused here."""
    if stage not in Run.Stage.values:
        raise Refused(_("There is no stage “%(stage)s”.") % {"stage": stage}, status=400)
    data = data or {}
    files = [*(["rankings"] if snapshot else []), *(name for name in data if data[name])]
    launcher.check_spec(stage, config, [*inputs, *files], seed)
    _check_inputs(project, inputs, snapshot)
    run = Run.objects.create(
        project=project, stage=stage, config=config, seed=seed, snapshot=snapshot, data=data,
        created_by=by,
    )  # fmt: skip
    RunInput.objects.bulk_create(
        [RunInput(run=run, role=role, version=version) for role, version in inputs.items()]
    )
    audit(by=by, action="run.start", target=run, stage=stage, config=config)
    enqueue_on_commit(tasks.watch_run, run.pk)
    return run


def _check_inputs(
    project: Project, inputs: dict[str, ModelVersion], snapshot: Snapshot | None
) -> None:
    for role, version in inputs.items():
        kinds = ROLES.get(role)
        if kinds is None:
            raise Refused(_("There is no role “%(role)s”.") % {"role": role}, status=400)
        if version.kind not in kinds:
            raise Refused(
                _("%(version)s is no %(role)s: it is of the kind “%(kind)s”.")
                % {"version": version, "role": role, "kind": version.kind},
                status=400,
            )
        if version.project_id not in {None, project.pk}:
            raise Refused(_("%(version)s belongs to another project.") % {"version": version})
    if snapshot and snapshot.project_id != project.pk:
        raise Refused(_("The snapshot belongs to another project."))


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
    run.state, run.error, run.ended, run.lease_until = State.QUEUED, "", None, None
    run.save(update_fields=["state", "error", "ended", "lease_until"])
    audit(by=by, action="run.resume", target=run)
    enqueue_on_commit(tasks.watch_run, run.pk)
    return run


def add_base(*, source: str, name: str | None = None, by: User | None) -> ModelVersion:
    """Make and register a base model: `smollm2`, `tiny`, a local folder, or a hub id."""
    name = name or source.rstrip("/").split("/")[-1]
    folder = launcher.prepare_base(source, name)
    return register_base(name=name, folder=folder, by=by)
