"""How quick are the pages while a run trains, and what does the run lose to the pages?

A copy of the embedded demo is served; one person after the other opens pages, with a short pause
between two, as in `PAUSE`. Beside that a real trainer process writes answers, once for each way to
share the cores. Prints for each: the pages' median and 95th percentile in milliseconds, and the
trainer's seconds with the pages and without.

    ./run bench pages [--prompts 8] [--model smollm2] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)

from labelhub.lib.guard import guarded
from scripts.demo_copy import demo_copy, open_session, served
from scripts.terminal import VAR, Failure

PAUSE = 0.1  # seconds between two pages
IDLE_SECONDS = 10.0
CORES = os.cpu_count() or 1


class Sharing(NamedTuple):
    """One way to share the cores between pages and trainer; 0 threads: the trainer's default."""

    name: str
    threads: int
    nice: int


SHARINGS = (
    Sharing("as LabelHub does it", threads=0, nice=5),
    Sharing("one core free, not nice", threads=0, nice=0),
    Sharing("all cores, nice", threads=CORES, nice=5),
    Sharing("all cores, not nice", threads=CORES, nice=0),
)


def main() -> int:
    """Measure every way, print a table."""
    parser = argparse.ArgumentParser(description="Pages beside a training run.")
    parser.add_argument("--prompts", type=int, default=8, help="prompts that the trainer answers")
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--json", type=Path, help="write the figures there, too")
    options = parser.parse_args()
    try:
        figures = measure(options.model, options.prompts)
    except Failure as failure:
        sys.stderr.write(f"{failure}\n")
        return 1
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 0


def measure(model: str, prompts: int) -> dict[str, Any]:
    """Return all figures; prints each line as soon as it is known."""
    with demo_copy() as var:
        opens = page_openers()
        with served(var) as address:
            load = Load(address, opens)
            load.during(lambda: False, seconds=3)  # the first pages compile templates
            idle = load.during(lambda: True, seconds=IDLE_SECONDS)
            print(f"{CORES} cores, load of the machine before: {os.getloadavg()[0]:.1f}")
            print(f"{'':26}{'page median':>14}{'page p95':>12}{'trainer beside pages, alone':>30}")
            print(f"{'no run':26}{idle['median_ms']:11.0f} ms{idle['p95_ms']:9.0f} ms")
            rows = {sharing.name: row(sharing, load, var, model, prompts) for sharing in SHARINGS}
    return {"cores": CORES, "model": model, "prompts": prompts, "no run": idle, "with run": rows}


def row(sharing: Sharing, load: Load, var: Path, model: str, prompts: int) -> dict[str, float]:
    """Measure one way, first with and then without pages."""
    with trainer(sharing, var, model, prompts) as process:
        begin = time.monotonic()
        pages = load.during(lambda: process.poll() is None)
        beside = time.monotonic() - begin
    with trainer(sharing, var, model, prompts) as process:
        begin = time.monotonic()
        process.wait()
        alone = time.monotonic() - begin
    print(
        f"{sharing.name:26}{pages['median_ms']:11.0f} ms{pages['p95_ms']:9.0f} ms"
        f"{beside:20.1f} s{alone:7.1f} s",
        flush=True,
    )
    return pages | {"trainer_beside_s": beside, "trainer_alone_s": alone}


def page_openers() -> list[tuple[str, str]]:
    """Return (path, session) of the pages that people open most."""
    from labelhub.accounts.models import User  # noqa: PLC0415 - needs Django on the copy
    from labelhub.projects.models import Project  # noqa: PLC0415

    project = Project.objects.order_by("is_simulated", "pk").first()
    admin = User.objects.filter(is_superuser=True).first()
    if project is None or admin is None:
        raise Failure("There is no project to open yet: run ./run once.")
    User.objects.update(must_change_password=False)
    member = project.memberships.exclude(user=admin).filter(user__is_simulated=False).first()
    opens = [
        ("/dashboard/", open_session(admin)),
        (f"/dashboard/{project.slug}/", open_session(admin)),
        (f"/dashboard/{project.slug}/runs/", open_session(admin)),
    ]
    return [*opens, ("/annotate/", open_session(member.user))] if member else opens


class Load:
    """One person after the other opens the pages."""

    def __init__(self, address: str, opens: list[tuple[str, str]]) -> None:
        self.address, self.opens = address, opens
        self.client = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def during(
        self, wanted: Callable[[], bool], *, seconds: float = float("inf")
    ) -> dict[str, float]:
        """Open pages while `wanted`, at least once each, at most for `seconds`."""
        taken: list[float] = []
        deadline = time.monotonic() + seconds
        for path, session in self._forever():
            if len(taken) >= len(self.opens) and (not wanted() or time.monotonic() > deadline):
                break
            request = urllib.request.Request(  # noqa: S310 - our own server
                f"{self.address}{path}", headers={"Cookie": f"sessionid={session}"}
            )
            begin = time.monotonic()
            self.client.open(request, timeout=60).read()
            taken.append(1000 * (time.monotonic() - begin))
            time.sleep(PAUSE)
        ordered = sorted(taken)
        return {
            "median_ms": statistics.median(ordered),
            "p95_ms": ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))],
            "pages": len(ordered),
        }

    def _forever(self) -> Iterator[tuple[str, str]]:
        while True:
            yield from self.opens


@contextmanager
def trainer(
    sharing: Sharing, var: Path, model: str, prompts: int
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a real trainer process that answers the first demo prompts; it must finish."""
    folder = var / f"bench-{time.monotonic_ns()}"
    (folder / "data").mkdir(parents=True)
    fixture = ROOT / "labelhub" / "prompts" / "fixtures" / "demo_prompts.en.jsonl"
    lines = fixture.read_text().splitlines()[:prompts]
    (folder / "data" / "prompts.jsonl").write_text("\n".join(lines) + "\n")
    spec = {
        "stage": "generate",
        "seed": 0,
        "config": {"answers": 4, "threads": sharing.threads},
        "inputs": {"policy": model, "prompts": "data/prompts.jsonl"},
    }
    (folder / "spec.json").write_text(json.dumps(spec))
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OMP_")}
    process = subprocess.Popen(
        guarded([sys.executable, "-m", "trainer", "run", str(folder)], nice=sharing.nice),
        cwd=ROOT,
        env={"LABELHUB_MODELS": str(VAR / "models")} | kept,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.kill()  # does nothing when it has ended
    if process.wait() != 0:
        events = (folder / "events.jsonl").read_text().splitlines()
        raise Failure(f"The trainer failed: {events[-1] if events else 'it wrote no event'}")


if __name__ == "__main__":
    sys.exit(main())
