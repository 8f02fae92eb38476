"""Does a claim stay flat as the queue grows, and is no opinion lost, doubled or wanted too often?

Two measurements, on PostgreSQL from a wheel (or on SQLite with --sqlite):

claims  Two databases that differ in nothing but their open slots, 1,000 and 1,000,000. Fifty
        annotators claim and give back as fast as they can, in turns on the one and the other, so
        that whatever else the machine does hits both. Prints the median and 95th percentile of a
        claim, of what a board counts, and their ratios.
storm   Fifty annotators submit 100,000 rankings while leases run out, buttons are clicked twice,
        two tabs show one set, and the overlap of sets is raised and lowered. Then the database is
        asked for what must not be: opinions over the wish, accepted ones that are not there,
        doubled ones.

    ./run bench queue [--only claims|storm] [--slots N] [--submissions N] [--sqlite] [--json FILE]
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)  # before anything else: here lies a queue.py that is not Python's

import argparse
import json
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from statistics import quantiles
from typing import Any, NamedTuple

FEW = 1000
ROUNDS, CLAIMS = 6, 10  # turns of each database; claims of each annotator in one turn


class Timing(NamedTuple):
    """What one number of open slots cost, in milliseconds."""

    median: float
    p95: float

    @classmethod
    def of(cls, seconds: list[float]) -> "Timing":
        cuts = quantiles(seconds, n=20, method="inclusive")
        return cls(median=cuts[9] * 1000, p95=cuts[18] * 1000)


def main() -> int:
    """Measure what was asked for and print it."""
    options = _options()
    if options.worker:
        return work(options)
    report: dict[str, Any] = {"database": "sqlite" if options.sqlite else "postgresql"}
    with tempfile.TemporaryDirectory(prefix="labelhub-queue-") as folder:
        databases = Databases(Path(folder), sqlite=options.sqlite)
        if options.only != "storm":
            report["claims"] = measure_claims(options, databases)
        if options.only != "claims":
            report["storm"] = measure_storm(options, databases)
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=["claims", "storm"])
    parser.add_argument("--slots", type=int, default=1_000_000)
    parser.add_argument("--submissions", type=int, default=100_000)
    parser.add_argument("--annotators", type=int, default=50)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--sqlite", action="store_true")
    parser.add_argument("--json", type=Path, help="write the figures there, too")
    parser.add_argument("--worker", nargs="*", help=argparse.SUPPRESS)
    return parser.parse_args()


class Databases:
    """Makes empty databases by name, each with all tables."""

    def __init__(self, folder: Path, *, sqlite: bool) -> None:
        self.folder, self.sqlite = folder, sqlite

    def make(self, name: str) -> dict[str, str]:
        """Make one; returns the environment in which a process works on it."""
        file = self.folder / f"{name}.sqlite3"
        url = f"sqlite:///{file}" if self.sqlite else self._on_postgres(name)
        environ = os.environ | {
            "DATABASE_URL": url,
            "DJANGO_SETTINGS_MODULE": "labelhub.settings",
            "LABELHUB_VAR": str(self.folder / "var"),
        }
        command = [sys.executable, str(ROOT / "manage.py"), "migrate", "--verbosity", "0"]
        subprocess.run(command, env=environ, check=True)
        return environ

    def _on_postgres(self, name: str) -> str:
        # Only needed here, and starting the server takes a while.
        import psycopg  # noqa: PLC0415

        from tests.servers import postgres_url  # noqa: PLC0415

        server = postgres_url()
        with _patiently(lambda: psycopg.connect(server, autocommit=True)) as connection:
            connection.execute(f"CREATE DATABASE {name}")  # type: ignore[call-overload]
        return server.rsplit("/", 1)[0] + f"/{name}"


def _patiently(connect: Callable[[], Any]) -> Any:
    """Try again while the server, which listens already, is not ready for questions."""
    import psycopg  # noqa: PLC0415

    for _try in range(50):
        try:
            return connect()
        except psycopg.OperationalError:
            time.sleep(0.2)
    return connect()


class Worker:
    """A process that does what it is told on one database; see `work`."""

    def __init__(self, environ: dict[str, str], *words: object) -> None:
        command = [sys.executable, __file__, "--worker", *map(str, words)]
        self.process = subprocess.Popen(
            command, env=environ, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def tell(self, word: str) -> None:
        """Begin something."""
        assert self.process.stdin is not None  # noqa: S101 - by the line above
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()

    def answer(self) -> Any:
        """Wait for what came of it."""
        assert self.process.stdout is not None  # noqa: S101
        line = self.process.stdout.readline()
        if not line:
            sys.exit("A worker of the benchmark failed; its words stand above.")
        return json.loads(line)

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_error: object) -> None:
        self.process.kill()
        self.process.wait()


# --- claims


def measure_claims(options: argparse.Namespace, databases: Databases) -> dict[str, Any]:
    """Time claims and counts on a short and on a long queue, in turns."""
    sizes = {"few": FEW, "many": options.slots}
    each = options.annotators // options.processes
    times: dict[str, dict[str, list[float]]] = {}
    with ExitStack() as stack:
        crowds: dict[str, list[Worker]] = {}
        for name, slots in sizes.items():
            environ = databases.make(f"queue_{name}")
            begin = time.monotonic()
            with Worker(environ, "fill", options.annotators, slots) as filler:
                filler.tell("fill")
                filler.answer()
            print(f"{slots:>9,} open slots filled in {time.monotonic() - begin:.0f} s", flush=True)
            crowds[name] = [
                stack.enter_context(Worker(environ, "crowd", at * each, each))
                for at in range(options.processes)
            ]
            times[name] = {"claim": [], "count": [], "alone": []}
        for _turn in range(ROUNDS):
            for name, crowd in crowds.items():
                for what in ("claim", "count"):
                    times[name][what] += _together(crowd, what)
                times[name]["alone"] += _together(crowd[:1], "alone")
    return _print_claims(sizes, times)


def _together(crowd: list[Worker], what: str) -> list[float]:
    for worker in crowd:
        worker.tell(what)
    return [seconds for worker in crowd for seconds in worker.answer()]


def _print_claims(
    sizes: dict[str, int], times: dict[str, dict[str, list[float]]]
) -> dict[str, Any]:
    rows = {
        "claim": "a claim, everybody at once",
        "alone": "a claim, one person alone",
        "count": "what a board counts, everybody at once",
    }
    print(f"\n{'milliseconds':40}{sizes['few']:>16,} open{sizes['many']:>14,} open   ratio of p95")
    print(f"{'':40}{'median':>10}{'p95':>11}{'median':>10}{'p95':>9}")
    report: dict[str, Any] = {}
    for what, label in rows.items():
        few, many = (Timing.of(times[name][what]) for name in ("few", "many"))
        ratio = many.p95 / few.p95
        print(
            f"{label:40}{few.median:>10.1f}{few.p95:>11.1f}{many.median:>10.1f}{many.p95:>9.1f}"
            f"{ratio:>15.2f}"
        )
        report[what] = {"few": few._asdict(), "many": many._asdict(), "ratio": ratio}
    return report


# --- storm


def measure_storm(options: argparse.Namespace, databases: Databases) -> dict[str, Any]:
    """Submit under all kinds of weather, then ask the database what became of it."""
    environ = databases.make("queue_storm")
    each = options.annotators // options.processes
    with ExitStack() as stack:
        judge = stack.enter_context(Worker(environ, "judge", options.annotators))
        judge.tell(f"fill {options.submissions}")
        judge.answer()
        begin = time.monotonic()
        share = -(-options.submissions // options.processes)
        crowd = [
            stack.enter_context(Worker(environ, "storm", at * each, each, share))
            for at in range(options.processes)
        ]
        weather = stack.enter_context(Worker(environ, "weather"))
        weather.tell("blow")
        weather.answer()
        for worker in crowd:
            worker.tell("submit")
        for worker in crowd:
            worker.answer()
        weather.tell("stop")
        weather.answer()
        seconds = time.monotonic() - begin
        judge.tell("judge")
        verdict: dict[str, Any] = judge.answer()
    total = verdict["_rankings"]
    print(f"\n{total:,} rankings by {options.annotators} people in {seconds:.0f} s; of these:")
    for name, count in verdict.items():
        print(f"  {name.replace('_', ' ').strip():32}{count:>9,}")
    return verdict | {"seconds": seconds}


# --- what the processes do


def work(options: argparse.Namespace) -> int:
    """Do what comes in on standard input, one word a line; say what came of it in JSON."""
    import django  # noqa: PLC0415

    django.setup()
    does = _roles()[options.worker[0]](*map(int, options.worker[1:]))
    for line in sys.stdin:
        result = does(*line.split())
        print(json.dumps(result), flush=True)
    return 0


def _roles() -> dict[str, Callable[..., Callable[..., Any]]]:
    """Each makes the function that is called with every line."""
    # Django's models can be imported only once it is set up.
    from benchmarks import _crowd, _storm  # noqa: PLC0415
    from labelhub.accounts.models import User  # noqa: PLC0415
    from labelhub.assignments.actions import claim_next, release  # noqa: PLC0415
    from labelhub.assignments.queries import queue_counts  # noqa: PLC0415
    from labelhub.projects.models import Project  # noqa: PLC0415

    def fill(annotators: int, slots: int) -> Callable[..., Any]:
        def run(_word: str) -> None:
            project, _people = _crowd.make_project("bench", annotators)
            _crowd.add_open_sets(project, slots)
            _crowd.settle()

        return run

    def crowd(first: int, count: int) -> Callable[..., Any]:
        project = Project.objects.get(slug="bench")
        people = list(User.objects.order_by("pk")[first : first + count])

        def claim(person: Any) -> float:
            begin = time.perf_counter()
            slot = claim_next(project=project, by=person)
            seconds = time.perf_counter() - begin
            assert slot is not None  # noqa: S101 - there is work for everybody
            release(slot_id=slot.pk, token=slot.lease_token, by=person)
            return seconds

        def count_up(person: Any) -> float:
            begin = time.perf_counter()
            queue_counts(project, person)
            return time.perf_counter() - begin

        def run(what: str) -> list[float]:
            some = people[:1] if what == "alone" else people
            times = CLAIMS * (5 if what == "alone" else 1)
            return in_threads(count_up if what == "count" else claim, some, times)

        return run

    return {"fill": fill, "crowd": crowd, **_storm.roles()}


def in_threads(do: Callable[[Any], float], people: list[Any], times: int) -> list[float]:
    """Let each of these people do it so many times, all at once; returns every time it took."""
    from django.db import connection, connections  # noqa: PLC0415

    gate = threading.Barrier(len(people))
    seconds: list[float] = []

    def run(person: Any) -> None:
        connection.ensure_connection()  # signing in to the database is no part of a claim
        gate.wait()
        try:
            for _ in range(times):
                seconds.append(do(person))
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run, args=(person,)) for person in people]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return seconds


if __name__ == "__main__":
    sys.exit(main())
