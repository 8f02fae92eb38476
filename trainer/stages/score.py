"""Score answers with a reward model.

Reads `reward` and `answers`, writes out/scores.jsonl: {"id", "score"} for each answer, in the order
of the file, and "members" beside them, the scores of each member, when the reward model is an
ensemble. A score depends on its own conversation alone; it has mean 0 and standard deviation 1
on the answers that the reward model was fitted to; the members share its scale.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, cast

import numpy as np

from trainer.checkpoints import publish
from trainer.config import ScoreConfig
from trainer.data import read_answers
from trainer.events import Stopped
from trainer.placement import start
from trainer.scoring import judge_answers, load_judge, score_line
from trainer.types import RunContext


def run(context: RunContext) -> dict[str, Any]:
    """Score every answer; returns how many there are and where their scores lie.

    `member_spread` is the standard deviation over the members of an answer's score, mean over the
    answers.
    """
    config = cast(ScoreConfig, context.spec.config)

    # 1. read
    model_path = context.input("reward")
    answers = read_answers(context.input("answers"))
    judge = load_judge(model_path, start(context, model_path), config.max_length)

    # 2. score
    def after_batch(done: int) -> None:
        context.progress(done / len(answers))
        if context.should_stop():
            raise Stopped(f"Stopped after {done} of {len(answers)} answers; nothing was kept.")

    asked = [(answer.messages, [answer.text]) for answer in answers]
    budget = config.token_budget
    found = judge_answers(judge, asked, token_budget=budget, after_batch=after_batch)
    lines = [
        score_line(answer.id, scores[0].tolist(), judge.normalisation)
        for answer, scores in zip(answers, found, strict=True)
    ]

    # 3. publish
    scores = [line["score"] for line in lines]
    report = {
        "stage": "score",
        "answers": len(scores),
        "score_mean": float(np.mean(scores)),
        "score_std": float(np.std(scores)),
        "normalisation": dataclasses.asdict(judge.normalisation),
    }
    if judge.size:
        report["members"] = judge.size
        report["member_spread"] = float(np.std([line["members"] for line in lines], axis=1).mean())

    def write(folder: Path) -> None:
        body = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        (folder / "scores.jsonl").write_text(body, "utf-8")
        (folder / "report.json").write_text(json.dumps(report, indent=1) + "\n", "utf-8")

    publish(context.out, write)
    context.emit("metric", len(scores), total=len(scores), **_numbers(report))
    return report


def _numbers(report: dict[str, Any]) -> dict[str, float]:
    return {name: value for name, value in report.items() if isinstance(value, float)}
