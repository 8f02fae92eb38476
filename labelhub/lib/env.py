"""Typed readers of environment variables: a bad value stops the start with one clear sentence."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from django.core.exceptions import ImproperlyConfigured

_TRUE, _FALSE = {"1", "true", "yes", "on"}, {"0", "false", "no", "off", ""}


def env_bool(name: str, default: bool) -> bool:
    """Read 1/0, true/false, yes/no, on/off."""
    raw = os.environ.get(name)
    if raw is None:
        return default
    if raw.lower() in _TRUE:
        return True
    if raw.lower() in _FALSE:
        return False
    raise ImproperlyConfigured(f"{name}={raw!r} is neither true nor false: set it to 1 or 0.")


def env_int(name: str, default: int) -> int:
    """Read a whole number."""
    raw = os.environ.get(name)
    if not raw:
        return default
    try:
        return int(raw)
    except ValueError:
        raise ImproperlyConfigured(f"{name}={raw!r} is not a whole number.") from None


def env_list(name: str, default: list[str]) -> list[str]:
    """Read a comma-separated list."""
    raw = os.environ.get(name)
    return default if raw is None else [part.strip() for part in raw.split(",") if part.strip()]


def env_secret(name: str, file: Path) -> str:
    """Read a secret from the environment, else from `file`, which is made at the first start.

    The file is created exclusively and readable by its owner alone, so that two processes which
    start together agree on one secret.
    """
    if value := os.environ.get(name):
        return value
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return _settled_secret(file)
    with os.fdopen(handle, "w") as out:
        out.write(secrets.token_urlsafe(50))
    return file.read_text()


def _settled_secret(file: Path) -> str:
    secret = file.read_text().strip()
    if len(secret) < 50:
        raise ImproperlyConfigured(
            f"{file} is damaged: remove it and start again (everybody will have to sign in anew)."
        )
    return secret


def accelerate_config(value: str, shipped: Path) -> Path | None:
    """The file of `accelerate launch` that several processes train by; none: one process trains.

    `value` is a path, or the name of a file that comes along: cpu, ddp, fsdp2, zero3.
    """
    if not value:
        return None
    named = shipped / f"{value}.yaml"
    path = named if named.is_file() else Path(value).expanduser()
    if not path.is_file():
        names = ", ".join(sorted(file.stem for file in shipped.glob("*.yaml")))
        raise ImproperlyConfigured(
            f"LABELHUB_ACCELERATE_CONFIG={value!r} is no file: give one that `accelerate config` "
            f"wrote, or one of {names}."
        )
    return path.resolve()


def database_from_url(url: str, sqlite_path: Path) -> dict[str, object]:
    """Turn DATABASE_URL into Django's dictionary; without one, SQLite in WAL mode under var/."""
    if not url:
        return _sqlite(sqlite_path)
    parts = urlsplit(url)
    if parts.scheme == "sqlite":
        return _sqlite(Path(parts.path[1:] if parts.path.startswith("//") else parts.path))
    if parts.scheme not in {"postgres", "postgresql"}:
        raise ImproperlyConfigured(
            f"DATABASE_URL begins with {parts.scheme!r}: use postgresql://user:password@host/name "
            "or sqlite:///path."
        )
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": unquote(parts.path.lstrip("/")),
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": parts.hostname or "",
        "PORT": str(parts.port or ""),
        "OPTIONS": dict(parse_qsl(parts.query)),
        "CONN_MAX_AGE": 60,
        "CONN_HEALTH_CHECKS": True,
    }


def _sqlite(path: Path) -> dict[str, object]:
    path.parent.mkdir(parents=True, exist_ok=True)
    return {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": path,
        "OPTIONS": {
            # A write transaction takes the lock at its start: it waits instead of failing midway.
            "transaction_mode": "IMMEDIATE",
            "timeout": 20,
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
        },
        # A test database in a file, since threads of a race cannot share one in memory.
        "TEST": {"NAME": path.with_name("test.sqlite3")},
    }
