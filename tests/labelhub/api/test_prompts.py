"""Prompts: list them, import them."""

from __future__ import annotations

import json

import pytest
from django.test import Client

from labelhub.projects.models import Project
from labelhub.prompts.models import Prompt
from tests import factories

ADDRESS = "/api/v1/prompts/"


def question(text: str) -> dict[str, object]:
    return {"prompt": [{"role": "user", "content": text}]}


@pytest.fixture
def prompts(project: Project) -> dict[str, Prompt]:
    return {
        "english": factories.make_prompt(project, "What is rain?"),
        "chinese": factories.make_prompt(project, "雨是什么？", language="zh"),
        "held out": factories.make_prompt(project, "What is snow?", held_out=True),
    }


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", {"english", "chinese", "held out"}),
        ("?language=zh", {"chinese"}),
        ("?held_out=true", {"held out"}),
        ("?held_out=false", {"english", "chinese"}),
        ("?held_out=false&language=en", {"english"}),
        ("?project=everyday", {"english", "chinese", "held out"}),
    ],
)
def test_the_list_filters(
    prompts: dict[str, Prompt], hub: Client, query: str, found: set[str]
) -> None:
    rows = hub.get(ADDRESS + query).json()["results"]
    assert {row["id"] for row in rows} == {prompts[name].pk for name in found}


def test_a_prompt_shows_its_conversation(prompts: dict[str, Prompt], hub: Client) -> None:
    row = hub.get(ADDRESS + "?language=zh").json()["results"][0]
    assert row["messages"] == [{"role": "user", "content": "雨是什么？"}]
    assert (row["project"], row["held_out"]) == ("everyday", False)


def test_the_list_comes_in_pages(prompts: dict[str, Prompt], hub: Client) -> None:
    first = hub.get(ADDRESS + "?page_size=2").json()
    second = hub.get(first["next"]).json()
    assert [len(first["results"]), len(second["results"]), second["next"]] == [2, 1, None]


def test_an_import_adds_what_is_new_and_refuses_by_the_line(project: Project, hub: Client) -> None:
    bad = [{"prompt": []}, "no object", 5, None, ["a list"]]
    lines = [question("One?"), question("One?"), *bad, question("Two?")]
    response = hub.post(
        ADDRESS, {"project": "everyday", "prompts": lines}, content_type="application/json"
    )
    report = response.json()
    assert (response.status_code, report["added"], report["duplicates"]) == (200, 2, 1)
    assert [refusal["line"] for refusal in report["refused"]] == [3, 4, 5, 6, 7]
    assert all(refusal["detail"] for refusal in report["refused"])
    assert Prompt.objects.filter(project=project).count() == 2


def test_json_lines_are_judged_one_by_one(project: Project, hub: Client) -> None:
    lines = [
        json.dumps(question("One?")),
        "{broken",
        json.dumps(question("A NUL \0 inside")),
        json.dumps(question("Half a pair \ud800")),
        json.dumps(question("A line\u2028separator is text"), ensure_ascii=False),
    ]
    response = hub.post(
        ADDRESS + "?project=everyday",
        "\n".join(lines).encode() + b"\n",
        content_type="application/x-ndjson",
    )
    report = response.json()
    assert (response.status_code, report["added"]) == (200, 2), report
    assert [refusal["line"] for refusal in report["refused"]] == [2, 3, 4]


def test_json_lines_need_the_project_in_the_address(project: Project, hub: Client) -> None:
    response = hub.post(ADDRESS, b"{}\n", content_type="application/x-ndjson")
    assert (response.status_code, list(response.json()["errors"])) == (400, ["project"])
