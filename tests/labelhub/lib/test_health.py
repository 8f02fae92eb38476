"""The health check names the part that does not answer, and does not take long over it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
from celery import Celery
from django.db import DatabaseError, connection

from labelhub.celery import app as labelhub_app
from labelhub.lib.health import check
from tests.servers import free_port, valkey_url

UseBroker = Callable[[str], None]


@pytest.fixture
def use_broker() -> Iterator[UseBroker]:
    """`use_broker(url)` lets Celery talk to that broker until the test ends."""
    made: list[Celery] = []

    def use(url: str) -> None:
        app = Celery("elsewhere", broker=url, set_as_current=False)
        app.set_current()
        made.append(app)

    yield use
    for app in made:
        app.close()
    labelhub_app.set_current()


@pytest.mark.django_db
def test_a_broker_that_is_gone_is_named_within_seconds(use_broker: UseBroker) -> None:
    use_broker(f"redis://127.0.0.1:{free_port()}/0")
    begin = time.monotonic()
    assert check() == {
        "ok": False,
        "database": {"ok": True},
        "broker": {"ok": False, "problem": "It does not answer (OperationalError)."},
        "worker": {"ok": False, "problem": "It cannot be asked without the broker."},
    }
    assert time.monotonic() - begin < 6


@pytest.mark.django_db
def test_a_missing_worker_is_named_with_the_remedy(use_broker: UseBroker) -> None:
    use_broker(valkey_url())
    assert check() == {
        "ok": False,
        "database": {"ok": True},
        "broker": {"ok": True},
        "worker": {
            "ok": False,
            "problem": "No worker answers: start one with ./run or ./run manage up.",
        },
    }


@pytest.mark.django_db
def test_a_database_that_fails_does_not_hide_the_broker(
    use_broker: UseBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise DatabaseError("password authentication failed for user admin")

    use_broker(valkey_url())
    monkeypatch.setattr(connection, "cursor", refuse)
    health = check()
    # The driver's words hold a user's name: they are not for everybody.
    assert health["database"] == {"ok": False, "problem": "It does not answer (DatabaseError)."}
    assert health["broker"] == {"ok": True}
