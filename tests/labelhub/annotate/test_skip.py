"""Passing a set on, with the reason why."""

from __future__ import annotations

import pytest
from django.test import Client

from labelhub.accounts.models import User
from labelhub.assignments.models import Slot
from labelhub.projects.models import Project
from labelhub.rankings.models import Skip
from tests import factories
from tests.labelhub.annotate.pages import board_url, claimed, refusal_of


@pytest.fixture
def slot(project: Project, ann: User) -> Slot:
    factories.make_answer_set(project, slots=1)
    return claimed(project, ann)


def pass_on(client: Client, slot: Slot, **fields: str):  # type: ignore[no-untyped-def]
    return client.post(board_url(slot, "skip"), {"token": str(slot.lease_token), **fields})


def test_it_goes_to_others_and_not_back_to_me(
    clients: dict[str, Client], slot: Slot, ann: User
) -> None:
    response = pass_on(clients["ann"], slot, reason="language", note="Latin, I think.")
    assert response.url == "/annotate/everyday/next/", "nothing else is left for ann"
    skip = Skip.objects.get()
    assert (skip.annotator, skip.reason, skip.note) == (ann, "language", "Latin, I think.")
    slot.refresh_from_db()
    assert slot.state == Slot.State.OPEN
    assert clients["ben"].post("/annotate/everyday/next/").url == board_url(slot)


def test_then_comes_the_next_set(clients: dict[str, Client], slot: Slot) -> None:
    following = factories.make_answer_set(slot.project, slots=1).slots.get()
    assert pass_on(clients["ann"], slot, reason="unclear").url == board_url(following)


def test_every_reason_of_the_list_is_on_the_page(clients: dict[str, Client], slot: Slot) -> None:
    page = clients["ann"].get(board_url(slot)).content.decode()
    for value in Skip.Reason.values:
        assert f'name="reason" value="{value}"' in page


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({}, "Choose a reason"),
        ({"reason": "bored"}, "There is no such reason"),
        ({"reason": "other", "note": "x" * 501}, "The note is too long"),
    ],
)
def test_a_bad_one_is_refused_and_nothing_is_lost(
    clients: dict[str, Client], slot: Slot, fields: dict[str, str], sentence: str
) -> None:
    response = pass_on(clients["ann"], slot, **fields)
    assert response.status_code == 422
    assert sentence in refusal_of(response)
    slot.refresh_from_db()
    assert slot.state == Slot.State.HELD
    assert not Skip.objects.exists()


def test_a_second_click_changes_nothing(clients: dict[str, Client], slot: Slot) -> None:
    for _ in range(2):
        assert pass_on(clients["ann"], slot, reason="unclear").status_code == 302
    assert Skip.objects.count() == 1


def test_others_cannot_skip_for_me(clients: dict[str, Client], slot: Slot) -> None:
    for who in ("ben", "ada", "mallory"):
        assert pass_on(clients[who], slot, reason="unclear").status_code == 404
    assert pass_on(clients["nobody"], slot, reason="unclear").url.startswith("/accounts/login/")
    assert clients["ann"].get(board_url(slot, "skip")).status_code == 405
    assert not Skip.objects.exists()
