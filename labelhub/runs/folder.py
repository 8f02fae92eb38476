"""A run's folder on disk: where it is, and reading what the trainer wrote there."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from django.conf import settings


def run_folder(run_id: int) -> Path:
    """`var/runs/<id>`; the same by hand, from Celery and under a launcher."""
    return Path(settings.RUNS_DIR) / str(run_id)


# What of a run's folder people may keep, besides weights: its name here, and where it lies.
KEPT = {
    "spec.json": "spec.json",
    "report.json": "out/report.json",
    "answers.jsonl": "out/answers.jsonl",
    "scores.jsonl": "out/scores.jsonl",
    "pairs.jsonl": "out/pairs.jsonl",
    "duplicates.json": "out/duplicates.json",
}


def kept_files(run_id: int) -> list[str]:
    """Which of them there are."""
    return [name for name in KEPT if kept_file(run_id, name)]


def kept_file(run_id: int, name: str) -> Path | None:
    """Where one of them lies; None when there is none."""
    place = KEPT.get(name)
    path = run_folder(run_id) / place if place else None
    return path if path is not None and path.is_file() else None


def write_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write JSON lines through a temporary file, so that a reader never sees half of them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    with temporary.open("w", encoding="utf-8") as out:
        for row in rows:
            out.write(json.dumps(row, ensure_ascii=False) + "\n")
    temporary.replace(path)


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Read JSON lines."""
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            if line.strip():
                yield json.loads(line)


def read_report(run_id: int) -> dict[str, Any]:
    """The stage's out/report.json, or nothing for a stage without one."""
    path = run_folder(run_id) / "out" / "report.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
