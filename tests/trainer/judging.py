"""Rankings with a planted preference, and stages run in this process, for the reward side."""

from __future__ import annotations

import importlib
import json
import random
import shutil
import threading
from pathlib import Path
from typing import Any

import torch

from tests.tiny import WORDS
from trainer import checkpoints
from trainer.config import load_spec
from trainer.events import EventWriter, Heartbeat, read_events
from trainer.types import RunContext

LIKED, DISLIKED = "good", "bad"
#: how answers of up to six tokens are drawn when nothing else is set, as a line of them says it
DRAWN: dict[str, Any] = {
    "max_new_tokens": 6, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0,
    "repetition_penalty": 1.0, "engine": "hf", "logprob_temperature": 1.0,
}  # fmt: skip
OTHERS = [word for word in WORDS if word not in (LIKED, DISLIKED)]


def make_answer(dice: random.Random) -> str:
    """Three to seven words, among them some that people like or dislike."""
    words = [dice.choice(OTHERS) for _ in range(dice.randint(2, 5))]
    words += dice.choices([LIKED, DISLIKED], k=dice.randint(0, 2))
    dice.shuffle(words)
    return " ".join(words)


def merit(text: str) -> int:
    """The planted preference."""
    return text.split().count(LIKED) - text.split().count(DISLIKED)


def ranking_lines(count: int, answers: int = 4, seed: int = 0) -> list[dict[str, Any]]:
    """Rankings of different prompts by that preference; equal merit is a tie."""
    dice = random.Random(seed)
    lines = []
    for n in range(count):
        prompt = [{"role": "user", "content": " ".join(dice.choices(OTHERS, k=3 + n % 3))}]
        texts = [make_answer(dice) for _ in range(answers)]
        places = sorted({merit(text) for text in texts}, reverse=True)
        ids = [f"p{seed}-{n}-{k}" for k in range(answers)]
        lines.append(
            {
                "prompt": prompt,
                "answers": [{"id": i, "text": t} for i, t in zip(ids, texts, strict=True)],
                "ranks": {i: places.index(merit(t)) + 1 for i, t in zip(ids, texts, strict=True)},
                "annotator": ("ann", "ben")[n % 2],
            }
        )
    return lines


def write_lines(path: Path, lines: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    return path


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def make_run(folder: Path, stage: str, inputs: dict[str, Any], **config: Any) -> Path:
    """A run folder of a stage, on one thread."""
    folder.mkdir(parents=True, exist_ok=True)
    given = {name: str(value) for name, value in inputs.items()}
    spec = {"stage": stage, "seed": 3, "config": {"threads": 1} | config, "inputs": given}
    (folder / "spec.json").write_text(json.dumps(spec), "utf-8")
    return folder


def run_here(folder: Path, stop: threading.Event | None = None) -> dict[str, Any]:
    """The stage of a run folder, in this process."""
    events = EventWriter(folder)
    spec = load_spec(folder)
    context = RunContext(folder, spec, events, Heartbeat(events))
    context.stop = stop or context.stop
    report: dict[str, Any] = importlib.import_module(f"trainer.stages.{spec.stage}").run(context)
    return report


def events_of(folder: Path, kind: str) -> list[dict[str, Any]]:
    return [event for event in read_events(folder) if event["kind"] == kind]


class StopAt(threading.Event):
    """Asks the run to stop when it looks for the n-th time."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        self.left = looks

    def is_set(self) -> bool:
        self.left -= 1
        return self.left < 0


def first_step(folder: Path) -> int:
    """The step of a run folder's oldest checkpoint."""
    return min(int(path.name.removeprefix("step_")) for path in folder.glob("checkpoints/step_*"))


def from_checkpoint(source: Path, folder: Path, *, step: int) -> Path:
    """A run folder that has come as far as one checkpoint of another."""
    name = f"checkpoints/step_{step}"
    shutil.copytree(source / name, folder / name)
    shutil.copy(source / "spec.json", folder / "spec.json")
    return folder


def gradients(folder: Path) -> dict[str, torch.Tensor]:
    """Mean gradients of the first step as the optimiser keeps them: what its batch came to."""
    tensors = checkpoints.load(folder / "checkpoints" / "step_1").tensors
    return {name: one for name, one in tensors.items() if name.endswith(".exp_avg")}


def largest_of(some: dict[str, torch.Tensor]) -> float:
    """The size of the largest number."""
    return max(float(tensor.abs().max()) for tensor in some.values())


def same_gradients(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    """The same to 1e-5 of the largest gradient there is; float32 parts them by some 1e-6."""
    assert one.keys() == other.keys()
    largest = largest_of(one)
    assert largest > 1e-3, "gradients of nothing are the same whatever is done"
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, other[name], rtol=0, atol=1e-5 * largest)
