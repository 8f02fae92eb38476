"""What the board shows: all of every text, nothing of who wrote it."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.db.models import F
from django.template.loader import render_to_string
from django.test import Client, RequestFactory

from labelhub.accounts.models import User
from labelhub.annotate.board import Mode, make_board
from labelhub.assignments.models import Slot
from labelhub.assignments.rules import display_order
from labelhub.projects.models import Project
from labelhub.prompts.models import Answer
from labelhub.rankings.models import RankingItem
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


# --- what is asked beside the order


def page_of(clients: dict[str, Client], slot: Slot, **asked: Any) -> str:
    """The board's page under other settings of the project."""
    Project.objects.update(**asked)
    return clients["ann"].get(board_url(slot)).content.decode()


NOTHING = {
    "ask_gaps": False,
    "ask_likert": False,
    "ask_critique": False,
    "ask_ideal": False,
    "ask_spans": False,
    "attributes": [],
}


@pytest.mark.parametrize(
    ("setting", "value", "field"),
    [
        ("ask_gaps", True, 'name="gap-1"'),
        ("ask_likert", True, 'name="likert-'),
        ("ask_critique", True, 'name="critique-'),
        ("ask_ideal", True, 'name="ideal_answer"'),
        ("ask_spans", True, 'name="spans-'),
        ("attributes", [{"key": "rude", "label": "It is rude"}], 'value="rude"'),
    ],
)
def test_only_what_the_project_asks_is_asked(
    clients: dict[str, Client], slot: Slot, setting: str, value: object, field: str
) -> None:
    assert field not in page_of(clients, slot, **NOTHING)
    assert field in page_of(clients, slot, **{**NOTHING, setting: value})


def test_nothing_is_chosen_before_somebody_chooses(clients: dict[str, Client], slot: Slot) -> None:
    attributes = [{"key": "rude", "label": "It is rude"}]
    Project.objects.update(ask_gaps=True, ask_likert=True, attributes=attributes)
    response = clients["ann"].get(board_url(slot))
    said = {
        name: value
        for name, value in form_of(response).items()
        if re.match(r"rank|gap|likert|attr|critique|all_bad|refusal_right|ideal", name) and value
    }
    assert said == {}
    assert " selected>" not in response.content.decode()
    assert 'details class="notes" open' not in response.content.decode()


def test_a_ready_question_speaks_the_readers_language_and_a_label_is_only_text(
    clients: dict[str, Client], slot: Slot
) -> None:
    attributes = [{"key": "own", "label": "A <b>bold</b> claim"}]
    assert "A &lt;b&gt;bold&lt;/b&gt; claim" in page_of(clients, slot, attributes=attributes)


# --- two answers


@pytest.fixture
def pair(project: Project, ann: User) -> Slot:
    two = factories.make_answer_set(project, answers=["One.", "Two."], slots=1)
    return factories.hold(two.slots.get(), ann)


def choices(page: str) -> list[tuple[str, str]]:
    """The scale from left to right: what is sent, and what it means."""
    return re.findall(r'name="strength" value="([^"]+)" aria-label="([^"]+)"', page)


def test_two_answers_stand_on_one_scale(clients: dict[str, Client], pair: Slot) -> None:
    page = clients["ann"].get(board_url(pair)).content.decode()
    assert choices(page) == [
        ("0-0", "A is better"),
        ("tie", "They tie"),
        ("1-0", "B is better"),
    ]
    assert "<select name=" not in page, "no list of places beside it"


def test_with_steps_the_scale_has_seven(clients: dict[str, Client], pair: Slot) -> None:
    page = page_of(clients, pair, ask_gaps=True)
    assert choices(page) == [
        ("0-3", "A is much better"),
        ("0-2", "A is clearly better"),
        ("0-1", "A is slightly better"),
        ("tie", "They tie"),
        ("1-1", "B is slightly better"),
        ("1-2", "B is clearly better"),
        ("1-3", "B is much better"),
    ]
    assert "strength" not in form_of(clients["ann"].get(board_url(pair))), "none is chosen"


# --- what the order is for


def drawn(slot: Slot, user: User, mode: Mode, **given: Any) -> str:
    """The page as another view draws it, such as a reviewer's."""
    request = RequestFactory().get("/")
    request.user = user
    board = make_board(slot, user, mode=mode, action="/elsewhere/", **given)
    return render_to_string("annotate/board.html", {"board": board}, request)


@pytest.mark.parametrize(
    ("mode", "has_lease", "can_pass", "word"),
    [
        ("rank", True, True, "Submit ranking"),
        ("review", True, False, "Decide"),
        ("tutorial", False, False, "Check my ranking"),
        ("correct", False, False, "Save the correction"),
    ],
)
def test_each_mode_has_what_makes_sense_in_it(
    slot: Slot, ann: User, mode: Mode, has_lease: bool, can_pass: bool, word: str
) -> None:
    page = drawn(slot, ann, mode)
    assert 'action="/elsewhere/"' in page
    assert f'data-mode="{mode}"' in page
    assert ('id="lease"' in page) is has_lease
    assert ('id="progress"' in page) is (mode == "rank")
    for part in ('id="skip"', 'id="flag"', "data-flag="):
        assert (part in page) is can_pass
    assert re.search(rf'<span id="submit-words">{word}</span>', page)


def test_a_ranking_that_stands_fills_in_the_whole_board(project: Project, ann: User) -> None:
    Project.objects.update(
        ask_gaps=True, ask_likert=True, attributes=[{"key": "rude", "label": "It is rude"}]
    )
    ranking = factories.make_ranking(
        factories.make_answer_set(project, answers=3), ann, (2, 1, 2), ideal_answer="Neither."
    )
    ranking.all_bad = True
    best = RankingItem.objects.get(rank=1)
    best.gap, best.likert, best.attributes, best.critique = 2, 5, ["rude"], "Short & good."
    best.save()
    slot = Slot.objects.get()
    page = drawn(slot, ann, "correct", given=ranking)
    assert 'data-filled="given"' in page
    assert 'name="revision" value="1"' in page
    chosen = re.findall(
        r'(?s)<select name="([^"]+)"[^>]*>(?:(?!</select>).)*?value="(\d)" selected', page
    )
    ids = slot.answer_set.answers.order_by("n").values_list("pk", flat=True)
    assert dict(chosen) == {
        f"rank-{ids[0]}": "2",
        f"rank-{ids[1]}": "1",
        f"rank-{ids[2]}": "2",
        "gap-1": "2",
    }
    assert re.search(rf'name="likert-{ids[1]}" value="5" [^>]*checked', page)
    assert re.search(r'value="rude" [^>]*checked', page)
    assert ">Short &amp; good.</textarea>" in page
    assert ">Neither.</textarea>" in page
    assert re.search(r'name="all_bad" [^>]*checked', page)
    assert not re.search(r'name="refusal_right" [^>]*checked', page)


def test_a_pair_that_was_ranked_stands_on_its_scale(project: Project, ann: User) -> None:
    Project.objects.update(ask_gaps=True)
    ranking = factories.make_ranking(factories.make_answer_set(project, answers=2), ann, (2, 1))
    RankingItem.objects.filter(rank=1).update(gap=3)
    slot = Slot.objects.get()
    checked = re.findall(
        r'value="([^"]+)" aria-label="[^"]+"[^>]* checked',
        drawn(slot, ann, "correct", given=ranking),
    )
    assert checked == ["1-3"], "the second card is much better"


def test_the_cards_of_a_ranking_stand_as_they_stood(project: Project, ann: User) -> None:
    ranking = factories.make_ranking(factories.make_answer_set(project), ann)
    for item in ranking.items.all():  # as on the page of another slot, in which it came late
        item.position = 3 - item.answer.n
        item.position += 4
        item.save()
    RankingItem.objects.update(position=F("position") - 4)
    board = make_board(Slot.objects.get(), ann, mode="correct", given=ranking)
    by_n = ranking.answer_set.answers.order_by("-n").values_list("pk", flat=True)
    assert [card.answer_id for card in board.cards] == list(by_n)
    assert [card.rank for card in board.cards] == [4, 3, 2, 1]
