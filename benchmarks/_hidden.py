"""Rankings by a hidden preference, for benchmarks that need rankings whose truth is known."""

import random
from collections.abc import Sequence
from typing import Any

from labelhub.autopilot.preferences import PREFERENCES


def ranked(
    answers: Sequence[dict[str, Any]], preference: str, dice: random.Random, *, noisy: bool = True
) -> list[dict[str, Any]]:
    """Lines of rankings.jsonl from lines of answers.jsonl: each prompt's answers in an order."""
    likes = PREFERENCES[preference]
    sets: dict[str, list[dict[str, Any]]] = {}
    for line in answers:
        sets.setdefault(line["prompt_id"], []).append(line)
    lines = []
    for some in sets.values():
        texts = [one["text"] for one in some]
        ranks = likes.rank(texts, dice) if noisy else likes.order(texts)
        lines.append(
            {
                "prompt": some[0]["prompt"],
                "answers": [{"id": one["id"], "text": one["text"]} for one in some],
                "ranks": {one["id"]: place for one, place in zip(some, ranks, strict=True)},
            }
        )
    return lines
