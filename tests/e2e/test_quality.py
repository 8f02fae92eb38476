"""The pages of figures in a browser: they renew themselves, fit a phone, and axe finds nothing."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from playwright.sync_api import Page, expect

from labelhub.accounts.models import User
from labelhub.assignments.models import Slot
from labelhub.projects.models import Project
from labelhub.prompts.models import Answer, AnswerSet
from labelhub.rankings.models import Gold, QualityReport, Ranking
from labelhub.rankings.progress import store_report
from tests import factories
from tests.browser import axe_source

Open = Callable[..., Page]
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}
ADMINS, MINE = "/dashboard/everyday/quality/", "/annotate/everyday/me/"


@pytest.fixture
def project(live_server: Any, ann: User, ben: User, ada: User) -> Project:
    """Six weeks of work of three people, of whom cleo is quick and careless."""
    rng = random.Random(7)
    cleo = factories.make_user("cleo")
    project = factories.make_project("everyday", annotators=[ann, ben, cleo], admins=[ada])
    care = {ann: 0.9, ben: 1.3, cleo: 6.0}
    for week in range(6):
        for _ in range(11):
            answer_set = factories.make_answer_set(project)
            for person in (ann, ben, cleo):
                rank(answer_set, person, care[person], rng, week)
    for n in range(12):
        known = factories.make_answer_set(project, purpose=AnswerSet.Purpose.GOLD)
        Gold.objects.create(
            answer_set=known, ranks={str(one.pk): one.n + 1 for one in known.answers.all()}
        )
        for person in (ann, cleo):
            ranking = rank(known, person, care[person], rng, n % 6)
            Slot.objects.filter(pk=ranking.slot_id).update(kind=Slot.Kind.GOLD)
    for first in project.rankings.filter(annotator=ann, answer_set__purpose="rank")[:10]:
        again = rank(copy_of(first.answer_set), ann, 0.9, rng, 0)
        Slot.objects.filter(pk=again.slot_id).update(kind=Slot.Kind.REPEAT)
    return project


def rank(
    answer_set: AnswerSet, by: User, noise: float, rng: random.Random, weeks_ago: int
) -> Ranking:
    """The true order with as much noise as this person is careless; now and then a tie."""
    merit = [n + rng.gauss(0, noise) for n in range(4)]
    order = sorted(range(4), key=lambda n: merit[n])
    ranks = [order.index(n) + 1 for n in range(4)]
    if rng.random() < 0.2:
        ranks = [min(rank, 3) for rank in ranks]
    seconds = rng.uniform(3, 14) if noise > 5 else rng.uniform(25, 80)
    ranking = factories.make_ranking(
        answer_set, by, ranks, duration_ms=200_000, active_ms=int(seconds * 1000)
    )
    moment = timezone.now() - timedelta(weeks=weeks_ago)
    Ranking.objects.filter(pk=ranking.pk).update(created=moment)
    if noise < 5:
        places = rng.sample(range(4), 4)
        for item in ranking.items.all():
            item.position = 4 + places[item.position]
            item.save()
        for item in ranking.items.all():
            item.position -= 4
            item.save()
    return ranking


def copy_of(answer_set: AnswerSet) -> AnswerSet:
    """The same answers once more."""
    copy = AnswerSet.objects.create(
        prompt=answer_set.prompt, purpose=AnswerSet.Purpose.REPEAT, original=answer_set
    )
    for one in answer_set.answers.all():
        Answer.objects.create(answer_set=copy, n=one.n, text=one.text, sha256=one.sha256)
    return copy


def test_new_figures_come_to_the_page_by_themselves(
    open_page: Open, project: Project, ada: User
) -> None:
    page = open_page(ada)
    page.goto(ADMINS)
    expect(page.get_by_role("heading", name="Nothing is counted yet")).to_be_visible()
    # What is sent is counted at once here, so the page waits for a report that is not there yet.
    page.goto(f"{ADMINS}?after=0")
    expect(page.get_by_text("Counting …")).to_be_visible()
    store_report(project.pk)
    expect(page.get_by_text("Pairwise agreement", exact=True).first).to_be_visible()
    expect(page.get_by_text("Counting …")).to_have_count(0)


def test_the_button_counts_again(open_page: Open, project: Project, ada: User) -> None:
    store_report(project.pk)
    page = open_page(ada)
    page.goto(ADMINS)
    page.get_by_role("button", name="Count again").click()
    expect(page.get_by_text("A worker is counting.")).to_be_visible()
    assert QualityReport.objects.filter(project=project).count() == 2


def test_each_chart_opens_the_table_behind_it(open_page: Open, project: Project, ada: User) -> None:
    store_report(project.pk)
    page = open_page(ada)
    page.goto(ADMINS)
    chart = page.locator("figure", has_text="Do people agree?")
    chart.get_by_text("As a table").click()
    expect(chart.get_by_role("row")).to_have_count(7)  # six weeks and the head


def test_the_consensus_is_a_file_to_keep(open_page: Open, project: Project, ada: User) -> None:
    store_report(project.pk)
    page = open_page(ada)
    page.goto(ADMINS)
    with page.expect_download() as download:
        page.get_by_role("link", name="Download the consensus").click()
    assert download.value.suggested_filename == "everyday-consensus.jsonl"
    assert len(download.value.path().read_text().splitlines()) == 66


def test_a_careless_annotator_reads_kind_advice(open_page: Open, project: Project) -> None:
    store_report(project.pk)
    page = open_page(User.objects.get(username="cleo"))
    page.goto(MINE)
    advice = page.get_by_role("list").filter(has_text="took less than 8 seconds")
    expect(advice).to_be_visible()
    expect(page.get_by_text("Krippendorff")).to_have_count(0)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_on_the_figures(
    scheme: str, open_page: Open, project: Project, ann: User, ada: User
) -> None:
    store_report(project.pk)
    for person, address in ((ada, ADMINS), (ada, f"{ADMINS}people/{ann.pk}/"), (ann, MINE)):
        page = open_page(person, color_scheme=scheme)
        page.goto(address)
        page.evaluate(axe_source())
        found = page.evaluate("axe.run().then(result => result.violations)")
        assert [(one["id"], one["nodes"][0]["html"][:120]) for one in found] == []


def test_figures_fit_a_phone(open_page: Open, project: Project, ann: User, ada: User) -> None:
    store_report(project.pk)
    for person, address in ((ada, ADMINS), (ada, f"{ADMINS}people/{ann.pk}/"), (ann, MINE)):
        page = open_page(person, **PHONE)
        page.goto(address)
        width = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        assert width <= 0, address
