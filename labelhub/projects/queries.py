"""Which projects a person may see, and as what. Every page and route begins here."""

from __future__ import annotations

from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404
from django.utils.translation import gettext as _

from labelhub.accounts.models import User
from labelhub.projects.models import Guidelines, Membership, Project

Role = Membership.Role
_ORDER = [Role.ANNOTATOR, Role.REVIEWER, Role.ADMIN]


def visible_projects(user: User) -> QuerySet[Project]:
    """The projects that `user` is a member of; a superuser is an admin of all."""
    if user.is_superuser:
        return Project.objects.all()
    return Project.objects.filter(memberships__user=user)


def role_in(user: User, project: Project) -> Role | None:
    """The user's role in the project, None for a stranger."""
    if user.is_superuser:
        return Role.ADMIN
    membership = Membership.objects.filter(project=project, user=user).first()
    return Role(membership.role) if membership else None


def administered_projects(user: User) -> QuerySet[Project]:
    """The projects whose dashboard `user` may steer."""
    if user.is_superuser:
        return Project.objects.all()
    return Project.objects.filter(memberships__user=user, memberships__role=Role.ADMIN)


def get_project_or_404(user: User, slug: str, role: Role = Role.ANNOTATOR) -> Project:
    """Find and permit in one line: a stranger gets 404, a member of too low a role 403."""
    project = visible_projects(user).filter(slug=slug).first()
    if project is None:
        raise Http404(_("There is no such project among yours."))
    held = role_in(user, project)
    if held is None or _ORDER.index(held) < _ORDER.index(role):
        raise PermissionDenied(_("Only a project admin may do this."))
    return project


def current_guidelines(project: Project) -> Guidelines | None:
    """The newest version of the guidelines."""
    return project.guidelines.order_by("-version").first()
