"""How much better does one round make the policy? `./run bench loop`

Runs `manage.py autopilot` once for each seed, in a project of its own, and prints a Markdown table
of all of them, good or bad. The hidden preference is VADER sentiment.

    ./run bench loop --seeds 1 2 3 4 5 --json docs/measured/loop.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from statistics import fmean
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    """Run the seeds one after the other and print what came of them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--preference", default="positive")
    parser.add_argument("--json", type=Path, help="keep the figures in this file")
    parser.add_argument("--show", type=Path, help="only print the table of such a file")
    options = parser.parse_args()
    if options.show:
        sys.stdout.write(table(json.loads(options.show.read_text(encoding="utf-8"))) + "\n")
        return
    results: dict[str, Any] = {"machine": machine(), "model": options.model, "seeds": {}}
    for seed in options.seeds:
        results["seeds"][str(seed)] = run_seed(seed, options.model, options.preference)
        if options.json:
            options.json.parent.mkdir(parents=True, exist_ok=True)
            options.json.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    sys.stdout.write(table(results) + "\n")


def run_seed(seed: int, model: str, preference: str) -> dict[str, Any]:
    """One round in a fresh project; returns its entry with two pairs of sample answers."""
    name = f"bench-{model}-{preference}-{seed}-{os.getpid()}"
    var = Path(os.environ.get("LABELHUB_VAR") or ROOT / "var")
    figures = var / "bench" / f"{name}.json"
    command = [sys.executable, "manage.py", "autopilot", "--project", name, "--model", model]
    command += ["--preference", preference, "--seed", str(seed), "--json", str(figures)]
    subprocess.run(command, cwd=ROOT, check=True)
    entry: dict[str, Any] = json.loads(figures.read_text(encoding="utf-8"))["rounds"][0]
    return entry


def machine() -> str:
    """The machine in words: its processor, cores and load from others."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines()
                 if line.startswith("model name")]  # fmt: skip
        model = names[0] if names else model
    return f"{model}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start"


def table(results: dict[str, Any]) -> str:
    """The figures as Markdown: one line a seed, then the mean."""
    lines = [
        f"Measured on {results['machine']}; model {results['model']}.",
        "",
        "| seed | reward model, held out (95 %) | KL, nats a reply | hidden before → after "
        "| gain (95 %) | minutes |",
        "|---|---|---|---|---|---|",
    ]
    entries = results["seeds"]
    lines += [row(seed, entry) for seed, entry in entries.items()]
    gains = [entry["hidden"]["gain"] for entry in entries.values()]
    above = sum(entry["hidden"]["ci95_of_gain"][0] > 0 for entry in entries.values())
    lines += [
        "",
        f"Mean gain {fmean(gains):+.3f}; the interval lies above 0 in {above} of {len(gains)}.",
    ]
    return "\n".join(lines)


def row(seed: str, entry: dict[str, Any]) -> str:
    """One seed's line."""
    reward, hidden = entry["reward"], entry["hidden"]
    minutes = sum(entry["seconds"].values()) / 60
    accuracy = "too few pairs"
    if reward["heldout_accuracy"] is not None and reward["ci95"]:
        low, high = reward["ci95"]
        accuracy = f"{reward['heldout_accuracy']:.3f} ({low:.3f} to {high:.3f})"
    return (
        f"| {seed} | {accuracy}, {reward['pairs']} pairs | {entry['policy']['kl']:.1f} "
        f"| {hidden['before']:.3f} → {hidden['after']:.3f} | {hidden['gain']:+.3f} "
        f"({hidden['ci95_of_gain'][0]:+.3f} to {hidden['ci95_of_gain'][1]:+.3f}), "
        f"n = {hidden['prompts']} | {minutes:.1f} |"
    )


if __name__ == "__main__":
    main()
