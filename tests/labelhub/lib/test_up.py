"""`manage.py up` with everything in it, as a person starts and ends it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from labelhub.lib.services import birth, descendants
from tests.servers import free_port

ROOT = Path(__file__).resolve().parents[3]
pytestmark = pytest.mark.slow
manage = [sys.executable, str(ROOT / "manage.py")]


class Demo:
    """A running `manage.py up` with a var/ of its own."""

    def __init__(self, var: Path) -> None:
        self.port = free_port()
        self.log = var / "up.txt"
        kept = {n: v for n, v in os.environ.items() if n not in {"REDIS_URL", "DATABASE_URL"}}
        self.environ = kept | {"LABELHUB_VAR": str(var), "PORT": str(self.port)}
        self.records = var / "services.json"
        self.known: dict[str, int] = {}
        with self.log.open("w") as out:
            self.process = subprocess.Popen(
                [*manage, "up", "--no-demo"], cwd=ROOT, env=self.environ, stdout=out, stderr=out
            )

    def wait_for(self, words: str, seconds: float = 90) -> None:
        deadline = time.monotonic() + seconds
        while words not in self.log.read_text():
            assert time.monotonic() < deadline, self.log.read_text()
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.1)

    def family(self) -> dict[str, int]:
        """The recorded processes by name, and what they started."""
        records = json.loads(self.records.read_text())
        pids = {name: record["pid"] for name, record in records.items()}
        below = {f"{n}/{p}": p for n, pid in pids.items() for p in descendants(pid)}
        return pids | below

    def gone(self, seconds: float = 15) -> bool:
        deadline = time.monotonic() + seconds
        while any(birth(pid) for pid in self.known.values()):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return True

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with all tables and no rows, made once."""
    var = tmp_path_factory.mktemp("empty")
    environ = {n: v for n, v in os.environ.items() if n != "DATABASE_URL"}
    command = [*manage, "migrate", "--verbosity", "0"]
    subprocess.run(command, cwd=ROOT, env=environ | {"LABELHUB_VAR": str(var)}, check=True)
    return var / "db.sqlite3"


@pytest.fixture
def demo(tmp_path: Path, empty_database: Path) -> Iterator[Demo]:
    shutil.copy(empty_database, tmp_path / "db.sqlite3")
    made = Demo(tmp_path)
    try:
        made.wait_for("LabelHub is ready at")
        made.known = made.family()
        yield made
    finally:
        made.end()


def test_it_serves_and_ctrl_c_ends_every_process(demo: Demo) -> None:
    assert {"valkey", "web", "cpu", "gpu"} <= set(demo.known)
    with urllib.request.urlopen(f"http://127.0.0.1:{demo.port}/healthz", timeout=20) as answer:
        assert answer.status == 200
        assert answer.headers.get_content_type() == "application/json"
        assert json.load(answer)["ok"] is True
    demo.process.send_signal(signal.SIGINT)
    assert demo.process.wait(30) == 0
    assert "Everything has ended" in demo.log.read_text()
    assert demo.gone(seconds=1)
    assert json.loads(demo.records.read_text()) == {}


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux's kernel offers this")
def test_killed_for_certain_it_leaves_no_orphan(demo: Demo) -> None:
    demo.process.kill()
    assert demo.gone()


def test_a_process_that_dies_is_named_and_the_rest_is_ended(demo: Demo) -> None:
    os.kill(demo.known["cpu"], signal.SIGKILL)
    assert demo.process.wait(40) == 1
    said = demo.log.read_text()
    assert "The worker for light tasks ended (signal 9): see " in said
    assert demo.gone(seconds=1)


def test_a_second_start_says_that_it_runs_already(demo: Demo) -> None:
    second = subprocess.run(
        [*manage, "up"], cwd=ROOT, env=demo.environ, capture_output=True, text=True, check=False
    )
    assert second.returncode == 1
    assert f"LabelHub already runs at http://localhost:{demo.port}" in second.stderr
    assert demo.process.poll() is None
