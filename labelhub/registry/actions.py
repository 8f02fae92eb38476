"""Registering and promoting model versions. A version is written once and never changed."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

from django.db import transaction
from django.db.models import Max
from django.utils.translation import gettext as _
from safetensors import SafetensorError, safe_open

from labelhub.accounts.actions import audit
from labelhub.accounts.models import User
from labelhub.lib.errors import Refused
from labelhub.projects.models import Project
from labelhub.registry.models import LivePolicy, ModelVersion, Parent
from labelhub.registry.queries import WRITERS

Kind = ModelVersion.Kind


def folder_sha256(folder: Path) -> str:
    """The version's hash: SHA-256 of manifest.json, which lists the hash of every other file."""
    manifest = folder / "manifest.json"
    if not manifest.is_file():
        raise Refused(
            _("%(folder)s holds no manifest.json: it is not a finished model folder.")
            % {"folder": folder}
        )
    return hashlib.sha256(manifest.read_bytes()).hexdigest()


@transaction.atomic
def register_base(*, name: str, folder: Path, by: User | None) -> ModelVersion:
    """Register a base model under its name; the same folder again is the same version."""
    sha256 = folder_sha256(folder)
    existing = ModelVersion.objects.filter(name=name).first()
    if existing:
        if existing.sha256 == sha256:
            return existing
        raise Refused(
            _("A different model is registered as %(name)s already: choose another name.")
            % {"name": name}
        )
    version = ModelVersion.objects.create(
        kind=Kind.BASE, name=name, folder=str(folder), sha256=sha256, card=_card(folder),
        parameters=_parameters(folder),
    )  # fmt: skip
    audit(by=by, action="version.register", target=version, name=name, sha256=sha256)
    return version


@transaction.atomic
def register_output(
    *,
    project: Project,
    kind: str,
    folder: Path,
    parents: dict[str, ModelVersion],
    metrics: dict[str, Any],
    by: User | None,
) -> ModelVersion:
    """Register what a run made as the project's next version of its kind, with its parents."""
    Project.objects.select_for_update().get(pk=project.pk)
    newest = ModelVersion.objects.filter(project=project, kind=kind).aggregate(n=Max("number"))["n"]
    number = (newest or 0) + 1
    version = ModelVersion.objects.create(
        project=project, kind=kind, number=number, name=f"{project.slug}/{kind}-v{number}",
        folder=str(folder), sha256=folder_sha256(folder), metrics=metrics, card=_card(folder),
        parameters=_parameters(folder),
    )  # fmt: skip
    for role, parent in parents.items():
        Parent.objects.create(child=version, parent=parent, role=role)
    audit(
        by=by, action="version.register", target=version, name=version.name, sha256=version.sha256
    )
    return version


@transaction.atomic
def promote(*, project: Project, version: ModelVersion, by: User | None) -> None:
    """Let this policy write the project's next answers."""
    if version.kind not in WRITERS:
        raise Refused(
            _("%(name)s is of the kind “%(kind)s” and cannot write answers.")
            % {"name": version, "kind": version.get_kind_display()}
        )
    LivePolicy.objects.update_or_create(project=project, defaults={"version": version})
    audit(by=by, action="version.promote", target=version, project=project.slug)


def _card(folder: Path) -> str:
    card = folder / "README.md"
    return card.read_text(encoding="utf-8") if card.is_file() else ""


def _parameters(folder: Path) -> int:
    """Count the parameters from the safetensors headers alone; no weights are read."""
    total = 0
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="np") as file:
                shapes = [file.get_slice(name).get_shape() for name in file.keys()]  # noqa: SIM118
        except SafetensorError as error:
            raise Refused(
                _("%(path)s is damaged (%(error)s): restore it.") % {"path": path, "error": error}
            ) from None
        total += sum(math.prod(shape) for shape in shapes)
    return total
