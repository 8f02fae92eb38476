"""How fast is the trainer beside what a user would pick instead? `./run bench speed`

Every comparison runs its sides one after the other as processes of their own, several times over,
so that all of them meet the same machine. Of each turn the ratio is taken, then the median and the
range over the turns. Figures are kept in docs/measured/speed.json comparison by comparison.

    ./run bench speed                        every comparison, five turns
    ./run bench speed --only generate start  some of them
    ./run bench speed --setup                make what the other sides need, measure nothing
    ./run bench speed --table                show what was measured before

Choices
- A side is a script that prints one line of JSON at its end: `units` of work, `seconds` for them
  without loading, `cpu_seconds`, `peak_mb`. It is told the number of threads and a seed.
- The order is turned round in every second turn, so that a drift of the machine harms both.
- Processor time that others took meanwhile (`foreign`, in cores) is kept beside each figure.
Not here: what is measured; that is in the scripts `_speed_*.py`.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)  # before anything else: here lies a queue.py that is not Python's

import argparse
import importlib.metadata
import json
import math
import os
import platform
import resource
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from statistics import geometric_mean, median
from typing import Any, TypedDict

from benchmarks import _figures

FIGURES = ROOT / "docs" / "measured" / "speed.json"
HERE = "benchmarks"


class Turn(TypedDict):
    """What one run of one side gave."""

    units: float
    seconds: float
    cpu_seconds: float
    peak_mb: float
    foreign: float  # cores that others kept busy meanwhile


@dataclass(frozen=True)
class Target:
    """One line of the table: two sides of a comparison and what their ratio should be."""

    what: str
    ours: str
    theirs: str
    measure: str  # rate: units a second; peak_mb and seconds: less is better
    least: float | None = None
    aim: float | None = None


@dataclass(frozen=True)
class Comparison:
    """Sides that are run in turns, and the targets that they decide."""

    name: str
    sides: dict[str, tuple[str, ...]]  # name → script and arguments
    targets: tuple[Target, ...]
    setup: tuple[tuple[str, ...], ...] = field(default=())


def _reward(answers: int, least: float, aim: float) -> Comparison:
    """The reward model on rankings of so many answers."""
    script = ("_speed_reward.py", "--answers", str(answers))
    return Comparison(
        f"reward-{answers}",
        {side: (*script, "--side", side) for side in ("ours", "trl")},
        (Target(f"reward model, rankings a second, K = {answers}, TRL 1.16 on the same as pairs",
                "ours", "trl", "rate", least, aim),),
    )  # fmt: skip


COMPARISONS = (
    _reward(4, 4, 5),
    _reward(9, 8, 12),
    Comparison(
        "sft",
        {side: ("_speed_sft.py", "--side", side) for side in ("ours", "trl")},
        (
            Target("fine-tuning, answers a second, TRL 1.16 SFTTrainer", "ours", "trl", "rate"),
            Target("fine-tuning, peak memory, TRL 1.16 SFTTrainer", "ours", "trl", "peak_mb"),
        ),
    ),
    Comparison(
        "ppo",
        {side: ("_speed_ppo.py", "--side", side) for side in ("ours-head", "ours-adapter", "trl")},
        (
            Target("PPO, episodes a second, critic a head on the trunk, TRL 1.12",
                   "ours-head", "trl", "rate", 3.5, 5),
            Target("PPO, episodes a second, critic an adapter of its own, TRL 1.12",
                   "ours-adapter", "trl", "rate", 2.5, 4),
            Target("PPO, peak memory, critic a head on the trunk, TRL 1.12",
                   "ours-head", "trl", "peak_mb", 1 / 3, 1 / 5),
            Target("PPO, peak memory, critic an adapter of its own, TRL 1.12",
                   "ours-adapter", "trl", "peak_mb", 1 / 3, 1 / 5),
        ),
        setup=(("_speed_ppo.py", "--setup"),),
    ),
    Comparison(
        "generate",
        {
            side: ("_speed_generate.py", "--side", side)
            for side in ("ours", "transformers", "llama")
        },
        (
            Target("answers, tokens a second, batch 64, transformers generate",
                   "ours", "transformers", "rate", 3, 6),
            Target("answers, tokens a second, batch 64, llama.cpp",
                   "ours", "llama", "rate", None, 1),
        ),
        setup=(("_speed_generate.py", "--setup"),),
    ),
    Comparison(
        "generate-conversations",
        {
            side: ("_speed_generate.py", "--conversations", "--side", side)
            for side in ("ours", "transformers")
        },
        (
            Target("answers to HH-RLHF's conversations, tokens a second, batch 64, transformers "
                   "generate", "ours", "transformers", "rate", 3, 6),
        ),
    ),
    Comparison(
        "start",
        {
            side: ("_speed_start.py", "--side", side)
            for side in ("generate", "reward", "ppo", "import-trainer", "import-trl")
        },
        tuple(
            Target(f"start of {stage} (process to first step), {against}", stage, side,
                   "seconds", 1, 0.5)
            for side, against in (
                ("import-trainer", "from trl import RewardTrainer"),
                ("import-trl", "import trl alone (which loads nothing)"),
            )
            for stage in ("generate", "reward", "ppo")
        ),
    ),
)  # fmt: skip


class Failed(Exception):
    """A side that gave no figures, in a sentence."""


def main() -> int:
    """Run what was asked for, keep it, and print the table."""
    options = read_options()
    wanted = [one for one in COMPARISONS if options.only is None or one.name in options.only]
    failed = []
    for comparison in [] if options.table else wanted:
        try:
            if options.setup:
                set_up(comparison)
            else:
                keep(comparison.name, measure(comparison, options.alternations, options.threads))
        except Failed as failure:
            sys.stderr.write(f"{comparison.name}: {failure}\n")
            failed.append(comparison.name)
    if not options.setup:
        print("\n".join(table(_figures.stored(FIGURES))))
    if failed:
        sys.stderr.write(f"Without figures: {', '.join(failed)} (see above).\n")
    return 1 if failed else 0


def read_options() -> argparse.Namespace:
    """The command line; `--only reward` stands for all that begin so."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    groups = sorted({one.name.partition("-")[0] for one in COMPARISONS})
    names = [one.name for one in COMPARISONS]
    parser.add_argument("--only", nargs="+", choices=sorted({*groups, *names}))
    parser.add_argument("--alternations", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--setup", action="store_true")
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    if options.only is not None:
        options.only = {
            n for n in names for one in options.only if n == one or n.startswith(f"{one}-")
        }
    return options


def set_up(comparison: Comparison) -> None:
    """Make what a side needs besides the project's own environment."""
    for command in comparison.setup:
        done = subprocess.run([sys.executable, f"{HERE}/{command[0]}", *command[1:]], cwd=ROOT)
        if done.returncode:
            raise Failed(f"{' '.join(command)} ended with {done.returncode}")


# --- measuring


def measure(comparison: Comparison, alternations: int, threads: int) -> dict[str, Any]:
    """Every side so many times, in turns."""
    turns: dict[str, list[Turn]] = {side: [] for side in comparison.sides}
    for number in range(alternations):
        order = list(comparison.sides)
        for side in order if number % 2 == 0 else reversed(order):
            turn = run_side(comparison.sides[side], threads, seed=number)
            turns[side].append(turn)
            sys.stderr.write(
                f"{comparison.name} {number + 1}/{alternations} {side}: {tell(turn)}\n"
            )
    return {
        "measured": time.strftime("%Y-%m-%d %H:%M", time.gmtime()),
        "machine": machine(threads),
        "sides": turns,
    }


def tell(turn: Turn) -> str:
    """A turn in half a line."""
    return (
        f"{turn['units'] / turn['seconds']:.4g} a second ({turn['seconds']:.2f} s, "
        f"{turn['cpu_seconds']:.1f} s of processor), {turn['peak_mb']:.0f} MB, "
        f"foreign {turn['foreign']:.2f}"
    )


def run_side(command: Sequence[str], threads: int, seed: int) -> Turn:
    """Run one side as a process of its own and read its last line."""
    whole = [
        *(sys.executable, f"{HERE}/{command[0]}", *command[1:]),
        *("--threads", str(threads), "--seed", str(seed)),
    ]
    environment = dict(os.environ) | {
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
    }
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # nobody compiles modules at every start
    load = Load()
    done = subprocess.run(whole, cwd=ROOT, env=environment, capture_output=True, text=True)
    foreign = load.foreign()
    name = " ".join(command)
    if done.returncode:
        raise Failed(f"{name} ended with {done.returncode}: {done.stderr.strip()[-2000:]}")
    lines = done.stdout.strip().splitlines()
    try:
        found = json.loads(lines[-1])
        return Turn(
            **{key: float(found[key]) for key in ("units", "seconds", "cpu_seconds", "peak_mb")},
            foreign=round(foreign, 3),
            **{key: value for key, value in found.items() if key not in Turn.__annotations__},
        )
    except (IndexError, ValueError, KeyError, TypeError) as error:
        raise Failed(f"the last line of {name} is not the JSON that is wanted ({error})") from None


class Load:
    """How many cores others keep busy from now on."""

    def __init__(self) -> None:
        self.began, self.busy, self.own = time.perf_counter(), busy_seconds(), own_seconds()

    def foreign(self) -> float:
        """Cores, on the mean since the start; what our ended children took is ours."""
        elapsed = time.perf_counter() - self.began
        theirs = (busy_seconds() - self.busy) - (own_seconds() - self.own)
        return max(theirs, 0.0) / elapsed


def busy_seconds() -> float:
    """Processor seconds that the machine was not idle, and those taken by its host."""
    fields = Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    user, nice, system, _idle, _wait, irq, softirq, steal = (int(x) for x in fields[:8])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def own_seconds() -> float:
    """Processor seconds of this process and its ended children."""
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in both)


def machine(threads: int) -> dict[str, Any]:
    """What the figures were measured on."""
    cpu = Path("/proc/cpuinfo").read_text()
    fields = dict(line.split(":", 1) for line in cpu.splitlines() if ":" in line)
    about = {key.strip(): value.strip() for key, value in fields.items()}
    flags = set(about.get("flags", "").split())
    wanted = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_tile", "amx_bf16")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": about.get("model name", platform.processor()),
        "family": f"{about.get('cpu family', '?')}/{about.get('model', '?')}",
        "flags": [flag for flag in wanted if flag in flags],
        "cores": os.cpu_count(),
        "threads": threads,
        "memory_gb": round(memory / 2**30, 1),
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in ("torch", "transformers", "trl")},
    }


# --- figures


def keep(name: str, result: dict[str, Any]) -> None:
    """Put a comparison's figures in place of its old ones."""
    result["ratios"] = [
        {"what": target.what, **summary(ratios(target, result["sides"]))}
        for target in next(one for one in COMPARISONS if one.name == name).targets
    ]
    _figures.keep(FIGURES, [name], result)


def ratios(target: Target, turns: dict[str, list[Turn]], *, cpu: bool = False) -> list[float]:
    """Ours over theirs, turn by turn; with `cpu` by processor seconds instead of the clock's."""

    def value(turn: Turn) -> float:
        if target.measure == "peak_mb":
            return turn["peak_mb"]
        seconds = turn["cpu_seconds"] if cpu else turn["seconds"]
        return turn["units"] / seconds if target.measure == "rate" else seconds

    both = zip(turns[target.ours], turns[target.theirs], strict=True)
    return [value(ours) / value(theirs) for ours, theirs in both]


def summary(values: Sequence[float]) -> dict[str, float]:
    """Middle and ends."""
    return {
        "median": round(median(values), 4),
        "low": round(min(values), 4),
        "high": round(max(values), 4),
        "geometric_mean": round(geometric_mean(values), 4),
        "turns": len(values),
    }


def verdict(target: Target, found: float) -> str:
    """Whether a ratio reaches what was wanted."""
    less = target.measure != "rate"

    def reaches(wanted: float) -> bool:
        return found <= wanted if less else found >= wanted

    if target.aim is not None and reaches(target.aim):
        return "aim reached"
    if target.least is None:
        return "stated"
    return "reached" if reaches(target.least) else "missed"


def table(figures: dict[str, Any]) -> Iterator[str]:
    """The figures as Markdown, those that are missing named."""
    yield "| what, against what | ratio: median (range) | by processor time | at least | aim | |"
    yield "|---|---|---|---|---|---|"
    for comparison in COMPARISONS:
        result = figures.get(comparison.name)
        for target in comparison.targets:
            wanted = f"{bound(target.least)} | {bound(target.aim)}"
            if result is None:
                yield f"| {target.what} | not measured | | {wanted} | |"
                continue
            wall = summary(ratios(target, result["sides"]))
            cpu = "" if target.measure == "peak_mb" else spread(
                summary(ratios(target, result["sides"], cpu=True))
            )  # fmt: skip
            yield (
                f"| {target.what} | {spread(wall)} | {cpu} | {wanted} "
                f"| {verdict(target, wall['median'])} |"
            )
    for name, result in figures.items():
        yield from ("", f"{name}, {result['measured']}, {result['machine']['threads']} threads:")
        for side, turns in result["sides"].items():
            middle = median(turn["units"] / turn["seconds"] for turn in turns)
            foreign = max(turn["foreign"] for turn in turns)
            peak = max(turn["peak_mb"] for turn in turns)
            yield (
                f"- {side}: {middle:.4g} a second, {median(t['seconds'] for t in turns):.2f} s, "
                f"{peak:.0f} MB, others took up to {foreign:.2f} cores"
            )


def bound(value: float | None) -> str:
    """A target as people write it."""
    if value is None:
        return "stated"
    return (
        f"1/{1 / value:.0f}" if 0 < value < 0.5 and not math.isclose(value, 0.5) else f"{value:g}"
    )


def spread(found: dict[str, float]) -> str:
    """Median (range)."""
    return f"{found['median']:.2f} ({found['low']:.2f} to {found['high']:.2f})"


if __name__ == "__main__":
    sys.exit(main())
