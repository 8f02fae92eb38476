"""The guidelines to read: in any version, and what changed between two."""

from __future__ import annotations

import pytest
from django.test import Client

from labelhub.accounts.models import User
from labelhub.annotate.guidelines import Line, changes
from labelhub.projects.actions import publish_guidelines
from labelhub.projects.models import Project
from tests import factories

URL = "/annotate/everyday/guidelines/"
SECOND = "Prefer the answer that helps more.\n\n**Length** is no merit."


@pytest.fixture
def second(project: Project) -> None:
    publish_guidelines(project=project, text=SECOND, by=None)


def text(client: Client, url: str) -> str:
    return client.get(url).content.decode()


def test_it_shows_the_version_in_force(
    clients: dict[str, Client], project: Project, second: None
) -> None:
    page = text(clients["ann"], URL)
    assert "Guidelines v2" in page
    assert "<strong>Length</strong> is no merit." in page
    assert "in force" in page
    assert "You last ranked by" not in page


def test_an_older_version_says_that_it_is_one(
    clients: dict[str, Client], project: Project, second: None
) -> None:
    page = text(clients["ann"], f"{URL}?version=1")
    assert "Guidelines v1" in page
    assert "Length" not in page
    assert "Version 2 is in force now." in page


def test_it_marks_what_changed(clients: dict[str, Client], project: Project, second: None) -> None:
    publish_guidelines(project=project, text="Prefer <i>facts</i>.", by=None)
    page = text(clients["ann"], f"{URL}?version=3&against=2")
    assert "What changed from version 2 to version 3" in page
    assert "</span>Prefer the answer that helps more.</del>" in page
    assert "</span>**Length** is no merit.</del>" in page
    assert "</span>Prefer &lt;i&gt;facts&lt;/i&gt;.</ins>" in page


def test_two_versions_that_say_the_same_are_said_to(
    clients: dict[str, Client], project: Project
) -> None:
    publish_guidelines(project=project, text="Prefer the answer that helps more.", by=None)
    assert "both versions say the same" in text(clients["ann"], f"{URL}?version=2&against=1")


def test_who_ranked_by_an_older_version_is_led_to_what_changed(
    clients: dict[str, Client], project: Project, ann: User
) -> None:
    factories.make_ranking(factories.make_answer_set(project), ann)
    publish_guidelines(project=project, text=SECOND, by=None)
    page = text(clients["ann"], URL)
    assert "You last ranked by version 1." in page
    assert "?version=2&amp;against=1#changes" in page
    assert "You last ranked by" not in text(clients["ben"], URL)


@pytest.mark.parametrize(
    "query", ["version=9", "version=0", "version=x", "version=-1", "against=7"]
)
def test_a_version_that_is_not_there_is_not_found(
    clients: dict[str, Client], project: Project, query: str
) -> None:
    assert clients["ann"].get(f"{URL}?{query}").status_code == 404


def test_without_guidelines_it_says_what_will_stand_there(
    clients: dict[str, Client], ann: User
) -> None:
    factories.make_project("bare", annotators=[ann], guidelines="")
    assert "No guidelines yet" in text(clients["ann"], "/annotate/bare/guidelines/")


def test_it_is_for_members_alone(clients: dict[str, Client], project: Project, ann: User) -> None:
    factories.make_project("robots", annotators=[ann], is_simulated=True)
    assert clients["ada"].get(URL).status_code == 200
    assert clients["mallory"].get(URL).status_code == 404
    assert clients["nobody"].get(URL).url == f"/accounts/login/?next={URL}"
    assert clients["ann"].get("/annotate/robots/guidelines/").status_code == 404
    assert clients["ann"].post(URL).status_code == 405


def test_the_old_lines_of_a_changed_place_come_first() -> None:
    assert changes("one\ntwo\nthree", "one\n2\nthree\nfour") == [
        Line("same", "one"),
        Line("del", "two"),
        Line("ins", "2"),
        Line("same", "three"),
        Line("ins", "four"),
    ]


def test_what_is_far_from_any_change_is_counted_only() -> None:
    """Ten lines, the first and the last changed: two of the eight between are kept on each side."""
    middle = [str(n) for n in range(1, 9)]
    before, after = "\n".join(["a", *middle, "z"]), "\n".join(["A", *middle, "Z"])
    assert changes(before, after) == [
        Line("del", "a"),
        Line("ins", "A"),
        Line("same", "1"),
        Line("same", "2"),
        Line("skipped", count=4),
        Line("same", "7"),
        Line("same", "8"),
        Line("del", "z"),
        Line("ins", "Z"),
    ]


def test_unchanged_ends_are_cut_to_what_stands_beside_the_change() -> None:
    lines = [str(n) for n in range(1, 8)]
    assert changes("\n".join(lines), "\n".join([*lines[:3], "new", *lines[3:]])) == [
        Line("skipped", count=1),
        Line("same", "2"),
        Line("same", "3"),
        Line("ins", "new"),
        Line("same", "4"),
        Line("same", "5"),
        Line("skipped", count=2),
    ]
