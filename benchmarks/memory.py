"""How near is the memory that a run is said to need to what it takes? `./run bench memory`

Runs stages on made-up data in processes of their own, one after the other, and compares the largest
resident size of each (`ru_maxrss`) with the estimate that its `started` event carries. Weights that
are split are so over two processes, of which the larger one counts.

    ./run bench memory [--models tiny smollm2] [--only reward ppo] [--json FILE]
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)  # before anything else: here lies a queue.py that is not Python's

import argparse
import json
import os
import random
import subprocess
import tempfile
import time
from typing import Any

#: name → (stage, config, inputs besides the model, how the model's input is called)
CASES: dict[str, tuple[str, dict[str, Any], dict[str, str], str]] = {
    "generate": ("generate", {"answers": 4}, {"prompts": "prompts"}, "policy"),
    "generate, long prompts": ("generate", {"answers": 4}, {"prompts": "long"}, "policy"),
    "reward": ("reward", {"epochs": 1}, {"rankings": "rankings"}, "base"),
    "reward, 4 heads": ("reward", {"epochs": 1, "ensemble": 4}, {"rankings": "rankings"}, "base"),
    "reward, full": ("reward", {"epochs": 1, "lora": False}, {"rankings": "rankings"}, "base"),
    "reward, full, split in 2": (
        "reward", {"epochs": 1, "lora": False}, {"rankings": "rankings"}, "base"
    ),
    "score": ("score", {}, {"answers": "answers"}, "reward"),
    "ppo": ("ppo", {"steps": 1}, {"prompts": "prompts", "reward": "reward"}, "policy"),
    "sft": ("sft", {"epochs": 1}, {"pairs": "pairs"}, "base"),
    "sft, full": ("sft", {"epochs": 1, "method": "full"}, {"pairs": "pairs"}, "base"),
    "sft, full, split in 2": ("sft", {"epochs": 1, "method": "full"}, {"pairs": "pairs"}, "base"),
    "dpo": ("prefer", {"batch_size": 4, "best_worst": True}, {"rankings": "rankings"}, "policy"),
    "dpo, full": (
        "prefer",
        {"batch_size": 4, "best_worst": True, "lora": False, "samples": 0},
        {"rankings": "rankings"},
        "policy",
    ),
    "dpo, full, split in 2": (
        "prefer",
        {"batch_size": 4, "best_worst": True, "lora": False, "samples": 0},
        {"rankings": "rankings"},
        "policy",
    ),
    "bestofn": ("bestofn", {}, {"prompts": "prompts", "reward": "reward"}, "policy"),
    "pretrain": ("pretrain", {"size": "15m", "steps": 2, "vocabulary": 400}, {"text": "text"}, ""),
}  # fmt: skip
#: how two processes start that split the weights
SPLIT = ["-m", "accelerate.commands.launch", "--config_file=trainer/accelerate_configs/fsdp2.yaml"]
WORDS = """
the a my day was warm and bright so we went down to see old boats on still water near tall trees
where children played with paper birds until rain began to fall softly over quiet roofs
"""


def main() -> int:
    """Run every case and print both figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--models", nargs="+", default=["tiny", "smollm2"])
    parser.add_argument(
        "--only",
        nargs="+",
        help="names of cases, “reward” before what needs it",
    )
    parser.add_argument("--json", type=Path, help="keep the figures in this file, case by case")
    options = parser.parse_args()
    rows = (
        json.loads(options.json.read_text())["rows"]
        if options.json and options.json.exists()
        else []
    )
    with tempfile.TemporaryDirectory(prefix="labelhub-memory-") as name:
        data = write_data(Path(name) / "data")
        for model in options.models:
            for case in CASES:
                if options.only and case not in options.only:
                    continue
                row = measure(Path(name), data, model, case)
                rows = [one for one in rows if (one["model"], one["case"]) != (model, case)] + [row]
                sys.stderr.write(
                    f"{model}, {case}: {row['measured']} measured, {row['estimated']}\n"
                )
                if options.json:
                    options.json.write_text(json.dumps({"rows": rows}, indent=1) + "\n", "utf-8")
    print(table(rows))
    return 0


def write_data(folder: Path) -> Path:
    """Prompts, rankings, answers, pairs and text of about the demo's lengths."""
    dice = random.Random(0)

    def words(count: int) -> str:
        return " ".join(dice.choices(WORDS.split(), k=count))

    def lines(name: str, rows: list[dict[str, Any]]) -> None:
        body = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(body, "utf-8")

    folder.mkdir()
    prompts = [[{"role": "user", "content": words(20)}] for _ in range(24)]
    lines("prompts", [{"id": f"p{n}", "prompt": one} for n, one in enumerate(prompts)])
    long = [[{"role": "user", "content": words(180)}] for _ in range(32)]
    lines("long", [{"id": f"p{n}", "prompt": one} for n, one in enumerate(long)])
    rankings = []
    for n, prompt in enumerate(prompts):
        answers = [{"id": f"p{n}-{k}", "text": words(dice.randint(20, 60))} for k in range(4)]
        ranks = {one["id"]: k + 1 for k, one in enumerate(answers)}
        rankings.append({"prompt": prompt, "answers": answers, "ranks": ranks})
    lines("rankings", rankings)
    given = [one | {"prompt": line["prompt"]} for line in rankings for one in line["answers"]]
    lines("answers", given)
    lines("pairs", [{"prompt": one["prompt"], "answer": one["text"]} for one in given[::4]])
    (folder / "text.txt").write_text("\n\n".join(words(80) for _ in range(200)), "utf-8")
    return folder


def measure(folder: Path, data: Path, model: str, case: str) -> dict[str, Any]:
    """One run: MiB that it took at most, and MiB that it was said to need."""
    stage, config, names, role = CASES[case]
    place = folder / f"{model} {case}"
    inputs = {
        name: str(data / f"{file}.{'txt' if file == 'text' else 'jsonl'}")
        for name, file in names.items()
    }
    if role:
        inputs[role] = model
    if "reward" in inputs:  # the case before
        inputs["reward"] = str(folder / f"{model} reward" / "out")
    place.mkdir()
    (place / "spec.json").write_text(
        json.dumps({"stage": stage, "config": config, "inputs": inputs})
    )
    launcher = [*SPLIT, "--num_processes=2"] if "split" in case else []
    command = [sys.executable, *launcher, "-m", "trainer", "run", str(place)]
    begun = time.monotonic()
    with subprocess.Popen(command, cwd=ROOT, env=dict(os.environ)) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{case} on {model} failed; its words stand above.")
    events = [json.loads(line) for line in (place / "events.jsonl").read_text().splitlines()]
    return {
        "model": model,
        "case": case,
        "measured": usage.ru_maxrss // 1024,
        "estimated": next(event for event in events if event["kind"] == "started").get("needs_mib"),
        "seconds": round(time.monotonic() - begun, 1),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """The figures as Markdown."""
    lines = ["| model | run | measured MiB | estimated MiB | ratio |", "|---|---|---|---|---|"]
    for row in rows:
        ratio = row["estimated"] / row["measured"] if row["estimated"] else float("nan")
        cells = (row["model"], row["case"], row["measured"], row["estimated"], f"{ratio:.2f}")
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
