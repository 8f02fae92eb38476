"""My projects, and the page between two sets."""

from __future__ import annotations

import pytest
from django.test import Client
from django.urls import reverse

from labelhub.accounts.models import User
from labelhub.assignments.models import Slot
from labelhub.projects.models import Project
from tests import factories

PROJECTS = "/annotate/"


def text(client: Client, url: str) -> str:
    return client.get(url).content.decode()


def test_it_shows_what_is_left(clients: dict[str, Client], project: Project, ann: User) -> None:
    for _ in range(3):
        factories.make_answer_set(project, slots=1)
    factories.make_ranking(factories.make_answer_set(project), ann)
    page = text(clients["ann"], PROJECTS)
    assert "3 sets are waiting for you" in page
    assert "1 of 4, 1 today" in page


def test_the_only_project_with_work_is_prominent(
    clients: dict[str, Client], project: Project, ann: User
) -> None:
    factories.make_answer_set(project, slots=1)
    factories.make_project("idle", annotators=[ann])
    page = text(clients["ann"], PROJECTS)
    assert page.index("desk prominent") < page.index("Everyday") < page.index("Idle")
    assert page.count("desk prominent") == 1


def test_two_projects_with_work_are_a_choice(
    clients: dict[str, Client], project: Project, ann: User
) -> None:
    for one in (project, factories.make_project("second", annotators=[ann])):
        factories.make_answer_set(one, slots=1)
    assert "desk prominent" not in text(clients["ann"], PROJECTS)


def test_without_a_project_it_says_how_to_get_one(clients: dict[str, Client]) -> None:
    assert "No project yet" in text(clients["mallory"], PROJECTS)


def test_a_simulated_project_is_never_offered(clients: dict[str, Client], ann: User) -> None:
    project = factories.make_project("robots", annotators=[ann], is_simulated=True)
    factories.make_answer_set(project, slots=1)
    assert "Robots" not in text(clients["ann"], PROJECTS)
    for method in ("get", "post"):
        response = getattr(clients["ann"], method)(reverse("annotate:next", args=["robots"]))
        assert response.status_code == 404
    assert Slot.objects.get().state == Slot.State.OPEN


def test_next_takes_a_set_and_shows_it(
    clients: dict[str, Client], project: Project, ann: User
) -> None:
    factories.make_answer_set(project, slots=1)
    url = reverse("annotate:next", args=["everyday"])
    assert clients["ann"].get(url).status_code == 200
    slot = Slot.objects.get()
    assert slot.state == Slot.State.OPEN, "looking takes nothing"
    response = clients["ann"].post(url)
    slot.refresh_from_db()
    assert slot.holder == ann
    assert response.url == reverse("annotate:board", args=["everyday", slot.pk])


def test_a_second_tab_shows_the_same_set(clients: dict[str, Client], project: Project) -> None:
    for _ in range(2):
        factories.make_answer_set(project, slots=1)
    url = reverse("annotate:next", args=["everyday"])
    assert clients["ann"].post(url).url == clients["ann"].post(url).url


def test_the_guidelines_stand_there_in_their_version(
    clients: dict[str, Client], project: Project
) -> None:
    page = text(clients["ann"], reverse("annotate:next", args=["everyday"]))
    assert "Guidelines v1" in page
    assert "Prefer the answer that helps more." in page


def test_before_the_first_answers_it_says_what_will_stand_there(
    clients: dict[str, Client], project: Project
) -> None:
    page = text(clients["ann"], reverse("annotate:next", args=["everyday"]))
    assert "Nothing to rank yet" in page


def test_after_the_last_set_it_says_what_comes_next(
    clients: dict[str, Client], project: Project, ann: User, ben: User
) -> None:
    factories.make_ranking(factories.make_answer_set(project), ann)
    factories.hold(factories.make_answer_set(project, slots=1).slots.get(), ben)
    response = clients["ann"].post(reverse("annotate:next", args=["everyday"]), follow=True)
    page = response.content.decode()
    assert "All done, for now" in page
    assert "You ranked 1 set here." in page
    assert "1 set is still with somebody else." in page
    assert "What comes next" in page


def test_a_paused_project_gives_nothing_out(clients: dict[str, Client], project: Project) -> None:
    factories.make_answer_set(project, slots=1)
    Project.objects.update(paused=True)
    response = clients["ann"].post(reverse("annotate:next", args=["everyday"]), follow=True)
    assert "This project is paused" in response.content.decode()
    assert Slot.objects.get().state == Slot.State.OPEN


@pytest.mark.parametrize("name", ["annotate:next", "annotate:projects"])
def test_who_is_not_signed_in_signs_in_first(
    clients: dict[str, Client], project: Project, name: str
) -> None:
    url = reverse(name, args=["everyday"] if name == "annotate:next" else [])
    assert clients["nobody"].get(url).url == f"/accounts/login/?next={url}"


def test_a_stranger_learns_nothing_of_the_project(
    clients: dict[str, Client], project: Project
) -> None:
    factories.make_answer_set(project, slots=1)
    url = reverse("annotate:next", args=["everyday"])
    assert clients["mallory"].get(url).status_code == 404
    assert clients["mallory"].post(url).status_code == 404
    assert "Everyday" not in text(clients["mallory"], PROJECTS)
