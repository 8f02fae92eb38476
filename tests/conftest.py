"""The cast of every test: ann and ben annotate, ada administers, mallory is a stranger.

No test reaches a broker: Celery runs a task at once, in the process that sends it, and what waits
for a commit runs only inside `django_capture_on_commit_callbacks(execute=True)` (or in a test with
real transactions). No test writes under var/: the settings' folders lie in a temporary one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from django.contrib.auth.models import AnonymousUser
from django.db import connections
from django.db.backends.base.operations import BaseDatabaseOperations
from django.test import Client, override_settings
from django.utils import translation

from labelhub.accounts.models import AuditEntry, User
from labelhub.celery import app
from labelhub.projects.models import Project
from tests import factories

BACKEND = "django.contrib.auth.backends.ModelBackend"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the rooms' tests be run on another database without those that need none."""
    parser.addoption("--database-only", action="store_true", help="only tests that use a database")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Files with slow tests go first: a process that got one last would keep the others waiting."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)
    if config.getoption("database_only"):
        config.hook.pytest_deselected(items=[one for one in items if not _uses_database(one)])
        items[:] = [one for one in items if _uses_database(one)]


def _uses_database(item: pytest.Item) -> bool:
    wanted = {"db", "transactional_db"} & set(getattr(item, "fixturenames", ()))
    return bool(wanted) or item.get_closest_marker("django_db") is not None


@pytest.fixture(scope="session", autouse=True)
def quick_and_apart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Settings that make tests quick and keep them apart from what runs on this machine."""
    var = tmp_path_factory.mktemp("var")
    app.conf.update(task_always_eager=True, task_eager_propagates=True, broker_url="memory://")
    with override_settings(
        PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
        STORAGES={
            "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
            "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
        },
        **_folders(var),
    ):
        yield


@pytest.fixture
def var(tmp_path: Path) -> Iterator[Path]:
    """A folder of the test's own in the place of var/, with runs/ in it."""
    with override_settings(**_folders(tmp_path)):
        yield tmp_path


def _folders(var: Path) -> dict[str, Path]:
    """The models stay where they are: to make them takes minutes, and nothing writes to them."""
    folders = {
        "VAR": var,
        "RUNS_DIR": var / "runs",
        "STATIC_ROOT": var / "static",  # empty: whitenoise warns of a folder that is missing
    }
    for folder in folders.values():
        folder.mkdir(exist_ok=True)
    return folders


@pytest.fixture(scope="session")
def django_db_modify_db_settings(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A database of this process's own, so that two test runs at once do not meet.

    On SQLite it is a file, since the threads of a race cannot share one in memory.
    """
    for connection in connections.all():
        test = connection.settings_dict["TEST"]
        if connection.vendor == "sqlite":
            test["NAME"] = str(tmp_path_factory.mktemp("db") / "test.sqlite3")
        else:
            test["NAME"] = f"test_{connection.settings_dict['NAME']}_{os.getpid()}"


@pytest.fixture(autouse=True)
def in_english() -> Iterator[None]:
    """A page that was asked for in another language leaves it behind in the thread."""
    with translation.override("en"):
        yield


@pytest.fixture(scope="session", autouse=True)
def audit_log_gives_way_to_flush() -> Iterator[None]:
    """Lets a test with real transactions be cleaned up.

    Triggers keep the audit log from being emptied, by `flush` too; that promise stays untouched in
    the product, so here they are lifted around each flush and put back as they were.
    """
    flush = BaseDatabaseOperations.execute_sql_flush

    def flush_without_triggers(self: BaseDatabaseOperations, sql_list: list[str]) -> None:
        with _no_audit_triggers(self.connection):
            flush(self, sql_list)

    with patch.object(BaseDatabaseOperations, "execute_sql_flush", flush_without_triggers):
        yield


@contextmanager
def _no_audit_triggers(connection: Any) -> Iterator[None]:
    table = AuditEntry._meta.db_table
    if connection.vendor != "sqlite":
        connection.cursor().execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
        yield
        connection.cursor().execute(f"ALTER TABLE {table} ENABLE TRIGGER USER")
        return
    cursor = connection.cursor()
    cursor.execute(
        "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND tbl_name = %s", [table]
    )
    triggers = cursor.fetchall()
    for name, _sql in triggers:
        cursor.execute(f"DROP TRIGGER {name}")
    yield
    for _name, sql in triggers:
        cursor.execute(sql)


@pytest.fixture
def ann(db: None) -> User:
    """Annotates."""
    return factories.make_user("ann")


@pytest.fixture
def ben(db: None) -> User:
    """Annotates, too."""
    return factories.make_user("ben")


@pytest.fixture
def ada(db: None) -> User:
    """Administers the project."""
    return factories.make_user("ada")


@pytest.fixture
def mallory(db: None) -> User:
    """A stranger: has an account and no project."""
    return factories.make_user("mallory")


@pytest.fixture
def project(ann: User, ben: User, ada: User) -> Project:
    """The project in which ann and ben rank four answers a prompt, and which ada steers."""
    return factories.make_project("everyday", annotators=[ann, ben], admins=[ada])


@pytest.fixture
def sign_in() -> Callable[[User | AnonymousUser], Client]:
    """`sign_in(ann)` is a browser in which ann is signed in; pass AnonymousUser() for nobody."""

    def open_browser(user: User | AnonymousUser) -> Client:
        client = Client()
        if user.is_authenticated:
            client.force_login(user, backend=BACKEND)
        return client

    return open_browser


@pytest.fixture
def clients(
    ann: User, ben: User, ada: User, mallory: User, sign_in: Callable[..., Client]
) -> dict[str, Client]:
    """A browser for each of the cast by name, and one in which nobody is signed in."""
    cast: dict[str, User | AnonymousUser] = {
        "ann": ann,
        "ben": ben,
        "ada": ada,
        "mallory": mallory,
        "nobody": AnonymousUser(),
    }
    return {name: sign_in(user) for name, user in cast.items()}
