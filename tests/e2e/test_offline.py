"""Rankings without a line, and the next set before it is asked for: nothing lost, nothing twice."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.sessions.models import Session
from django.test import Client
from playwright.sync_api import Page, Request, Route, expect

from labelhub.accounts.models import User
from labelhub.assignments.models import Slot
from labelhub.projects.models import Project
from labelhub.rankings.models import Ranking, Skip
from tests import factories
from tests.e2e.boards import NEXT, Open, eventually, faults

BOARD = "**/slots/*/"
WAITS = "One ranking waits in this browser."


@pytest.fixture
def project(live_server: Any, ann: User, ben: User) -> Project:
    project = factories.make_project("everyday", annotators=[ann, ben])
    for n in range(3):
        factories.make_answer_set(project, answers=[f"{n} one", f"{n} two", f"{n} 3"], slots=1)
    return project


def start(page: Page) -> None:
    page.goto(NEXT)
    page.get_by_role("button", name="ranking").first.click()
    expect(page.locator("#board.live.draggable")).to_be_visible()


def rank(page: Page, order: str = "abc") -> None:
    for key in (*order, "Enter"):
        page.keyboard.press(key)


def is_post(route: Route) -> bool:
    return route.request.method == "POST"


def stop_posts(page: Page, stop: Callable[[Route], None] = Route.abort) -> None:
    """From now on no ranking gets through; `page.unroute(BOARD)` ends it.

    Before the board is opened: an open page hears of a route a little later than of a key press.
    """
    assert page.url == "about:blank"
    page.route(BOARD, lambda route: stop(route) if is_post(route) else route.continue_())


def kept(page: Page) -> list[dict[str, Any]]:
    """What waits in the browser."""
    return list(json.loads(page.evaluate("localStorage.getItem('labelhub.outbox')") or "[]"))


# --- without a line


def test_a_ranking_without_a_line_waits_and_goes_by_itself(
    open_page: Open, project: Project, ann: User
) -> None:
    page = open_page(ann)
    start(page)
    here = page.url
    page.context.set_offline(True)
    rank(page, "bac")
    expect(page.locator("#outbox")).to_contain_text(WAITS)
    expect(page.locator("#submit")).to_contain_text("Submit B › A › C")
    assert page.url == here
    assert len(kept(page)) == 1
    assert not Ranking.objects.exists()
    assert faults(page) == []
    page.context.set_offline(False)
    page.wait_for_url(lambda url: url != here)
    expect(page.locator(".bar-progress")).to_contain_text("1 of 3")
    expect(page.locator("#outbox")).to_be_hidden()
    assert Ranking.objects.count() == 1
    assert kept(page) == []


def test_it_is_sent_from_any_other_page(open_page: Open, project: Project, ann: User) -> None:
    page = open_page(ann)
    stop_posts(page)
    start(page)
    rank(page)
    expect(page.locator("#outbox")).to_contain_text(WAITS)
    page.unroute(BOARD)
    page.goto("/accounts/password/")
    expect(page.locator("#outbox")).to_contain_text("was sent (Everyday).")
    ranking = Ranking.objects.get()
    assert ranking.annotator == ann
    # The person left the board: no further set is held for them.
    eventually(page, lambda: not Slot.objects.filter(state="held").exists())
    page.reload()
    expect(page.locator("#outbox")).to_be_hidden()


def test_an_answer_that_was_lost_on_the_way_makes_no_second_ranking(
    open_page: Open, project: Project, ann: User
) -> None:
    def lose_the_answer(route: Route) -> None:
        route.fetch()
        route.abort()

    page = open_page(ann)
    stop_posts(page, lose_the_answer)
    start(page)
    rank(page)
    expect(page.locator("#outbox")).to_contain_text(WAITS)
    assert Ranking.objects.count() == 1
    page.unroute(BOARD)
    page.get_by_role("button", name="Send now").click()
    expect(page.locator(".bar-progress")).to_contain_text("1 of 3")
    assert Ranking.objects.count() == 1
    assert kept(page) == []


def test_two_tabs_send_it_once(open_page: Open, project: Project, ann: User) -> None:
    page = open_page(ann)
    start(page)
    page.context.set_offline(True)
    rank(page)
    expect(page.locator("#outbox")).to_contain_text(WAITS)
    entries = page.evaluate("localStorage.getItem('labelhub.outbox')")
    page.context.set_offline(False)
    page.goto("/accounts/password/")
    eventually(page, lambda: Ranking.objects.exists())
    eventually(page, lambda: kept(page) == [])
    # As if another tab had read the list before it was struck off.
    page.evaluate("kept => localStorage.setItem('labelhub.outbox', kept)", entries)
    others = [page.context.new_page() for _ in range(2)]
    for other in others:
        other.goto("/accounts/password/")
    eventually(page, lambda: kept(page) == [])
    assert Ranking.objects.count() == 1


def test_after_a_reload_the_same_set_keeps_its_key(
    open_page: Open, project: Project, ann: User
) -> None:
    page = open_page(ann)
    stop_posts(page)
    start(page)
    rank(page)
    expect(page.locator("#outbox")).to_contain_text(WAITS)
    key = page.locator("input[name=key]").input_value()
    page.reload()
    expect(page.locator("#board.live.draggable")).to_be_visible()
    expect(page.locator("input[name=key]")).to_have_value(key)
    expect(page.locator("#submit")).to_contain_text("Submit A › B › C")
    page.unroute(BOARD)
    page.keyboard.press("Enter")
    expect(page.locator(".bar-progress")).to_contain_text("1 of 3")
    assert str(Ranking.objects.get().idempotency_key) == key


def test_what_the_server_refuses_is_shown_and_stays(
    open_page: Open, project: Project, ann: User
) -> None:
    page = open_page(ann)
    start(page)
    page.locator("input[name^=sha-]").first.evaluate("field => field.value = 'f'.repeat(64)")
    rank(page, "cab")
    expect(page.locator("#refusal")).to_contain_text("The page showed other texts")
    expect(page.locator("#refusal")).to_be_focused()
    expect(page.locator("#submit")).to_contain_text("Submit C › A › B")
    assert kept(page) == []
    assert not Ranking.objects.exists()


def test_a_refusal_that_comes_later_is_kept_until_it_is_thrown_away(
    open_page: Open, project: Project, ann: User
) -> None:
    page = open_page(ann)
    start(page)
    page.locator("input[name^=sha-]").first.evaluate("field => field.value = 'f'.repeat(64)")
    page.context.set_offline(True)
    rank(page)
    expect(page.locator("#outbox")).to_contain_text(WAITS)
    page.context.set_offline(False)
    page.goto("/accounts/password/")
    outbox = page.locator("#outbox")
    expect(outbox).to_contain_text("was refused (Everyday): The page showed other texts")
    page.reload()
    expect(outbox).to_contain_text("was refused")
    page.on("dialog", lambda dialog: dialog.accept())
    outbox.get_by_role("button", name="Throw it away").click()
    expect(outbox).to_be_hidden()
    assert kept(page) == []


def test_who_is_signed_out_signs_in_again_and_it_is_sent(
    open_page: Open, project: Project, ann: User
) -> None:
    page = open_page(ann)
    start(page)
    Session.objects.all().delete()
    rank(page)
    expect(page.locator("#draft-state")).to_contain_text("You are signed out.")
    expect(page.locator("#outbox")).to_contain_text("sign in again, then it is sent")
    assert not Ranking.objects.exists()
    page.locator("#outbox").get_by_role("link", name="Sign in").click()
    page.get_by_label("Name").fill("ann")
    page.locator("input[type=password]").fill(factories.PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    # Back at the board it is sent, and the board goes on.
    expect(page.locator(".bar-progress")).to_contain_text("1 of 3")
    assert Ranking.objects.count() == 1
    assert kept(page) == []


def test_what_ben_finds_on_this_computer_is_not_sent_as_his(
    open_page: Open,
    project: Project,
    ann: User,
    ben: User,
    sign_in: Callable[[User], Client],
) -> None:
    page = open_page(ann)
    start(page)
    page.context.set_offline(True)
    rank(page)
    expect(page.locator("#outbox")).to_contain_text(WAITS)
    cookie = next(c for c in page.context.cookies() if c["name"] == "sessionid")
    page.context.add_cookies([{**cookie, "value": sign_in(ben).cookies["sessionid"].value}])  # type: ignore[list-item]
    page.context.set_offline(False)
    page.goto("/accounts/password/")
    expect(page.locator("#outbox")).to_be_hidden()
    page.wait_for_timeout(500)
    assert not Ranking.objects.exists()
    assert len(kept(page)) == 1


def test_a_browser_without_storage_still_ranks_and_says_when_it_cannot(
    open_page: Open, project: Project, ann: User
) -> None:
    page = open_page(ann)
    page.add_init_script(
        "Storage.prototype.setItem = () => { throw new DOMException('no', 'QuotaExceededError') }"
    )
    start(page)
    page.context.set_offline(True)
    rank(page)
    expect(page.locator("#refusal")).to_contain_text("this browser keeps nothing")
    page.context.set_offline(False)
    page.keyboard.press("Enter")
    eventually(page, lambda: Ranking.objects.count() == 1)


def test_skipping_goes_on_and_without_a_line_says_so(
    open_page: Open, project: Project, ann: User
) -> None:
    page = open_page(ann)
    start(page)
    here = page.url
    page.context.set_offline(True)
    page.keyboard.press("s")
    page.locator("#skip input[type=radio]").first.check()
    page.locator("#skip").get_by_role("button", name="Skip").click()
    expect(page.locator("#refusal")).to_contain_text("the set is not passed on yet")
    page.context.set_offline(False)
    page.keyboard.press("s")
    page.locator("#skip").get_by_role("button", name="Skip").click()
    page.wait_for_url(lambda url: url != here)
    expect(page.locator("#draft-state")).to_have_text("The set was passed on.")
    assert Skip.objects.count() == 1


def test_drafts_are_kept_at_every_change_without_a_line(
    open_page: Open, project: Project, ann: User
) -> None:
    page = open_page(ann)
    start(page)
    page.context.set_offline(True)
    page.keyboard.press("c")
    page.keyboard.press("a")
    expect(page.locator("#draft-state")).to_have_text("draft saved")
    page.context.set_offline(False)
    page.reload()
    expect(page.locator("#submit")).to_contain_text("Submit C › A › …")


def test_without_script_the_form_is_sent_as_ever(
    open_page: Open, project: Project, ann: User
) -> None:
    page = open_page(ann, java_script_enabled=False)
    page.goto(NEXT)
    page.get_by_role("button", name="Start ranking").click()
    for place in page.locator("select[name^=rank-]").all():
        place.select_option("1")
    page.get_by_role("button", name="Submit ranking").click()
    expect(page.locator(".bar-progress")).to_contain_text("1 of 3")
    assert Ranking.objects.count() == 1


# --- the next set, ahead


def test_the_next_set_is_lent_ahead_and_both_are_given_back(
    open_page: Open, project: Project, ann: User
) -> None:
    page = open_page(ann)
    start(page)
    eventually(page, lambda: Slot.objects.filter(state="held", holder=ann).count() == 2)
    page.goto("/annotate/")
    eventually(page, lambda: not Slot.objects.filter(state="held").exists())


def test_the_next_set_is_there_before_it_is_asked_for(
    open_page: Open, project: Project, ann: User
) -> None:
    page = open_page(ann)
    start(page)
    if not page.evaluate("HTMLScriptElement.supports('speculationrules')"):
        pytest.skip("This browser fetches no pages ahead.")
    eventually(page, lambda: Slot.objects.filter(state="held", holder=ann).count() == 2)
    page.wait_for_timeout(1500)  # the page is on its way
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if is_page(request) else None)
    first = page.url
    rank(page)
    page.wait_for_url(lambda url: url != first)
    expect(page.locator("#board.live.draggable")).to_be_visible()
    entry = page.evaluate(
        """() => { const [one] = performance.getEntriesByType("navigation");
          return {delivery: one.deliveryType, wait: one.responseStart - one.startTime} }"""
    )
    assert entry["delivery"] == "navigational-prefetch"
    # What was drawn before the ranking was sent is put right.
    expect(page.locator(".bar-progress")).to_contain_text("1 of 3")
    expect(page.locator("#draft-state")).to_have_text("Your ranking is saved.")
    expect(page.locator("#lease")).to_contain_text("held for you")
    # Time counts from when the page is seen, not from when it was fetched.
    rank(page)
    expect(page.locator(".bar-progress")).to_contain_text("2 of 3")
    second = Ranking.objects.order_by("pk").last()
    assert second is not None
    assert 0 < second.duration_ms < 15_000
    assert second.active_ms <= second.duration_ms


def is_page(request: Request) -> bool:
    return request.resource_type == "document"


def test_without_speculation_rules_all_still_works(
    open_page: Open, project: Project, ann: User
) -> None:
    page = open_page(ann)
    page.add_init_script("HTMLScriptElement.supports = () => false")
    start(page)
    eventually(page, lambda: Slot.objects.filter(state="held", holder=ann).count() == 2)
    rank(page)
    expect(page.locator(".bar-progress")).to_contain_text("1 of 3")
    expect(page.locator("#board.live.draggable")).to_be_visible()
    rank(page)
    expect(page.locator(".bar-progress")).to_contain_text("2 of 3")
