"""A run that is stopped after every single step ends in the same bytes as one that is not.

One broken run a stage: each leg goes on from the last checkpoint, takes one step more and is
stopped. A resume that lost anything at any step would leave its trace in the result.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from tests.tiny import WORDS, make_tiny, make_tiny_reward, write_prompts
from tests.trainer.judging import events_of, make_run, ranking_lines, run_here, write_lines
from trainer.events import Stopped
from trainer.manifests import folder_hash
from trainer.types import RunContext

PRETRAIN: dict[str, Any] = {
    "size": "1m", "vocabulary": 300, "documents": "lines", "steps": 4, "max_length": 16,
    "batch_size": 4, "near_duplicate": 1.0, "samples": 1, "sample_tokens": 2, "sample_every": 3,
    "measure_every": 2,
}  # fmt: skip
SMALL: dict[str, Any] = {"lora_r": 2, "lr": 1e-2, "heldout_fraction": 0.25}
RUNS: dict[str, tuple[str, tuple[str, ...], dict[str, Any]]] = {
    "pretrain-causal": ("pretrain", ("text",), PRETRAIN),
    "pretrain-masked": ("pretrain", ("text",), PRETRAIN | {"objective": "masked"}),
    "sft-lora": ("sft", ("base", "pairs"), SMALL | {"batch_size": 3}),
    "sft-packed": (
        "sft",
        ("base", "pairs"),
        SMALL | {"batch_size": 1, "method": "full", "packing": True, "max_length": 32, "lr": 1e-3},
    ),
    "dpo": ("prefer", ("policy", "rankings"), SMALL | {"batch_size": 3, "samples": 0}),
    "rloo": (
        "prefer",
        ("policy", "reward", "prompts"),
        SMALL | {"method": "rloo", "steps": 2, "batch_size": 4, "answers": 2, "max_new_tokens": 3},
    ),
    "bestofn": (
        "bestofn",
        ("policy", "reward", "prompts"),
        SMALL | {"answers": 2, "max_new_tokens": 3, "batch_size": 2, "write_batch": 2},
    ),
}


@pytest.fixture(scope="module")
def things(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Every input by its name."""
    folder = tmp_path_factory.mktemp("resume")
    policy = make_tiny(folder)
    pairs = [
        {"prompt": [{"role": "user", "content": f"I like {word}"}], "answer": f"a good {word}"}
        for word in WORDS[:12]
    ]
    sentences = [f"the {one} is a {two} and not my {one}" for one in WORDS for two in WORDS[:4]]
    (folder / "words.txt").write_text("\n".join(sentences))
    return {
        "policy": policy,
        "base": policy,
        "reward": make_tiny_reward(folder),
        "prompts": write_prompts(folder / "prompts.jsonl", 8),
        "rankings": write_lines(folder / "rankings.jsonl", ranking_lines(6, answers=3)),
        "pairs": write_lines(folder / "pairs.jsonl", pairs),
        "text": folder / "words.txt",
    }


def make(name: str, things: dict[str, Path], folder: Path) -> Path:
    stage, inputs, config = RUNS[name]
    return make_run(folder, stage, {role: things[role] for role in inputs}, **config)


# TRL still asks transformers by a name that is going away.
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
@pytest.mark.parametrize("name", RUNS)
def test_stopped_after_every_step(
    name: str, things: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = RUNS[name][0]
    straight = make(name, things, tmp_path / "straight")
    run_here(straight)
    steps = len(events_of(straight, "metric"))
    assert steps >= 2

    last = events_of(straight, "metric")[-1]["step"]
    stop = threading.Event()
    emit = RunContext.emit

    def stop_at_every_moment(self: RunContext, kind: str, *rest: Any, **data: Any) -> None:
        """As soon as there is something to save, and on a Trainer, which asks after a step only, as
        soon as it has begun again.
        """
        emit(self, kind, *rest, **data)
        again = stage in ("sft", "prefer") and 0 < (data.get("resumed_from") or 0) < last
        if kind == "metric" or again:
            stop.set()

    monkeypatch.setattr(RunContext, "emit", stop_at_every_moment)
    broken = make(name, things, tmp_path / "broken")
    legs = 0
    while not (broken / "out").exists():
        assert legs <= steps, "it does not come any further"
        stop.clear()
        legs += 1
        try:
            run_here(broken, stop)
        except Stopped:
            continue
    # The second phase of bestofn is a Trainer's: told so by a metric, it takes one step more.
    assert legs >= (steps // 2 if stage == "bestofn" else steps)
    assert folder_hash(straight / "out") == folder_hash(broken / "out")


ON_A_TRAINER = ("sft-lora", "sft-packed", "dpo", "rloo", "bestofn")


# TRL still asks transformers by a name that is going away.
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
@pytest.mark.parametrize("name", ON_A_TRAINER)
def test_stopped_while_it_measures_what_it_learned(
    name: str, things: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All is learned and saved: the next attempt has only to measure and to write."""
    straight = make(name, things, tmp_path / "straight")
    run_here(straight)
    last = events_of(straight, "metric")[-1]["step"]
    stop = threading.Event()
    emit = RunContext.emit

    def stop_at_the_end(self: RunContext, kind: str, *rest: Any, **data: Any) -> None:
        emit(self, kind, *rest, **data)
        if (kind, rest) == ("checkpoint", (last,)):
            stop.set()

    monkeypatch.setattr(RunContext, "emit", stop_at_the_end)
    broken = make(name, things, tmp_path / "broken")
    with pytest.raises(Stopped, match="Stopped outside training; what was trained is saved"):
        run_here(broken, stop)
    assert not (broken / "out").exists()
    run_here(broken)
    assert events_of(broken, "started")[-1]["resumed_from"] == last
    assert len(events_of(broken, "metric")) == len(events_of(straight, "metric"))
    assert folder_hash(straight / "out") == folder_hash(broken / "out")
