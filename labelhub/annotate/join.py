"""Joining a project by a link: the page says to what, as what and by whom, then asks for one press.

Who is signed in joins as that person. Anybody else signs in, or makes an account right here: the
invitation is what allows it. To look never takes a seat, so a mail program that opens links to
check them does no harm.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from django.contrib import messages
from django.contrib.auth import login
from django.contrib.auth.forms import UserCreationForm
from django.db import IntegrityError, transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import get_language
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods

from labelhub.accounts.actions import create_user, set_preferences
from labelhub.accounts.limits import count_failure, is_closed
from labelhub.accounts.models import User
from labelhub.lib.errors import Refused
from labelhub.projects.actions import accept_invitation, no_such_invitation, why_closed
from labelhub.projects.models import Invitation, Membership, Project
from labelhub.projects.queries import Role, find_invitation, is_at_least, membership_of

BACKEND = "django.contrib.auth.backends.ModelBackend"


if TYPE_CHECKING:
    _CreationForm = UserCreationForm[User]
else:
    _CreationForm = UserCreationForm  # at run time Django's form takes no parameter


class AccountForm(_CreationForm):
    """A name that nobody has, in whatever case, and a password that keeps the house's rules."""

    class Meta:
        model = User
        fields = ("username",)


@dataclass(frozen=True)
class Door:
    """The context of annotate/join.html."""

    invitation: Invitation
    form: AccountForm
    membership: Membership | None = None  # of who is signed in, where they belong to it already

    @property
    def project(self) -> Project:
        return self.invitation.project

    @property
    def sender(self) -> str:
        """Who invites."""
        return self.invitation.created_by.username if self.invitation.created_by else ""

    @property
    def belongs(self) -> bool:
        """Whether the link would change nothing for the person in front of it."""
        seat = self.membership
        return seat is not None and is_at_least(seat.role, self.invitation.role)


@sensitive_post_parameters()
@require_http_methods(["GET", "HEAD", "POST"])
@never_cache
def join(request: HttpRequest, secret: str) -> HttpResponse:
    """Show what the link invites to; POST joins, with an account made on the way if need be."""
    invitation = find_invitation(secret)
    if invitation is None:
        return _closed(request, no_such_invitation(), status=404)
    user = request.user if isinstance(request.user, User) else None
    if request.method == "POST":
        return _join(request, invitation, secret, user)
    door = Door(
        invitation, AccountForm(), membership_of(user, invitation.project) if user else None
    )
    if not door.belongs and (why := why_closed(invitation)):
        return _closed(request, why, status=410)
    return render(request, "annotate/join.html", {"door": door})


def _join(
    request: HttpRequest, invitation: Invitation, secret: str, user: User | None
) -> HttpResponse:
    try:
        if user is None:
            return _join_as_new(request, invitation, secret)
        return _welcome(request, accept_invitation(secret=secret, user=user))
    except Refused as refusal:
        return _closed(request, refusal.message, status=refusal.status)


def _join_as_new(request: HttpRequest, invitation: Invitation, secret: str) -> HttpResponse:
    """Make an account and take the seat, both or neither."""
    if why := why_closed(invitation):
        return _closed(request, why, status=410)
    # Without a limit a link would be a way to try out which names there are.
    counted_as = f"invitation {invitation.pk}"
    if is_closed(request, counted_as):
        return _closed(
            request,
            _("There were too many tries with this link. Wait a quarter of an hour, then open it."),
            status=429,
        )
    form = AccountForm(request.POST)
    if not form.is_valid():
        count_failure(request, counted_as)
        return render(request, "annotate/join.html", {"door": Door(invitation, form)}, status=422)
    try:
        membership = _make_account(form, secret)
    except IntegrityError:
        form.add_error("username", _("Somebody took this name just now: choose another."))
        return render(request, "annotate/join.html", {"door": Door(invitation, form)}, status=422)
    login(request, membership.user, backend=BACKEND)
    return _welcome(request, membership)


@transaction.atomic
def _make_account(form: AccountForm, secret: str) -> Membership:
    user = create_user(
        username=form.cleaned_data["username"],
        password=form.cleaned_data["password1"],
        by=None,
        one_time=False,
    )
    # The language in which the account was made is the one that its owner reads.
    set_preferences(user=user, language=get_language())
    return accept_invitation(secret=secret, user=user)


def _welcome(request: HttpRequest, membership: Membership) -> HttpResponse:
    messages.success(request, _("Welcome to %(project)s.") % {"project": membership.project.name})
    if membership.role == Role.ADMIN:
        return redirect("home")
    return redirect("annotate:next", membership.project.slug)


def _closed(request: HttpRequest, why: str, *, status: int) -> HttpResponse:
    return render(request, "annotate/join.html", {"why": why}, status=status)
