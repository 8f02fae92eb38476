"""The annotators' other pages in a browser: tutorial, review, my work, guidelines, the break."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from labelhub.accounts.models import User
from labelhub.assignments.models import Slot
from labelhub.projects.actions import publish_guidelines
from labelhub.projects.models import Membership, Project
from labelhub.prompts.models import AnswerSet
from labelhub.rankings.models import Gold, Ranking, RankingItem
from tests import factories
from tests.browser import axe_source

Open = Callable[..., Page]
HOME = "/annotate/everyday/"
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True}
SCHEMES = ("light", "dark")
GUIDELINES = "# What counts\n\n- Prefer **facts**.\n- Length is no merit.\n"


@pytest.fixture
def project(live_server: Any, ann: User, ben: User, ada: User) -> Project:
    return factories.make_project("everyday", annotators=[ann, ben], admins=[ada])


@pytest.fixture
def lessons(project: Project) -> list[AnswerSet]:
    """A tutorial of two sets, in which the answers' numbers are the known order."""
    sets = []
    for place in (0, 1):
        texts = [f"Set {place}, answer {name}" for name in ("one", "two", "three")]
        lesson = factories.make_answer_set(project, answers=texts, purpose="tutorial")
        ranks = {str(one.pk): one.n + 1 for one in lesson.answers.all()}
        Gold.objects.create(
            answer_set=lesson, ranks=ranks, explanation="The first is **right**.", place=place
        )
        sets.append(lesson)
    return sets


@pytest.fixture
def disputed(project: Project, ann: User, ben: User) -> AnswerSet:
    """A set on which ann and ben differ, but for the last."""
    answer_set = factories.make_answer_set(project)
    first = factories.make_ranking(answer_set, ann, [1, 2, 3, 4])
    factories.make_ranking(answer_set, ben, [2, 1, 3, 4])
    RankingItem.objects.filter(ranking=first, rank=1).update(critique="Names its source.", gap=3)
    factories.make_slot(answer_set, kind=Slot.Kind.REVIEW)
    return answer_set


def alive(page: Page) -> None:
    """Wait until the board takes keys."""
    expect(page.locator("#board.live.draggable")).to_be_visible()


def letters(page: Page) -> dict[int, str]:
    """The letter of each answer's card, by the answer's number in its set."""
    cards = page.locator(".answer").all()
    by_id = {
        int(one.get_attribute("data-id") or 0): str(one.get_attribute("data-letter"))
        for one in cards
    }
    numbers = RankingItem.answer.field.related_model.objects.filter(pk__in=by_id)
    return {one.n: by_id[one.pk] for one in numbers}


def rank(page: Page, *numbers: int) -> None:
    """Rank by keyboard: the answers with these numbers, from best to worst."""
    alive(page)
    names = letters(page)
    for number in numbers:
        page.keyboard.press(names[number].lower())
    page.keyboard.press("Enter")


def faults(page: Page) -> list[str]:
    page.evaluate(axe_source())
    found = page.evaluate("axe.run().then(result => result.violations)")
    return [f"{one['id']}: {one['nodes'][0]['html'][:200]}" for one in found]


def overflow(page: Page) -> int:
    width: int = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    return width


def test_one_learns_by_the_tutorial_and_gets_real_work(
    open_page: Open, project: Project, ann: User, lessons: list[AnswerSet]
) -> None:
    factories.make_answer_set(project, slots=1)
    page = open_page(ann)
    page.goto("/annotate/")
    page.get_by_role("link", name="To the tutorial").click()
    page.get_by_role("button", name="Start the tutorial").click()
    rank(page, 1, 0, 2)
    expect(page.get_by_role("heading", name="Lesson 1 of 2")).to_be_visible()
    expect(page.get_by_text("is better than")).to_have_count(1)
    expect(page.get_by_text("The first is right.")).to_be_visible()
    page.get_by_role("button", name="Next set of the tutorial").click()
    rank(page, 0, 1, 2)
    expect(page.get_by_text("Just as known")).to_be_visible()
    page.get_by_role("link", name="To the result: passed").click()
    expect(page.locator("#result")).to_contain_text("Passed: real work is waiting for you")
    page.get_by_role("button", name="Start ranking").click()
    alive(page)
    assert Slot.objects.get(holder=ann, state="held").kind == Slot.Kind.OPINION


def test_a_reviewer_starts_from_the_suggestion_and_decides(
    open_page: Open, project: Project, ada: User, disputed: AnswerSet
) -> None:
    page = open_page(ada)
    page.goto("/annotate/")
    page.get_by_role("link", name="1 set waits for your decision").click()
    page.get_by_role("button", name="Decide on the next set").click()
    alive(page)
    expect(page.locator(".opinion")).to_have_count(3)
    expect(page.locator("#submit")).to_be_disabled()
    names = letters(page)
    page.get_by_role("link", name="Start from this order").click()
    top = " = ".join(sorted([names[0], names[1]]))
    expect(page.locator("#submit")).to_contain_text(f"{top} › {names[2]} › {names[3]}")
    page.keyboard.press("z")
    expect(page.locator("#submit")).to_be_disabled()
    page.keyboard.press("y")
    page.locator("#submit").click()
    expect(page.get_by_role("heading", name="Nothing to decide")).to_be_visible()
    decision = Ranking.objects.get(adjudicates=True)
    ranks = decision.items.order_by("answer__n").values_list("rank", flat=True)
    assert list(ranks) == [1, 1, 2, 3]


def test_a_ranking_of_today_is_found_and_corrected(
    open_page: Open, project: Project, ann: User
) -> None:
    ranking = factories.make_ranking(factories.make_answer_set(project), ann, [1, 2, 3, 4])
    page = open_page(ann)
    page.goto("/annotate/")
    page.get_by_role("link", name="My work").click()
    page.locator(".works a").first.click()
    page.get_by_role("link", name="Reopen and correct").click()
    alive(page)
    expect(page.locator("#submit")).to_contain_text("A › B › C › D")
    page.keyboard.press("d")
    for _ in range(3):
        page.keyboard.press("ArrowLeft")
    expect(page.locator("#submit")).to_contain_text("D › A › B › C")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="How it stood before")).to_be_visible()
    expect(page.locator("h1")).to_contain_text("D › A › B › C")
    expect(page.locator(".earlier")).to_contain_text("A › B › C › D")
    ranks = ranking.items.order_by("answer__n").values_list("rank", flat=True)
    assert list(ranks) == [2, 3, 4, 1]


def test_guidelines_on_paper_are_the_text_alone(
    open_page: Open, project: Project, ann: User
) -> None:
    publish_guidelines(project=project, text=GUIDELINES * 30, by=None)
    page = open_page(ann)
    page.goto(f"{HOME}guidelines/")
    expect(page.locator(".printed-foot")).to_be_hidden()
    page.emulate_media(media="print", color_scheme="dark")
    for gone in (".bar", ".tabs", ".versions", ".skip-link"):
        expect(page.locator(gone)).to_be_hidden()
    expect(page.locator(".printed-foot")).to_contain_text("Guidelines v2 of 20")
    ink, paper = page.evaluate(
        "[document.querySelector('.prose'), document.body].map((one, i) =>"
        " getComputedStyle(one)[i ? 'backgroundColor' : 'color'])"
    )
    assert ink == "rgb(0, 0, 0)"
    assert paper in ("rgba(0, 0, 0, 0)", "rgb(255, 255, 255)")


def test_what_changed_is_marked(open_page: Open, project: Project, ann: User) -> None:
    publish_guidelines(project=project, text=GUIDELINES, by=None)
    page = open_page(ann)
    page.goto(f"{HOME}guidelines/")
    page.get_by_role("link", name="what changed from version 1").click()
    expect(page.locator("ins").first).to_contain_text("# What counts")
    expect(page.locator("del")).to_contain_text("Prefer the answer that helps more.")


def test_after_long_work_one_is_reminded_of_a_break_once(
    open_page: Open, project: Project, ann: User
) -> None:
    factories.make_answer_set(project, slots=1)
    page = open_page(ann)
    page.goto(f"{HOME}next/")
    box = page.locator("#break")
    expect(box).to_be_hidden()
    page.evaluate(
        "localStorage.setItem('labelhub.work', JSON.stringify("
        "{since: Date.now() - 51 * 60000, last: Date.now() - 60000, quiet: 0}))"
    )
    page.get_by_role("button", name="Start ranking").click()
    alive(page)
    expect(box).to_contain_text("at work for 51 minutes")
    box.get_by_role("button", name="Thanks, later").click()
    expect(box).to_be_hidden()
    page.goto(f"{HOME}next/")
    page.mouse.move(50, 50)
    expect(page.locator("#take")).to_be_visible()
    expect(box).to_be_hidden()


def test_five_minutes_away_are_a_break(open_page: Open, project: Project, ann: User) -> None:
    page = open_page(ann)
    page.goto(f"{HOME}next/")
    page.evaluate(
        "localStorage.setItem('labelhub.work', JSON.stringify("
        "{since: Date.now() - 90 * 60000, last: Date.now() - 6 * 60000, quiet: 0}))"
    )
    page.reload()
    expect(page.locator("#waiting")).to_be_visible()
    expect(page.locator("#break")).to_be_hidden()
    worked = page.evaluate("Date.now() - JSON.parse(localStorage['labelhub.work']).since")
    assert worked < 60_000


def test_without_script_the_pages_work_all_the_same(
    open_page: Open, project: Project, ann: User, ada: User, lessons: list[AnswerSet],
    disputed: AnswerSet,
) -> None:  # fmt: skip
    page = open_page(ann, java_script_enabled=False)
    page.goto(f"{HOME}tutorial/")
    for _ in lessons:
        page.locator("form .btn").first.click()
        for number, letter in letters(page).items():
            page.locator(f".answer[data-letter={letter}] select").select_option(str(number + 1))
        page.locator("#submit").click()
        expect(page.get_by_text("Just as known")).to_be_visible()
    assert Membership.objects.get(user=ann).qualified_at is not None
    page.goto(f"{HOME}history/")
    page.locator(".works a").first.click()
    page.get_by_role("link", name="Reopen and correct").click()
    for letter in letters(page).values():
        page.locator(f".answer[data-letter={letter}] select").select_option("1")
    page.locator("#submit").click()
    expect(page.locator("h1")).to_contain_text("A = B = C = D")
    page = open_page(ada, java_script_enabled=False)
    page.goto(f"{HOME}review/")
    page.get_by_role("button", name="Decide on the next set").click()
    page.get_by_role("link", name="Start from this order").click()
    page.locator("#submit").click()
    expect(page.get_by_role("heading", name="Nothing to decide")).to_be_visible()
    assert Ranking.objects.filter(adjudicates=True).count() == 1


@pytest.mark.parametrize("scheme", SCHEMES)
def test_axe_finds_nothing(
    open_page: Open, project: Project, ann: User, ada: User, lessons: list[AnswerSet],
    disputed: AnswerSet, scheme: str,
) -> None:  # fmt: skip
    publish_guidelines(project=project, text=GUIDELINES, by=None)
    found = {}
    for page in visited(open_page, ann, ada, color_scheme=scheme):
        if wrong := faults(page):
            found[page.url] = wrong
    assert found == {}


def test_a_phone_needs_no_sideways_scroll(
    open_page: Open, project: Project, ann: User, ada: User, lessons: list[AnswerSet],
    disputed: AnswerSet,
) -> None:  # fmt: skip
    publish_guidelines(project=project, text=GUIDELINES, by=None)
    wide = {page.url: overflow(page) for page in visited(open_page, ann, ada, **PHONE)}
    assert {url: over for url, over in wide.items() if over > 0} == {}


def visited(open_page: Open, ann: User, ada: User, **window: Any) -> Any:
    """Each page once, with something on it."""
    page = open_page(ann, **window)
    page.goto(f"{HOME}tutorial/")
    yield page
    page.get_by_role("button", name="Start the tutorial").click()
    alive(page)
    yield page
    rank(page, 1, 0, 2)
    expect(page.get_by_text("Lesson 1 of 2")).to_be_visible()
    yield page
    ranking = Ranking.objects.filter(annotator=ann).exclude(slot__kind="tutorial").earliest("pk")
    paths = [
        *("/annotate/", f"{HOME}next/", f"{HOME}tutorial/"),
        *(f"{HOME}history/", f"{HOME}history/{ranking.pk}/"),
        f"{HOME}history/{ranking.pk}/correct/",
        *(f"{HOME}guidelines/", f"{HOME}guidelines/?version=2&against=1"),
    ]
    for path in paths:
        page.goto(path)
        yield page
    page = open_page(ada, **window)
    page.goto(f"{HOME}review/")
    yield page
    page.get_by_role("button", name="Decide on the next set").click()
    alive(page)
    yield page
