"""One's own seat: handing back, pausing, going on, leaving; and nobody does it for another."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from labelhub.accounts.models import User
from labelhub.assignments.models import Slot
from labelhub.projects.actions import pause_member
from labelhub.projects.models import Membership, Project
from labelhub.rankings.models import Ranking
from tests import factories

pytestmark = pytest.mark.django_db
Clients = dict[str, Client]
ROUTES = ["hand-back", "pause", "resume", "leave"]


def where(name: str) -> str:
    return reverse(f"annotate:{name}", args=["everyday"])


def press(client: Client, name: str) -> Any:
    return client.post(where(name), follow=True)


def said(response: Any) -> list[str]:
    return [str(message) for message in response.context["messages"]]


def desk(client: Client) -> str:
    return str(client.get(where("next")).content.decode())


@pytest.fixture
def held(project: Project, ann: User) -> Slot:
    """The set that ann has in hand."""
    return factories.hold(factories.make_slot(factories.make_answer_set(project)), ann)


@pytest.fixture
def named(project: Project, ann: User) -> Slot:
    """A set that waits for ann by name."""
    return factories.make_slot(factories.make_answer_set(project), reserved_for=ann)


# --- who may


@pytest.mark.parametrize("name", ROUTES)
def test_each_is_for_members_and_takes_a_press(
    name: str, project: Project, clients: Clients, sign_in: Any
) -> None:
    Membership.objects.filter(user__username="ben").update(role="reviewer")
    assert clients["mallory"].post(where(name)).status_code == 404
    assert clients["nobody"].post(where(name))["Location"].startswith("/accounts/login/")
    for who in ("ann", "ben", "ada"):
        assert clients[who].get(where(name)).status_code == 405, "a link does nothing"
        assert clients[who].post(where(name)).status_code == 302
    root = factories.make_user("root", is_superuser=True)
    status = sign_in(root).post(where(name)).status_code
    assert status == (404 if name in ("pause", "resume") else 302), "there is no seat to pause"


@pytest.mark.parametrize("name", ROUTES)
def test_what_simulated_annotators_rank_has_no_such_page(
    name: str, project: Project, clients: Clients
) -> None:
    Project.objects.update(is_simulated=True)
    assert clients["ann"].post(where(name)).status_code == 404
    assert Membership.objects.filter(user__username="ann").exists()


# --- handing back


def test_what_is_in_hand_goes_back_and_what_waits_by_name_goes_on_waiting(
    held: Slot, named: Slot, ann: User, clients: Clients
) -> None:
    assert "Hand back the set that I hold" in desk(clients["ann"])
    assert said(press(clients["ann"], "hand-back")) == ["1 set is handed back."]
    held.refresh_from_db()
    named.refresh_from_db()
    assert (held.state, held.holder, named.reserved_for) == ("open", None, ann)
    assert "Hand back the set" not in desk(clients["ann"])


def test_with_empty_hands_nothing_happens(project: Project, clients: Clients) -> None:
    assert said(press(clients["ann"], "hand-back")) == ["You have no set in hand."]


def test_nobody_hands_back_what_another_holds(held: Slot, clients: Clients) -> None:
    press(clients["ben"], "hand-back")
    held.refresh_from_db()
    assert held.state == Slot.State.HELD


# --- pausing


def test_a_pause_gives_back_all_and_ends_at_a_press(
    held: Slot, named: Slot, clients: Clients
) -> None:
    press(clients["ann"], "pause")
    held.refresh_from_db()
    named.refresh_from_db()
    assert (held.state, named.reserved_for) == ("open", None)
    assert "You have paused" in desk(clients["ann"])
    assert clients["ann"].post(where("next"))["Location"] == where("next"), "no work is given"
    assert said(press(clients["ann"], "resume")) == ["Your pause has ended."]
    assert "/slots/" in clients["ann"].post(where("next"))["Location"]


def test_an_admins_pause_has_no_button(project: Project, ada: User, clients: Clients) -> None:
    anns = Membership.objects.get(user__username="ann")
    pause_member(membership=anns, by=ada)
    assert "End my pause" not in desk(clients["ann"])
    assert "only an admin can end that" in said(press(clients["ann"], "resume"))[0]
    anns.refresh_from_db()
    assert anns.paused_at is not None


# --- leaving


def test_who_leaves_hands_back_and_is_a_stranger(
    held: Slot, named: Slot, ann: User, clients: Clients
) -> None:
    factories.make_ranking(factories.make_answer_set(held.project), ann)
    response = press(clients["ann"], "leave")
    assert said(response) == ["You have left Everyday."]
    assert response.request["PATH_INFO"] == "/annotate/"
    held.refresh_from_db()
    named.refresh_from_db()
    assert (held.state, named.reserved_for) == ("open", None)
    assert clients["ann"].get(where("next")).status_code == 404
    assert Ranking.objects.filter(annotator=ann).count() == 1, "what was ranked stays"


def test_the_last_admin_cannot_leave_and_is_told_so(
    project: Project, ada: User, clients: Clients
) -> None:
    slot = factories.hold(factories.make_slot(factories.make_answer_set(project)), ada)
    assert "Yes, leave" not in desk(clients["ada"])
    assert "last admin" in said(press(clients["ada"], "leave"))[0]
    slot.refresh_from_db()
    assert slot.state == Slot.State.HELD, "all of it or nothing"
