"""Every page of every door, found by its route and opened in a browser: axe, a phone, Chinese.

A new route is visited without being named here; a route with a new kind of id fails until
`ids` knows what to put into it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver, reverse
from playwright.sync_api import Page

from labelhub.accounts.models import User
from labelhub.assignments.models import Slot
from labelhub.projects.actions import create_invitation
from labelhub.projects.models import Membership, Project
from labelhub.prompts.models import AnswerSet
from labelhub.rankings.models import Flag, Gold, Skip
from labelhub.rankings.progress import store_report
from labelhub.rounds.models import Round
from tests import factories
from tests.browser import axe_source
from tests.labelhub.dashboard import world

Open = Callable[..., Page]
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}
DOORS = ("accounts", "annotate", "dashboard", "tokens")
# Addresses that end in a part of a page, made for the page's own script.
PARTS = ("live/",)
ANSWER = "Use **two** eggs.\n\n```python\nprint('eggs' * 2)\n```\n\nSo $e^{i\\pi} = -1$."


class Visit(NamedTuple):
    """One page, and the person of the cast who opens it."""

    path: str
    who: str


@pytest.fixture
def project(live_server: Any, ann: User, ben: User, ada: User) -> Project:
    """A project in which something stands on every page."""
    project = factories.make_project(
        "everyday", annotators=[ann, ben], admins=[ada], ask_gaps=True, ask_likert=True,
        attributes=[{"key": "wrong", "label": "Says something wrong"}],
    )  # fmt: skip
    world.live(project)
    for number in range(3):
        shared = factories.make_answer_set(project, answers=[ANSWER, "No.", f"{number}", "Yes."])
        factories.make_ranking(shared, ann, [1, 2, 2, 3])
        factories.make_ranking(shared, ben, [2, 1, 2, 3])
    return project


@pytest.fixture
def ids(project: Project, ann: User, ben: User, ada: User) -> dict[str, Any]:
    """What stands for each kind of id in an address."""
    turn = world.make_round(project)
    run = world.make_run(turn, "ppo", config={"kl_budget": 12.0}, step=2, total=14)
    world.tell(run, "metric", 1, reward=0.1, reward_std=1.0, kl=1.0)
    world.make_run(turn, "evaluate", "finished")
    comparison = world.compare_blind(turn, [(0.1, 0.7)] * 3)
    world.say(comparison, ben, [1, 0, -1])
    in_hand = factories.make_answer_set(project, answers=[ANSWER, "No.", "Perhaps.", "Yes."])
    slot = factories.hold(factories.make_slot(in_hand), ann)
    known = factories.make_answer_set(project, purpose=AnswerSet.Purpose.GOLD)
    gold = Gold.objects.create(
        answer_set=known, ranks={str(one.pk): one.n + 1 for one in known.answers.all()}
    )
    ranking = project.rankings.filter(annotator=ann).latest("pk")
    skipped = factories.make_answer_set(project)
    skip = Skip.objects.create(
        slot=factories.make_slot(skipped), answer_set=skipped, annotator=ben, reason="harmful"
    )
    flag = Flag.objects.create(answer=known.answers.first(), annotator=ben, note="Look at it.")
    invitation, secret = create_invitation(
        project=project, role="annotator", days=7, seats=1, note="", by=ada
    )
    lesson = factories.make_answer_set(project, purpose=AnswerSet.Purpose.TUTORIAL)
    Gold.objects.create(
        answer_set=lesson,
        ranks={str(one.pk): one.n + 1 for one in lesson.answers.all()},
        explanation="The first one is *kind*.",
    )
    learnt = factories.make_ranking(lesson, ann)
    Slot.objects.filter(pk=learnt.slot_id).update(kind=Slot.Kind.TUTORIAL)
    store_report(project.pk)
    Membership.objects.filter(project=project).update(qualified_at="2026-01-01T00:00:00Z")
    return {
        "slug": project.slug, "number": turn.number, "run_id": run.pk, "slot_id": slot.pk,
        "version_id": world.live(project).pk, "ranking_id": ranking.pk, "gold_id": gold.pk,
        "skip_id": skip.pk, "flag_id": flag.pk, "invitation_id": invitation.pk, "secret": secret,
        "membership_id": Membership.objects.get(project=project, user=ben).pk,
        "username": "ben", "user_id": ann.pk, "action": "stop", "pk": 1,
        "answer_set_id": ranking.answer_set_id, "kind": "flag", "row_id": flag.pk,
        "comparison_id": comparison.pk, "stage": "ppo", "name": "spec.json",
    }  # fmt: skip


def routes(patterns: Any = None, namespace: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every named route of the doors, with the converters of its ids."""
    for one in get_resolver().url_patterns if patterns is None else patterns:
        if isinstance(one, URLResolver):
            inner = str(one.namespace or "")
            if inner in DOORS or (namespace and not inner) or not inner:
                yield from routes(one.url_patterns, inner or namespace)
        elif isinstance(one, URLPattern) and one.name and namespace in (*DOORS, ""):
            yield f"{namespace}:{one.name}".lstrip(":"), one.pattern.converters


def visits(ids: dict[str, Any], clients: dict[str, Client]) -> list[Visit]:
    """The routes that answer a plain GET with a page, each with somebody who may see it."""
    found = []
    for name, converters in routes():
        if name == "healthz":  # JSON, and it asks for the broker
            continue
        unknown = set(converters) - set(ids)
        assert not unknown, f"{name}: say in `ids` what stands for {unknown}"
        path = reverse(name, kwargs={key: ids[key] for key in converters})
        if path.endswith(PARTS):
            continue
        who = "ann" if name.startswith("annotate") and "review" not in name else "ada"
        answer = clients[who].get(path)
        if answer.status_code == 200 and answer["Content-Type"].startswith("text/html"):
            found.append(Visit(path, who))
        assert answer.status_code < 500, (path, answer.status_code)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_on_any_page(
    scheme: str,
    open_page: Open,
    ids: dict[str, Any],
    clients: dict[str, Client],
    ann: User,
    ada: User,
) -> None:
    pages = {"ann": open_page(ann, color_scheme=scheme), "ada": open_page(ada, color_scheme=scheme)}
    faults = []
    for path, who in visits(ids, clients):
        page = pages[who]
        page.goto(path)
        page.evaluate(axe_source())
        for fault in page.evaluate("axe.run().then(result => result.violations)"):
            faults += [f"{path} {fault['id']}: {node['html'][:160]}" for node in fault["nodes"]]
    assert faults == []


@pytest.mark.slow
def test_no_page_needs_sideways_scrolling_on_a_phone(
    open_page: Open, ids: dict[str, Any], clients: dict[str, Client], ann: User, ada: User
) -> None:
    pages = {"ann": open_page(ann, **PHONE), "ada": open_page(ada, **PHONE)}
    wide = {}
    for path, who in visits(ids, clients):
        pages[who].goto(path)
        over = pages[who].evaluate("document.documentElement.scrollWidth - window.innerWidth")
        if over > 0:
            wide[path] = over
    assert wide == {}


@pytest.mark.slow
def test_every_page_speaks_chinese_to_who_reads_it(
    open_page: Open, ids: dict[str, Any], clients: dict[str, Client], ann: User, ada: User
) -> None:
    pages = {who: open_page(user, locale="zh-CN") for who, user in (("ann", ann), ("ada", ada))}
    for path, who in visits(ids, clients):
        pages[who].goto(path)
        assert pages[who].locator("html").get_attribute("lang") == "zh-hans", path
        # A heading that a person wrote (a project's name) may stand in its own language.
        said = pages[who].locator("body").inner_text()
        assert any("\u4e00" <= letter <= "\u9fff" for letter in said), path


def test_there_are_as_many_pages_as_doors_promise(
    ids: dict[str, Any], clients: dict[str, Client]
) -> None:
    """The list is made from the routes: if that went wrong, the tests above would see nothing."""
    paths = {visit.path for visit in visits(ids, clients)}
    expected = (
        "/annotate/",
        "/annotate/everyday/next/",
        "/dashboard/",
        "/dashboard/everyday/people/",
        f"/dashboard/everyday/rounds/{Round.objects.get().number}/",
        "/accounts/password/",
    )
    assert paths.issuperset(expected)
    assert len(paths) >= 20
