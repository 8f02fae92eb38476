"""Putting tasks on the queue: after the commit, and never at a person's expense."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

import pytest
from celery import Celery, Task, shared_task
from django.db import transaction

from labelhub.lib.queue import enqueue_on_commit

seen: list[int] = []


@shared_task(name="tests.note")
def note(number: int) -> None:
    """Remember that the task ran."""
    seen.append(number)


def task_without_a_broker() -> Task[..., Any]:
    """A task of an app with our settings whose broker's address has nobody behind it."""
    app = Celery("lonely", set_as_current=False)
    app.config_from_object("django.conf:settings", namespace="CELERY")
    app.conf.update(task_always_eager=False, broker_url="redis://127.0.0.1:1/0")

    def lonely(number: int) -> None:
        del number

    return app.task(lonely, name="tests.lonely")


@pytest.mark.django_db
def test_a_task_runs_after_the_commit(
    django_capture_on_commit_callbacks: Callable[..., Any],
) -> None:
    seen.clear()
    with django_capture_on_commit_callbacks(execute=True):
        enqueue_on_commit(note, 7)
        assert seen == []
    assert seen == [7]


@pytest.mark.django_db(transaction=True)
def test_nothing_is_queued_for_what_was_rolled_back() -> None:
    seen.clear()
    with transaction.atomic():
        enqueue_on_commit(note, 8)
        transaction.set_rollback(True)
    assert seen == []


@pytest.mark.django_db
def test_without_a_broker_the_person_gets_no_error_and_waits_for_seconds_at_most(
    django_capture_on_commit_callbacks: Callable[..., Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    begin = time.monotonic()
    with caplog.at_level(logging.WARNING), django_capture_on_commit_callbacks(execute=True):
        enqueue_on_commit(task_without_a_broker(), 9)
    assert "waits for the next sweep" in caplog.text
    assert time.monotonic() - begin < 15
