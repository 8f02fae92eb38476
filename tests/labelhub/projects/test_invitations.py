"""Invitations: what they seat, when they end, and what they never do."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from labelhub.accounts.models import AuditEntry, User
from labelhub.lib.errors import Refused
from labelhub.projects.actions import (
    accept_invitation,
    create_invitation,
    revoke_invitation,
    why_closed,
)
from labelhub.projects.models import Invitation, Membership, Project
from labelhub.projects.queries import find_invitation, role_in, state_of
from tests import factories

pytestmark = pytest.mark.django_db


def invite(project: Project, by: User, **asked: Any) -> tuple[Invitation, str]:
    defaults = {"role": "annotator", "days": 7, "seats": 1, "note": ""}
    return create_invitation(project=project, by=by, **defaults | asked)


def test_it_seats_whoever_opens_it(project: Project, ada: User, mallory: User) -> None:
    invitation, secret = invite(project, ada, role="reviewer", note="For Mallory")
    membership = accept_invitation(secret=secret, user=mallory)
    assert (membership.project, membership.role) == (project, "reviewer")
    invitation.refresh_from_db()
    assert (invitation.used, state_of(invitation)) == (1, "used")
    joined = AuditEntry.objects.get(action="project.join")
    assert (joined.actor, joined.details["invitation"]) == (mallory, invitation.pk)


def test_the_secret_is_kept_nowhere(project: Project, ada: User) -> None:
    invitation, secret = invite(project, ada)
    kept = str(Invitation.objects.values().get()) + str(list(AuditEntry.objects.values()))
    assert secret not in kept
    assert find_invitation(secret) == invitation


def test_it_lasts_as_many_days_as_were_asked_for(project: Project, ada: User) -> None:
    before = timezone.now()
    invitation, _secret = invite(project, ada, days=3)
    assert before + timedelta(days=3) <= invitation.expires <= timezone.now() + timedelta(days=3)


def test_pressing_the_button_twice_takes_one_seat(
    project: Project, ada: User, mallory: User
) -> None:
    invitation, secret = invite(project, ada, seats=2)
    first = accept_invitation(secret=secret, user=mallory)
    assert accept_invitation(secret=secret, user=mallory) == first
    invitation.refresh_from_db()
    assert invitation.used == 1


def test_a_member_who_is_more_already_stays_so(project: Project, ada: User) -> None:
    invitation, secret = invite(project, ada)
    accept_invitation(secret=secret, user=ada)
    invitation.refresh_from_db()
    assert (role_in(ada, project), invitation.used) == ("admin", 0)


def test_a_member_who_is_less_rises(project: Project, ada: User, ann: User) -> None:
    Membership.objects.filter(user=ann).update(skills=["medicine"])
    _invitation, secret = invite(project, ada, role="reviewer")
    risen = accept_invitation(secret=secret, user=ann)
    assert (risen.role, risen.skills) == ("reviewer", ["medicine"])


# --- ended ones


def expire(invitation: Invitation) -> None:
    Invitation.objects.filter(pk=invitation.pk).update(expires=timezone.now())


def use_up(invitation: Invitation) -> None:
    Invitation.objects.filter(pk=invitation.pk).update(used=1)


def revoke(invitation: Invitation) -> None:
    by = invitation.created_by
    assert by is not None
    revoke_invitation(invitation=invitation, by=by)


@pytest.mark.parametrize(
    ("end", "state", "words"),
    [
        (expire, "expired", "has expired"),
        (use_up, "used", "has been used already"),
        (revoke, "revoked", "was withdrawn"),
    ],
)
def test_an_ended_one_seats_nobody_and_says_why(
    end: Any, state: str, words: str, project: Project, ada: User, mallory: User
) -> None:
    invitation, secret = invite(project, ada)
    assert why_closed(invitation) == ""
    end(invitation)
    with pytest.raises(Refused, match=words) as refused:
        accept_invitation(secret=secret, user=mallory)
    assert (refused.value.status, refused.value.code) == (410, state)
    assert role_in(mallory, project) is None


def test_an_unknown_secret_says_to_check_the_link(project: Project, mallory: User) -> None:
    for secret in ("", "nonsense", "\x00", "\ud800", "x" * 10_000):
        with pytest.raises(Refused, match="whole link") as refused:
            accept_invitation(secret=secret, user=mallory)
        assert refused.value.status == 404


def test_to_revoke_twice_leaves_one_line(project: Project, ada: User) -> None:
    invitation, _secret = invite(project, ada)
    revoke(invitation)
    revoke(invitation)
    assert AuditEntry.objects.filter(action="invitation.revoke").count() == 1


# --- what cannot be asked for


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"role": "king"}, "Choose one of the roles"),
        ({"days": 0}, "1 to 90 days"),
        ({"days": 91}, "1 to 90 days"),
        ({"seats": 0}, "1 to 500 people"),
        ({"seats": 501}, "1 to 500 people"),
        ({"role": "admin", "seats": 2}, "is for one person"),
    ],
)
def test_a_bad_invitation_is_not_made(
    asked: dict[str, Any], words: str, project: Project, ada: User
) -> None:
    with pytest.raises(Refused, match=words):
        invite(project, ada, **asked)
    assert not Invitation.objects.exists()


def test_nobody_is_invited_to_a_simulated_project(ada: User, mallory: User) -> None:
    show = factories.make_project("show", admins=[ada], is_simulated=True)
    with pytest.raises(Refused, match="simulated annotators"):
        invite(show, ada)


def test_a_project_that_became_simulated_cannot_be_joined(
    project: Project, ada: User, mallory: User
) -> None:
    _invitation, secret = invite(project, ada)
    Project.objects.filter(pk=project.pk).update(is_simulated=True)
    with pytest.raises(Refused, match="nobody can join"):
        accept_invitation(secret=secret, user=mallory)
    assert role_in(mallory, project) is None


def test_a_simulated_annotator_joins_no_people(project: Project, ada: User) -> None:
    _invitation, secret = invite(project, ada)
    robot = factories.make_user("robot", is_simulated=True)
    with pytest.raises(Refused, match="simulated annotator joins no"):
        accept_invitation(secret=secret, user=robot)
