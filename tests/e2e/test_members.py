"""Members in a real browser: a link becomes an annotator at work; the pages about people."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from labelhub.accounts.models import User
from labelhub.assignments.actions import open_slots
from labelhub.projects.actions import create_invitation
from labelhub.projects.models import Membership, Project
from labelhub.prompts.models import Answer
from labelhub.rankings.actions import make_gold
from labelhub.rankings.models import Flag, Ranking, Skip
from tests import factories
from tests.browser import axe_source

Open = Callable[..., Page]
PHONE = {"viewport": {"width": 390, "height": 844}}
PASSWORD = "five quiet green herons"


@pytest.fixture
def project(live_server: Any, ann: User, ben: User, ada: User) -> Project:
    """The project that ada steers, made after the server so that its rows can be seen there."""
    project = factories.make_project(
        "everyday", annotators=[ann, ben], admins=[ada], hold_back_leaks=True
    )
    ranked = factories.make_answer_set(
        project, answers=["It is **Paris**.", "Paris, I believe.", "It is Lyon."]
    )
    for person in (ann, ben):
        factories.make_ranking(ranked, person, [1, 2, 3])
    make_gold(project=project, by=ada, answer_set=ranked, ranks=[1, 2, 3], explanation="Facts.")
    waiting = [factories.make_answer_set(project) for _ in range(3)]
    open_slots(project=project, answer_sets=waiting[:2], overlap=2)
    Skip.objects.create(
        answer_set=waiting[0], slot=waiting[0].slots.all()[0], annotator=ben, reason="harmful",
        note="It tells how to hurt somebody.",
    )  # fmt: skip
    flagged = ranked.answers.all()[2]
    Flag.objects.create(answer=flagged, annotator=ann, note="This is wrong.")
    Answer.objects.filter(answer_set=waiting[2], n=0).update(
        text="As ChatGPT I cannot say.", names_model=True
    )
    return project


@pytest.fixture
def pages(project: Project, ann: User, ada: User) -> list[str]:
    """Every page of this kind that stands at an address of its own."""
    seat = Membership.objects.get(user=ann, project=project)
    ranked = Ranking.objects.order_by("pk")[0].answer_set_id
    home = "/dashboard/everyday/"
    return [
        f"{home}people/", f"{home}people/{seat.pk}/", f"{home}people/data/{ann.pk}/",
        f"{home}settings/", f"{home}gold/", f"{home}gold/from/{ranked}/", f"{home}reports/",
        "/annotate/everyday/next/",
    ]  # fmt: skip


def link_for(project: Project, by: User) -> str:
    _invitation, secret = create_invitation(
        project=project, role="annotator", days=7, seats=1, note="", by=by
    )
    return f"/join/{secret}/"


def violations(page: Page) -> list[tuple[str, str]]:
    page.evaluate(axe_source())
    found = page.evaluate("axe.run()")["violations"]
    return [(one["id"], one["nodes"][0]["html"][:200]) for one in found]


def sideways(page: Page) -> int:
    width: int = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    return width


def test_a_link_becomes_an_annotator_at_work(open_page: Open, project: Project, ada: User) -> None:
    desk = open_page(ada, permissions=["clipboard-read", "clipboard-write"])
    desk.goto("/dashboard/everyday/people/")
    invite = desk.get_by_role("region", name="Invite by a link")
    invite.get_by_label("For how many people").fill("1")
    invite.get_by_label("Note").fill("For Zoë")
    invite.get_by_role("button", name="Make a link").click()
    shown = desk.get_by_label("Invitation link")
    expect(shown).to_be_focused()
    link = shown.input_value()
    desk.get_by_role("button", name="Copy").click()
    expect(desk.get_by_role("button", name="Copied")).to_be_visible()
    assert desk.evaluate("navigator.clipboard.readText()") == link

    phone = open_page(**PHONE)
    phone.goto(link)
    expect(phone.get_by_role("heading", name="Join Everyday")).to_be_visible()
    assert sideways(phone) <= 0
    phone.get_by_label("Name", exact=True).fill("Zoë")
    phone.get_by_label("Password", exact=True).fill("short")
    phone.get_by_label("The password once more").fill("short")
    phone.get_by_role("button", name="Make an account and join").click()
    expect(phone.get_by_text("at least 10 characters")).to_be_visible()
    expect(phone.get_by_label("Name", exact=True)).to_have_value("Zoë")
    phone.get_by_label("Password", exact=True).fill(PASSWORD)
    phone.get_by_label("The password once more").fill(PASSWORD)
    phone.get_by_role("button", name="Make an account and join").click()
    expect(phone.get_by_text("Welcome to Everyday.")).to_be_visible()
    phone.get_by_role("button", name="Start ranking").click()
    expect(phone).to_have_url(re.compile(r"/annotate/everyday/slots/\d+/"))

    desk.goto("/dashboard/everyday/people/")
    expect(desk.get_by_role("row", name="Zoë annotator").first).to_be_visible()
    expect(desk.get_by_role("cell", name="1 of 1")).to_be_visible()
    late = open_page(**PHONE)
    late.goto(link)
    expect(late.get_by_text("has been used already")).to_be_visible()


def test_who_has_an_account_signs_in_on_the_way(
    open_page: Open, project: Project, ada: User, mallory: User
) -> None:
    page = open_page(java_script_enabled=False)
    page.goto(link_for(project, ada))
    page.get_by_role("link", name="Sign in and join").click()
    page.get_by_label("Name").fill("mallory")
    page.get_by_label("Password").fill(factories.PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_text("You are signed in as mallory.")).to_be_visible()
    page.get_by_role("button", name="Join the project").click()
    expect(page.get_by_text("Welcome to Everyday.")).to_be_visible()
    assert Membership.objects.filter(user=mallory, project=project).exists()


def test_without_script_the_link_can_be_read_and_no_dead_button_stands_beside_it(
    open_page: Open, project: Project, ada: User
) -> None:
    page = open_page(ada, java_script_enabled=False)
    page.goto("/dashboard/everyday/people/")
    page.get_by_role("button", name="Make a link").click()
    expect(page.get_by_label("Invitation link")).to_have_value(re.compile(r"http.*/join/.+/"))
    expect(page.get_by_role("button", name="Copy")).to_have_count(0)


def test_an_annotator_pauses_goes_on_and_leaves(
    open_page: Open, project: Project, ann: User
) -> None:
    page = open_page(ann, **PHONE)
    page.goto("/annotate/everyday/next/")
    page.get_by_text("Hand back, pause or leave").click()
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_role("heading", name="You have paused here")).to_be_visible()
    page.get_by_role("button", name="End my pause").click()
    expect(page.get_by_text("Your pause has ended.")).to_be_visible()
    page.get_by_text("Hand back, pause or leave").click()
    page.get_by_role("button", name="Leave the project").click()
    page.get_by_role("dialog", name="Leave Everyday?").get_by_role(
        "button", name="Yes, leave"
    ).click()
    expect(page.get_by_text("You have left Everyday.")).to_be_visible()
    assert not Membership.objects.filter(user=ann).exists()


def test_an_admin_removes_a_member_and_then_deletes_the_data(
    open_page: Open, project: Project, ada: User, ann: User
) -> None:
    page = open_page(ada)
    page.goto("/dashboard/everyday/people/")
    page.get_by_role("link", name="Change ann").click()
    page.get_by_role("button", name="Remove from the project").click()
    page.get_by_role("button", name="Yes, remove").click()
    page.get_by_role("link", name="Data of ann").click()
    page.get_by_label("Type ann to confirm").fill("ann")
    page.get_by_role("button", name="Delete for good").click()
    expect(page.get_by_text("The data of ann in this project is deleted.")).to_be_visible()
    assert not Ranking.objects.filter(annotator=ann).exists()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_are_accessible(
    scheme: str, open_page: Open, project: Project, pages: list[str], ada: User
) -> None:
    page = open_page(ada, color_scheme=scheme)
    for path in pages:
        page.goto(path)
        assert violations(page) == [], path
    page.goto(pages[0])
    page.get_by_role("button", name="Make a link").click()
    expect(page.get_by_label("Invitation link")).to_be_visible()
    assert violations(page) == [], "with a fresh link"
    stranger = open_page(color_scheme=scheme)
    for path in (link_for(project, ada), "/join/nonsense/"):
        stranger.goto(path)
        assert violations(stranger) == [], path


def test_a_phone_needs_no_sideways_scrolling(
    open_page: Open, project: Project, pages: list[str], ada: User
) -> None:
    page = open_page(ada, **PHONE)
    for path in [*pages, link_for(project, ada)]:
        page.goto(path)
        assert sideways(page) <= 0, path
