"""The dashboard in a real browser: it renews itself, asks before it acts, and needs no script."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from labelhub.accounts.models import User
from labelhub.projects.models import Project
from labelhub.registry.models import LivePolicy
from labelhub.rounds.models import Round
from labelhub.runs.models import Run
from tests import factories
from tests.browser import axe_source
from tests.labelhub.dashboard import world

Open = Callable[..., Page]
ROUND = "/dashboard/everyday/rounds/1/"
PHONE = {"viewport": {"width": 375, "height": 800}}


@pytest.fixture
def project(live_server: Any, ann: User, ada: User) -> Project:
    """The project that ada steers, made after the server so that its rows can be seen there."""
    project = factories.make_project("everyday", annotators=[ann], admins=[ada])
    world.live(project)
    return project


@pytest.fixture
def training(project: Project) -> Run:
    """A policy in training, at step 2 of 14."""
    run = world.make_run(
        world.make_round(project), "ppo", config={"kl_budget": 12.0}, step=2, total=14
    )
    for step in (1, 2):
        world.tell(run, "metric", step, reward=0.1 * step, reward_std=1.0, kl=1.0 * step)
    return run


def test_the_page_renews_itself_and_keeps_open_what_was_opened(
    open_page: Open, training: Run, ada: User
) -> None:
    page = open_page(ada)
    page.goto(ROUND)
    expect(page.get_by_text("step 2 of 14")).to_be_visible()
    table = page.locator(f"#table-run-{training.pk}-kl")
    table.locator("summary").click()
    world.tell(training, "metric", 3, reward=0.3, reward_std=1.0, kl=3.25)
    Run.objects.filter(pk=training.pk).update(step=3)
    expect(page.get_by_text("step 3 of 14")).to_be_visible()
    expect(table.get_by_role("cell", name="3.25")).to_be_visible()


def test_an_open_question_is_not_renewed_away(open_page: Open, training: Run, ada: User) -> None:
    page = open_page(ada)
    page.goto(ROUND)
    page.get_by_role("button", name="Stop and keep checkpoint").click()
    question = page.get_by_role("dialog", name="Stop this step?")
    expect(question).to_be_visible()
    Run.objects.filter(pk=training.pk).update(step=4)
    page.wait_for_timeout(4_000)
    expect(question).to_be_visible()
    question.get_by_role("button", name="Go back").click()
    expect(page.get_by_text("step 4 of 14")).to_be_visible()
    assert Run.objects.get(pk=training.pk).state == Run.State.RUNNING


def test_the_page_ends_asking_when_the_round_is_over(
    open_page: Open, training: Run, ada: User
) -> None:
    page = open_page(ada)
    page.goto(ROUND)
    Round.objects.update(state=Round.State.REJECTED)
    expect(page.get_by_text("This round is over")).to_be_visible()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.wait_for_timeout(4_000)
    assert asked == []


def test_a_promotion_asks_once_more_and_then_happens(
    open_page: Open, project: Project, ada: User
) -> None:
    turn = world.decided(project)
    page = open_page(ada)
    page.goto(ROUND)
    expect(page.get_by_text("Let us see together!")).to_be_visible()
    page.get_by_role("button", name="Promote").click()
    assert LivePolicy.objects.get(project=project).version == turn.policy_in
    page.get_by_role("button", name="Yes, promote").click()
    expect(page.get_by_role("status").first).to_contain_text("Promoted")
    assert LivePolicy.objects.get(project=project).version == turn.policy_out


def test_everything_works_without_script(
    open_page: Open, project: Project, ada: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What a worker would do with the run is another test's matter.
    monkeypatch.setattr("labelhub.lib.queue._enqueue", lambda *_: None)
    for _ in range(3):
        factories.make_prompt(project)
    factories.make_prompt(project, held_out=True)
    page = open_page(ada, java_script_enabled=False)
    page.goto("/dashboard/everyday/")
    page.get_by_label("PPO steps").fill("5")
    page.get_by_text("More settings").click()
    page.get_by_label("Seed").fill("3")
    page.get_by_role("button", name="Start round 1").click()
    expect(page.get_by_role("heading", name="Round 1", exact=True)).to_be_visible()
    turn = Round.objects.get(project=project)
    assert (turn.config["steps"], turn.seed) == (5, 3)
    page.get_by_role("button", name="Abandon round").click()
    page.get_by_role("button", name="Yes, end the round").click()
    expect(page.get_by_text("This round is over")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_are_accessible(
    scheme: str, open_page: Open, training: Run, project: Project, ada: User
) -> None:
    page = open_page(ada, color_scheme=scheme)
    for path in (
        "/dashboard/",
        "/dashboard/everyday/",
        ROUND,
        f"/dashboard/everyday/runs/{training.pk}/",
        "/dashboard/everyday/versions/",
        "/dashboard/everyday/prompts/",
        "/dashboard/everyday/people/",
        "/dashboard/everyday/guidelines/",
    ):
        page.goto(path)
        page.evaluate(axe_source())
        found = page.evaluate("axe.run()")["violations"]
        assert [(one["id"], one["nodes"][0]["html"][:200]) for one in found] == [], path


def test_a_phone_needs_no_sideways_scrolling(
    open_page: Open, training: Run, project: Project, ada: User
) -> None:
    page = open_page(ada, **PHONE)
    for path in ("/dashboard/", "/dashboard/everyday/", ROUND, "/dashboard/everyday/versions/"):
        page.goto(path)
        wide = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        assert wide <= 0, path
