"""The people of a project: seats, invitations, work by name, pauses, and deleting a person's data.

Whatever takes a person away from the work hands back what they hold in the same transaction.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.db import transaction
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from labelhub.accounts.http import PersonRequest
from labelhub.accounts.models import User
from labelhub.assignments import actions as assignments
from labelhub.assignments.queries import (
    assignable_sets,
    own_held_slots,
    reserved_for,
    tutorial_sets,
)
from labelhub.dashboard.forms_people import (
    AssignForm,
    ForgetForm,
    InvitationForm,
    MemberForm,
    SeatForm,
    first_values,
)
from labelhub.dashboard.views import find
from labelhub.lib.errors import Refused
from labelhub.projects import actions
from labelhub.projects.models import Invitation, Membership, Project
from labelhub.projects.queries import (
    get_invitation_or_404,
    get_membership_or_404,
    invitations_of,
    is_last_admin,
    membership_of,
    state_of,
)
from labelhub.rankings import actions as rankings
from labelhub.rankings.people import data_of, former_members, get_person_or_404
from labelhub.rounds import queries as rounds
from labelhub.runs.queries import touched_by

INVITATIONS_SHOWN = 30


@dataclass(frozen=True)
class Sent:
    """An invitation as the table shows it."""

    invitation: Invitation
    state: str

    @property
    def left(self) -> int:
        """Seats that are still free."""
        return self.invitation.seats - self.invitation.used


# --- everybody


def people_page(
    request: PersonRequest,
    project: Project,
    *,
    form: MemberForm | None = None,
    invitation_form: InvitationForm | None = None,
    link: str = "",
    status: int = 200,
) -> HttpResponse:
    """Who belongs to the project; the forms may be ones with mistakes, `link` one just made."""
    sent = invitations_of(project)[:INVITATIONS_SHOWN]
    context = {
        "project": project,
        "tab": "people",
        "members": rounds.members_work(project, rounds.current_round(project)),
        "has_tutorial": bool(tutorial_sets(project)),
        "form": form or MemberForm(),
        "invitation_form": invitation_form or InvitationForm(),
        "invitations": [Sent(one, state_of(one)) for one in sent],
        "link": link,
        "former": former_members(project),
    }
    return render(request, "dashboard/people.html", context, status=status)


@login_required
@require_safe
@never_cache
def people(request: PersonRequest, slug: str) -> HttpResponse:
    """Members and their work, invitations, and a form for each."""
    return people_page(request, find(request, slug))


@login_required
@require_POST
def seat_member(request: PersonRequest, slug: str) -> HttpResponse:
    """Seat a person in the project, or change the role of one who sits there."""
    project = find(request, slug)
    form = MemberForm(request.POST)
    if not form.is_valid():
        return people_page(request, project, form=form, status=400)
    user, role = form.cleaned_data["username"], form.cleaned_data["role"]
    if user == request.user and role != "admin":
        form.add_error("role", _("You cannot take the admin role from yourself."))
        return people_page(request, project, form=form, status=400)
    try:
        actions.add_member(project=project, user=user, role=role, by=request.user)
    except Refused as refusal:
        form.add_error(None, refusal.message)
        return people_page(request, project, form=form, status=refusal.status)
    messages.success(request, _("%(name)s is a member now.") % {"name": user.username})
    return redirect("dashboard:people", slug)


# --- invitations


@login_required
@require_POST
@never_cache
def invite(request: PersonRequest, slug: str) -> HttpResponse:
    """Make a link. It stands in this one answer only, hence no redirect."""
    project = find(request, slug)
    form = InvitationForm(request.POST)
    if not form.is_valid():
        return people_page(request, project, invitation_form=form, status=400)
    try:
        _invitation, secret = actions.create_invitation(
            project=project, by=request.user, **form.cleaned_data
        )
    except Refused as refusal:
        form.add_error(None, refusal.message)
        return people_page(request, project, invitation_form=form, status=refusal.status)
    link = request.build_absolute_uri(reverse("join:join", args=[secret]))
    return people_page(request, project, link=link)


@login_required
@require_POST
def revoke(request: PersonRequest, slug: str, invitation_id: int) -> HttpResponse:
    """End a link at once."""
    project = find(request, slug)
    invitation = get_invitation_or_404(project, invitation_id)
    actions.revoke_invitation(invitation=invitation, by=request.user)
    messages.success(request, _("Nobody can join by that link any more."))
    return redirect("dashboard:people", slug)


# --- one member


def member_page(
    request: PersonRequest,
    membership: Membership,
    *,
    form: SeatForm | None = None,
    assign_form: AssignForm | None = None,
    status: int = 200,
) -> HttpResponse:
    """One member; the forms may be ones with mistakes."""
    project, user = membership.project, membership.user
    context = {
        "project": project,
        "tab": "people",
        "membership": membership,
        "data": data_of(user, project),
        "held": own_held_slots(user, project).count(),
        "waiting": reserved_for(user, project).count(),
        "has_tutorial": bool(tutorial_sets(project)),
        "is_last_admin": is_last_admin(membership),
        "form": form or SeatForm(project=project, initial=first_values(membership)),
        "assign_form": assign_form or AssignForm(project=project),
    }
    return render(request, "dashboard/member.html", context, status=status)


@login_required
@require_safe
@never_cache
def member(request: PersonRequest, slug: str, membership_id: int) -> HttpResponse:
    """One member: role, languages, skills, pause, and the work that waits for them by name."""
    return member_page(request, get_membership_or_404(find(request, slug), membership_id))


@login_required
@require_POST
def change_member(request: PersonRequest, slug: str, membership_id: int) -> HttpResponse:
    """Change what a member may do and is offered."""
    membership = get_membership_or_404(find(request, slug), membership_id)
    form = SeatForm(request.POST, project=membership.project)
    if not form.is_valid():
        return member_page(request, membership, form=form, status=400)
    try:
        actions.set_member(membership=membership, by=request.user, **form.cleaned_data)
    except Refused as refusal:
        form.add_error(None, refusal.message)
        return member_page(request, membership, form=form, status=refusal.status)
    messages.success(request, _("Saved."))
    if membership.user == request.user and form.cleaned_data["role"] != "admin":
        return redirect("home")
    return redirect("dashboard:member", slug, membership_id)


def _pause(membership: Membership, by: User) -> str:
    actions.pause_member(membership=membership, by=by)
    assignments.hand_back(project=membership.project, user=membership.user)
    return _("%(name)s gets no more work for now.") % {"name": membership.user.username}


def _resume(membership: Membership, by: User) -> str:
    actions.resume_member(membership=membership, by=by)
    return _("%(name)s gets work again.") % {"name": membership.user.username}


def _unassign(membership: Membership, by: User) -> str:
    freed = assignments.unassign(project=membership.project, to=membership.user, by=by)
    return ngettext(
        "%(n)d set is open to everybody again.", "%(n)d sets are open to everybody again.", freed
    ) % {"n": freed}


# What the buttons of a member's page do; each gives the sentence that is said afterwards.
MEMBER_ACTIONS: dict[str, Callable[[Membership, User], str]] = {
    "pause": _pause,
    "resume": _resume,
    "unassign": _unassign,
}


@login_required
@require_POST
def act_on_member(
    request: PersonRequest, slug: str, membership_id: int, action: str
) -> HttpResponse:
    """One of the buttons of a member's page."""
    membership = get_membership_or_404(find(request, slug), membership_id)
    try:
        with transaction.atomic():
            done = MEMBER_ACTIONS[action](membership, request.user)
    except Refused as refusal:
        messages.error(request, refusal.message)
    else:
        messages.success(request, done)
    return redirect("dashboard:member", slug, membership_id)


@login_required
@require_POST
def remove_member(request: PersonRequest, slug: str, membership_id: int) -> HttpResponse:
    """Take a person's seat away; what they ranked stays."""
    membership = get_membership_or_404(find(request, slug), membership_id)
    project, user = membership.project, membership.user
    try:
        with transaction.atomic():
            actions.remove_member(membership=membership, by=request.user)
            assignments.hand_back(project=project, user=user)
    except Refused as refusal:
        messages.error(request, refusal.message)
        return redirect("dashboard:member", slug, membership_id)
    messages.success(request, _("%(name)s is no member any more.") % {"name": user.username})
    return redirect("home" if user == request.user else reverse("dashboard:people", args=[slug]))


@login_required
@require_POST
def assign(request: PersonRequest, slug: str, membership_id: int) -> HttpResponse:
    """Let sets wait for one person by name."""
    membership = get_membership_or_404(find(request, slug), membership_id)
    project, user = membership.project, membership.user
    form = AssignForm(request.POST, project=project)
    if not form.is_valid():
        return member_page(request, membership, assign_form=form, status=400)
    wanted = form.cleaned_data
    sets = assignable_sets(project, user, language=wanted["language"], topic=wanted["topic"])
    try:
        named = assignments.assign(
            project=project, answer_sets=list(sets[: wanted["count"]]), to=user, by=request.user
        )
    except Refused as refusal:
        form.add_error(None, refusal.message)
        return member_page(request, membership, assign_form=form, status=refusal.status)
    if not named:
        form.add_error(None, _("No open set of this kind is left for this person."))
        return member_page(request, membership, assign_form=form, status=409)
    told = ngettext("%(n)d set waits for %(name)s.", "%(n)d sets wait for %(name)s.", named)
    messages.success(request, told % {"n": named, "name": user.username})
    return redirect("dashboard:member", slug, membership_id)


# --- deleting what a person left


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
@never_cache
def person_data(request: PersonRequest, slug: str, user_id: int) -> HttpResponse:
    """Say what a person left here and what was made of it; POST deletes it, for good."""
    project = find(request, slug)
    person = get_person_or_404(project, user_id)
    membership = membership_of(person, project)
    form = ForgetForm(request.POST if request.method == "POST" else None, person=person)
    snapshots, versions = touched_by(project, person)
    context: dict[str, Any] = {
        "project": project,
        "tab": "people",
        "person": person,
        "membership": membership,
        "data": data_of(person, project),
        "snapshots": snapshots,
        "versions": versions,
        "is_last_admin": membership is not None and is_last_admin(membership),
        "form": form,
    }
    status = 200
    if request.method == "POST":
        status = 400
        if form.is_valid():
            try:
                context["gone"] = _forget(project, person, membership, request.user)
                status = 200
            except Refused as refusal:
                form.add_error(None, refusal.message)
                status = refusal.status
    return render(request, "dashboard/person_data.html", context, status=status)


@transaction.atomic
def _forget(
    project: Project, person: User, membership: Membership | None, by: User
) -> rankings.Forgotten:
    """The seat goes first: who is to be forgotten must not add anything meanwhile."""
    if membership is not None:
        actions.remove_member(membership=membership, by=by)
    return rankings.forget_person(project=project, user=person, by=by)
