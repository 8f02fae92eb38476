"""Many at the same moment: the last seat goes to one, and one admin always stays.

Real threads with connections of their own, on a SQLite file; test_postgresql.py runs the same on
PostgreSQL.
"""

from __future__ import annotations

import pytest

from labelhub.accounts.models import User
from labelhub.lib.errors import Refused
from labelhub.projects.actions import (
    accept_invitation,
    change_settings,
    create_invitation,
    leave,
    publish_guidelines,
    remove_member,
)
from labelhub.projects.models import Guidelines, Invitation, Membership, Project
from labelhub.projects.queries import admins_of
from tests.factories import make_project, make_user
from tests.labelhub.race import race, raised

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(180)]


@pytest.fixture
def crowd() -> list[User]:
    return [make_user(f"racer{n}") for n in range(12)]


def link(project: Project, by: User, seats: int) -> str:
    return create_invitation(
        project=project, role="annotator", days=7, seats=seats, note="", by=by
    )[1]


def test_the_last_seat_goes_to_one(project: Project, ada: User, crowd: list[User]) -> None:
    secret = link(project, ada, seats=1)
    results = race(lambda one: accept_invitation(secret=secret, user=one), crowd)
    refused = raised(results)
    assert len(refused) == len(crowd) - 1
    assert all(isinstance(one, Refused) and one.code == "used" for one in refused)
    assert Membership.objects.filter(user__in=crowd).count() == 1
    assert Invitation.objects.get().used == 1


def test_one_person_in_twelve_tabs_takes_one_seat(project: Project, ada: User) -> None:
    mallory = make_user("mallory")
    secret = link(project, ada, seats=12)
    results = race(lambda _tab: accept_invitation(secret=secret, user=mallory), range(12))
    assert raised(results) == []
    assert Membership.objects.filter(user=mallory).count() == 1
    assert Invitation.objects.get().used == 1


def test_when_all_admins_leave_at_once_one_stays(crowd: list[User]) -> None:
    project = make_project("ship", admins=crowd)
    results = race(lambda one: leave(project=project, user=one), crowd)
    refused = raised(results)
    assert [type(one) for one in refused] == [Refused]
    assert admins_of(project).count() == 1


def test_two_admins_who_remove_each_other_leave_one(crowd: list[User]) -> None:
    first, second = crowd[:2]
    project = make_project("ship", admins=[first, second])
    seats = {one.user_id: one for one in Membership.objects.filter(project=project)}
    duel = [(seats[second.pk], first), (seats[first.pk], second)]
    results = race(lambda pair: remove_member(membership=pair[0], by=pair[1]), duel)
    assert [type(one) for one in raised(results)] == [Refused]
    assert admins_of(project).count() == 1


def test_settings_changed_at_once_are_all_kept(project: Project, ada: User) -> None:
    changes = [{"overlap": 3}, {"gold_share": 0.5}, {"paused": True}, {"ask_likert": True}]
    results = race(lambda one: change_settings(project=project, by=ada, **one), changes)
    assert raised(results) == []
    project.refresh_from_db()
    kept = (project.overlap, project.gold_share, project.paused, project.ask_likert)
    assert kept == (3, 0.5, True, True)


def test_guidelines_published_at_once_get_a_number_each(project: Project, ada: User) -> None:
    texts = [f"Text {n}" for n in range(8)]
    results = race(lambda text: publish_guidelines(project=project, text=text, by=ada), texts)
    assert raised(results) == []
    versions = Guidelines.objects.filter(project=project).values_list("version", flat=True)
    assert sorted(versions) == list(range(1, 10))
