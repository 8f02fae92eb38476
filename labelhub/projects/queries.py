"""Which projects a person may see, and as what. Every page and route begins here."""

from __future__ import annotations

from dataclasses import dataclass

from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404
from django.utils import timezone
from django.utils.translation import gettext as _

from labelhub.accounts.models import User
from labelhub.projects import rules
from labelhub.projects.models import Guidelines, Invitation, Membership, Project

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
    membership = membership_of(user, project)
    return Role(membership.role) if membership else None


def is_at_least(held: str, wanted: str) -> bool:
    """Whether one role may do all that the other may."""
    return _ORDER.index(Role(held)) >= _ORDER.index(Role(wanted))


def membership_of(user: User, project: Project) -> Membership | None:
    """The user's seat in the project; a superuser steers all and may have none."""
    return Membership.objects.filter(project=project, user=user).first()


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
    if held is None or not is_at_least(held, role):
        raise PermissionDenied(_("Only a project admin may do this."))
    return project


def get_membership_or_404(project: Project, membership_id: int) -> Membership:
    """One member of this project; another project's is not there."""
    found = project.memberships.select_related("user", "project").filter(pk=membership_id).first()
    if found is None:
        raise Http404(_("There is no such member in this project."))
    return found


def admins_of(project: Project) -> QuerySet[Membership]:
    """Those who can sign in and steer the project."""
    return project.memberships.filter(role=Role.ADMIN, user__is_active=True)


def is_last_admin(membership: Membership) -> bool:
    """Whether nobody of the project could steer it without this person."""
    if membership.role != Role.ADMIN:
        return False
    return not admins_of(membership.project).exclude(pk=membership.pk).exists()


def current_guidelines(project: Project) -> Guidelines | None:
    """The newest version of the guidelines."""
    return project.guidelines.order_by("-version").first()


# --- questions about each answer


@dataclass(frozen=True, slots=True)
class Attribute:
    """One yes-or-no question about an answer, in the reader's language where it is a ready one."""

    key: str
    label: str


def attributes_of(project: Project) -> list[Attribute]:
    """What is asked about each answer, in the project's order."""
    return [Attribute(one["key"], _shown(one)) for one in project.attributes]


def ready_attributes() -> list[Attribute]:
    """The eleven questions of InstructGPT, to choose from."""
    return [Attribute(key, _(label)) for key, label in rules.INSTRUCTGPT_ATTRIBUTES]


def _shown(attribute: dict[str, str]) -> str:
    """A ready question is translated; a label of the project's own stands as it was written."""
    label = attribute["label"]
    return _(label) if rules.READY_LABELS.get(attribute["key"]) == label else label


# --- invitations


def find_invitation(secret: str) -> Invitation | None:
    """The invitation behind a link, whatever has become of it."""
    return (
        Invitation.objects.select_related("project", "created_by")
        .filter(sha256=rules.invitation_hash(secret))
        .first()
    )


def state_of(invitation: Invitation) -> str:
    """`open`, `expired`, `used` or `revoked`, at this moment."""
    return rules.invitation_state(
        now=timezone.now(),
        expires=invitation.expires,
        seats=invitation.seats,
        used=invitation.used,
        revoked=invitation.revoked,
    )


def invitations_of(project: Project) -> QuerySet[Invitation]:
    """The project's invitations, newest first."""
    return Invitation.objects.filter(project=project).select_related("created_by").order_by("-pk")


def get_invitation_or_404(project: Project, invitation_id: int) -> Invitation:
    """One invitation to this project."""
    found = invitations_of(project).filter(pk=invitation_id).first()
    if found is None:
        raise Http404(_("There is no such invitation to this project."))
    return found
