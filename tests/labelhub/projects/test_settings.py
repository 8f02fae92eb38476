"""Settings change by an action that checks them and keeps what was."""

from __future__ import annotations

from typing import Any

import pytest
from django.utils import translation

from labelhub.accounts.models import AuditEntry, User
from labelhub.lib.errors import Refused
from labelhub.projects.actions import SETTINGS, change_settings
from labelhub.projects.models import Project
from labelhub.projects.queries import attributes_of, ready_attributes

pytestmark = pytest.mark.django_db


def lines() -> list[dict[str, Any]]:
    found = AuditEntry.objects.filter(action="project.change_settings")
    return [entry.details for entry in found.order_by("id")]


def test_it_works_and_the_log_keeps_what_was(project: Project, ada: User) -> None:
    change_settings(project=project, by=ada, overlap=2, gold_share=0.1, ask_gaps=False)
    project.refresh_from_db()
    assert (project.overlap, project.gold_share) == (2, 0.1)
    assert lines() == [{"overlap": [1, 2], "gold_share": [0, 0.1]}]


def test_the_same_again_leaves_no_line(project: Project, ada: User) -> None:
    change_settings(project=project, by=ada, overlap=project.overlap)
    assert lines() == []


def test_two_admins_who_change_different_things_undo_nothing(project: Project, ada: User) -> None:
    mine, hers = Project.objects.get(pk=project.pk), Project.objects.get(pk=project.pk)
    change_settings(project=mine, by=ada, overlap=3)
    change_settings(project=hers, by=ada, paused=True)
    project.refresh_from_db()
    assert (project.overlap, project.paused) == (3, True)


def test_every_setting_is_a_field_of_the_project() -> None:
    fields = {field.name for field in Project._meta.get_fields()}
    assert fields >= SETTINGS
    assert "slug" not in SETTINGS, "it stands in addresses"
    assert "is_simulated" not in SETTINGS, "people's and simulated rankings never mix"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"slug": "elsewhere"}, "no setting “slug”"),
        ({"answers_per_prompt": 10}, "answers_per_prompt: "),
        ({"gold_share": 1.5}, "gold_share: "),
        ({"overlap": "many"}, "overlap: "),
        ({"name": ""}, "name: "),
        ({"review_below": -2}, "review_below: "),
        ({"attributes": [{"key": "a b", "label": "A"}]}, "The key of question 1"),
        ({"attributes": "none"}, "must be a list"),
    ],
)
def test_a_bad_value_is_refused_by_name(
    values: dict[str, Any], words: str, project: Project, ada: User
) -> None:
    with pytest.raises(Refused, match=words) as refused:
        change_settings(project=project, by=ada, **values)
    assert refused.value.status == 400
    assert lines() == []


def test_nobody_needs_to_review_where_the_threshold_is_empty(project: Project, ada: User) -> None:
    change_settings(project=project, by=ada, review_below=None)
    project.refresh_from_db()
    assert project.review_below is None


def test_a_ready_question_speaks_the_readers_language_and_an_own_one_its_own(
    project: Project, ada: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = {"key": "tone", "label": "Unfriendly"}
    ready = {"key": "hallucination", "label": "Made-up facts"}
    reworded = {"key": "sexual_content", "label": "Made-up facts"}
    change_settings(project=project, by=ada, attributes=[ready, own, reworded])
    monkeypatch.setattr("labelhub.projects.queries._", lambda text: f"«{text}»")
    labels = [(one.key, one.label) for one in attributes_of(project)]
    assert labels == [
        ("hallucination", "«Made-up facts»"),
        ("tone", "Unfriendly"),
        ("sexual_content", "Made-up facts"),
    ]


def test_there_are_eleven_ready_questions_in_english() -> None:
    with translation.override("en"):
        assert [one.key for one in ready_attributes()][2] == "hallucination"
        assert len({one.label for one in ready_attributes()}) == 11
