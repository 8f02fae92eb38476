"""The ranking board in a real browser: by keyboard, by mouse, and as a plain form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import FloatRect, Locator, Page, expect

from labelhub.accounts.models import User
from labelhub.assignments.models import Slot
from labelhub.projects.models import Project
from labelhub.rankings.models import Ranking, RankingItem, Skip
from tests import factories
from tests.browser import axe_source

Open = Callable[..., Page]
NEXT = "/annotate/everyday/next/"
SUBMIT = "#submit"
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True}


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


def start(page: Page) -> None:
    """Take the next set and wait until the board is alive."""
    page.goto(NEXT)
    page.get_by_role("button", name="Start ranking").click()
    expect(page.locator("#board.live.draggable")).to_be_visible()


def press(page: Page, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)


def card(page: Page, letter: str) -> Locator:
    return page.locator(f".answer[data-letter={letter}]")


def answer_ids(page: Page) -> dict[str, int]:
    """Which answer stands behind each letter."""
    cards = page.locator(".answer").all()
    return {
        str(one.get_attribute("data-letter")): int(one.get_attribute("data-id") or 0)
        for one in cards
    }


def stored(ids: dict[str, int]) -> dict[str, int]:
    """The stored ranks by letter."""
    ranks = dict(RankingItem.objects.values_list("answer", "rank"))
    return {letter: ranks[pk] for letter, pk in ids.items()}


def eventually(page: Page, holds: Callable[[], bool]) -> None:
    """Wait for something on the server that the page does not show."""
    for _ in range(100):
        if holds():
            return
        page.wait_for_timeout(100)
    pytest.fail("It did not come about within ten seconds.")


def settled(page: Page, place: Locator) -> FloatRect:
    """Where something stands once it has stopped moving."""
    before = None
    while (now := place.bounding_box()) is None or now != before:
        before = now
        page.wait_for_timeout(80)
    return now


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


def drag(page: Page, letter: str, target: Locator, y: float = 60) -> None:
    """Take a card by its head and let it go over the target."""
    head = settled(page, card(page, letter).locator(".answer-head"))
    page.mouse.move(head["x"] + head["width"] / 2, head["y"] + head["height"] / 2)
    page.mouse.down()
    page.mouse.move(head["x"] + 60, head["y"] + 30, steps=4)
    expect(page.locator("#board.dragging")).to_be_visible()
    there = settled(page, target)  # the room between tiers opens
    page.mouse.move(there["x"] + there["width"] / 2, there["y"] + y, steps=8)
    page.wait_for_timeout(200)
    page.mouse.up()
    expect(page.locator("#board.dragging")).to_have_count(0)


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
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= 390, "nothing sticks out to the side"
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
    other.goto("/annotate/")
    assert Slot.objects.filter(state="held", holder=ann).count() == 1
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


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(open_page: Open, project: Project, ann: User, scheme: str) -> None:
    page = open_page(ann, color_scheme=scheme)
    for path in ("/annotate/", NEXT, "/accounts/password/"):
        page.goto(path)
        assert _faults(page) == []
    start(page)
    assert _faults(page) == []
    press(page, "a", "c", "b", "=")
    page.wait_for_timeout(300)
    assert _faults(page) == []
    press(page, "s")
    assert _faults(page) == []
    visitor = open_page(color_scheme=scheme)
    visitor.goto("/accounts/login/")
    assert _faults(visitor) == []


def _faults(page: Page) -> list[str]:
    page.evaluate(axe_source())
    found = page.evaluate("axe.run().then(result => result.violations)")
    return [
        f"{v['id']}: {node['html']} {node['failureSummary']}" for v in found for node in v["nodes"]
    ]
