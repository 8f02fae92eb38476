"""A run of every stage that takes about a second: for what must hold in all of them alike."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from tests.tiny import WORDS, make_tiny, make_tiny_reward, write_prompts
from tests.trainer.judging import make_answer, make_run, ranking_lines, write_lines

TRAINED: dict[str, Any] = {"lr": 1e-2, "batch_size": 8, "checkpoint_every": 2}
WRITES: dict[str, Any] = {"max_new_tokens": 6}

#: name → (stage, inputs, settings); `make_things` makes the inputs
RUNS: dict[str, tuple[str, tuple[str, ...], dict[str, Any]]] = {
    "generate": ("generate", ("policy", "prompts"), {"answers": 2, "batch_size": 2, **WRITES}),
    "reward": (
        "reward",
        ("base", "rankings"),
        {"lr": 1e-2, "rankings_per_step": 4, "checkpoint_every": 2, "ensemble": 2},
    ),
    "reward-deep": (
        "reward",
        ("base", "rankings"),
        {"lr": 1e-2, "rankings_per_step": 4, "checkpoint_every": 2, "epochs": 1},
    ),
    "ppo": (
        "ppo",
        ("policy", "reward", "prompts"),
        {"steps": 4, "episodes_per_step": 8, "answers_per_prompt": 2, "kl_budget": 0.0, **WRITES},
    ),
    "evaluate": (
        "evaluate",
        ("policy", "reference", "reward", "prompts"),
        {"answers": 2, "batch_size": 4, **WRITES},
    ),
    "evaluate-reward": ("evaluate", ("reward", "rankings"), {"token_budget": 64}),
    "score": ("score", ("reward", "answers"), {"token_budget": 64}),
    "pretrain": (
        "pretrain",
        ("text",),
        {
            "size": "1m", "vocabulary": 300, "max_length": 32, "near_duplicate": 0.9,
            "measure_every": 2, "sample_every": 3, "samples": 1, "sample_tokens": 4,
            "heldout_fraction": 0.2, **TRAINED,
        },
    ),
    "sft": ("sft", ("base", "pairs"), {"epochs": 2, **TRAINED}),
    "dpo": ("prefer", ("policy", "rankings"), {"max_new_tokens": 4, "samples": 1, **TRAINED}),
    "rloo": (
        "prefer",
        ("policy", "reward", "prompts"),
        {"method": "rloo", "steps": 4, **WRITES, **TRAINED, "checkpoint_every": 1},
    ),
    "bestofn": (
        "bestofn",
        ("policy", "reward", "prompts"),
        {"answers": 2, "write_batch": 2, **WRITES, **TRAINED, "batch_size": 4,
         "checkpoint_every": 1},
    ),
}  # fmt: skip


def make_things(folder: Path) -> dict[str, Path]:
    """A policy, a reward model and data for all stages, by the names of their inputs; what one run
    alone is given by its name and the input's.
    """
    policy = make_tiny(folder)
    dice = random.Random(0)
    texts = [" ".join(dice.choices(WORDS, k=dice.randint(3, 9))) + f" and {word}" for word in WORDS]
    (folder / "text.txt").write_text("\n\n".join(texts), "utf-8")
    rankings = ranking_lines(24)
    asked = [[{"role": "user", "content": f"I like {word}"}] for word in WORDS]
    answers = [
        {"id": f"a{n}", "prompt_id": f"p{n}", "prompt": prompt, "text": make_answer(dice)}
        for n, prompt in enumerate(asked)
    ]
    pairs = [{"prompt": prompt, "answer": make_answer(dice)} for prompt in asked]
    return {
        "policy": policy,
        "base": policy,
        "reward-deep base": make_tiny(folder / "deep", num_hidden_layers=10),  # a choice of depths
        "reference": make_tiny(folder / "other", seed=5),
        "reward": make_tiny_reward(folder),
        "prompts": write_prompts(folder / "prompts.jsonl", 12),
        "text": folder / "text.txt",
        "rankings": write_lines(folder / "rankings.jsonl", rankings),
        "answers": write_lines(folder / "answers.jsonl", answers),
        "pairs": write_lines(folder / "pairs.jsonl", pairs),
    }


def make(folder: Path, things: dict[str, Path], name: str, **changes: Any) -> Path:
    """A folder of the run of that name."""
    stage, inputs, settings = RUNS[name]
    given = {one: things.get(f"{name} {one}", things[one]) for one in inputs}
    return make_run(folder, stage, given, **(settings | changes))


def spec_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "spec.json").read_text("utf-8"))
    return found
