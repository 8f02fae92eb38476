"""The page Quality: for admins alone, with names, numbers of sets, and honest gaps."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from labelhub.accounts.models import User
from labelhub.projects.models import Membership, Project
from labelhub.rankings.models import QualityReport
from labelhub.rankings.progress import store_report
from tests import factories

pytestmark = pytest.mark.django_db
Clients = dict[str, Client]
BEST_FIRST, REVERSED = (1, 2, 3, 4), (4, 3, 2, 1)
PAGE = "/dashboard/everyday/quality/"
ADDRESSES = [PAGE, f"{PAGE}live/", f"{PAGE}consensus.jsonl"]


def share_sets(project: Project, *orders: tuple[User, tuple[int, ...]], count: int = 20) -> None:
    for _ in range(count):
        answer_set = factories.make_answer_set(project)
        for person, ranks in orders:
            factories.make_ranking(answer_set, person, ranks)


@pytest.fixture
def counted(project: Project, ann: User, ben: User) -> Project:
    """ann and ben ranked 20 sets alike and 5 in reverse, and a worker counted."""
    share_sets(project, (ann, BEST_FIRST), (ben, BEST_FIRST))
    share_sets(project, (ann, BEST_FIRST), (ben, REVERSED), count=5)
    store_report(project.pk)
    return project


def read(client: Client, address: str = PAGE) -> str:
    response = client.get(address)
    assert response.status_code == 200
    page = response.content.decode()
    main = page[page.index("<main") :] if "<main" in page else page
    return re.sub(r"[ \n]+", " ", re.sub(r"<[^>]+>", " ", main))


@pytest.mark.parametrize(("who", "status"), [("ada", 200), ("ann", 403), ("mallory", 404)])
def test_it_is_for_the_projects_admin(
    who: str, status: int, counted: Project, clients: Clients
) -> None:
    for address in ADDRESSES:
        assert clients[who].get(address).status_code == status, address


def test_a_reviewer_sees_nobodys_figures(counted: Project, clients: Clients, ben: User) -> None:
    Membership.objects.filter(project=counted, user=ben).update(role="reviewer")
    for address in ADDRESSES:
        assert clients["ben"].get(address).status_code == 403, address


def test_without_signing_in_it_leads_to_the_sign_in(counted: Project, clients: Clients) -> None:
    for address in ADDRESSES:
        assert clients["nobody"].get(address).status_code == 302, address


@pytest.mark.parametrize(("who", "status"), [("ada", 302), ("ann", 403), ("mallory", 404)])
def test_only_an_admin_has_it_counted_again(
    who: str, status: int, counted: Project, clients: Clients
) -> None:
    assert clients[who].post(f"{PAGE}measure/").status_code == status


def test_figures_come_with_their_sets_and_intervals(counted: Project, clients: Clients) -> None:
    page = read(clients["ada"])
    assert "Pairwise agreement 80\u202f%" in page
    assert "n = 25 shared sets" in page
    assert "published: 72.6 ± 1.5 %" in page
    assert "from 50 rankings" in page


def test_too_few_checks_say_what_is_missing(counted: Project, clients: Clients) -> None:
    page = read(clients["ada"])
    assert "τ-b with known rankings too few needs 10 more known rankings" in page
    assert "Consistency too few needs 10 more repeats" in page
    assert "nan" not in page.lower().split()


def test_the_published_line_is_drawn_and_each_chart_has_its_table(
    counted: Project, clients: Clients
) -> None:
    page = clients["ada"].get(PAGE).content.decode()
    assert page.count("<svg viewBox") >= 4
    assert page.count('<details class="behind"') == page.count("<figure")
    assert "published 72.6 %" in page
    assert "expected 25 %" in page


def test_each_annotator_has_a_line_for_admins(counted: Project, clients: Clients) -> None:
    page = read(clients["ada"])
    for name in ("ann", "ben"):
        assert re.search(rf"\b{name} 25\b", page), name
    # ann and ben always put the answer that stands first to the top, or to the bottom.
    assert "1 (100\u202f%" in page


def test_who_left_keeps_a_name_and_is_marked(counted: Project, clients: Clients, ben: User) -> None:
    Membership.objects.filter(project=counted, user=ben).delete()
    assert "ben left 25" in read(clients["ada"])


def test_each_annotator_has_a_page_for_admins_alone(
    counted: Project, clients: Clients, ann: User, mallory: User
) -> None:
    address = f"{PAGE}people/{ann.pk}/"
    assert "Quality of ann from 25 rankings" in read(clients["ada"], address)
    assert clients["ada"].get(f"{PAGE}people/{mallory.pk}/").status_code == 404
    assert clients["ann"].get(address).status_code == 403
    assert clients["ben"].get(address).status_code == 403
    assert clients["mallory"].get(address).status_code == 404
    assert clients["nobody"].get(address).status_code == 302


def test_unbiased_agreement_is_told_apart(counted: Project, clients: Clients) -> None:
    assert "there are too few: needs 20 more shared sets" in read(clients["ada"])


def test_an_empty_project_says_what_will_stand_there(project: Project, clients: Clients) -> None:
    assert "Here the quality of the rankings will stand" in read(clients["ada"])


def test_before_the_first_count_it_says_that_a_worker_will(
    project: Project, clients: Clients, ann: User
) -> None:
    share_sets(project, (ann, BEST_FIRST), count=1)
    assert "1 ranking waits." in read(clients["ada"])


def test_counting_again_brings_new_figures_to_the_page_by_themselves(
    counted: Project, clients: Clients, django_capture_on_commit_callbacks: Any
) -> None:
    before = QualityReport.objects.latest("pk").pk
    response = clients["ada"].post(f"{PAGE}measure/")
    assert response["Location"] == f"{PAGE}?after={before}"
    waiting = clients["ada"].get(response["Location"]).content.decode()
    assert "data-live-on" in waiting
    assert 'data-live-state="on"' in waiting
    with django_capture_on_commit_callbacks(execute=True):
        clients["ada"].post(f"{PAGE}measure/")
    live = clients["ada"].get(f"{PAGE}live/?after={before}").content.decode()
    assert 'data-live-state="off"' in live


def test_the_page_costs_the_same_whatever_the_number_of_people(
    counted: Project, clients: Clients, django_assert_max_num_queries: Any
) -> None:
    for _ in range(3):
        one = factories.make_user()
        Membership.objects.create(project=counted, user=one, role="annotator")
        share_sets(counted, (one, BEST_FIRST), count=1)
    store_report(counted.pk)
    with django_assert_max_num_queries(12):
        clients["ada"].get(PAGE)


def test_the_download_has_a_line_for_each_set_and_no_names(
    counted: Project, clients: Clients, ann: User
) -> None:
    response = clients["ada"].get(f"{PAGE}consensus.jsonl")
    body = b"".join(response)  # type: ignore[call-overload]
    lines = [json.loads(line) for line in body.splitlines()]
    assert response["Content-Type"] == "application/x-ndjson"
    assert 'filename="everyday-consensus.jsonl"' in response["Content-Disposition"]
    assert len(lines) == 25
    assert {one["annotator"] for line in lines for one in line["rankings"]} >= {str(ann.pk)}
    assert b'"ann"' not in body


def test_the_tab_leads_here(project: Project, clients: Clients) -> None:
    page = clients["ada"].get(reverse("dashboard:people", args=["everyday"])).content.decode()
    assert f'href="{PAGE}"' in page
