"""What does an ensemble of reward heads cost and gain? `./run bench ensemble`

A model answers the demo's prompts, a simulated annotator with a hidden preference ranks them, and
for each seed the reward stage is run twice on the same rankings, with one head and with several.
Prints held-out accuracy and seconds of both, and whether pairs over which the members disagree are
the ones that are ordered wrongly.

    ./run bench ensemble [--seeds 5] [--members 4] [--json docs/measured/ensemble.json]
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)  # before anything else: here lies a queue.py that is not Python's

import argparse
import json
import random
import tempfile
from statistics import fmean
from typing import Any

from benchmarks._figures import half_width
from benchmarks._hidden import ranked
from benchmarks._stages import learned, lines_of, write, written
from labelhub.autopilot.preferences import PREFERENCES

ANSWERS, TOKENS = 4, 32
HELDOUT = 0.4  # of the prompts
#: figures of a report
KEPT = ("pair_accuracy", "ci95", "pairs", "train_pair_accuracy", "ece", "ensemble")


def main() -> int:
    """Run both ways for every seed and print what came of it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--members", type=int, default=4)
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--preference", default="positive", choices=sorted(PREFERENCES))
    parser.add_argument("--json", type=Path, help="keep the figures in this file")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory(prefix="labelhub-ensemble-") as name:
        folder = Path(name)
        config = {"answers": ANSWERS, "max_new_tokens": TOKENS}
        answers = lines_of(written(folder / "generate", options.model, config, options.prompts))
        for seed in range(options.seeds):
            data = rank(folder / f"data{seed}", answers, options.preference, seed)
            # Which comes first changes, so that a machine that slows down harms both alike.
            heads = (1, options.members) if seed % 2 else (options.members, 1)
            found = {
                count: learned(
                    folder / f"{seed}-{count}", options.model, data, {"ensemble": count}, seed, KEPT
                )
                for count in heads
            }
            rows.append({"seed": seed, "one": found[1], "several": found[options.members]})
            sys.stderr.write(f"seed {seed} is done\n")
    results = {
        "model": options.model, "prompts": options.prompts, "members": options.members, "rows": rows
    }  # fmt: skip
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(table(results))
    return 0


def rank(folder: Path, answers: list[dict[str, Any]], preference: str, seed: int) -> Path:
    """Rankings by the hidden preference with its noise; those held out in a file of their own."""
    dice = random.Random(seed)
    lines = ranked(answers, preference, dice)
    dice.shuffle(lines)
    border = round(HELDOUT * len(lines))
    write(folder / "heldout.jsonl", lines[:border])
    write(folder / "rankings.jsonl", lines[border:])
    return folder


def table(results: dict[str, Any]) -> str:
    """The figures as Markdown."""
    members = results["members"]
    lines = [
        f"{results['model']}, {results['prompts']} rankings of {ANSWERS} answers, {HELDOUT:.0%} of "
        "them held out.",
        "",
        f"| seed | one head | {members} heads | each of them | spread | right where they disagree "
        f"less; more | seconds, one; {members} |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in results["rows"]:
        one, several = row["one"], row["several"]
        own = several["ensemble"]
        halves = "; ".join(
            f"{own['by_disagreement'][k]['pair_accuracy']:.3f}" for k in ("less", "more")
        )
        each = ", ".join(f"{x:.3f}" for x in own["pair_accuracy"])
        lines.append(
            f"| {row['seed']} | {one['pair_accuracy']:.3f} | {several['pair_accuracy']:.3f} "
            f"| {each} | {own['spread']:.2f} | {halves} "
            f"| {one['seconds']:.0f}; {several['seconds']:.0f} |"
        )
    gains = [row["several"]["pair_accuracy"] - row["one"]["pair_accuracy"]
             for row in results["rows"]]  # fmt: skip
    seconds = [row["several"]["seconds"] / row["one"]["seconds"] - 1 for row in results["rows"]]
    lines += [
        "",
        f"Accuracy {_mean(gains)}; time {fmean(seconds):+.1%} (means of {len(gains)} seeds, 95 % "
        "by Student's t).",
    ]
    return "\n".join(lines)


def _mean(values: list[float]) -> str:
    """Mean with its interval over seeds."""
    mean = fmean(values)
    if len(values) < 2:
        return f"{mean:+.3f}"
    half = half_width(values)
    return f"{mean:+.3f} ({mean - half:+.3f} to {mean + half:+.3f})"


if __name__ == "__main__":
    sys.exit(main())
