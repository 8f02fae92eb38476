"""What people ask for about projects, members, invitations and guidelines.

Whoever changes who sits in a project locks the project's row first: two last admins who leave at
the same moment, or two people who take the last seat of an invitation, come one after the other.

A seat knows nothing of answer sets (they lie above this room): a door that pauses a person or
takes the seat away asks `assignments.actions.hand_back` in the same transaction.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from django.core.exceptions import PermissionDenied, ValidationError
from django.db import transaction
from django.db.models import F
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from labelhub.accounts.actions import audit
from labelhub.accounts.models import User
from labelhub.lib.errors import Refused
from labelhub.projects import queries, rules
from labelhub.projects.models import Guidelines, Invitation, Membership, Project
from labelhub.projects.queries import Role

# What an admin may change of a project that is there; its short name stands in addresses.
SETTINGS = frozenset(
    {
        "name", "description", "language", "answers_per_prompt", "overlap", "shared_share",
        "shared_overlap", "newcomer_sets", "gold_share", "repeat_share", "uniform_share",
        "compare_prompts", "compare_opinions", "review_below", "qualification_tau", "ask_gaps",
        "ask_likert", "ask_critique", "ask_ideal", "ask_spans", "attributes", "hold_back_leaks",
        "weigh_annotators", "max_new_tokens", "temperature", "paused",
    }
)  # fmt: skip

_BAD = {
    "no_list": gettext_lazy("The questions about each answer must be a list."),
    "too_many": gettext_lazy("That is too many: at most %(limit)s are allowed."),
    "no_object": gettext_lazy("Question %(number)s must have a key and a label."),
    "bad_key": gettext_lazy(
        "The key of question %(number)s must begin with a small Latin letter and hold only small"
        " letters, digits and _, at most 40 of them."
    ),
    "bad_label": gettext_lazy(
        "Question %(number)s must be one line of at most %(limit)s characters."
    ),
    "twice": gettext_lazy(
        "Question %(number)s has the key “%(key)s”, which another one has: give it a key of its"
        " own, as in “key: question”."
    ),
    "bad_language": gettext_lazy("“%(name)s” is no language code: write codes such as en or zh."),
    "bad_skill": gettext_lazy(
        "“%(name)s” is no name of a skill: write one line of at most %(limit)s characters."
    ),
}
_GONE = {
    "revoked": gettext_lazy("This invitation was withdrawn: ask whoever sent it for a new one."),
    "used": gettext_lazy(
        "This invitation has been used already: ask whoever sent it for one of your own."
    ),
    "expired": gettext_lazy("This invitation has expired: ask whoever sent it for a new one."),
}


def sentence(bad: rules.BadList) -> str:
    """What is wrong with a typed list, as one sentence."""
    return str(_BAD[bad.reason]) % bad.values


def why_closed(invitation: Invitation) -> str:
    """Why nobody can join by this invitation any more, as one sentence; empty while one can."""
    if invitation.project.is_simulated:
        return _("This project is ranked by simulated annotators: nobody can join it.")
    return str(_GONE.get(queries.state_of(invitation), ""))


# --- projects


@transaction.atomic
def create_project(*, name: str, slug: str, by: User | None, **settings: Any) -> Project:
    """Make a project; the person who makes it becomes its admin."""
    project = Project(name=name, slug=slug, **settings)
    project.full_clean()
    project.save()
    if by is not None:
        Membership.objects.create(project=project, user=by, role=Role.ADMIN)
    audit(by=by, action="project.create", target=project, slug=slug)
    return project


@transaction.atomic
def change_settings(*, project: Project, by: User | None, **values: Any) -> Project:
    """Change what a project wants; the audit log keeps what was and what is. Nothing new: no line.

    Changes hold for what is opened from now on: sets that are in the queue keep their slots.
    """
    if unknown := sorted(set(values) - SETTINGS):
        raise Refused(_("A project has no setting “%(name)s”.") % {"name": unknown[0]}, status=400)
    if "attributes" in values:
        values["attributes"] = _checked(rules.checked_attributes, values["attributes"])
    locked = _locked(project)
    before = {name: getattr(locked, name) for name in values}
    for name, value in values.items():
        setattr(locked, name, value)
    try:
        locked.clean_fields()
    except ValidationError as error:
        raise Refused(_first_mistake(error), status=400, code="bad_setting") from None
    changed = [name for name in sorted(values) if getattr(locked, name) != before[name]]
    if changed:
        locked.save(update_fields=changed)
        was_and_is = {name: [before[name], getattr(locked, name)] for name in changed}
        audit(by=by, action="project.change_settings", target=project, **was_and_is)
        project.refresh_from_db(fields=changed)
    return project


def _first_mistake(error: ValidationError) -> str:
    name, sentences = next(iter(error.message_dict.items()))
    return f"{name}: {sentences[0]}"


def _checked(check: Any, values: Any) -> Any:
    try:
        return check(values)
    except rules.BadList as bad:
        raise Refused(sentence(bad), status=400, code=bad.reason) from None


def _locked(project: Project) -> Project:
    """The project's row, locked until the transaction ends."""
    return Project.objects.select_for_update(no_key=True).get(pk=project.pk)


# --- members


@transaction.atomic
def add_member(*, project: Project, user: User, role: str, by: User | None) -> Membership:
    """Seat a person in a project, or change the role of one who sits there."""
    _locked(project)
    there = queries.membership_of(user, project)
    if there is not None and role != Role.ADMIN:
        _refuse_last_admin(there)
        _withdraw_invitations_of(there, by)
    membership, _created = Membership.objects.update_or_create(
        project=project, user=user, defaults={"role": role}
    )
    audit(by=by, action="project.add_member", target=project, user=user.username, role=role)
    return membership


@transaction.atomic
def set_member(
    *,
    membership: Membership,
    languages: Iterable[str],
    skills: Iterable[str],
    role: str,
    by: User,
    qualified: bool | None = None,
) -> Membership:
    """Change what a member may do; `qualified` lets through, or asks for the tutorial again."""
    if role not in Role.values:
        raise Refused(_("Choose one of the roles."), status=400, code="bad_role")
    _locked(membership.project)
    seat = _still_there(membership)
    if role != Role.ADMIN:
        _refuse_last_admin(seat)
        _withdraw_invitations_of(seat, by)
    seat.languages = _checked(rules.checked_languages, languages)
    seat.skills = _checked(rules.checked_skills, skills)
    seat.role = role
    if qualified is not None and qualified != (seat.qualified_at is not None):
        seat.qualified_at = timezone.now() if qualified else None
    seat.save(update_fields=["languages", "skills", "role", "qualified_at"])
    audit(
        by=by,
        action="project.set_member",
        target=seat.project,
        user=seat.user.username,
        role=role,
        languages=seat.languages,
        skills=seat.skills,
        qualified=seat.qualified_at is not None,
    )
    return seat


@transaction.atomic
def pause_member(*, membership: Membership, by: User) -> Membership:
    """Give a person no more work until the pause ends; to pause twice changes nothing.

    The door hands back what the person holds.
    """
    seat = _own_or_steered(membership, by)
    by_admin = by.pk != seat.user_id
    # An admin's pause is stronger than the person's own, which that person could end.
    if seat.paused_at is None or (by_admin and not seat.paused_by_admin):
        _set_pause(seat, by=by, paused=True)
    return seat


@transaction.atomic
def resume_member(*, membership: Membership, by: User) -> Membership:
    """End a pause. A pause that an admin began is not the person's to end."""
    seat = _own_or_steered(membership, by)
    if seat.paused_at is None:
        return seat
    if seat.paused_by_admin and not _steers(by, seat.project):
        raise Refused(
            _("A project admin paused you: only an admin can end that."), code="paused_by_admin"
        )
    _set_pause(seat, by=by, paused=False)
    return seat


def _set_pause(seat: Membership, *, by: User, paused: bool) -> None:
    seat.paused_at = timezone.now() if paused else None
    seat.paused_by_admin = paused and by.pk != seat.user_id
    seat.save(update_fields=["paused_at", "paused_by_admin"])
    action = "project.pause_member" if paused else "project.resume_member"
    audit(by=by, action=action, target=seat.project, user=seat.user.username)


@transaction.atomic
def leave(*, project: Project, user: User) -> None:
    """Give up one's seat; what was ranked stays. The last admin cannot."""
    _locked(project)
    seat = queries.membership_of(user, project)
    if seat is None:
        raise Refused(_("You are not a member of this project."), status=404, code="stranger")
    _refuse_last_admin(seat)
    _withdraw_invitations_of(seat, user)
    seat.delete()
    audit(by=user, action="project.leave", target=project, user=user.username)


@transaction.atomic
def remove_member(*, membership: Membership, by: User) -> None:
    """Take a person's seat away; what they ranked stays, and so does their account."""
    _locked(membership.project)
    seat = _still_there(membership)
    _refuse_last_admin(seat)
    _withdraw_invitations_of(seat, by)
    project, name = seat.project, seat.user.username
    seat.delete()
    audit(by=by, action="project.remove_member", target=project, user=name)


@transaction.atomic
def qualify(*, membership: Membership) -> Membership:
    """Note that the person passed the tutorial; the first time counts."""
    now = timezone.now()
    unqualified = Membership.objects.filter(pk=membership.pk, qualified_at__isnull=True)
    if unqualified.update(qualified_at=now):
        membership.qualified_at = now
        audit(
            by=membership.user,
            action="project.qualify",
            target=membership.project,
            user=membership.user.username,
        )
    return membership


def _still_there(membership: Membership) -> Membership:
    """The seat as it stands now that the project is locked."""
    found = Membership.objects.select_related("project", "user").filter(pk=membership.pk).first()
    if found is None:
        raise Refused(_("This person is no member of the project any more."), status=404)
    return found


def _own_or_steered(membership: Membership, by: User) -> Membership:
    _locked(membership.project)
    seat = _still_there(membership)
    if by.pk != seat.user_id and not _steers(by, seat.project):
        raise PermissionDenied(_("Only a project admin may do this."))
    return seat


def _steers(user: User, project: Project) -> bool:
    return queries.role_in(user, project) == Role.ADMIN


def _refuse_last_admin(seat: Membership) -> None:
    if queries.is_last_admin(seat):
        raise Refused(
            _(
                "%(name)s is the last admin of this project: make somebody else an admin first,"
                " or nobody could steer it."
            )
            % {"name": seat.user.username},
            code="last_admin",
        )


def _withdraw_invitations_of(seat: Membership, by: User | None) -> None:
    """Who no longer steers a project must not come back, or let in others, by a link they made."""
    living = Invitation.objects.filter(
        project=seat.project, created_by=seat.user, revoked__isnull=True
    )
    if count := living.update(revoked=timezone.now()):
        audit(by=by, action="invitation.withdraw_all", target=seat.project, invitations=count)


# --- invitations


@transaction.atomic
def create_invitation(
    *, project: Project, role: str, days: int, seats: int, note: str, by: User
) -> tuple[Invitation, str]:
    """Make a link for so many people and days; its secret is returned this once and never again."""
    _refuse_bad_invitation(project, role, days, seats)
    secret = rules.new_invitation_secret()
    invitation = Invitation.objects.create(
        project=project,
        role=role,
        sha256=rules.invitation_hash(secret),
        note=note.replace("\x00", "").strip()[:120],
        expires=timezone.now() + timedelta(days=days),
        seats=seats,
        created_by=by,
    )
    audit(by=by, action="invitation.create", target=invitation, role=role, days=days, seats=seats)
    return invitation, secret


def _refuse_bad_invitation(project: Project, role: str, days: int, seats: int) -> None:
    if project.is_simulated:
        raise Refused(_("This project is ranked by simulated annotators: nobody can join it."))
    if role not in Role.values:
        raise Refused(_("Choose one of the roles."), status=400, code="bad_role")
    if not 1 <= days <= rules.MOST_DAYS:
        raise Refused(
            _("An invitation holds for 1 to %(most)s days.") % {"most": rules.MOST_DAYS}, status=400
        )
    if not 1 <= seats <= rules.MOST_SEATS:
        raise Refused(
            _("An invitation is for 1 to %(most)s people.") % {"most": rules.MOST_SEATS}, status=400
        )
    if role == Role.ADMIN and seats != 1:
        raise Refused(
            _("A link that makes people admins is for one person: make one for each."), status=400
        )


@transaction.atomic
def accept_invitation(*, secret: str, user: User) -> Membership:
    """Seat whoever opened the link. Never lowers a role; a member takes no second seat by it."""
    invitation = queries.find_invitation(secret)
    if invitation is None:
        raise Refused(no_such_invitation(), status=404, code="unknown")
    if user.is_simulated:
        raise Refused(_("A simulated annotator joins no people's project."), code="simulated")
    _locked(invitation.project)
    seat = queries.membership_of(user, invitation.project)
    if seat is not None and queries.is_at_least(seat.role, invitation.role):
        return seat  # the button was pressed twice, or the link found its sender
    _take_seat(invitation)
    membership, _created = Membership.objects.update_or_create(
        project=invitation.project, user=user, defaults={"role": invitation.role}
    )
    audit(
        by=user,
        action="project.join",
        target=invitation.project,
        user=user.username,
        role=invitation.role,
        invitation=invitation.pk,
    )
    return membership


def _take_seat(invitation: Invitation) -> None:
    """Count one more seat as used, unless the last one went meanwhile."""
    invitation.refresh_from_db()
    if why := why_closed(invitation):
        raise Refused(why, status=410, code=queries.state_of(invitation))
    free = Invitation.objects.filter(pk=invitation.pk, used__lt=F("seats"), revoked__isnull=True)
    if free.update(used=F("used") + 1) != 1:
        raise Refused(str(_GONE["used"]), status=410, code="used")


def no_such_invitation() -> str:
    """What a link says that leads nowhere."""
    return _("There is no such invitation: check that the whole link was copied.")


@transaction.atomic
def revoke_invitation(*, invitation: Invitation, by: User) -> None:
    """Let nobody join by this link any more; who joined stays."""
    living = Invitation.objects.filter(pk=invitation.pk, revoked__isnull=True)
    if living.update(revoked=timezone.now()):
        audit(by=by, action="invitation.revoke", target=invitation)


# --- guidelines


@transaction.atomic
def publish_guidelines(*, project: Project, text: str, by: User | None) -> Guidelines:
    """Publish a new version of the guidelines; the old ones stay, since rankings follow them."""
    _locked(project)
    newest = project.guidelines.order_by("-version").first()
    guidelines = Guidelines.objects.create(
        project=project, version=(newest.version if newest else 0) + 1, text=text, created_by=by
    )
    audit(by=by, action="project.publish_guidelines", target=project, version=guidelines.version)
    return guidelines
