"""The settings page: what it shows it keeps, and what is wrong is named at its field."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from labelhub.accounts.models import AuditEntry
from labelhub.dashboard.forms_settings import GROUPS, SettingsForm
from labelhub.projects.actions import SETTINGS
from labelhub.projects.models import Project
from tests import factories

pytestmark = pytest.mark.django_db
Clients = dict[str, Client]


@pytest.fixture
def page(project: Project) -> str:
    return reverse("dashboard:settings", args=[project.slug])


def as_shown(client: Client, page: str) -> dict[str, Any]:
    """What a browser sends when nothing was touched: boxes that are not ticked are left out."""
    form = client.get(page).context["form"]
    values = {name: form[name].value() for name in form.fields}
    return {k: "" if v is None else v for k, v in values.items() if v is not False}


def test_every_setting_stands_on_the_page(clients: Clients, page: str) -> None:
    on_page = {name for group in GROUPS for name in group.names}
    assert on_page == set(SettingsForm.base_fields)
    # Questions are typed in two fields; pausing has a button of its own.
    assert on_page - {"ready", "own"} | {"attributes", "paused"} == SETTINGS


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"gold_share": 0.025, "repeat_share": 0.1, "shared_share": 1, "uniform_share": 0.07},
        {"review_below": None, "qualification_tau": -0.25, "ask_critique": False},
        {
            "attributes": [
                {"key": "hallucination", "label": "Made-up facts"},
                {"key": "tone", "label": "语气不友好"},
                {"key": "sexual_content", "label": "Not for work"},
            ]
        },
    ],
)
def test_sent_as_it_stands_it_changes_nothing(
    values: dict[str, Any], project: Project, clients: Clients, page: str
) -> None:
    Project.objects.filter(pk=project.pk).update(**values)
    before = Project.objects.filter(pk=project.pk).values().get()
    response = clients["ada"].post(page, as_shown(clients["ada"], page))
    assert response.status_code == 302
    assert Project.objects.filter(pk=project.pk).values().get() == before
    assert not AuditEntry.objects.filter(action="project.change_settings").exists()


def test_what_is_typed_is_kept(project: Project, clients: Clients, page: str) -> None:
    sent = as_shown(clients["ada"], page) | {
        "name": "Every day",
        "description": "Short answers.",
        "language": "zh-Hans",
        "answers_per_prompt": 6,
        "overlap": 2,
        "shared_share": "12.5",
        "gold_share": "5",
        "ask_likert": "on",
        "ready": ["hallucination", "violent_content"],
        "own": "Too long\ntone: Unfriendly",
        "review_below": "",
        "qualification_tau": "0.75",
        "hold_back_leaks": "on",
    }
    sent.pop("ask_critique")
    clients["ada"].post(page, sent)
    project.refresh_from_db()
    assert (project.name, project.language, project.answers_per_prompt) == (
        "Every day",
        "zh-Hans",
        6,
    )
    assert (project.shared_share, project.gold_share) == (0.125, 0.05)
    assert (project.ask_likert, project.ask_critique, project.hold_back_leaks) == (
        True,
        False,
        True,
    )
    assert (project.review_below, project.qualification_tau) == (None, 0.75)
    assert [one["key"] for one in project.attributes] == [
        "hallucination", "violent_content", "too_long", "tone"
    ]  # fmt: skip
    shown = clients["ada"].get(page).content.decode()
    assert "too_long: Too long\ntone: Unfriendly</textarea>" in shown


def test_a_label_is_reworded_and_keeps_its_key(
    project: Project, clients: Clients, page: str
) -> None:
    Project.objects.update(attributes=[{"key": "tone", "label": "Unfriendly"}])
    sent = as_shown(clients["ada"], page) | {"own": "tone: Unkind"}
    clients["ada"].post(page, sent)
    project.refresh_from_db()
    assert project.attributes == [{"key": "tone", "label": "Unkind"}]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "x" * 121}, "name"),
        ({"language": "English please"}, "language"),
        ({"language": " "}, "language"),
        ({"answers_per_prompt": 1}, "answers_per_prompt"),
        ({"answers_per_prompt": 10}, "answers_per_prompt"),
        ({"overlap": 0}, "overlap"),
        ({"overlap": 21}, "overlap"),
        ({"shared_share": 101}, "shared_share"),
        ({"gold_share": -1}, "gold_share"),
        ({"repeat_share": "nan"}, "repeat_share"),
        ({"uniform_share": "some"}, "uniform_share"),
        ({"shared_overlap": 0}, "shared_overlap"),
        ({"newcomer_sets": -1}, "newcomer_sets"),
        ({"ready": ["nonsense"]}, "ready"),
        ({"own": "x" * 81}, "own"),
        ({"own": "tone: A\ntone: B"}, "own"),
        ({"ready": ["hallucination"], "own": "hallucination: Mine"}, "own"),
        ({"review_below": 1.5}, "review_below"),
        ({"qualification_tau": ""}, "qualification_tau"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"temperature": 0}, "temperature"),
        ({"temperature": "inf"}, "temperature"),
    ],
)
def test_what_is_wrong_is_named_at_its_field_and_nothing_is_saved(
    change: dict[str, Any], field: str, project: Project, clients: Clients, page: str
) -> None:
    before = Project.objects.filter(pk=project.pk).values().get()
    response = clients["ada"].post(page, as_shown(clients["ada"], page) | change)
    assert response.status_code == 400
    assert list(response.context["form"].errors) == [field]
    assert "Nothing is saved yet" in response.content.decode()
    assert Project.objects.filter(pk=project.pk).values().get() == before


def test_the_project_is_paused_and_goes_on(project: Project, clients: Clients, page: str) -> None:
    clients["ada"].post(reverse("dashboard:pause", args=["everyday"]))
    project.refresh_from_db()
    assert project.paused
    assert "Let it go on" in clients["ada"].get(page).content.decode()
    assert (
        "This project is paused" in clients["ann"].get("/annotate/everyday/next/").content.decode()
    )
    clients["ada"].post(reverse("dashboard:unpause", args=["everyday"]))
    project.refresh_from_db()
    assert not project.paused


def test_the_form_of_a_new_project_stays_short(clients: Clients, sign_in: Any) -> None:
    root = factories.make_user("root", is_superuser=True)
    form = sign_in(root).get(reverse("dashboard:new")).context["form"]
    assert list(form.fields) == ["name", "slug", "language", "answers_per_prompt", "overlap"]
