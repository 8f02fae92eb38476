"""Three professionals who scored the same ten translations of 377 sentences (WMT 2023)."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pytest

Ranks = dict[str, int]


def three_raters() -> list[dict[str, dict[str, float]]]:
    """The penalties of each rater for each translation (0 = best), one set a source sentence."""
    folder = Path(os.environ.get("LABELHUB_DATA") or "../shared/data")
    file = folder / "wmt_mqm_zhen" / "wmt23_zhen_3raters.jsonl.gz"
    if not file.exists():
        pytest.skip(f"{file} is not there: set LABELHUB_DATA to the folder of the real data")
    sets = []
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        for line in lines:
            answers = json.loads(line)["answers"]
            raters = sorted(answers[0]["mqm_by_rater"])
            sets.append(
                {
                    rater: {answer["source"]: answer["mqm_by_rater"][rater] for answer in answers}
                    for rater in raters
                }
            )
    return sets


def as_ranks(sets: list[dict[str, dict[str, float]]]) -> list[dict[str, Ranks]]:
    """Penalties as dense ranks."""
    ranked = []
    for one in sets:
        ranked.append(
            {
                rater: {
                    name: 1 + sum(other < penalty for other in set(given.values()))
                    for name, penalty in given.items()
                }
                for rater, given in one.items()
            }
        )
    return ranked
