"""What the board's script asks for: to take a ranking, to pass a set on, to lend the next one."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from django.test import Client

from labelhub.accounts.models import User
from labelhub.assignments.models import Slot
from labelhub.projects.models import Project
from labelhub.rankings.models import Ranking, Skip
from tests import factories
from tests.labelhub.annotate.pages import board_url, claimed

JSON = {"HTTP_ACCEPT": "application/json"}


@pytest.fixture
def slot(project: Project, ann: User) -> Slot:
    for _ in range(2):
        factories.make_answer_set(project, answers=2, slots=1)
    return claimed(project, ann)


def form(slot: Slot, **more: Any) -> dict[str, Any]:
    """A complete ranking of the slot's two answers."""
    answers = slot.answer_set.answers.order_by("pk")
    return {
        "token": str(slot.lease_token),
        "key": str(uuid.uuid4()),
        **{f"rank-{one.pk}": n for n, one in enumerate(answers, start=1)},
        **more,
    }


def test_a_script_is_told_where_to_go_on(clients: dict[str, Client], slot: Slot) -> None:
    answer = clients["ann"].post(board_url(slot), form(slot), **JSON).json()
    following = Slot.objects.get(state=Slot.State.HELD)
    assert answer == {
        "said": "Your ranking is saved.",
        "next": board_url(following),
        "progress": {"done": 1, "wanted": 2, "words": "1 of 2"},
    }


def test_what_is_sent_from_another_page_lends_nothing(
    clients: dict[str, Client], slot: Slot
) -> None:
    answer = clients["ann"].post(board_url(slot), form(slot, stay="1"), **JSON).json()
    assert answer == {"said": "Your ranking is saved.", "next": None}
    assert Ranking.objects.count() == 1
    assert not Slot.objects.filter(state=Slot.State.HELD).exists()


def test_the_same_key_again_is_the_same_ranking(clients: dict[str, Client], slot: Slot) -> None:
    sent = form(slot, stay="1")
    answers = [clients["ann"].post(board_url(slot), sent, **JSON).json() for _ in range(2)]
    assert answers[0] == answers[1]
    assert Ranking.objects.count() == 1


def test_a_refusal_is_one_sentence(clients: dict[str, Client], slot: Slot) -> None:
    response = clients["ann"].post(board_url(slot), form(slot, key="no key"), **JSON)
    assert response.status_code == 422
    assert response.json() == {
        "error": "The form came in damaged: reload the page and send it again."
    }
    stale = {f"sha-{one.pk}": "f" * 64 for one in slot.answer_set.answers.all()}
    response = clients["ann"].post(board_url(slot), form(slot, **stale), **JSON)
    assert response.status_code == 409
    assert "other texts" in response.json()["error"]
    assert not Ranking.objects.exists()


def test_a_script_can_pass_a_set_on(clients: dict[str, Client], slot: Slot) -> None:
    sent = {"token": str(slot.lease_token), "reason": "unclear", "note": ""}
    answer = clients["ann"].post(board_url(slot, "skip"), sent, **JSON).json()
    assert answer["said"] == "The set was passed on."
    assert answer["next"].endswith("/")
    assert Skip.objects.get().annotator.username == "ann"


def test_who_is_signed_out_is_sent_to_the_door(slot: Slot) -> None:
    response = Client().post(board_url(slot), form(slot), **JSON)
    assert response.status_code == 302


# --- the next set ahead


def ahead(client: Client, slot: Slot, token: object = None):  # type: ignore[no-untyped-def]
    return client.post(board_url(slot, "ahead"), {"token": str(token or slot.lease_token)}, **JSON)


def test_the_next_set_is_lent_ahead_once(clients: dict[str, Client], slot: Slot) -> None:
    first = ahead(clients["ann"], slot).json()["next"]
    assert first != board_url(slot)
    assert ahead(clients["ann"], slot).json()["next"] == first
    assert Slot.objects.filter(state=Slot.State.HELD, holder__username="ann").count() == 2
    assert clients["ann"].get(first).status_code == 200


def test_when_nothing_is_left_nothing_is_lent(
    clients: dict[str, Client], project: Project, ann: User
) -> None:
    factories.make_answer_set(project, slots=1)
    assert ahead(clients["ann"], claimed(project, ann)).json() == {"next": None}


def test_leaving_gives_both_back(clients: dict[str, Client], slot: Slot) -> None:
    ahead(clients["ann"], slot)
    clients["ann"].post(board_url(slot, "release"), {"token": str(slot.lease_token)})
    assert not Slot.objects.filter(state=Slot.State.HELD).exists()


def test_nothing_is_lent_ahead_on_a_false_token(clients: dict[str, Client], slot: Slot) -> None:
    response = ahead(clients["ann"], slot, uuid.uuid4())
    assert response.status_code == 404
    assert Slot.objects.filter(state=Slot.State.HELD).count() == 1


def test_a_stranger_learns_nothing_of_it(clients: dict[str, Client], slot: Slot) -> None:
    assert ahead(clients["mallory"], slot).status_code == 404
    assert clients["ann"].get(board_url(slot, "ahead")).status_code == 405
