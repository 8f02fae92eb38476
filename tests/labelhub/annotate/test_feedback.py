"""What is said beside the order: from the form to the stored ranking, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.http import HttpResponse
from django.test import Client

from labelhub.accounts.models import User
from labelhub.assignments.models import Slot
from labelhub.projects.models import Project
from labelhub.rankings.models import Flag, Ranking, RankingItem
from tests import factories
from tests.labelhub.annotate.pages import (
    board_url,
    claimed,
    filled,
    form_of,
    letters_of,
    named,
    refusal_of,
)

ATTRIBUTES = [
    {"key": "rude", "label": "It is rude"},
    {"key": "opinion", "label": "It takes sides"},
]


@pytest.fixture
def slot(project: Project, ann: User) -> Slot:
    Project.objects.update(ask_gaps=True, ask_likert=True, attributes=ATTRIBUTES)
    project.refresh_from_db()
    factories.make_answer_set(project, slots=1)
    return claimed(project, ann)


def submit(client: Client, slot: Slot, places: Any, **said: Any) -> HttpResponse:
    """Submit these places, and of other fields values by letter or, without letters, as they are.

    `submit(…, (1, 2, 3, 4), likert={"B": 5}, all_bad="on")`
    """
    page = client.get(board_url(slot))
    form = filled(page, places)
    for field, values in said.items():
        if isinstance(values, dict):
            form |= named(letters_of(page), field, values)
        else:
            form[field.replace("gap_", "gap-")] = values
    return client.post(board_url(slot), form)


def items(clients: dict[str, Client], slot: Slot, ann: User) -> dict[str, RankingItem]:
    """The stored items by the letters of their cards."""
    by_position = RankingItem.objects.order_by("position")
    return dict(zip("ABCDEFGHI", by_position, strict=False))


def test_everything_said_of_an_answer_is_kept_with_it(
    clients: dict[str, Client], slot: Slot, ann: User
) -> None:
    response = submit(
        clients["ann"],
        slot,
        {"A": 1, "B": 2, "C": 3, "D": 4},
        likert={"A": 7, "B": 3},
        attr={"B": ["rude", "opinion"]},
        critique={"B": " Too\r\nrude. "},
    )
    assert response.status_code == 302
    kept = items(clients, slot, ann)
    assert [kept[letter].likert for letter in "ABCD"] == [7, 3, None, None]
    assert [kept[letter].attributes for letter in "ABCD"] == [[], ["rude", "opinion"], [], []]
    assert [kept[letter].critique for letter in "ABCD"] == ["", "Too\nrude.", "", ""]


def test_everything_said_of_the_set_is_kept_with_the_ranking(
    clients: dict[str, Client], slot: Slot
) -> None:
    said = {"all_bad": "on", "refusal_right": "on", "ideal_answer": "I cannot help with that."}
    submit(clients["ann"], slot, (1, 1, 1, 1), **said)
    ranking = Ranking.objects.get()
    assert (ranking.all_bad, ranking.refusal_right) == (True, True)
    assert ranking.ideal_answer == "I cannot help with that."


def test_who_says_nothing_has_said_nothing(clients: dict[str, Client], slot: Slot) -> None:
    submit(clients["ann"], slot, (1, 2, 3, 4))
    ranking = Ranking.objects.get()
    assert (ranking.all_bad, ranking.refusal_right, ranking.ideal_answer) == (False, False, "")
    for item in RankingItem.objects.all():
        assert (item.gap, item.likert, item.attributes, item.critique) == (None, None, [], "")
        assert item.spans == []


def test_marked_places_are_kept_as_they_were_marked(
    clients: dict[str, Client], slot: Slot, ann: User
) -> None:
    answer = letters_of(clients["ann"].get(board_url(slot)))["C"]
    text = slot.answer_set.answers.get(pk=answer).text
    span = {"start": 0, "end": 6, "quote": text[:6], "tag": "bad", "note": "Wrong."}
    assert submit(clients["ann"], slot, (1, 2, 3, 4), spans={"C": json.dumps([span])}).url
    assert items(clients, slot, ann)["C"].spans == [span]


# --- how large the steps are


@pytest.mark.parametrize(
    ("places", "gaps", "by_rank"),
    [
        ((1, 2, 3, 4), {"gap_1": "3", "gap_3": "1"}, {1: 3, 2: None, 3: 1, 4: None}),
        ((1, 2, 2, 3), {"gap_1": "1", "gap_2": "2"}, {1: 1, 2: 2, 3: None}),
        # No card on place 2: what was said of place 1 counts, else what was said of place 2.
        ((1, 3, 3, 4), {"gap_1": "2", "gap_2": "3", "gap_3": "1"}, {1: 2, 2: 1, 3: None}),
        ((1, 3, 3, 4), {"gap_2": "3"}, {1: 3, 2: None, 3: None}),
        ((1, 1, 1, 1), {"gap_1": "3"}, {1: None}),
    ],
)
def test_the_step_from_a_place_to_the_next_is_kept_with_the_better_one(
    clients: dict[str, Client],
    slot: Slot,
    places: tuple[int, ...],
    gaps: dict[str, str],
    by_rank: dict[int, int | None],
) -> None:
    submit(clients["ann"], slot, places, **gaps)
    assert dict(RankingItem.objects.values_list("rank", "gap")) == by_rank


def test_a_project_that_asks_for_no_steps_keeps_none(
    clients: dict[str, Client], slot: Slot
) -> None:
    Project.objects.update(ask_gaps=False)
    submit(clients["ann"], slot, (1, 2, 3, 4), gap_1="3")
    assert set(RankingItem.objects.values_list("gap", flat=True)) == {None}


# --- two answers


@pytest.mark.parametrize(
    ("strength", "ranks", "gap"),
    [
        ("0-3", [1, 2], 3),
        ("0-2", [1, 2], 2),
        ("0-1", [1, 2], 1),
        ("tie", [1, 1], None),
        ("1-1", [2, 1], 1),
        ("1-2", [2, 1], 2),
        ("1-3", [2, 1], 3),
        ("0-0", [1, 2], None),
        ("1-0", [2, 1], None),
    ],
)
def test_one_choice_on_the_scale_is_a_whole_ranking_of_two(
    clients: dict[str, Client],
    project: Project,
    ann: User,
    strength: str,
    ranks: list[int],
    gap: int | None,
) -> None:
    Project.objects.update(ask_gaps=not strength.endswith("-0"))
    factories.make_answer_set(project, answers=2, slots=1)
    slot = claimed(project, ann)
    form = form_of(clients["ann"].get(board_url(slot)))
    assert clients["ann"].post(board_url(slot), form | {"strength": strength}).status_code == 302
    kept = RankingItem.objects.order_by("position")
    assert [item.rank for item in kept] == ranks
    assert {item.gap for item in kept if item.rank == 1} == {gap}


@pytest.mark.parametrize("strength", [None, "", "0-4", "2-1", "better", "0"])
def test_two_answers_without_a_choice_are_refused(
    clients: dict[str, Client], project: Project, ann: User, strength: str | None
) -> None:
    factories.make_answer_set(project, answers=2, slots=1)
    slot = claimed(project, ann)
    form = form_of(clients["ann"].get(board_url(slot)))
    if strength is not None:
        form["strength"] = strength
    response = clients["ann"].post(board_url(slot), form)
    assert response.status_code == 422
    assert refusal_of(response) == (
        "Say which of the two answers is better, or that they tie; then submit again."
    )
    assert not Ranking.objects.exists()


def test_a_choice_comes_back_chosen(
    clients: dict[str, Client], project: Project, ann: User
) -> None:
    Project.objects.update(ask_likert=True, ask_gaps=True)
    factories.make_answer_set(project, answers=2, slots=1)
    slot = claimed(project, ann)
    page = clients["ann"].get(board_url(slot))
    sent = form_of(page) | {"strength": "1-2"} | named(letters_of(page), "likert", {"A": 9})
    again = clients["ann"].post(board_url(slot), sent)
    assert again.status_code == 422
    assert form_of(again)["strength"] == "1-2"


# --- what is refused, in one sentence, and comes back filled in


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ({"likert": {"B": 8}}, "Card B: choose its grade from 1 to 7."),
        ({"likert": {"C": "good"}}, "Card C: choose its grade from 1 to 7."),
        (
            {"critique": {"D": "x" * 5001}},
            "What you wrote about card D is too long: 5000 characters fit.",
        ),
        ({"ideal_answer": "x" * 20001}, "The ideal answer is too long: 20000 characters fit."),
        ({"gap_2": "4"}, "How much better place 2 is: choose a size from the list."),
        (
            {"attr": {"A": ["unknown"]}},
            "The form came in damaged: reload the page and send it again.",
        ),
        (
            {"spans": {"A": '{"start": 0}'}},
            "The form came in damaged: reload the page and send it again.",
        ),
        (
            {"spans": {"A": "[" * 10_000}},
            "The form came in damaged: reload the page and send it again.",
        ),
    ],
)
def test_what_cannot_be_kept_is_refused_by_its_card(
    clients: dict[str, Client], slot: Slot, said: dict[str, Any], sentence: str
) -> None:
    response = submit(clients["ann"], slot, (1, 2, 3, 4), **said)
    assert response.status_code == 422
    assert refusal_of(response) == sentence
    assert not Ranking.objects.exists()


def test_a_marked_place_that_is_not_in_the_text_is_refused(
    clients: dict[str, Client], slot: Slot
) -> None:
    span = {"start": 0, "end": 3, "quote": "xyz", "tag": "good", "note": ""}
    response = submit(clients["ann"], slot, (1, 2, 3, 4), spans={"A": json.dumps([span])})
    assert response.status_code in (400, 409, 422)
    assert refusal_of(response)
    assert not Ranking.objects.exists()


def test_a_refused_form_comes_back_with_everything_in_it(
    clients: dict[str, Client], slot: Slot
) -> None:
    span = [{"start": 0, "end": 2, "quote": "An", "tag": "good", "note": ""}]
    response = submit(
        clients["ann"],
        slot,
        {"A": 1, "B": 2, "C": 3, "D": ""},
        likert={"A": "6"},
        attr={"B": ["opinion"]},
        critique={"C": "Not <so> good."},
        spans={"A": json.dumps(span)},
        gap_1="2",
        all_bad="on",
        refusal_right="on",
        ideal_answer="Line one.\r\nLine two.",
    )
    assert refusal_of(response) == "Card D has no place yet: give it one, then submit again."
    form, ids = form_of(response), letters_of(response)
    assert form[f"rank-{ids['B']}"] == "2"
    assert form[f"likert-{ids['A']}"] == "6"
    assert form[f"attr-{ids['B']}"] == ["opinion"]
    assert f"attr-{ids['A']}" not in form
    assert form[f"critique-{ids['C']}"] == "Not <so> good."
    assert json.loads(form[f"spans-{ids['A']}"]) == span
    assert form["gap-1"] == "2"
    assert (form["all_bad"], form["refusal_right"]) == (["on"], ["on"])
    assert form["ideal_answer"].split("\n")[-1] == "Line two."
    page = response.content.decode()
    assert 'data-filled="sent"' in page, "so that no older draft takes its place"
    assert page.count('<details class="notes" open>') == 2, "where something is said"
    completed = form | {f"rank-{ids['D']}": "4"}
    assert clients["ann"].post(board_url(slot), completed).status_code == 302
    assert RankingItem.objects.get(answer=ids["C"]).critique == "Not <so> good."


def test_a_refused_skip_leaves_the_draft_alone(clients: dict[str, Client], slot: Slot) -> None:
    response = clients["ann"].post(board_url(slot, "skip"), {"token": str(slot.lease_token)})
    assert response.status_code == 422
    assert 'data-filled=""' in response.content.decode()


# --- flags


def flag(client: Client, slot: Slot, letter: str, **more: Any) -> HttpResponse:
    """Flag a card from a board that is half filled in."""
    page = client.get(board_url(slot))
    answer = letters_of(page).get(letter, "")
    form = filled(page, {"A": 1, "B": "", "C": "", "D": ""})
    headers = more.pop("headers", {})
    return client.post(
        board_url(slot, "flag"), form | {"flag_answer": answer} | more, headers=headers
    )


def test_a_flag_goes_to_the_admins_and_the_board_stays_as_it_was(
    clients: dict[str, Client], slot: Slot, ann: User
) -> None:
    response = flag(clients["ann"], slot, "B", flag_note="A private address.")
    assert response.status_code == 200
    assert "Card B is flagged: the admins will look at it." in response.content.decode()
    kept = Flag.objects.get()
    ids = letters_of(response)
    assert (kept.answer_id, kept.annotator, kept.note) == (ids["B"], ann, "A private address.")
    form = form_of(response)
    assert form[f"rank-{ids['A']}"] == "1"
    assert (form["flag_answer"], form["flag_note"]) == ("", "")
    assert not Ranking.objects.exists()
    assert Slot.objects.get(pk=slot.pk).state == Slot.State.HELD


def test_a_script_gets_the_same_as_one_sentence(clients: dict[str, Client], slot: Slot) -> None:
    accept = {"Accept": "application/json"}
    response = flag(clients["ann"], slot, "C", headers=accept)
    assert response.json() == {"said": "Card C is flagged: the admins will look at it."}
    response = flag(clients["ann"], slot, "", headers=accept)
    assert response.status_code == 422
    assert response.json() == {"error": "Choose the answer that you want to flag."}


def test_a_second_flag_replaces_the_note(clients: dict[str, Client], slot: Slot) -> None:
    for note in ("First.", "Second."):
        flag(clients["ann"], slot, "A", flag_note=note)
    assert Flag.objects.get().note == "Second."


@pytest.mark.parametrize(
    ("letter", "note", "sentence"),
    [
        ("", "Which one?", "Choose the answer that you want to flag."),
        ("A", "x" * 501, "The note is too long: 500 characters fit."),
    ],
)
def test_a_bad_flag_is_refused_and_nothing_is_lost(
    clients: dict[str, Client], slot: Slot, letter: str, note: str, sentence: str
) -> None:
    response = flag(clients["ann"], slot, letter, flag_note=note)
    assert response.status_code == 422
    assert refusal_of(response) == sentence
    assert form_of(response)["flag_note"] == note
    assert form_of(response)[f"rank-{letters_of(response)['A']}"] == "1"
    assert not Flag.objects.exists()


def test_an_answer_of_another_set_cannot_be_flagged_here(
    clients: dict[str, Client], slot: Slot
) -> None:
    other = factories.make_answer_set(slot.project).answers.first()
    assert other
    response = flag(clients["ann"], slot, "A", flag_answer=other.pk)
    assert response.status_code == 422
    assert not Flag.objects.exists()


def test_nobody_flags_without_the_slots_token(clients: dict[str, Client], slot: Slot) -> None:
    form = {"token": str(slot.lease_token), "flag_answer": "1"}
    for who in ("ben", "ada", "mallory"):
        assert clients[who].post(board_url(slot, "flag"), form).status_code == 404
    assert clients["ann"].post(board_url(slot, "flag"), form | {"token": ""}).status_code == 404
    assert clients["ann"].get(board_url(slot, "flag")).status_code == 405
    assert clients["nobody"].post(board_url(slot, "flag"), form).url.startswith("/accounts/login/")
    assert not Flag.objects.exists()
