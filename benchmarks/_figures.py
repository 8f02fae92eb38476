"""Figures of a benchmark in its file under docs/measured, and how their spread is told."""

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from trainer.statistics import t95


def stored(path: Path) -> dict[str, Any]:
    """What was measured so far."""
    return dict(json.loads(path.read_text("utf-8"))) if path.is_file() else {}


def keep(path: Path, keys: Sequence[str], value: Any) -> None:
    """Put one result into the file at once, under these keys; the others stay."""
    whole = stored(path)
    place = whole
    for key in keys[:-1]:
        place = place.setdefault(key, {})
    place[keys[-1]] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".new")  # who is stopped while writing loses nothing
    beside.write_text(json.dumps(whole, indent=1, sort_keys=True) + "\n", "utf-8")
    beside.replace(path)


def half_width(values: Sequence[float]) -> float:
    """Half of the mean's 95 % interval by Student's t; two values at least."""
    mean, n = fmean(values), len(values)
    deviation = (sum((value - mean) ** 2 for value in values) / (n - 1)) ** 0.5
    return float(t95(n - 1) * deviation / n**0.5)


def mean_of(values: Sequence[float], digits: int = 2) -> str:
    """Mean with its 95 % interval over seeds."""
    if len(values) < 2:
        return f"{fmean(values):.{digits}f} (one seed)"
    return f"{fmean(values):.{digits}f} ± {half_width(values):.{digits}f}"
