"""What is urgent: what the reward models disagree on, and what has waited."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.conf import settings
from django.utils import timezone

from labelhub.accounts.models import User
from labelhub.assignments import tasks
from labelhub.assignments.actions import refresh_priorities
from labelhub.assignments.models import Slot
from labelhub.assignments.rules import BANDS, priority_band
from labelhub.projects.models import Project
from labelhub.prompts.models import AnswerSet
from tests.factories import hold, make_answer_set, make_slot

pytestmark = pytest.mark.django_db


def scored(project: Project, disagreement: float | None, days: int = 0, **slot: object) -> Slot:
    """An open slot on a set with this disagreement that has waited so many days."""
    answer_set = make_answer_set(project, answers=2)
    AnswerSet.objects.filter(pk=answer_set.pk).update(disagreement=disagreement)
    slot = make_slot(answer_set, **slot)
    created = timezone.now() - timedelta(days=days, minutes=1)
    Slot.objects.filter(pk=slot.pk).update(created=created)
    return slot


def priority(slot: Slot) -> float:
    return Slot.objects.get(pk=slot.pk).priority


# --- bands


@pytest.mark.parametrize(
    ("disagreement", "days", "band"),
    [
        (0.0, 9, 0),
        (2.0**-16, 0, 1),  # the lowest band begins here
        (2.0**-20, 0, 1),  # and takes in all below
        (1.0, 0, 33),  # 16 factors of 2 above it are 32 factors of √2: 1 + 32
        (1.0, 1, 35),  # twice as long in the queue (age + 1 day): two bands
        (1.4, 0, 33),  # √2 = 1.414…
        (1.42, 0, 34),
        (2.0**40, 0, BANDS),  # no higher than the highest
        (-1.0, 0, 0),  # no disagreement can be negative
        (float("nan"), 0, 0),
        (float("inf"), 0, BANDS),
    ],
)
def test_bands_are_factors_of_the_root_of_two(disagreement: float, days: int, band: int) -> None:
    assert priority_band(disagreement, days) == band


def test_bands_never_fall_as_a_set_waits() -> None:
    bands = [priority_band(0.3, days) for days in range(400)]
    assert bands == sorted(bands)
    assert len(set(bands)) > 10


# --- written by a worker


def test_what_models_disagree_on_and_what_has_waited_goes_first(project: Project) -> None:
    calm, torn = scored(project, 0.01), scored(project, 0.64)
    old = scored(project, 0.01, days=255)  # 0.01 · 256 = 2.56: four times as much as torn
    assert refresh_priorities(project.pk) == 3
    assert priority(calm) < priority(torn) < priority(old)
    # 0.64 = 2^-0.64: 1 + floor(2 · 15.36) = 31; 2.56 = 2^1.36: 1 + floor(2 · 17.36) = 35.
    assert (priority(torn), priority(old)) == (31, 35)


def test_only_what_changes_is_written(project: Project) -> None:
    scored(project, 0.5)
    assert refresh_priorities(project.pk) == 1
    assert refresh_priorities(project.pk) == 0


def test_a_set_that_is_not_scored_yet_counts_as_the_usual_one(project: Project) -> None:
    low, usual, high = (scored(project, value) for value in (0.1, 0.2, 0.9))
    unknown = scored(project, None)
    refresh_priorities(project.pk)
    assert priority(low) < priority(unknown) == priority(usual) < priority(high)


def test_without_any_score_nothing_is_written(project: Project) -> None:
    slot = scored(project, None, days=30, priority=5.0)
    assert refresh_priorities(project.pk) == 0
    assert priority(slot) == 5.0


def test_what_is_held_or_no_opinion_stays_as_it_is(project: Project, ann: User) -> None:
    scored(project, 0.5)
    held = hold(scored(project, 0.5), ann)
    review = scored(project, 0.5, kind=Slot.Kind.REVIEW)
    refresh_priorities(project.pk)
    assert (priority(held), priority(review)) == (0, 0)


def test_the_sweep_reaches_every_project_and_survives_a_bad_one(
    project: Project, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    slot = scored(project, 0.5)
    broken = Project.objects.create(slug="broken", name="A broken one")
    write = tasks.progress.refresh_priorities

    def refresh(project_id: int) -> int:
        if project_id == broken.pk:
            raise RuntimeError("no such luck")
        return write(project_id)

    monkeypatch.setattr(tasks.progress, "refresh_priorities", refresh)
    assert tasks.sweep_priorities() == 1
    assert priority(slot) > 0
    assert f"project {broken.pk} could not be written" in caplog.text


def test_the_sweep_is_on_the_timetable() -> None:
    entry = settings.CELERY_BEAT_SCHEDULE["sweep-priorities"]
    assert entry["task"] == tasks.sweep_priorities.name
    assert 60 <= entry["schedule"] <= 600
