"""Reads about model versions: which there are, which is live, and what was made from what.

A base that was brought in belongs to no project, so every project may see it; of what was made
from it, and of the bases that projects pretrain, a project sees only its own.
"""

from __future__ import annotations

from django.db.models import Prefetch, Q, QuerySet
from django.http import Http404
from django.utils.translation import gettext as _

from labelhub.projects.models import Project
from labelhub.registry.models import LivePolicy, ModelVersion, Parent

Kind = ModelVersion.Kind
# Kinds that write answers as they are. An adapter needs its base, and peft beside it.
WRITERS = frozenset({Kind.BASE, Kind.SFT, Kind.POLICY})

_PARENTS = Prefetch(
    "parent_links",
    Parent.objects.select_related("parent", "child").order_by("role", "id"),
)


def versions_of(project: Project) -> QuerySet[ModelVersion]:
    """What the project itself made, newest first, with the links to its parents."""
    return (
        ModelVersion.objects.filter(project=project)
        .prefetch_related(_PARENTS)
        .select_related("project")
        .order_by("-id")
    )


def bases(project: Project) -> QuerySet[ModelVersion]:
    """The registered bases and the project's own, by name: what it may begin with."""
    return seen_by(project).filter(kind=ModelVersion.Kind.BASE).order_by("name")


def seen_by(project: Project) -> QuerySet[ModelVersion]:
    """What a project's runs may read: its own versions and the bases of the whole house."""
    return ModelVersion.objects.filter(Q(project=project) | Q(project=None))


def is_writer(version: ModelVersion) -> bool:
    """Whether it can write answers as it is."""
    return version.kind in WRITERS


def family_of(project: Project) -> list[ModelVersion]:
    """The project's versions, newest first, then the bases that they or the live one stem from."""
    own = list(versions_of(project))
    known = {version.pk for version in own}
    wanted = {link.parent_id for version in own for link in version.parent_links.all()} - known
    live = live_version(project)
    if live is not None and live.pk not in known:
        wanted.add(live.pk)
    roots = ModelVersion.objects.filter(pk__in=wanted).prefetch_related(_PARENTS).order_by("-id")
    return own + list(roots)


def get_version_or_404(project: Project, version_id: int) -> ModelVersion:
    """One of the project's versions, or a base."""
    version = seen_by(project).filter(pk=version_id).prefetch_related(_PARENTS).first()
    if version is None:
        raise Http404(_("There is no such model version in this project."))
    return version


def children_in(project: Project, version: ModelVersion) -> QuerySet[Parent]:
    """What this project made from `version`: a base has children elsewhere, which stay unseen."""
    return (
        Parent.objects.filter(parent=version, child__project=project)
        .select_related("child")
        .order_by("-child_id", "role")
    )


def live_pointer(project: Project) -> LivePolicy | None:
    """The live pointer, which also knows since when it points there."""
    return LivePolicy.objects.select_related("version").filter(project=project).first()


def live_version(project: Project) -> ModelVersion | None:
    """The policy that writes the project's next answers; None before one was chosen."""
    pointer = live_pointer(project)
    return pointer.version if pointer else None
