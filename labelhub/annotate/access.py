"""The first line of every page here: which project, and may this person do this in it.

A stranger gets 404, and so does everybody in a project that simulated annotators rank; a member of
too low a role gets 403.
"""

from __future__ import annotations

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpResponse
from django.shortcuts import redirect
from django.utils.translation import gettext as _

from labelhub.accounts.http import PersonRequest
from labelhub.accounts.models import User
from labelhub.assignments import actions as assignments
from labelhub.lib.errors import Refused
from labelhub.projects.models import Project
from labelhub.projects.queries import Role, get_project_or_404, is_at_least, role_in


def project_or_404(user: User, slug: str) -> Project:
    """Find a project that people annotate; what simulated annotators rank is never offered."""
    project = get_project_or_404(user, slug)
    if project.is_simulated:
        raise Http404(_("This project is ranked by simulated annotators."))
    return project


def reviewed_project_or_404(user: User, slug: str) -> Project:
    """The same for those who decide where opinions differ."""
    project = project_or_404(user, slug)
    if not may_review(user, project):
        raise PermissionDenied(_("Only reviewers and admins of the project decide here."))
    return project


def may_review(user: User, project: Project) -> bool:
    """Whether this person may decide where opinions differ."""
    role = role_in(user, project)
    return role is not None and is_at_least(role, Role.REVIEWER)


def to_next(request: PersonRequest, project: Project) -> HttpResponse:
    """Take the next set and go to its board; who has not passed the tutorial is led there."""
    try:
        slot = assignments.claim_next(project=project, by=request.user)
    except Refused as refusal:
        if refusal.code == "unqualified":
            messages.info(request, refusal.message)
            return redirect("annotate:tutorial", project.slug)
        messages.error(request, refusal.message)
        slot = None
    if slot is None:
        return redirect("annotate:next", project.slug)
    return redirect("annotate:board", project.slug, slot.pk)
