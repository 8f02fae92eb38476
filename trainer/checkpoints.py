"""Checkpoints that can be trusted: written whole or not at all, and checked before they are read.

Choices
- Safetensors and JSON only, so that loading one can run no code. Optimiser and random states are
  flattened into tensors.
- A checkpoint is written to a temporary folder, flushed, given a manifest and renamed; one that
  does not match its manifest is named and passed over. What is no number is never written.
- The newest few are kept, and the best by the stage's own figure. What is known of the figures lies
  in the checkpoints themselves, so it is known after a crash, too.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from trainer import distributed, ranks
from trainer.config import CheckpointedConfig
from trainer.events import no_number
from trainer.manifests import discard, publish, verify_manifest
from trainer.types import RunContext, refuse_other_spec

__all__ = [
    "Checkpoint",
    "latest_good",
    "load",
    "load_optimizer",
    "optimizer_state",
    "publish",
    "record",
    "resume",
    "save",
]

CHECKPOINTS = "checkpoints"


@dataclass(frozen=True)
class Checkpoint:
    """A state to go on from."""

    step: int
    tensors: dict[str, Tensor]
    state: dict[str, Any]
    path: Path


def record(
    context: RunContext,
    step: int,
    tensors: Mapping[str, Tensor],
    state: Mapping[str, Any],
    scores: Mapping[int, float] = MappingProxyType({}),
) -> None:
    """Save a checkpoint of this run and say so.

    `scores` are the stage's own figures of the states after some of its steps, more being better:
    of this one, or of earlier ones that are only now known.
    """
    tensors = distributed.whole_tensors(tensors)
    if not ranks.is_main():
        return
    config = cast(CheckpointedConfig, context.spec.config)
    whole = {"spec": context.spec.identity(), **state}
    path = save(context.folder, step, tensors, whole, keep=config.keep_checkpoints, scores=scores)
    relative = str(path.relative_to(context.folder))
    context.emit("checkpoint", step, path=relative, best=best_step(context.folder))


def save(
    folder: Path,
    step: int,
    tensors: Mapping[str, Tensor],
    state: Mapping[str, Any],
    *,
    keep: int = 2,
    scores: Mapping[int, float] = MappingProxyType({}),
) -> Path:
    """Write FOLDER/checkpoints/step_N; when the disk is full the older ones stay as they are."""
    refuse_no_number(step, tensors)

    def write(draft: Path) -> None:
        whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        save_file(whole, draft / "state.safetensors")
        known = {str(one): score for one, score in scores.items() if math.isfinite(score)}
        body = json.dumps({"step": step, "state": state, "scores": known}, allow_nan=False)
        (draft / "state.json").write_text(body, "utf-8")

    target = folder / CHECKPOINTS / f"step_{step}"
    publish(target, write)
    prune(folder, keep)
    return target


def refuse_no_number(step: int, tensors: Mapping[str, Tensor]) -> None:
    """A state with NaN or infinity in it is worth nothing: the one before it must stay."""
    for tensor in tensors.values():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise no_number("The weights are", step)


def steps_of(folder: Path) -> list[tuple[int, Path]]:
    """Every checkpoint of a run folder, newest first."""
    found = []
    for path in (folder / CHECKPOINTS).glob("step_*"):
        match = re.fullmatch(r"step_(\d+)", path.name)
        if match and path.is_dir():
            found.append((int(match[1]), path))
    return sorted(found, reverse=True)


def prune(folder: Path, keep: int) -> None:
    """Keep the newest checkpoints and the best one, and drop the rest."""
    best = best_step(folder)
    for step, path in steps_of(folder)[keep:]:
        if step != best:
            discard(path)


def best_step(folder: Path) -> int | None:
    """The checkpoint with the highest score, the newer of equals; None where no score is known."""
    present = steps_of(folder)
    scores: dict[int, float] = {}
    for _, path in reversed(present):
        scores |= scores_in(path)
    known = [(scores[step], step) for step, _ in present if step in scores]
    return max(known)[1] if known else None


def scores_in(path: Path) -> dict[int, float]:
    """Score by step as this checkpoint knows them; a damaged one knows none."""
    try:
        scores = json.loads((path / "state.json").read_text("utf-8"))["scores"]
        return {int(step): float(score) for step, score in scores.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def latest_good(folder: Path, report: Callable[[str], None] = lambda sentence: None) -> Path | None:
    """The newest checkpoint that is as it was written; each damaged one is named to `report`."""
    for _, path in steps_of(folder):
        damage = verify_manifest(path)
        if not damage:
            return path
        report(f"The checkpoint {path.name} is damaged ({damage[0]}) and was passed over.")
    return None


def load(path: Path) -> Checkpoint:
    """Read a checkpoint that was checked before."""
    body = json.loads((path / "state.json").read_text("utf-8"))
    tensors = load_file(path / "state.safetensors")
    return Checkpoint(step=body["step"], tensors=tensors, state=body["state"], path=path)


def resume(context: RunContext) -> Checkpoint | None:
    """The checkpoint to go on from, if there is one; refuses one that another spec wrote."""

    def alert(sentence: str) -> None:
        context.emit("alert", code="damaged_checkpoint", message=sentence)

    path = distributed.from_main(lambda: latest_good(context.folder, alert))
    if path is None:
        return None
    checkpoint = load(path)
    do = "go on with what wrote it, or delete the checkpoints folder to begin anew"
    refuse_other_spec(context.spec, checkpoint.state.get("spec"), str(path), do)
    return checkpoint


def optimizer_state(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The state of an optimiser as flat tensors `optimizer.PARAMETER.KEY`."""
    tensors = {}
    for index, values in optimizer.state_dict()["state"].items():
        for key, value in values.items():
            tensor = value if isinstance(value, Tensor) else torch.tensor(value)
            tensors[f"optimizer.{index}.{key}"] = tensor
    return tensors


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put back what `optimizer_state` took; settings such as the learning rate stay the optimiser's
    own.
    """
    parameters = [one for group in optimizer.param_groups for one in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".", 2)
            own = distributed.part_of(tensor, parameters[int(index)])
            state.setdefault(int(index), {})[key] = own
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
