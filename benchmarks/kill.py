"""Does every run survive being killed at any moment? `./run bench kill`

Small runs of every stage are killed at random moments, half of the times with SIGKILL and half with
SIGTERM, and started again, until the kills are used up and each run has come to its end. Each must
end with the very bytes of an undisturbed run, leave no process and no file behind, and answer
SIGTERM by exit code 75 (or 0, when it was through).

    ./run bench kill [--kills 100] [--seed 0] [--stages ppo sft] [--json FILE] [--more]

Choices
- A run is a child that is forked from a process in which the libraries are imported already, so
  that moments fall upon the stage's own work and not upon Python's start. Moments are uniform over
  the processor time that the undisturbed run took, whatever else the machine does meanwhile.
- A run is killed up to three times before it may end.
- `--more` adds to the runs that the file holds already, with moments of their own.
Not here: a machine that loses its power; files are flushed, but no test of ours can show it.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)  # before anything else: here lies a queue.py that is not Python's

import argparse
import importlib
import json
import os
import random
import resource
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from numba.core.caching import FunctionCache

from tests import forked
from tests.trainer import every_stage
from trainer.__main__ import FAILED, FINISHED, STOPPED
from trainer.__main__ import main as trainer
from trainer.config import CONFIGS
from trainer.decoding import WORKERS
from trainer.events import read_events
from trainer.manifests import folder_hash, verify_manifest

#: kills that one run meets at most
MOST = 3
#: seconds after which a run counts as one that hangs
PATIENCE = 120.0


@dataclass
class Run:
    """One run from its first start to its end."""

    name: str
    kills: list[dict[str, Any]] = field(default_factory=list)
    starts: int = 0
    end: str = ""  # same hash | other hash | the sentence of its failure
    hash: str = ""
    faults: list[str] = field(default_factory=list)


def main() -> int:
    """Kill, start again, compare; prints the table; exit code 0 says that all is well."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--stages", nargs="*", choices=sorted(every_stage.RUNS))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--more", action="store_true", help="add to the runs of that file")
    options = parser.parse_args()
    for library in ("torch", *(f"trainer.stages.{stage}" for stage in CONFIGS)):
        importlib.import_module(library)
    earlier = []
    if options.more and options.json and options.json.exists():
        earlier = [Run(**run) for run in json.loads(options.json.read_text("utf-8"))["runs"]]
    with tempfile.TemporaryDirectory(prefix="labelhub-kill-") as folder:
        names = options.stages or list(every_stage.RUNS)
        runs = kill_runs(Path(folder), names, options.kills, options.seed + len(earlier))
    results = figures([*earlier, *runs])
    sys.stdout.write(table(results) + "\n")
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    return 0 if results["well"] else 1


def kill_runs(folder: Path, names: Sequence[str], kills: int, seed: int) -> list[Run]:
    """Runs of these names in turn until that many kills have hit one."""
    dice = random.Random(seed)
    things = every_stage.make_things(folder / "things")
    calm = {name: undisturbed(folder / "calm" / name, things, name) for name in names}
    runs: list[Run] = []
    left = kills
    while left > 0:
        name = names[len(runs) % len(names)]
        where = folder / f"run{len(runs)}"
        run = disturbed(where, things, name, calm[name], dice, min(left, dice.randint(1, MOST)))
        runs.append(run)
        left -= len(run.kills)
    return runs


def undisturbed(folder: Path, things: dict[str, Path], name: str) -> tuple[str, float]:
    """(hash of the result, seconds of processor time) of a run that is left alone."""
    every_stage.make(folder, things, name)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    ended = forked.run(lambda: trainer(["run", str(folder)]), output_of(folder), PATIENCE)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if ended.code != FINISHED:
        raise SystemExit(f"{name} does not even run undisturbed:\n{ended.output[-3000:]}")
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return folder_hash(folder / "out"), used


def used_by(pid: int) -> float:
    """Seconds of processor time that a child has had."""
    parts = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(parts[11]) + int(parts[12])) / os.sysconf("SC_CLK_TCK")


def output_of(folder: Path) -> Path:
    """Where a run's prints go: beside its folder, in which nothing may lie that is not its own."""
    return folder.with_name(folder.name + ".log")


def disturbed(
    folder: Path,
    things: dict[str, Path],
    name: str,
    calm: tuple[str, float],
    dice: random.Random,
    kills: int,
) -> Run:
    """One run that is killed so many times, unless it ends before, and then left alone."""
    every_stage.make(folder, things, name)
    scratch = folder.with_name(folder.name + ".tmp")
    scratch.mkdir()
    run = Run(name)
    before = half_compiled()
    code = STOPPED
    while code != FINISHED and run.starts < MOST + 2:
        run.starts += 1
        pid = forked.start(lambda: work(folder, scratch), output_of(folder))
        if len(run.kills) < kills:
            kill(run, pid, folder, dice.uniform(0, calm[1]), dice.choice(["KILL", "TERM"]))
        code = forked.wait(pid, PATIENCE)
        if run.kills and run.kills[-1]["code"] is None:
            run.kills[-1]["code"] = code
        if forked.has_members(pid):
            run.faults.append(f"start {run.starts} left a process behind")
        if code not in expected(run):
            break
    judge(run, folder, code, calm[0])
    run.faults += [f"left behind: {path}" for path in litter(folder, scratch, before)]
    return run


def work(folder: Path, scratch: Path) -> int:
    """What the child does; whoever wants a temporary file gets it where it would be found."""
    os.environ["TMPDIR"] = tempfile.tempdir = str(scratch)
    return trainer(["run", str(folder)])


def kill(run: Run, pid: int, folder: Path, after: float, name: str) -> None:
    """Send the signal after so many seconds of the child's own time, unless it has ended."""
    until = time.monotonic() + PATIENCE
    while used_by(pid) < after and time.monotonic() < until:
        time.sleep(0.002)
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            return
    os.kill(pid, getattr(signal, f"SIG{name}"))
    told = list(read_events(folder))
    last = f"{told[-1]['kind']} {told[-1].get('step', '')}".strip() if told else "nothing"
    run.kills.append({"signal": name, "after": round(after, 3), "behind": last, "code": None})


def expected(run: Run) -> tuple[int, ...]:
    """The codes by which the latest start may have ended."""
    if not run.kills:
        return (FINISHED,)
    # A child that is asked before it listens ends at once, like any program.
    codes = {"KILL": (-signal.SIGKILL, FINISHED), "TERM": (STOPPED, FINISHED, -signal.SIGTERM)}
    return (FINISHED, *codes[run.kills[-1]["signal"]])


def judge(run: Run, folder: Path, code: int, wanted: str) -> None:
    """How the run ended, against the undisturbed one."""
    told = list(read_events(folder))
    if code == FINISHED:
        damage = verify_manifest(folder / "out")
        run.hash = folder_hash(folder / "out") if not damage else ""
        run.end = "same hash" if run.hash == wanted else "other hash"
        run.faults += damage
    elif code == FAILED and told and told[-1]["kind"] == "failed":
        run.end = told[-1]["message"]
    else:
        run.end = f"exit code {code}"
    if run.end != "same hash":
        run.faults.append(run.end)
        run.faults.append(output_of(folder).read_text("utf-8")[-2000:])


def litter(folder: Path, scratch: Path, before: set[str]) -> list[str]:
    """Files that no finished run may leave; `before` it lay beside what was compiled."""
    own = {"spec.json", "events.jsonl", "checkpoints", "out"}
    names = [path.name for path in folder.iterdir() if path.name not in own]
    names += [p.name for p in folder.glob("checkpoints/*") if not p.name.startswith("step_")]
    damaged = [p.name for p in folder.glob("checkpoints/step_*") if verify_manifest(p)]
    names += damaged + [path.name for path in scratch.rglob("*")]
    return names + sorted(half_compiled() - before)


def half_compiled() -> set[str]:
    """What the compiler has begun to write and not yet given its name."""
    return {path.name for path in compiler_cache().glob("*.tmp.*")}


def compiler_cache() -> Path:
    """Where the compiler keeps what it made for sampling."""
    function = next(iter(WORKERS["attend"].values()))
    return Path(FunctionCache(function).cache_path)


def figures(runs: Sequence[Run]) -> dict[str, Any]:
    """What came of it: a line for each stage, and every run."""
    lines = []
    for name in dict.fromkeys(run.name for run in runs):
        own = [run for run in runs if run.name == name]
        hit = [kill for run in own for kill in run.kills]
        signals = Counter(kill["signal"] for kill in hit)
        lines.append(
            {
                "stage": name,
                "runs": len(own),
                "kills": len(hit),
                "sigkill": signals["KILL"],
                "sigterm": signals["TERM"],
                "stopped": sum(kill["code"] == STOPPED for kill in hit),
                "same_hash": sum(run.end == "same hash" for run in own),
                "faults": sum(bool(run.faults) for run in own),
            }
        )
    return {
        "kills": sum(line["kills"] for line in lines),
        "well": not any(run.faults for run in runs),
        "stages": lines,
        "runs": [asdict(run) for run in runs],
    }


def table(results: dict[str, Any]) -> str:
    """The figures as Markdown."""
    lines = [
        f"{results['kills']} kills of {len(results['runs'])} runs.",
        "",
        "| stage | runs | SIGKILL | SIGTERM | answered by 75 | same bytes | faults |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {line['stage']} | {line['runs']} | {line['sigkill']} | {line['sigterm']} "
        f"| {line['stopped']} | {line['same_hash']} | {line['faults']} |"
        for line in results["stages"]
    ]
    bad = [run for run in results["runs"] if run["faults"]]
    lines += [f"\n{run['name']} {run['kills']}: " + "; ".join(run["faults"]) for run in bad]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
