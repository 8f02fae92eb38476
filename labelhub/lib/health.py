"""Does this LabelHub work? Asked by /healthz and by people who look why a page hangs.

Each part is asked for itself and within seconds, so that a broker that is gone cannot hide a
database that answers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from celery import current_app
from django.db import DatabaseError, connection
from kombu.exceptions import OperationalError

# Seconds; a worker that computes answers late, and the first ping opens a connection.
BROKER_PATIENCE = 2
WORKER_PATIENCE = 2.0


def check() -> dict[str, Any]:
    """Return {"ok": all parts answer, "database"|"broker"|"worker": {"ok", "problem"?}}."""
    database = _ask(_database)
    broker = _ask(_broker)
    # Without a broker no worker can be asked: say so at once instead of waiting again.
    worker = _ask(_worker) if broker["ok"] else _problem("It cannot be asked without the broker.")
    parts = {"database": database, "broker": broker, "worker": worker}
    return {"ok": all(part["ok"] for part in parts.values()), **parts}


def _ask(question: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return question()
    except (DatabaseError, OperationalError, OSError) as error:
        # Only the kind of error: messages of drivers can hold addresses and user names.
        return _problem(f"It does not answer ({type(error).__name__}).")


def _problem(sentence: str) -> dict[str, Any]:
    return {"ok": False, "problem": sentence}


def _database() -> dict[str, Any]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        cursor.fetchone()
    return {"ok": True}


def _broker() -> dict[str, Any]:
    with current_app.connection_for_write(connect_timeout=BROKER_PATIENCE) as link:
        link.ensure_connection(max_retries=1, interval_start=0, timeout=BROKER_PATIENCE)
    return {"ok": True}


def _worker() -> dict[str, Any]:
    # limit=1: the first worker that answers ends the waiting.
    replies = current_app.control.ping(timeout=WORKER_PATIENCE, limit=1)
    if not replies:
        return _problem("No worker answers: start one with ./run or ./run manage up.")
    return {"ok": True}
