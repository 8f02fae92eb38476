"""What is said beside the order, in a real browser: grades, notes, the ideal answer, flags."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Page, expect

from labelhub.accounts.models import User
from labelhub.assignments.models import Slot
from labelhub.projects.models import Project
from labelhub.rankings.models import Flag, Ranking, RankingItem
from tests import factories
from tests.e2e.boards import (
    NEXT,
    PHONE,
    SUBMIT,
    Open,
    answer_ids,
    card,
    eventually,
    faults,
    press,
    start,
    sticks_out,
    stored,
)

ATTRIBUTES = [
    {"key": "rude", "label": "It is rude"},
    {"key": "opinion", "label": "It takes sides"},
]


@pytest.fixture
def project(live_server: Any, ann: User, ben: User) -> Project:
    """A project that asks for all there is, with two sets of three answers."""
    project = factories.make_project(
        "everyday",
        annotators=[ann, ben],
        ask_gaps=True,
        ask_likert=True,
        attributes=ATTRIBUTES,
    )
    for n in range(2):
        texts = [f"Set {n}, *answer* {i}:\n\n1 < 2 & so on." for i in range(3)]
        factories.make_answer_set(project, answers=texts, slots=1)
    return project


def item(ids: dict[str, int], letter: str) -> RankingItem:
    """What was stored of the card with this letter."""
    return RankingItem.objects.get(answer=ids[letter])


def submit(page: Page) -> None:
    """Press Enter, and wait until the next set is there."""
    press(page, "Enter")
    expect(page.locator(".bar-progress")).to_contain_text("1 of 2")


# --- grades


def test_r_and_a_digit_grade_the_picked_card(open_page: Open, project: Project, ann: User) -> None:
    page = open_page(ann)
    start(page)
    ids = answer_ids(page)
    press(page, "b", "r", "6")
    expect(page.locator("#said")).to_have_text("B: grade 6.")
    expect(card(page, "B").get_by_role("radio", name="6")).to_be_checked()
    press(page, "a", "r", "3", "c", "r", "2", "r", "0")
    expect(page.locator("#said")).to_have_text("C has no grade.")
    press(page, "3")
    expect(card(page, "C")).to_be_focused(), "a digit alone picks a card"
    submit(page)
    assert stored(ids) == {"B": 1, "A": 2, "C": 3}
    assert [item(ids, letter).likert for letter in "ABC"] == [3, 6, None]


def test_a_grade_is_taken_back_by_pressing_it_again(
    open_page: Open, project: Project, ann: User
) -> None:
    page = open_page(ann)
    start(page)
    ids = answer_ids(page)
    five = card(page, "A").get_by_role("radio", name="5")
    five.check()
    card(page, "A").get_by_role("radio", name="4").check()
    expect(five).not_to_be_checked()
    card(page, "A").get_by_role("radio", name="4").click()
    expect(card(page, "A").locator(".likert :checked")).to_have_count(0)
    five.check()
    press(page, "ArrowLeft")
    expect(card(page, "A").get_by_role("radio", name="4")).to_be_checked()
    expect(page.locator(".answer.placed")).to_have_count(0)
    press(page, "a", "b", "c")
    submit(page)
    assert item(ids, "A").likert == 4


# --- notes


def test_notes_are_closed_until_one_wants_them(
    open_page: Open, project: Project, ann: User
) -> None:
    page = open_page(ann)
    start(page)
    ids = answer_ids(page)
    expect(page.get_by_label("What is good or bad about it")).to_have_count(3)
    for box in page.get_by_label("What is good or bad about it").all():
        expect(box).to_be_hidden()
    press(page, "n")
    expect(page.locator("#said")).to_have_text("Pick a card first: press its letter.")
    press(page, "b", "n")
    notes = card(page, "B").locator(".notes")
    expect(notes.get_by_label("It is rude")).to_be_focused()
    press(page, "Space", "Tab", "Tab")
    page.keyboard.type("abc = needs z")
    press(page, "Escape")
    expect(card(page, "B")).to_be_focused()
    press(page, "n")
    expect(notes.get_by_label("It is rude")).to_be_hidden()
    expect(notes.locator(".count")).to_have_text("2")
    press(page, "a", "c")
    expect(page.locator(SUBMIT)).to_contain_text("Submit B › A › C")
    submit(page)
    kept = item(ids, "B")
    assert (kept.attributes, kept.critique) == (["rude"], "abc = needs z")
    assert item(ids, "A").attributes == []


def test_what_is_true_of_the_whole_set_and_what_should_have_been_answered(
    open_page: Open, project: Project, ann: User
) -> None:
    page = open_page(ann)
    start(page)
    page.get_by_label("No answer is usable").check()
    page.get_by_label("To refuse was right").check()
    press(page, "c", "b", "a", "t")
    text = page.get_by_label("The ideal answer")
    expect(text).to_be_focused()
    page.keyboard.type("No.\nSorry.")
    press(page, "Control+Enter")
    expect(page.locator(".bar-progress")).to_contain_text("1 of 2")
    ranking = Ranking.objects.get()
    assert (ranking.all_bad, ranking.refusal_right) == (True, True)
    assert ranking.ideal_answer == "No.\nSorry."


def test_the_ideal_answer_starts_from_a_copy_and_never_overwrites(
    open_page: Open, project: Project, ann: User
) -> None:
    page = open_page(ann)
    start(page)
    ids = answer_ids(page)
    press(page, "a", "b", "c", "t")
    page.get_by_role("button", name="Start from a copy of answer B").click()
    text = page.get_by_label("The ideal answer")
    stored_text = Slot.objects.get(state="held").answer_set.answers.get(pk=ids["B"]).text
    expect(text).to_have_value(stored_text)
    expect(page.locator("#ideal-copies")).to_be_hidden()
    expect(text).to_be_focused()
    page.keyboard.type("Better: ")
    press(page, "Escape")
    submit(page)
    assert Ranking.objects.get().ideal_answer == "Better: " + stored_text


# --- drafts


def test_a_draft_comes_back_with_all_that_was_said(
    open_page: Open, project: Project, ann: User
) -> None:
    page = open_page(ann)
    start(page)
    ids = answer_ids(page)
    press(page, "b", "a", ">", ">", "r", "5", "n", "Space", "Tab", "Tab")
    page.keyboard.type("Half a thought")
    press(page, "Escape")
    page.get_by_label("No answer is usable").check()
    press(page, "t")
    page.keyboard.type("Ideally so.")
    page.reload()
    expect(page.locator("#said")).to_have_text("Your draft is back.")
    expect(page.locator(SUBMIT)).to_contain_text("Submit B › A › …")
    expect(card(page, "A").get_by_role("radio", name="5")).to_be_checked()
    expect(card(page, "A").get_by_label("It is rude")).to_be_checked()
    expect(card(page, "A").get_by_label("What is good or bad about it")).to_have_value(
        "Half a thought"
    )
    expect(page.get_by_label("No answer is usable")).to_be_checked()
    expect(page.get_by_label("The ideal answer")).to_have_value("Ideally so.")
    expect(page.get_by_role("button", name="clearly better", pressed=True)).to_be_visible()
    press(page, "c")
    submit(page)
    assert stored(ids) == {"B": 1, "A": 2, "C": 3}
    kept = item(ids, "A")
    assert (kept.likert, kept.attributes, kept.critique) == (5, ["rude"], "Half a thought")
    assert item(ids, "B").gap == 2
    ranking = Ranking.objects.get()
    assert (ranking.all_bad, ranking.ideal_answer) == (True, "Ideally so.")


def test_a_draft_of_another_set_stays_with_it(open_page: Open, project: Project, ann: User) -> None:
    page = open_page(ann)
    start(page)
    press(page, "a", "b", "c", "r", "5")
    submit(page)
    expect(page.locator("#board.live")).to_be_visible()
    expect(page.locator(".likert :checked")).to_have_count(0)
    expect(page.locator(".answer.placed")).to_have_count(0)


def test_undo_walks_through_the_order_and_leaves_what_was_said(
    open_page: Open, project: Project, ann: User
) -> None:
    page = open_page(ann)
    start(page)
    press(page, "a", "b", "r", "5", "z")
    expect(page.locator(SUBMIT)).to_contain_text("Submit A › …")
    expect(card(page, "B").get_by_role("radio", name="5")).to_be_checked()


def test_a_refused_form_comes_back_with_all_that_was_said(
    open_page: Open, project: Project, ann: User
) -> None:
    page = open_page(ann)
    start(page)
    other = page.context.new_page()
    other.goto(page.url)
    expect(other.locator("#board.live.draggable")).to_be_visible()
    press(page, "a", "b", "c")
    submit(page)
    press(other, "c", "b", "a", "n")
    card(other, "A").get_by_label("What is good or bad about it").fill("Too late?")
    press(other, "Control+Enter")
    expect(other.locator("#refusal")).to_contain_text("already")
    expect(other.locator(SUBMIT)).to_contain_text("Submit C › B › A")
    expect(card(other, "A").get_by_label("What is good or bad about it")).to_have_value("Too late?")


# --- flags


def test_f_flags_the_picked_card(open_page: Open, project: Project, ann: User) -> None:
    page = open_page(ann)
    start(page)
    ids = answer_ids(page)
    press(page, "c", "b", "f")
    box = page.locator("#flag")
    expect(box.get_by_label("Answer", exact=True)).to_have_value(str(ids["B"]))
    expect(box.get_by_label("What is wrong with it?")).to_be_focused()
    page.keyboard.type("It names a person.\nSure.")
    box.get_by_role("button", name="Flag").click()
    expect(box).to_be_hidden()
    expect(page.locator("#draft-state")).to_have_text(
        "Card B is flagged: the admins will look at it."
    )
    flag = Flag.objects.get()
    assert (flag.answer_id, flag.note) == (ids["B"], "It names a person.\nSure.")
    expect(page.locator(SUBMIT)).to_contain_text("Submit C › B › …")
    press(page, "a")
    submit(page)


def test_a_flag_asks_for_its_card_if_none_is_picked(
    open_page: Open, project: Project, ann: User
) -> None:
    page = open_page(ann)
    start(page)
    press(page, "f")
    box = page.locator("#flag")
    box.get_by_role("button", name="Flag").click()
    expect(page.locator("#flag-refusal")).to_have_text("Choose the answer that you want to flag.")
    press(page, "Escape")
    expect(box).to_be_hidden()
    page.get_by_role("button", name="Flag answer C").click()
    expect(page.locator("#flag-refusal")).to_be_hidden()
    box.get_by_role("button", name="Flag").click()
    eventually(page, lambda: Flag.objects.count() == 1)
    assert not Ranking.objects.exists()


def test_with_six_cards_f_is_one_of_them_and_shift_f_flags(
    open_page: Open, project: Project, ann: User
) -> None:
    Slot.objects.all().delete()
    factories.make_answer_set(project, answers=6, slots=1)
    page = open_page(ann)
    start(page)
    ids = answer_ids(page)
    press(page, "f")
    expect(page.locator(SUBMIT)).to_contain_text("Submit F › …")
    press(page, "Shift+F")
    expect(page.locator("#flag-answer")).to_have_value(str(ids["F"]))
    press(page, "Escape", "?")
    line = page.locator("#keys dt", has_text="F").last
    expect(line).to_have_text("⇧ F")


def test_a_flag_without_script_keeps_the_half_filled_form(
    open_page: Open, project: Project, ann: User
) -> None:
    page = open_page(ann, java_script_enabled=False)
    page.goto(NEXT)
    page.get_by_role("button", name="Start ranking").click()
    card(page, "A").get_by_label("Place").select_option("2")
    card(page, "A").get_by_text("Notes").click()
    card(page, "A").get_by_label("What is good or bad about it").fill("Not yet done.")
    page.get_by_role("button", name="Flag answer A").click()
    page.locator("#flag").get_by_label("Answer", exact=True).select_option("B")
    page.locator("#flag").get_by_role("button", name="Flag").click()
    expect(page.locator("#draft-state")).to_contain_text("Card B is flagged")
    expect(card(page, "A").get_by_label("Place")).to_have_value("2")
    expect(card(page, "A").get_by_label("What is good or bad about it")).to_have_value(
        "Not yet done."
    )
    assert Flag.objects.count() == 1


# --- the whole of it


def test_all_of_it_works_as_a_plain_form(open_page: Open, project: Project, ann: User) -> None:
    page = open_page(ann, java_script_enabled=False)
    page.goto(NEXT)
    page.get_by_role("button", name="Start ranking").click()
    ids = answer_ids(page)
    for letter, place in {"A": "1", "B": "2"}.items():
        card(page, letter).get_by_label("Place").select_option(place)
    card(page, "B").get_by_role("radio", name="2").check()
    card(page, "B").get_by_text("Notes").click()
    card(page, "B").get_by_label("It takes sides").check()
    page.get_by_label("To refuse was right").check()
    page.locator("#ideal summary").click()
    page.get_by_label("The ideal answer").fill("I must not say.")
    page.get_by_label("Place 1 is").select_option("slightly better")
    page.get_by_role("button", name="Submit ranking").click()
    expect(page.locator("#refusal")).to_have_text(
        "Card C has no place yet: give it one, then submit again."
    )
    card(page, "C").get_by_label("Place").select_option("3")
    page.get_by_role("button", name="Submit ranking").click()
    expect(page.locator(".bar-progress")).to_contain_text("1 of 2")
    kept = item(ids, "B")
    assert (kept.likert, kept.attributes) == (2, ["opinion"])
    assert item(ids, "A").gap == 1
    ranking = Ranking.objects.get()
    assert (ranking.refusal_right, ranking.ideal_answer) == (True, "I must not say.")


def test_a_correction_stays_closed_until_something_is_changed(
    open_page: Open, project: Project, ann: User
) -> None:
    page = open_page(ann)
    start(page)
    ids = answer_ids(page)
    press(page, "a", "b", ">", "c", "r", "4")
    submit(page)
    page.goto(f"/annotate/everyday/history/{Ranking.objects.get().pk}/correct/")
    expect(page.locator("#board.live.draggable")).to_be_visible()
    expect(page.locator(SUBMIT)).to_contain_text("Save A › B › C")
    expect(page.locator(SUBMIT)).to_be_disabled()
    press(page, "Enter")
    expect(page.locator("#refusal")).to_have_text("Nothing is changed yet.")
    expect(card(page, "C").get_by_role("radio", name="4")).to_be_checked()
    press(page, "c", "ArrowUp")
    expect(page.locator(SUBMIT)).to_be_enabled()
    press(page, "ArrowDown")
    expect(page.locator(SUBMIT)).to_be_disabled()
    press(page, "c", "r", "7")
    expect(page.locator(SUBMIT)).to_be_enabled()
    press(page, "Enter")
    eventually(page, lambda: Ranking.objects.get().revision == 2)
    assert stored(ids) == {"A": 1, "B": 2, "C": 3}
    assert (item(ids, "C").likert, item(ids, "A").gap) == (7, 1)


def test_the_keys_dialog_names_every_key(open_page: Open, project: Project, ann: User) -> None:
    page = open_page(ann)
    start(page)
    press(page, "?")
    keys = set(page.locator("#keys kbd").all_inner_texts())
    assert keys >= set("AC13←↑→↓=><⌫ZYNRTFS?7") | {"Enter", "Esc"}


def test_it_fits_a_phone_with_everything_open(open_page: Open, project: Project, ann: User) -> None:
    page = open_page(ann, **PHONE)
    start(page)
    for summary in page.locator(":is(.notes, .ideal) summary").all():
        summary.tap()
    assert sticks_out(page) <= 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_with_everything_open(
    open_page: Open, project: Project, ann: User, scheme: str
) -> None:
    page = open_page(ann, color_scheme=scheme)
    start(page)
    press(page, "a", "b", "r", "5", "n", "Space", "Escape", "t")
    page.keyboard.type("So.")
    page.get_by_label("No answer is usable").check()
    page.wait_for_timeout(300)
    assert faults(page) == []
    press(page, "f")
    assert faults(page) == []
