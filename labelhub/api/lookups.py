"""Find and permit in one call. Everything the API shows or touches comes through here.

A stranger gets 404, as if the thing did not exist; a member whose role is too low gets 403.
"""

from __future__ import annotations

from typing import TypeVar

from django.db.models import Model, Q, QuerySet
from django.http import Http404
from django.utils.translation import gettext as _

from labelhub.accounts.models import User
from labelhub.projects.models import Project
from labelhub.projects.queries import Role, get_project_or_404, visible_projects
from labelhub.registry.models import ModelVersion
from labelhub.runs.models import Corpus

M = TypeVar("M", bound=Model)


def visible(model: type[M], user: User, project: str | None = None) -> QuerySet[M]:
    """The rows of all of the user's projects, or of the one that is named."""
    projects = visible_projects(user)
    if project:
        projects = projects.filter(pk=get_project_or_404(user, project).pk)
    return model._default_manager.filter(project__in=projects).select_related("project")


def find(model: type[M], user: User, pk: int, role: Role = Role.ANNOTATOR) -> M:
    """One row of a project in which the user has at least `role`."""
    row = visible(model, user).filter(pk=pk).first()
    if row is None:
        raise Http404(_("There is no such entry in your projects."))
    project: Project = row.project  # type: ignore[attr-defined]
    get_project_or_404(user, project.slug, role)
    return row


def visible_versions(user: User, project: str | None = None) -> QuerySet[ModelVersion]:
    """The versions of the user's projects, with the bases; a stranger to all projects sees none."""
    projects = visible_projects(user)
    if project:
        projects = projects.filter(pk=get_project_or_404(user, project).pk)
    if not projects.exists():
        return ModelVersion.objects.none()
    return ModelVersion.objects.filter(Q(project__isnull=True) | Q(project__in=projects))


def visible_corpora(user: User, project: str | None = None) -> QuerySet[Corpus]:
    """The texts of the user's projects, with those of the house; a stranger sees none."""
    projects = visible_projects(user)
    if project:
        projects = projects.filter(pk=get_project_or_404(user, project).pk)
    if not projects.exists():
        return Corpus.objects.none()
    return Corpus.objects.filter(Q(project__isnull=True) | Q(project__in=projects))


def find_version(user: User, pk: int) -> ModelVersion:
    """One version that the user may see."""
    version = visible_versions(user).filter(pk=pk).select_related("project").first()
    if version is None:
        raise Http404(_("There is no such model version among yours."))
    return version
