"""What does a reward model learn from a first round's few rankings? `./run bench few_rankings`

A model answers the demo's prompts, and a simulated annotator with a hidden preference ranks the
answers. For each seed a part of the prompts is held out, the rest is ranked with the annotator's
noise, and the reward stage learns from those rankings in several ways. Each is asked for the order
of the held-out answers and compared with the hidden preference itself, without noise.

    ./run bench few_rankings                             everything
    ./run bench few_rankings --seeds 0 1 --only shipped
    ./run bench few_rankings --config NAME='{"layers": 16}' --seeds 10 11
    ./run bench few_rankings --table                     what was measured before

Figures go to docs/measured/few_rankings.json after every run. Answers are written once, with seed
0, and serve all seeds; a seed chooses the held-out prompts, the noise and the trainer's start.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)  # before anything else: here lies a queue.py that is not Python's

import argparse
import json
import random
import tempfile
from collections.abc import Iterator
from statistics import fmean
from typing import Any

from benchmarks._figures import keep, mean_of, stored
from benchmarks._hidden import ranked
from benchmarks._stages import learned, lines_of, write, written
from benchmarks.speed import machine
from labelhub.autopilot.preferences import PREFERENCES

FIGURES = ROOT / "docs" / "measured" / "few_rankings.json"
ANSWERS, TOKENS, HELDOUT = 4, 32, 100
#: figures of a report
KEPT = ("pair_accuracy", "ci95", "pairs", "kendall_tau_b", "train_pair_accuracy", "ece",
        "train_rankings", "steps")  # fmt: skip
#: name → settings of the reward stage
WAYS: dict[str, dict[str, Any]] = {
    "shipped": {},
    "last token, fresh head": {"head_start": False, "even_reading": False},
    "fitted head alone": {"epochs": 0},
}


def main() -> int:
    """Run what was asked for, keep the figures, print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--only", nargs="+", help="some of the ways, by name")
    parser.add_argument("--config", nargs="+", default=[], help="further ways: NAME=JSON")
    parser.add_argument("--rankings", type=int, default=120, help="rankings to learn from")
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--preference", default="positive", choices=sorted(PREFERENCES))
    parser.add_argument("--keep", type=Path, help="a folder for the answers")
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    if not options.table:
        measure(options)
    print("\n".join(table(stored(FIGURES))))
    return 0


def measure(options: argparse.Namespace) -> None:
    """Every way for every seed."""
    named = dict(one.split("=", 1) for one in options.config)
    ways = WAYS | {name: json.loads(text) for name, text in named.items()}
    chosen = options.only or list(ways)
    with tempfile.TemporaryDirectory(prefix="labelhub-few-") as name:
        folder = Path(name)
        answers = answers_of(options.keep or folder / "answers", options.model)
        for seed in options.seeds:
            data = rank(folder / f"data{seed}", answers, options, seed)
            for way in chosen:
                place = folder / f"{seed}-{way}"
                found = learned(place, options.model, data, ways[way], seed, KEPT)
                keys = [options.model, options.preference, str(options.rankings), way, str(seed)]
                keep(FIGURES, keys, found | {"config": ways[way], "cpu": machine(1)["cpu"]})
                sys.stderr.write(f"{' '.join(keys)}: {found['pair_accuracy']:.3f}\n")


def answers_of(folder: Path, model: str) -> list[dict[str, Any]]:
    """The model's answers to all prompts; those of an earlier time if they are there."""
    if not (folder / "out" / "answers.jsonl").is_file():
        written(folder, model, {"answers": ANSWERS, "max_new_tokens": TOKENS})
    return lines_of(folder / "out")


def rank(
    folder: Path, answers: list[dict[str, Any]], options: argparse.Namespace, seed: int
) -> Path:
    """Noisy rankings to learn from, and the hidden order of the held-out answers."""
    dice = random.Random(seed)
    prompts = sorted({line["prompt_id"] for line in answers})
    dice.shuffle(prompts)
    held, used = prompts[:HELDOUT], prompts[HELDOUT : HELDOUT + options.rankings]
    to_learn, to_test = (
        [answer for answer in answers if answer["prompt_id"] in some] for some in (used, held)
    )
    write(folder / "rankings.jsonl", ranked(to_learn, options.preference, dice))
    write(folder / "heldout.jsonl", ranked(to_test, options.preference, dice, noisy=False))
    return folder


# --- figures


def table(figures: dict[str, Any]) -> Iterator[str]:
    """The figures as Markdown, each way beside what is shipped on the seeds that both have."""
    yield (
        "| model, preference, rankings | way | seeds | held-out pairs right | shipped less this "
        "| τ-b | seconds |"
    )
    yield "|---|---|---|---|---|---|---|"
    groups = [
        (f"{model}, {preference}, {count}", ways)
        for model, preferences in figures.items()
        for preference, counts in preferences.items()
        for count, ways in counts.items()
    ]
    for name, ways in groups:
        for way, runs in ways.items():
            own = list(runs.values())
            yield (
                f"| {name} | {way} | {len(own)} "
                f"| {mean_of([run['pair_accuracy'] for run in own], 3)} "
                f"| {lead(ways.get('shipped', {}), runs) if way != 'shipped' else ''} "
                f"| {fmean(run['kendall_tau_b'] for run in own):.2f} "
                f"| {fmean(run['seconds'] for run in own):.0f} |"
            )


def lead(shipped: dict[str, Any], runs: dict[str, Any]) -> str:
    """How much more accurate the shipped way is, seed by seed."""
    gains = [
        shipped[seed]["pair_accuracy"] - run["pair_accuracy"]
        for seed, run in runs.items()
        if seed in shipped
    ]
    return mean_of(gains, 3) if gains else ""


if __name__ == "__main__":
    sys.exit(main())
