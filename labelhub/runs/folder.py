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
