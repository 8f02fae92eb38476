"""What the page's script asks for while a set is open: keep it, or give it back."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone

from labelhub.accounts.models import User
from labelhub.assignments.models import Slot
from labelhub.projects.models import Project
from tests import factories
from tests.labelhub.annotate.pages import board_url, claimed


@pytest.fixture
def slot(project: Project, ann: User) -> Slot:
    factories.make_answer_set(project, slots=1)
    slot = claimed(project, ann)
    Slot.objects.update(lease_until=timezone.now() + timedelta(minutes=2))
    slot.refresh_from_db()
    return slot


def send(client: Client, slot: Slot, what: str):  # type: ignore[no-untyped-def]
    return client.post(board_url(slot, what), {"token": str(slot.lease_token)})


def test_work_keeps_the_lease(clients: dict[str, Client], slot: Slot) -> None:
    response = send(clients["ann"], slot, "renew")
    assert response.status_code == 200
    assert 890 <= response.json()["seconds_left"] <= 900
    slot.refresh_from_db()
    assert slot.lease_until
    assert slot.lease_until > timezone.now() + timedelta(minutes=14)


def test_a_lease_that_went_to_somebody_else_is_gone_and_the_page_is_told(
    clients: dict[str, Client], slot: Slot, ben: User
) -> None:

    token = str(slot.lease_token)
    factories.hold(slot, ben)
    response = clients["ann"].post(board_url(slot, "renew"), {"token": token})
    assert response.status_code == 409
    assert "your ranking is kept" in response.json()["error"]


def test_leaving_gives_the_set_back(clients: dict[str, Client], slot: Slot) -> None:
    assert send(clients["ann"], slot, "release").status_code == 204
    slot.refresh_from_db()
    assert slot.state == Slot.State.OPEN
    assert slot.holder is None


def test_giving_back_what_is_not_held_is_no_error(clients: dict[str, Client], slot: Slot) -> None:
    send(clients["ann"], slot, "release")
    assert send(clients["ann"], slot, "release").status_code == 204


@pytest.mark.parametrize("what", ["renew", "release"])
def test_it_is_my_lease_only(clients: dict[str, Client], slot: Slot, what: str) -> None:
    until = slot.lease_until
    send(clients["ben"], slot, what)
    assert send(clients["mallory"], slot, what).status_code == 404
    assert send(clients["nobody"], slot, what).status_code == 302
    assert clients["ann"].get(board_url(slot, what)).status_code == 405
    slot.refresh_from_db()
    assert (slot.state, slot.lease_until) == (Slot.State.HELD, until)
