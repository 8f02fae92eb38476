"""Roles, pauses, leaving and removing: who may, who may not, and that somebody always steers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.core.exceptions import PermissionDenied

from labelhub.accounts.models import AuditEntry, User
from labelhub.lib.errors import Refused
from labelhub.projects.actions import (
    add_member,
    create_invitation,
    leave,
    pause_member,
    qualify,
    remove_member,
    resume_member,
    set_member,
)
from labelhub.projects.models import Invitation, Membership, Project
from labelhub.projects.queries import role_in
from tests import factories

pytestmark = pytest.mark.django_db


def seat(user: User, project: Project) -> Membership:
    return Membership.objects.get(user=user, project=project)


def logged(action: str) -> list[str]:
    return [entry.actor_name for entry in AuditEntry.objects.filter(action=action)]


# --- what a member may do


def test_an_admin_sets_role_languages_and_skills(project: Project, ann: User, ada: User) -> None:
    set_member(
        membership=seat(ann, project),
        languages=["en", "zh"],
        skills=["medicine"],
        role="reviewer",
        by=ada,
        qualified=True,
    )
    anns = seat(ann, project)
    assert (anns.role, anns.languages, anns.skills) == ("reviewer", ["en", "zh"], ["medicine"])
    assert anns.qualified_at is not None
    assert logged("project.set_member") == ["ada"]


def test_qualified_stays_as_it_is_unless_it_is_said(project: Project, ann: User, ada: User) -> None:
    anns = qualify(membership=seat(ann, project))
    when = anns.qualified_at
    set_member(membership=anns, languages=[], skills=[], role="annotator", by=ada)
    assert seat(ann, project).qualified_at == when
    set_member(membership=anns, languages=[], skills=[], role="annotator", by=ada, qualified=True)
    assert seat(ann, project).qualified_at == when, "the first time counts"
    set_member(membership=anns, languages=[], skills=[], role="annotator", by=ada, qualified=False)
    assert seat(ann, project).qualified_at is None


def test_a_person_qualifies_once(project: Project, ann: User) -> None:
    first = qualify(membership=seat(ann, project)).qualified_at
    assert qualify(membership=seat(ann, project)).qualified_at == first
    assert logged("project.qualify") == ["ann"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"role": "king"}, "Choose one of the roles"),
        ({"languages": ["English"]}, "“English” is no language code"),
        ({"skills": ["x" * 41]}, "no name of a skill"),
    ],
)
def test_bad_values_change_nothing(
    change: dict[str, object], words: str, project: Project, ann: User, ada: User
) -> None:
    values = {"languages": [], "skills": [], "role": "annotator"} | change
    with pytest.raises(Refused, match=words):
        set_member(membership=seat(ann, project), by=ada, **values)  # type: ignore[arg-type]
    assert logged("project.set_member") == []


# --- pauses


def test_a_pause_of_ones_own_is_ones_own_to_end(project: Project, ann: User) -> None:
    pause_member(membership=seat(ann, project), by=ann)
    assert seat(ann, project).paused_at is not None
    resume_member(membership=seat(ann, project), by=ann)
    assert seat(ann, project).paused_at is None
    assert logged("project.pause_member") == ["ann"]


def test_a_pause_twice_is_one_pause(project: Project, ann: User) -> None:
    first = pause_member(membership=seat(ann, project), by=ann).paused_at
    assert pause_member(membership=seat(ann, project), by=ann).paused_at == first
    assert len(logged("project.pause_member")) == 1
    resume_member(membership=seat(ann, project), by=ann)
    resume_member(membership=seat(ann, project), by=ann)
    assert len(logged("project.resume_member")) == 1


def test_an_admins_pause_is_not_the_annotators_to_end(
    project: Project, ann: User, ada: User
) -> None:
    pause_member(membership=seat(ann, project), by=ann)
    pause_member(membership=seat(ann, project), by=ada)
    with pytest.raises(Refused, match="only an admin"):
        resume_member(membership=seat(ann, project), by=ann)
    resume_member(membership=seat(ann, project), by=ada)
    assert seat(ann, project).paused_at is None


def test_an_admin_who_paused_herself_may_go_on(project: Project, ada: User) -> None:
    pause_member(membership=seat(ada, project), by=ada)
    resume_member(membership=seat(ada, project), by=ada)
    assert seat(ada, project).paused_at is None


@pytest.mark.parametrize("do", [pause_member, resume_member])
def test_nobody_pauses_or_resumes_another(
    do: Callable[..., Membership], project: Project, ann: User, ben: User
) -> None:
    with pytest.raises(PermissionDenied):
        do(membership=seat(ann, project), by=ben)


# --- leaving


def test_who_leaves_is_a_stranger(project: Project, ann: User) -> None:
    leave(project=project, user=ann)
    assert role_in(ann, project) is None
    assert logged("project.leave") == ["ann"]


def test_a_stranger_cannot_leave(project: Project, mallory: User) -> None:
    with pytest.raises(Refused, match="not a member"):
        leave(project=project, user=mallory)


def test_an_admin_removes_a_member_and_the_account_stays(
    project: Project, ann: User, ada: User
) -> None:
    remove_member(membership=seat(ann, project), by=ada)
    assert role_in(ann, project) is None
    assert User.objects.filter(username="ann", is_active=True).exists()
    assert logged("project.remove_member") == ["ada"]


def test_to_remove_somebody_who_has_gone_is_refused(project: Project, ann: User, ada: User) -> None:
    anns = seat(ann, project)
    leave(project=project, user=ann)
    with pytest.raises(Refused, match="no member of the project any more"):
        remove_member(membership=anns, by=ada)


def leaves(ada: User, project: Project) -> None:
    leave(project=project, user=ada)


def is_removed(ada: User, project: Project) -> None:
    remove_member(membership=seat(ada, project), by=ada)


def is_seated_lower(ada: User, project: Project) -> None:
    add_member(project=project, user=ada, role="annotator", by=ada)


def is_set_lower(ada: User, project: Project) -> None:
    set_member(membership=seat(ada, project), languages=[], skills=[], role="reviewer", by=ada)


WAYS_OUT = [leaves, is_removed, is_seated_lower, is_set_lower]


@pytest.mark.parametrize("way", WAYS_OUT)
def test_the_last_admin_stays(
    way: Callable[[User, Project], None], project: Project, ada: User
) -> None:
    with pytest.raises(Refused, match="ada is the last admin"):
        way(ada, project)
    assert role_in(ada, project) == "admin"


@pytest.mark.parametrize("way", WAYS_OUT)
def test_with_another_admin_she_may_go_and_takes_her_links_with_her(
    way: Callable[[User, Project], None], project: Project, ada: User, ann: User
) -> None:
    add_member(project=project, user=ann, role="admin", by=ada)
    ask = {"role": "annotator", "days": 7, "seats": 5, "note": ""}
    create_invitation(project=project, by=ada, **ask)  # type: ignore[arg-type]
    create_invitation(project=project, by=ann, **ask)  # type: ignore[arg-type]
    way(ada, project)
    assert role_in(ada, project) != "admin"
    living = Invitation.objects.filter(revoked__isnull=True)
    assert [one.created_by for one in living] == [ann]


@pytest.mark.parametrize("way", WAYS_OUT)
def test_an_admin_whose_account_is_closed_steers_nothing(
    way: Callable[[User, Project], None], project: Project, ada: User
) -> None:
    gone = factories.make_user("gone", is_active=False)
    add_member(project=project, user=gone, role="admin", by=ada)
    with pytest.raises(Refused, match="last admin"):
        way(ada, project)
