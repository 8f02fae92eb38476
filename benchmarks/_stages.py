"""Stages of the trainer through run folders, as benchmarks run them."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trainer.config import resolve_path
from trainer.events import read_events

ROOT = Path(__file__).resolve().parent.parent


def run(
    folder: Path, stage: str, config: dict[str, Any], inputs: dict[str, str], seed: int
) -> Path:
    """Run one stage to its end; its out/."""
    folder.mkdir(parents=True, exist_ok=True)
    spec = {"stage": stage, "config": config, "inputs": inputs, "seed": seed}
    (folder / "spec.json").write_text(json.dumps(spec))
    command = [sys.executable, "-m", "trainer", "run", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, stderr=subprocess.DEVNULL, env=dict(os.environ))
    return folder / "out"


def lines_of(out: Path) -> list[dict[str, Any]]:
    """The answers that a stage wrote."""
    return [json.loads(line) for line in (out / "answers.jsonl").read_text("utf-8").splitlines()]


def write(path: Path, lines: Sequence[dict[str, Any]]) -> None:
    """JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    body = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    path.write_text(body, encoding="utf-8")


def prompts_of(model: str) -> list[dict[str, Any]]:
    """The prompts that a model with words of its own brings, or the demo's English ones."""
    own = resolve_path(model, ROOT) / "prompts.jsonl"
    shipped = ROOT / "labelhub" / "prompts" / "fixtures" / "demo_prompts.en.jsonl"
    text = (own if own.is_file() else shipped).read_text("utf-8")
    return [json.loads(line) for line in text.splitlines()]


def written(folder: Path, model: str, config: dict[str, Any], count: int | None = None) -> Path:
    """The model's answers to its first prompts, or all of them; the out/ of the run."""
    write(folder / "data" / "prompts.jsonl", prompts_of(model)[:count])
    return run(folder, "generate", config, {"policy": model, "prompts": "data/prompts.jsonl"}, 0)


def learned(
    folder: Path, model: str, data: Path, config: dict[str, Any], seed: int, kept: Sequence[str]
) -> dict[str, Any]:
    """A reward model of rankings.jsonl and heldout.jsonl in `data`: figures of its report, and the
    seconds that it took by its own clock.
    """
    inputs = {
        "base": model,
        "rankings": str(data / "rankings.jsonl"),
        "heldout": str(data / "heldout.jsonl"),
    }
    report = json.loads((run(folder, "reward", config, inputs, seed) / "report.json").read_text())
    finished = [event for event in read_events(folder) if event["kind"] == "finished"]
    figures = {name: report[name] for name in kept if name in report}
    return figures | {"seconds": finished[-1]["seconds"]}
