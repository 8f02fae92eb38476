"""One's own seat in a project: hand back what is in hand, pause, go on, leave. All plain forms.

What is handed back goes to others at once; what was ranked stays, whatever becomes of the seat.
"""

from __future__ import annotations

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.db import transaction
from django.http import Http404, HttpResponse
from django.shortcuts import redirect
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from django.views.decorators.http import require_POST

from labelhub.accounts.http import PersonRequest
from labelhub.accounts.models import User
from labelhub.annotate.access import project_or_404
from labelhub.assignments import actions as assignments
from labelhub.assignments.queries import own_held_slots
from labelhub.lib.errors import Refused
from labelhub.projects.actions import leave as leave_project
from labelhub.projects.actions import pause_member, resume_member
from labelhub.projects.models import Membership, Project
from labelhub.projects.queries import membership_of


@login_required
@require_POST
def hand_back(request: PersonRequest, slug: str) -> HttpResponse:
    """Give back what is in hand; what waits for this person by name goes on waiting."""
    project = project_or_404(request.user, slug)
    held = list(own_held_slots(request.user, project))
    with transaction.atomic():
        for answer_set_id in sorted({slot.answer_set_id for slot in held}):
            assignments.give_back(answer_set_id=answer_set_id, by=request.user)
    if held:
        told = ngettext("%(n)d set is handed back.", "%(n)d sets are handed back.", len(held))
        messages.success(request, told % {"n": len(held)})
    else:
        messages.info(request, _("You have no set in hand."))
    return redirect("annotate:next", slug)


@login_required
@require_POST
def pause(request: PersonRequest, slug: str) -> HttpResponse:
    """Take no more work here for now."""
    project = project_or_404(request.user, slug)
    membership = _own_seat_or_404(request.user, project)
    with transaction.atomic():
        pause_member(membership=membership, by=request.user)
        assignments.hand_back(project=project, user=request.user)
    messages.success(request, _("You have paused: no work is given to you until you go on."))
    return redirect("annotate:next", slug)


@login_required
@require_POST
def resume(request: PersonRequest, slug: str) -> HttpResponse:
    """Take work again, unless it was an admin who began the pause."""
    project = project_or_404(request.user, slug)
    membership = _own_seat_or_404(request.user, project)
    try:
        resume_member(membership=membership, by=request.user)
    except Refused as refusal:
        messages.error(request, refusal.message)
    else:
        messages.success(request, _("Your pause has ended."))
    return redirect("annotate:next", slug)


@login_required
@require_POST
def leave(request: PersonRequest, slug: str) -> HttpResponse:
    """Give up one's seat."""
    project = project_or_404(request.user, slug)
    try:
        with transaction.atomic():
            leave_project(project=project, user=request.user)
            assignments.hand_back(project=project, user=request.user)
    except Refused as refusal:
        messages.error(request, refusal.message)
        return redirect("annotate:next", slug)
    messages.success(request, _("You have left %(project)s.") % {"project": project.name})
    return redirect("annotate:projects")


def _own_seat_or_404(user: User, project: Project) -> Membership:
    """An administrator of the whole house sees projects in which there is no seat to pause."""
    membership = membership_of(user, project)
    if membership is None:
        raise Http404(_("You are not a member of this project."))
    return membership
