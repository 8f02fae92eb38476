"""A copy of the embedded demo, or an empty house beside it, for pictures and measurements.

Looking at either changes nothing in the demo.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import django

from labelhub.lib.services import Services, port_is_free
from scripts.terminal import ROOT, VAR, Failure

if TYPE_CHECKING:
    from labelhub.accounts.models import User

HOST = "127.0.0.1"


@contextmanager
def demo_copy() -> Iterator[Path]:
    """Copy the database and lend the large folders; inside, Django is set up on the copy."""
    if os.environ.get("DATABASE_URL") or not (VAR / "db.sqlite3").is_file():
        raise Failure("This shows the embedded demo: run ./run once, without DATABASE_URL.")
    with _apart("static", "models", "runs", "versions") as var:
        source, target = sqlite3.connect(VAR / "db.sqlite3"), sqlite3.connect(var / "db.sqlite3")
        with closing(source), closing(target):
            source.backup(target)
        _set_up(var)
        yield var


@contextmanager
def empty_copy() -> Iterator[Path]:
    """A folder of state with empty tables and the pages' files; Django is set up on it."""
    with _apart("static") as var:
        _set_up(var)
        yield var


@contextmanager
def _apart(*lent: str) -> Iterator[Path]:
    var = Path(tempfile.mkdtemp(prefix="labelhub-copy-"))
    try:
        for name in lent:
            if (VAR / name).exists():
                (var / name).symlink_to(VAR / name)
        yield var
    finally:
        shutil.rmtree(var, ignore_errors=True)


def _set_up(var: Path) -> None:
    os.environ |= {"LABELHUB_VAR": str(var), "DJANGO_SETTINGS_MODULE": "labelhub.settings"}
    for name in ("REDIS_URL", "DATABASE_URL"):
        os.environ.pop(name, None)
    django.setup()
    # The demo may be older than the code. (Commands can be imported only once Django is set up.)
    from django.core.management import call_command  # noqa: PLC0415

    call_command("migrate", verbosity=0)


def open_session(user: User) -> str:
    """Return the key of a session in which this person of the copy is signed in."""
    # Sessions can be imported only once Django is set up.
    from django.contrib import auth  # noqa: PLC0415
    from django.contrib.sessions.backends.db import SessionStore  # noqa: PLC0415

    session = SessionStore()
    session[auth.SESSION_KEY] = str(user.pk)
    session[auth.BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
    session[auth.HASH_SESSION_KEY] = user.get_session_auth_hash()
    session.save()
    return str(session.session_key)


@contextmanager
def served(var: Path) -> Iterator[str]:
    """Serve the copy without workers, so that nothing in it moves; yields the address."""
    port = next(port for port in range(8100, 8200) if port_is_free(HOST, port))
    services = Services(ROOT, var, host=HOST, port=port, environ=os.environ)
    services.start("valkey", "web")
    try:
        yield f"http://{HOST}:{port}"
    finally:
        services.stop()
