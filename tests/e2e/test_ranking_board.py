"""The ranking board in a real browser: by keyboard, by mouse, and as a plain form."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Page, expect

from labelhub.accounts.models import User
from labelhub.assignments.models import Slot
from labelhub.projects.models import Project
from labelhub.rankings.models import Ranking, RankingItem, Skip
from tests import factories
from tests.e2e.boards import (
    NEXT,
    PHONE,
    SUBMIT,
    Open,
    answer_ids,
    card,
    drag,
    eventually,
    faults,
    press,
    settled,
    start,
    sticks_out,
    stored,
)


@pytest.fixture
def project(live_server: Any, ann: User, ben: User) -> Project:
    """A project with two sets to rank, made after the server so that its rows can be seen there."""
    project = factories.make_project("everyday", annotators=[ann, ben])
    for n in range(2):
        texts = [
            f"Set {n}, answer {name}: " + "words " * 12 for name in ("one", "two", "three", "four")
        ]
        factories.make_answer_set(project, answers=texts, slots=1)
    return project


def submitted(page: Page) -> None:
    """Wait until the next set is there."""
    expect(page.locator(".bar-progress")).to_contain_text("1 of 2")


def test_one_ranks_by_keyboard_alone_with_a_tie(
    open_page: Open, project: Project, ann: User
) -> None:
    page = open_page(ann)
    start(page)
    ids = answer_ids(page)
    expect(page.locator(SUBMIT)).to_be_disabled()
    press(page, "c", "a", "d", "=", "b")
    expect(page.locator(SUBMIT)).to_contain_text("Submit C › A = D › B")
    expect(page.locator(SUBMIT)).to_be_enabled()
    expect(page.locator("#said")).to_contain_text("The order is complete: C › A = D › B.")
    press(page, "Enter")
    submitted(page)
    assert stored(ids) == {"C": 1, "A": 2, "D": 2, "B": 3}
    ranking = Ranking.objects.get()
    assert ranking.active_ms <= ranking.duration_ms
    assert ranking.duration_ms > 0


def test_arrows_move_and_every_move_is_told(open_page: Open, project: Project, ann: User) -> None:
    page = open_page(ann)
    start(page)
    said, submit = page.locator("#said"), page.locator(SUBMIT)
    press(page, "1", "2", "3", "4")
    expect(submit).to_contain_text("A › B › C › D")
    press(page, "ArrowUp")
    expect(said).to_contain_text("D: place 3 of 4.")
    press(page, "ArrowLeft")
    expect(submit).to_contain_text("A › D › B › C")
    press(page, "b", "=")
    expect(said).to_contain_text("B: place 2 of 3, tied with D.")
    press(page, "=")
    expect(submit).to_contain_text("A › D › B › C")
    press(page, "ArrowRight", "ArrowDown")
    expect(submit).to_contain_text("A › D › C › B")
    press(page, "z")
    expect(said).to_contain_text("Undone.")
    press(page, "y")
    expect(submit).to_contain_text("A › D › C › B")
    press(page, "Control+z")
    expect(submit).to_contain_text("A › D › B › C")
    press(page, "Backspace")
    expect(submit).to_be_disabled()
    expect(said).to_contain_text("is not placed yet.")


def test_submit_stays_closed_until_every_card_has_its_place(
    open_page: Open, project: Project, ann: User
) -> None:
    page = open_page(ann)
    start(page)
    press(page, "b", "Enter")
    expect(page.locator("#refusal")).to_contain_text("Not placed yet: A, C and D.")
    page.get_by_role("button", name="This order is my answer").click()
    expect(page.locator(SUBMIT)).to_contain_text("Submit B › A › C › D")
    expect(page.locator(SUBMIT)).to_be_enabled()
    assert not Ranking.objects.exists()
    ids = answer_ids(page)
    press(page, "Enter")
    submitted(page)
    assert stored(ids) == {"B": 1, "A": 2, "C": 3, "D": 4}


def test_one_ranks_by_dragging(open_page: Open, project: Project, ann: User) -> None:
    page = open_page(ann, viewport={"width": 1600, "height": 1000})
    start(page)
    ids = answer_ids(page)
    submit = page.locator(SUBMIT)
    drag(page, "C", page.locator(".gap.start .drop"))
    expect(submit).to_contain_text("Submit C › …")
    drag(page, "B", page.locator(".gap.next .drop"))
    expect(submit).to_contain_text("Submit C › B › …")
    drag(page, "A", page.locator(".gap.between .drop"))
    expect(submit).to_contain_text("Submit C › A › B › …")
    drag(page, "D", page.locator(".tier .drop").nth(1))
    expect(submit).to_contain_text("Submit C › A = D › B")
    submit.click()
    submitted(page)
    assert stored(ids) == {"C": 1, "A": 2, "D": 2, "B": 3}


def test_the_buttons_on_the_cards_do_all_of_it_on_a_phone(
    open_page: Open, project: Project, ann: User
) -> None:
    page = open_page(ann, **PHONE)
    start(page)
    ids = answer_ids(page)
    for letter in "DCBA":
        card(page, letter).get_by_role("button", name="Place next").tap()
    card(page, "A").get_by_role("button", name="A is better").tap()
    card(page, "C").get_by_role("button", name="C ties").tap()
    expect(page.locator(SUBMIT)).to_contain_text("C = D › A › B")
    assert sticks_out(page) <= 0
    page.locator(SUBMIT).tap()
    submitted(page)
    assert stored(ids) == {"C": 1, "D": 1, "A": 2, "B": 3}


def test_without_script_it_is_a_plain_form(open_page: Open, project: Project, ann: User) -> None:
    page = open_page(ann, java_script_enabled=False)
    page.goto(NEXT)
    page.get_by_role("button", name="Start ranking").click()
    ids = answer_ids(page)
    for letter, place in {"A": "2", "B": "3", "C": "1"}.items():
        card(page, letter).get_by_label("Place").select_option(place)
    page.get_by_role("button", name="Submit ranking").click()
    expect(page.locator("#refusal")).to_have_text(
        "Card D has no place yet: give it one, then submit again."
    )
    expect(card(page, "A").get_by_label("Place")).to_have_value("2")
    card(page, "D").get_by_label("Place").select_option("2")
    page.get_by_role("button", name="Submit ranking").click()
    submitted(page)
    assert stored(ids) == {"C": 1, "A": 2, "D": 2, "B": 3}


@pytest.mark.parametrize("script", [True, False], ids=["with script", "without"])
def test_one_skips_with_a_reason(
    open_page: Open, project: Project, ann: User, script: bool
) -> None:
    page = open_page(ann, java_script_enabled=script)
    page.goto(NEXT)
    page.get_by_role("button", name="Start ranking").click()
    first = page.url
    if script:
        expect(page.locator("#board.live")).to_be_visible()
        press(page, "s")
    else:
        page.get_by_role("button", name="Skip").click()
    box = page.locator("#skip")
    box.get_by_label("It needs an expert").check()
    box.get_by_label("A word about it, if you like").fill("Zoology")
    box.get_by_role("button", name="Skip").click()
    expect(page.locator("#draft-state")).to_contain_text("The set was passed on.")
    assert page.url != first
    skip = Skip.objects.get()
    assert (skip.reason, skip.note) == ("expert", "Zoology")


def test_two_tabs_show_one_set_and_make_one_ranking(
    open_page: Open, project: Project, ann: User
) -> None:
    page = open_page(ann)
    start(page)
    other = page.context.new_page()
    other.goto(page.url)
    press(page, "a", "b", "c", "d", "Enter")
    submitted(page)
    press(other, "d", "c", "b", "a", "Enter")
    expect(other.locator("#refusal")).to_contain_text("already")
    expect(other.locator(SUBMIT)).to_contain_text("Submit D › C › B › A")
    assert Ranking.objects.count() == 1
    ranks = RankingItem.objects.order_by("position").values_list("rank", flat=True)
    assert list(ranks) == [1, 2, 3, 4]


def test_a_tab_that_is_closed_takes_nothing_from_the_other(
    open_page: Open, project: Project, ann: User
) -> None:
    page = open_page(ann)
    start(page)
    other = page.context.new_page()
    other.goto(page.url)
    expect(other.locator("#board.live")).to_be_visible()
    shown = Slot.objects.filter(pk=int(page.url.rstrip("/").rpartition("/")[2]))
    other.goto("/annotate/")
    assert shown.filter(state="held", holder=ann).exists()
    page.goto("/annotate/")
    expect(page.locator("h1")).to_contain_text("Hello, ann")
    eventually(page, lambda: not Slot.objects.filter(state="held").exists())


def test_a_draft_survives_a_reload(open_page: Open, project: Project, ann: User) -> None:
    page = open_page(ann)
    start(page)
    address = page.url
    press(page, "d", "b", "=")
    expect(page.locator("#draft-state")).to_have_text("draft saved")
    page.reload()
    expect(page.locator(SUBMIT)).to_contain_text("Submit B = D › …")
    assert page.url == address
    page.wait_for_timeout(2500)  # the old page may have given the set back as it went
    eventually(page, lambda: Slot.objects.filter(state="held", holder=ann).exists())
    expect(page.locator("#lease")).to_contain_text("held for you")


def test_a_double_click_on_submit_is_one_ranking(
    open_page: Open, project: Project, ann: User
) -> None:
    page = open_page(ann)
    start(page)
    press(page, "a", "b", "c", "d")
    page.locator(SUBMIT).dblclick()
    submitted(page)
    assert Ranking.objects.count() == 1


def test_the_keys_are_shown_and_can_be_switched_off(
    open_page: Open, project: Project, ann: User
) -> None:
    page = open_page(ann)
    start(page)
    press(page, "?")
    expect(page.locator("#keys")).to_be_visible()
    page.get_by_label("Use these keys").uncheck()
    press(page, "Escape")
    expect(page.locator("#keys")).to_be_hidden()
    press(page, "a", "b")
    expect(page.locator(".answer.placed")).to_have_count(0)


def test_typing_a_note_ranks_nothing(open_page: Open, project: Project, ann: User) -> None:
    page = open_page(ann)
    start(page)
    press(page, "s")
    page.get_by_label("A word about it, if you like").fill("abc")
    page.get_by_label("A word about it, if you like").press("d")
    expect(page.locator(".answer.placed")).to_have_count(0)


def test_after_the_last_set_the_page_says_so(open_page: Open, project: Project, ann: User) -> None:
    page = open_page(ann)
    start(page)
    for done in range(2):
        expect(page.locator(".bar-progress")).to_contain_text(f"{done} of 2")
        expect(page.locator("#board.live")).to_be_visible()
        press(page, "a", "b", "c", "d", "Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("All done, for now")
    assert Ranking.objects.count() == 2


# --- from two answers to nine


def make_sets(project: Project, answers: int, **asked: Any) -> None:
    """Sets of so many answers instead of the four; `asked` are settings of the project."""
    Slot.objects.all().delete()
    Project.objects.update(**asked)
    for n in range(2):
        texts = [f"Set {n}, answer {i}: " + "words " * (6 + 5 * i) for i in range(answers)]
        factories.make_answer_set(project, answers=texts, slots=1)


def test_two_answers_are_compared_by_key(open_page: Open, project: Project, ann: User) -> None:
    make_sets(project, 2, ask_gaps=True)
    page = open_page(ann)
    start(page)
    ids = answer_ids(page)
    said, submit = page.locator("#said"), page.locator(SUBMIT)
    expect(submit).to_be_disabled()
    press(page, "Enter")
    expect(page.locator("#refusal")).to_contain_text("Say which of the two answers is better")
    for sentence in ("slightly", "clearly", "much", "much"):
        press(page, "b")
        expect(said).to_contain_text(f"B is {sentence} better. Enter submits it.")
    press(page, "a")
    expect(submit).to_contain_text("Submit A is slightly better")
    press(page, "=")
    expect(submit).to_contain_text("Submit They tie")
    press(page, "ArrowRight", "ArrowRight")
    expect(submit).to_contain_text("B is clearly better")
    press(page, "1")
    expect(submit).to_contain_text("A is much better")
    press(page, "ArrowLeft")
    expect(submit).to_contain_text("A is much better")
    press(page, "z")
    expect(said).to_contain_text("Undone. B is clearly better")
    press(page, "Backspace")
    expect(submit).to_be_disabled()
    press(page, "z")
    expect(submit).to_be_enabled()
    press(page, "Enter")
    submitted(page)
    assert stored(ids) == {"A": 2, "B": 1}
    assert RankingItem.objects.get(rank=1).gap == 2


@pytest.mark.parametrize("window", [PHONE, {"viewport": {"width": 1280, "height": 800}}])
def test_two_answers_are_compared_by_one_touch(
    open_page: Open, project: Project, ann: User, window: dict[str, Any]
) -> None:
    make_sets(project, 2, ask_gaps=True)
    page = open_page(ann, **window)
    start(page)
    ids = answer_ids(page)
    assert sticks_out(page) <= 0
    expect(page.locator("#scale")).to_be_in_viewport(ratio=1)
    page.get_by_role("radio", name="A is clearly better").check()
    expect(card(page, "A")).to_have_class("answer best")
    page.get_by_role("radio", name="They tie").check()
    page.locator("#undo").click()
    page.locator(SUBMIT).click()
    submitted(page)
    assert stored(ids) == {"A": 1, "B": 2}
    assert RankingItem.objects.get(rank=1).gap == 2


def test_two_answers_without_steps_are_better_worse_or_tied(
    open_page: Open, project: Project, ann: User
) -> None:
    make_sets(project, 2)
    page = open_page(ann)
    start(page)
    ids = answer_ids(page)
    expect(page.get_by_role("radio")).to_have_count(3)
    press(page, "b", "b")
    expect(page.locator(SUBMIT)).to_contain_text("Submit B is better")
    press(page, "2", "Enter")
    submitted(page)
    assert stored(ids) == {"A": 1, "B": 1}


def test_two_answers_are_compared_without_script(
    open_page: Open, project: Project, ann: User
) -> None:
    make_sets(project, 2, ask_gaps=True)
    page = open_page(ann, java_script_enabled=False)
    page.goto(NEXT)
    page.get_by_role("button", name="Start ranking").click()
    ids = answer_ids(page)
    page.get_by_role("button", name="Submit ranking").click()
    expect(page.locator("#refusal")).to_contain_text("Say which of the two answers is better")
    page.get_by_role("radio", name="B is much better").check()
    page.get_by_role("button", name="Submit ranking").click()
    submitted(page)
    assert stored(ids) == {"A": 2, "B": 1}
    assert RankingItem.objects.get(rank=1).gap == 3


def test_nine_answers_are_ranked_by_digit_letter_and_drag(
    open_page: Open, project: Project, ann: User
) -> None:
    make_sets(project, 9)
    page = open_page(ann, viewport={"width": 1280, "height": 2000})
    start(page)
    ids = answer_ids(page)
    assert sticks_out(page) <= 0
    press(page, "9", "f", "1", "2", "3", "=", "4", "5", "7", "8")
    expect(page.locator(SUBMIT)).to_contain_text("Submit I › F › A › B = C › D › E › G › H")
    tops = [settled_top(page, letter) for letter in "IFAB"]
    assert len(set(tops)) == 1, "four tiers in a row"
    assert settled_top(page, "D") > tops[0]
    assert sticks_out(page) <= 0
    drag(page, "H", page.locator(".gap.between .drop").first)
    expect(page.locator(SUBMIT)).to_contain_text("I › H › F › A › B = C › D › E › G")
    drag(page, "G", page.locator(".tier .drop").nth(2))
    expect(page.locator(SUBMIT)).to_contain_text("I › H › F = G › A › B = C › D › E")
    page.locator(SUBMIT).click()
    submitted(page)
    assert stored(ids) == dict(zip("IHFGABCDE", (1, 2, 3, 3, 4, 5, 5, 6, 7), strict=True))


def settled_top(page: Page, letter: str) -> float:
    """How far down a card stands."""
    return settled(page, card(page, letter))["y"]


@pytest.mark.parametrize("answers", [3, 5, 6, 9])
def test_however_many_answers_fit_a_phone(
    open_page: Open, project: Project, ann: User, answers: int
) -> None:
    make_sets(project, answers, ask_gaps=True, ask_likert=True)
    page = open_page(ann, **PHONE)
    start(page)
    assert sticks_out(page) <= 0
    page.get_by_role("button", name="This order is my answer").tap()
    expect(page.locator(".gap-steps")).to_have_count(answers - 1)
    assert sticks_out(page) <= 0
    page.locator(SUBMIT).tap()
    submitted(page)
    assert RankingItem.objects.count() == answers


# --- how large the steps are


def test_the_steps_between_tiers_are_said_by_key(
    open_page: Open, project: Project, ann: User
) -> None:
    make_sets(project, 3, ask_gaps=True)
    page = open_page(ann)
    start(page)
    ids = answer_ids(page)
    said = page.locator("#said")
    press(page, "c", "a", ">")
    expect(said).to_have_text("Place 1 is slightly better than place 2.")
    press(page, ">", "b", ".", ".", ".", ".")
    expect(said).to_have_text("Place 2 is much better than place 3.")
    press(page, "<")
    expect(said).to_have_text("Place 2 is clearly better than place 3.")
    press(page, "z")
    expect(said).to_contain_text("Undone.")
    press(page, "Enter")
    submitted(page)
    assert stored(ids) == {"C": 1, "A": 2, "B": 3}
    assert list(RankingItem.objects.order_by("rank").values_list("gap", flat=True)) == [2, 3, None]


def test_the_steps_are_buttons_between_the_tiers(
    open_page: Open, project: Project, ann: User
) -> None:
    make_sets(project, 3, ask_gaps=True)
    page = open_page(ann)
    start(page)
    press(page, "a", "b", "c")
    first = page.get_by_role("group", name="How much better is place 1 than place 2?")
    first.get_by_role("button", name="clearly better").click()
    pressed = first.get_by_role("button", name="clearly better", pressed=True)
    expect(pressed).to_be_focused()
    press(page, "Shift+Tab", "Space")
    expect(first.get_by_role("button", name="slightly better", pressed=True)).to_be_focused()
    expect(pressed).to_have_count(0)
    press(page, "Space")
    expect(first.get_by_role("button", pressed=True)).to_have_count(0)
    press(page, "c", "ArrowUp")  # A, C, B
    second = page.get_by_role("group", name="How much better is place 2 than place 3?")
    second.get_by_role("button", name="much better").click()
    press(page, "b", "ArrowUp")  # A, B, C: that step is no more
    expect(page.get_by_role("button", pressed=True)).to_have_count(0)
    press(page, "z")
    expect(second.get_by_role("button", name="much better", pressed=True)).to_have_count(1)
    page.locator(SUBMIT).click()
    submitted(page)
    assert list(RankingItem.objects.order_by("rank").values_list("gap", flat=True)) == [
        None,
        3,
        None,
    ]


def test_the_steps_are_lists_without_script(open_page: Open, project: Project, ann: User) -> None:
    make_sets(project, 3, ask_gaps=True)
    page = open_page(ann, java_script_enabled=False)
    page.goto(NEXT)
    page.get_by_role("button", name="Start ranking").click()
    for letter, place in {"A": "2", "B": "1", "C": "3"}.items():
        card(page, letter).get_by_label("Place").select_option(place)
    page.get_by_label("Place 1 is").select_option("much better")
    page.get_by_role("button", name="Submit ranking").click()
    submitted(page)
    assert list(RankingItem.objects.order_by("rank").values_list("gap", flat=True)) == [
        3,
        None,
        None,
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("answers", [2, 3, 9])
def test_axe_finds_nothing_on_a_board_of_any_size(
    open_page: Open, project: Project, ann: User, scheme: str, answers: int
) -> None:
    make_sets(project, answers, ask_gaps=True, ask_likert=True)
    page = open_page(ann, color_scheme=scheme)
    start(page)
    assert faults(page) == []
    press(page, "a", "b", ">", *("cdefghi"[: answers - 2]))
    page.wait_for_timeout(300)
    assert faults(page) == []
    press(page, "?")
    assert faults(page) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(open_page: Open, project: Project, ann: User, scheme: str) -> None:
    page = open_page(ann, color_scheme=scheme)
    for path in ("/annotate/", NEXT, "/accounts/password/"):
        page.goto(path)
        assert faults(page) == []
    start(page)
    assert faults(page) == []
    press(page, "a", "c", "b", "=")
    page.wait_for_timeout(300)
    assert faults(page) == []
    press(page, "s")
    assert faults(page) == []
    visitor = open_page(color_scheme=scheme)
    visitor.goto("/accounts/login/")
    assert faults(visitor) == []
