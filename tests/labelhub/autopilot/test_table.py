"""What the autopilot prints of a round."""

from __future__ import annotations

from typing import Any

from labelhub.autopilot.management.commands.autopilot import Progress, table_row


def entry(**reward: Any) -> dict[str, Any]:
    return {
        "round": 1,
        "rankings": 160,
        "reward": {"heldout_accuracy": 0.634, "ci95": [0.545, 0.716], "pairs": 219} | reward,
        "policy": {"kl": 8.53},
        "hidden": {
            "before": 0.2, "after": 0.59, "gain": 0.39, "ci95_of_gain": [0.31, 0.45], "prompts": 64,
        },
    }  # fmt: skip


def test_a_row_shows_each_figure_with_its_interval() -> None:
    row = table_row(entry())
    assert "0.63 (0.55 to 0.72)" in row
    assert "+0.20 → +0.59" in row
    assert "+0.39 (+0.31 to +0.45), n = 64" in row


def test_a_round_of_ties_has_too_few_pairs_for_an_accuracy() -> None:
    assert "too few pairs" in table_row(entry(heldout_accuracy=None, ci95=None, pairs=0))


def test_progress_speaks_when_the_stage_changes_and_not_at_every_step() -> None:
    said: list[str] = []
    progress = Progress(said.append)
    for line in ("round 1 · ppo: step 1", "round 1 · ppo: step 2", "round 1 · evaluate: running"):
        progress(line)
    assert said == ["round 1 · ppo: step 1", "round 1 · evaluate: running"]
