"""Real processes: what started serves, what stopped is gone, what was killed left no orphan."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from subprocess import PIPE

import pytest
import redis

from labelhub.lib.services import (
    ServiceError,
    Services,
    birth,
    descendants,
    embedded_broker_url,
    embedded_socket,
)
from tests.servers import free_port

ROOT = Path(__file__).resolve().parents[3]
linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux's kernel offers this")


@pytest.fixture
def environ() -> dict[str, str]:
    """This environment without a broker of one's own."""
    return {name: value for name, value in os.environ.items() if name != "REDIS_URL"}


@pytest.fixture
def services(tmp_path: Path, environ: dict[str, str]) -> Iterator[Services]:
    """The processes of an empty var/ on a free port."""
    made = Services(ROOT, tmp_path / "var", port=free_port(), environ=environ)
    yield made
    made.interrupt()
    made.interrupt()  # twice: a test that failed does not wait either
    made.stop()


@pytest.fixture
def broker(services: Services) -> Iterator[redis.Redis]:
    """A client of the embedded broker; connects when it is first used."""
    with redis.Redis(unix_socket_path=str(embedded_socket(services.var))) as client:
        yield client


Supervise = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def supervise(services: Services, environ: dict[str, str]) -> Iterator[Supervise]:
    """`supervise("valkey")`: another program that starts this and waits for a signal."""
    program = f"""
        import signal, sys, threading
        from pathlib import Path
        from labelhub.lib.services import Services
        services = Services(Path({str(ROOT)!r}), Path({str(services.var)!r}))
        stop = threading.Event()
        signal.signal(signal.SIGTERM, lambda *_: stop.set())
        services.start(*sys.argv[1:])
        print("started", flush=True)
        stop.wait()
        services.stop()
    """
    with ExitStack() as programs:

        def start(*names: str) -> subprocess.Popen[str]:
            command = [sys.executable, "-c", textwrap.dedent(program), *names]
            other = programs.enter_context(
                subprocess.Popen(command, cwd=ROOT, env=environ, stdout=PIPE, text=True)
            )
            programs.callback(other.kill)
            assert heard(other) == "started"
            return other

        yield start


def heard(program: subprocess.Popen[str]) -> str:
    assert program.stdout is not None
    return program.stdout.readline().strip()


def gone(*pids: int, seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while any(birth(pid) for pid in pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def test_the_broker_serves_after_the_start_and_is_gone_after_the_stop(
    services: Services, broker: redis.Redis
) -> None:
    assert services.start("valkey") == ["valkey"]
    pid = services.running()["valkey"].pid
    assert broker.ping()
    services.stop()
    assert gone(pid)
    assert services.running() == {}
    assert json.loads(services.record_path.read_text()) == {}


def test_what_the_broker_holds_outlives_a_restart(services: Services, broker: redis.Redis) -> None:
    services.start("valkey")
    broker.set("kept", "yes")
    services.stop()
    services.start("valkey")
    assert broker.get("kept") == b"yes"


def test_only_its_owner_reaches_the_broker(services: Services) -> None:
    services.start("valkey")
    assert embedded_socket(services.var).stat().st_mode & 0o077 == 0
    record = services.running()["valkey"]
    assert listening_ports(record.pid) == []


def listening_ports(pid: int) -> list[str]:
    """Return the TCP sockets on which a process listens (state 0A), where there is a /proc."""
    folder = Path(f"/proc/{pid}")
    if not folder.is_dir():
        return []
    inodes = {link.readlink().name for link in (folder / "fd").iterdir() if link.is_symlink()}
    rows = [line.split() for line in (folder / "net" / "tcp").read_text().splitlines()[1:]]
    return [row[1] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in inodes]


def test_a_second_start_uses_what_runs(
    services: Services, broker: redis.Redis, environ: dict[str, str]
) -> None:
    services.start("valkey")
    pid = services.running()["valkey"].pid
    second = Services(ROOT, services.var, port=free_port(), environ=environ)
    assert second.start("valkey") == []
    second.stop()  # ends nothing: the first one started it
    assert services.running()["valkey"].pid == pid
    assert broker.ping()


def test_what_another_program_ended_counts_as_lost(
    services: Services, supervise: Supervise
) -> None:
    other = supervise("valkey")
    assert services.start("valkey") == []
    assert services.lost(["valkey"]) == []
    other.terminate()
    other.wait(20)
    assert services.lost(["valkey"]) == ["valkey"]
    assert services.start("valkey") == ["valkey"]


@linux
def test_a_killed_supervisor_leaves_no_orphan(services: Services, supervise: Supervise) -> None:
    other = supervise("valkey")
    pid = services.running()["valkey"].pid
    other.kill()
    other.wait()
    assert gone(pid)
    assert services.start("valkey") == ["valkey"]


@linux
@pytest.mark.slow
def test_killed_workers_leave_neither_scheduler_nor_broker(
    services: Services, supervise: Supervise
) -> None:
    # The cpu worker has a child of its own: the scheduler of periodic tasks.
    other = supervise("valkey", "cpu")
    processes = [process.pid for process in services.running().values()]
    deadline = time.monotonic() + 20
    while not (below := descendants(services.running()["cpu"].pid)):
        assert time.monotonic() < deadline, "the worker has started no scheduler"
        time.sleep(0.1)
    other.kill()
    other.wait()
    assert gone(*processes, *below)


def test_a_taken_port_is_one_clear_sentence(services: Services) -> None:
    taken = socket.create_server(("127.0.0.1", services.port))
    with taken, pytest.raises(ServiceError) as refusal:
        services.start("valkey", "web")
    assert str(refusal.value) == (
        f"Port {services.port} is taken by another program: "
        f"choose another one, for example PORT={services.port + 1} ./run"
    )
    assert services.running() == {}  # nothing was started before the refusal


def test_a_broker_of_ones_own_is_not_started_but_asked(
    tmp_path: Path, environ: dict[str, str]
) -> None:
    port = free_port()
    services = Services(
        ROOT, tmp_path, environ=environ | {"REDIS_URL": f"redis://127.0.0.1:{port}/0"}
    )
    assert services.start("valkey") == []
    with pytest.raises(ServiceError) as refusal:
        services.start("cpu")
    assert str(refusal.value) == (
        f"The broker of REDIS_URL does not answer at 127.0.0.1:{port} (Connection refused): "
        "start it, or unset REDIS_URL for the embedded one."
    )


def test_a_process_that_ends_by_itself_is_noticed_with_its_last_words(services: Services) -> None:
    services.start("valkey")
    assert services.fallen() == []
    os.kill(services.running()["valkey"].pid, signal.SIGKILL)
    deadline = time.monotonic() + 5
    while not services.fallen():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert services.fallen() == ["valkey"]
    sentence = services.obituary("valkey")
    assert sentence.startswith("The embedded broker ended (signal 9): see ")
    assert str(services.log_path("valkey")) in sentence


def test_a_record_of_a_process_that_is_long_gone_is_not_believed(services: Services) -> None:
    # The number of the process belongs to somebody else now: to this test.
    me = os.getpid()
    record = {"pid": me, "birth": "1", "owner": me, "owner_birth": "1", "address": ""}
    services.var.mkdir()
    services.record_path.write_text(json.dumps({"gpu": record}))
    assert services.running() == {}
    assert services.lost(["gpu"]) == ["gpu"]


def test_records_cut_off_by_a_crash_are_no_obstacle(services: Services) -> None:
    services.var.mkdir()
    services.record_path.write_text('{"web": {"pid": 12')
    assert services.start("valkey") == ["valkey"]


def test_a_long_path_gets_its_socket_elsewhere(tmp_path: Path) -> None:
    # Unix sockets have room for about a hundred bytes.
    deep = tmp_path / ("a" * 60) / ("b" * 60)
    deep.mkdir(parents=True)
    path = embedded_socket(deep)
    assert len(os.fsencode(path)) < 100
    assert path == embedded_socket(deep)
    assert path != embedded_socket(deep / "c")


def test_the_brokers_address_survives_a_blank_in_the_path(tmp_path: Path) -> None:
    assert "%20" in embedded_broker_url(tmp_path / "my var")


def test_an_unknown_process_is_refused(services: Services) -> None:
    with pytest.raises(ServiceError, match="No such process: mail"):
        services.start("mail")
