"""What browser tests of the board share: take a set, press keys, read what was stored."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import FloatRect, Locator, Page, expect

from labelhub.rankings.models import RankingItem
from tests.browser import axe_source

Open = Callable[..., Page]
NEXT = "/annotate/everyday/next/"
SUBMIT = "#submit"
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True}


def start(page: Page) -> None:
    """Take the next set and wait until the board is alive."""
    page.goto(NEXT)
    page.get_by_role("button", name="Start ranking").click()
    expect(page.locator("#board.live:is(.draggable, .pair)")).to_be_visible()


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


def drag(page: Page, letter: str, target: Locator, y: float = 60) -> None:
    """Take a card by its letter and let it go over the target."""
    head = settled(page, card(page, letter).locator(".key"))
    page.mouse.move(head["x"] + head["width"] / 2, head["y"] + head["height"] / 2)
    page.mouse.down()
    page.mouse.move(head["x"] + 60, head["y"] + 30, steps=4)
    expect(page.locator("#board.dragging")).to_be_visible()
    there = settled(page, target)  # the room between tiers opens
    page.mouse.move(there["x"] + there["width"] / 2, there["y"] + y, steps=8)
    page.wait_for_timeout(200)
    page.mouse.up()
    expect(page.locator("#board.dragging")).to_have_count(0)


def sticks_out(page: Page) -> int:
    """By how many pixels the page is wider than its window."""
    return int(page.evaluate("document.documentElement.scrollWidth - innerWidth"))


def faults(page: Page) -> list[str]:
    """What axe has against the page as it stands."""
    page.evaluate(axe_source())
    found = page.evaluate("axe.run().then(result => result.violations)")
    return [
        f"{v['id']}: {node['html']} {node['failureSummary']}" for v in found for node in v["nodes"]
    ]
