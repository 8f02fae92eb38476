"""What the board shows: all of every text, nothing of who wrote it."""

from __future__ import annotations

import re

import pytest
from django.test import Client

from labelhub.accounts.models import User
from labelhub.assignments.models import Slot
from labelhub.assignments.rules import display_order
from labelhub.projects.models import Project
from labelhub.prompts.models import Answer
from tests import factories
from tests.labelhub.annotate.pages import board_url, form_of, letters_of

CONVERSATION = [
    {"role": "system", "content": "Answer briefly."},
    {"role": "user", "content": "What floats?"},
    {"role": "assistant", "content": "Wood does."},
    {"role": "user", "content": "And **iron**?"},
]
TEXTS = ["It *sinks*.", "It floats on mercury.", "<script>alert(1)</script>", "No.\n\n- never"]


@pytest.fixture
def slot(project: Project, ann: User) -> Slot:
    prompt = factories.make_prompt(project, messages=CONVERSATION)
    version = factories.make_version("secret-model-v7")
    answers = factories.make_answer_set(
        project, prompt=prompt, answers=TEXTS, version=version, slots=1
    )
    Answer.objects.update(
        sampling={"temperature": 0.731, "top_p": 0.913}, seed=77123, logprob=-41.75, tokens=3391
    )
    return factories.hold(answers.slots.get(), ann)


@pytest.fixture
def page(clients: dict[str, Client], slot: Slot) -> str:
    return clients["ann"].get(board_url(slot)).content.decode()


def test_it_shows_the_whole_conversation_and_all_answers(page: str) -> None:
    for text in ("Answer briefly.", "What floats?", "Wood does.", "And <strong>iron</strong>?"):
        assert text in page
    for text in ("It <em>sinks</em>.", "It floats on mercury.", "<li>never</li>"):
        assert text in page


def test_what_an_answer_says_is_text_and_never_runs(page: str) -> None:
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "<script>alert" not in page


def test_nothing_tells_who_wrote_an_answer(page: str) -> None:
    for secret in ("secret-model", "0.731", "0.913", "77123", "41.75", "3391", "models/"):
        assert secret not in page


def test_cards_stand_in_the_annotators_own_order(
    clients: dict[str, Client], slot: Slot, ann: User
) -> None:
    ids = slot.answer_set.answers.values_list("pk", flat=True)
    letters = letters_of(clients["ann"].get(board_url(slot)))
    assert list(letters.values()) == display_order(slot.pk, ann.pk, ids)
    assert list(letters) == ["A", "B", "C", "D"]


def test_every_page_has_a_key_of_its_own(clients: dict[str, Client], slot: Slot) -> None:
    first, second = (form_of(clients["ann"].get(board_url(slot))) for _ in range(2))
    assert first["key"] != second["key"]
    assert first["token"] == second["token"] == str(slot.lease_token)


def test_each_card_has_a_list_of_places_and_none_is_chosen(
    clients: dict[str, Client], slot: Slot
) -> None:
    form = form_of(clients["ann"].get(board_url(slot)))
    ids = slot.answer_set.answers.values_list("pk", flat=True)
    assert {name: value for name, value in form.items() if name.startswith("rank-")} == {
        f"rank-{pk}": "" for pk in ids
    }


def test_progress_and_lease_are_in_the_bar(
    clients: dict[str, Client], slot: Slot, ann: User
) -> None:
    factories.make_ranking(factories.make_answer_set(slot.project), ann)
    factories.make_answer_set(slot.project, slots=1)
    page = clients["ann"].get(board_url(slot)).content.decode()
    assert re.search(r'<progress id="progress" value="1" max="3">', page)
    seconds = int(re.findall(r'data-seconds="(\d+)"', page)[0])
    assert 890 <= seconds <= 900
    assert "held for you for 15 minutes" in page


def test_the_guidelines_are_at_hand(page: str) -> None:
    assert 'popovertarget="guidelines"' in page
    assert "Prefer the answer that helps more." in page


def test_up_to_nine_answers_fit(clients: dict[str, Client], project: Project, ann: User) -> None:
    nine = factories.make_answer_set(project, answers=9, slots=1)
    slot = factories.hold(nine.slots.get(), ann)
    response = clients["ann"].get(board_url(slot))
    assert list(letters_of(response)) == list("ABCDEFGHI")
    assert '<option value="9">' in response.content.decode()


def test_the_page_is_never_kept_in_a_cache(clients: dict[str, Client], slot: Slot) -> None:
    assert "no-store" in clients["ann"].get(board_url(slot))["Cache-Control"]


def test_a_strict_policy_lets_only_our_scripts_run(clients: dict[str, Client], slot: Slot) -> None:
    response = clients["ann"].get(board_url(slot))
    policy = response["Content-Security-Policy"]
    nonce = re.search(r'<script type="importmap" nonce="([^"]+)">', response.content.decode())
    assert nonce
    assert f"'nonce-{nonce[1]}'" in policy
    assert "unsafe" not in policy


def test_a_set_that_was_given_back_leads_to_the_next(
    clients: dict[str, Client], slot: Slot
) -> None:
    Slot.objects.update(state="open", holder=None, lease_token=None, lease_until=None)
    response = clients["ann"].get(board_url(slot), follow=True)
    assert response.redirect_chain[-1][0] == "/annotate/everyday/next/"
    assert "went back to the queue" in response.content.decode()


def test_a_set_that_is_done_leads_to_the_next(clients: dict[str, Client], slot: Slot) -> None:
    Slot.objects.update(state="done", lease_token=None, lease_until=None)
    response = clients["ann"].get(board_url(slot), follow=True)
    assert "You have ranked that set already" in response.content.decode()


def test_nobody_sees_what_somebody_else_holds(clients: dict[str, Client], slot: Slot) -> None:
    for who in ("ben", "ada"):
        response = clients[who].get(board_url(slot))
        assert response.status_code == 302
        assert response.url == "/annotate/everyday/next/"


def test_a_stranger_gets_404_and_a_visitor_the_sign_in_page(
    clients: dict[str, Client], slot: Slot
) -> None:
    assert clients["mallory"].get(board_url(slot)).status_code == 404
    assert clients["nobody"].get(board_url(slot)).url.startswith("/accounts/login/")


def test_a_slot_is_not_shown_under_another_projects_address(
    clients: dict[str, Client], slot: Slot, ann: User
) -> None:
    factories.make_project("other", annotators=[ann])
    url = board_url(slot).replace("everyday", "other")
    assert clients["ann"].get(url).status_code == 404
    assert clients["ann"].post(url, {"token": slot.lease_token}).status_code == 404
