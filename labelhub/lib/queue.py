"""How tasks are put on the queue: after the commit, and without making the broker a condition.

What a person did is in the database by then. If the broker does not answer, the periodic sweeps
find the work there later; the person must not get an error for something that was saved.
"""

from __future__ import annotations

import logging
from typing import Any

from celery import Task
from django.db import transaction
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

log = logging.getLogger(__name__)


def enqueue_on_commit(task: Task[..., Any], *args: Any) -> None:
    """Queue `task(*args)` once the present transaction is committed."""
    transaction.on_commit(lambda: _enqueue(task, args))


def _enqueue(task: Task[..., Any], args: tuple[Any, ...]) -> None:
    try:
        task.delay(*args)
    except (OperationalError, RedisError, OSError) as error:
        log.warning(
            "The queue does not answer (%s); %s%r waits for the next sweep.", error, task.name, args
        )
