"""Checkpoints that can be trusted: written whole or not at all, and checked before they are read.

Choices: safetensors and JSON only, so that loading one can run no code; a checkpoint is written to
a temporary folder, flushed, given a manifest and renamed; the last two are kept; one that does not
match its manifest is named and passed over. Optimiser and random states are flattened into tensors.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from trainer.events import RunError
from trainer.manifests import flush, folder_hash, verify_manifest, write_manifest
from trainer.types import RunContext

__all__ = [
    "Checkpoint",
    "folder_hash",
    "latest_good",
    "load",
    "load_optimizer",
    "optimizer_state",
    "publish",
    "resume",
    "save",
    "verify_manifest",
    "write_manifest",
]

FOLDER = "checkpoints"
KEEP = 2


@dataclass(frozen=True)
class Checkpoint:
    """A state to go on from."""

    step: int
    tensors: dict[str, Tensor]
    state: dict[str, Any]
    path: Path


def save(folder: Path, step: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> Path:
    """Write FOLDER/checkpoints/step_N; when the disk is full the older ones stay as they are."""

    def write(draft: Path) -> None:
        whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        save_file(whole, draft / "state.safetensors")
        body = json.dumps({"step": step, "state": state}, allow_nan=False)
        (draft / "state.json").write_text(body, "utf-8")

    target = folder / FOLDER / f"step_{step}"
    publish(target, write)
    prune(folder)
    return target


def publish(target: Path, write: Callable[[Path], None]) -> Path:
    """Let `write` fill a draft folder beside `target`, add a manifest and rename it into place."""
    draft = target.with_name(f".{target.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        write(draft)
        write_manifest(draft)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    if target.exists():
        old = target.with_name(f".{target.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        target.rename(old)
        draft.rename(target)
        shutil.rmtree(old, ignore_errors=True)
    else:
        draft.rename(target)
    flush(target.parent)
    return target


def steps_of(folder: Path) -> list[tuple[int, Path]]:
    """Every checkpoint of a run folder, newest first."""
    found = []
    for path in (folder / FOLDER).glob("step_*"):
        match = re.fullmatch(r"step_(\d+)", path.name)
        if match and path.is_dir():
            found.append((int(match[1]), path))
    return sorted(found, reverse=True)


def prune(folder: Path) -> None:
    """Keep the newest checkpoints and drop the rest."""
    for _, path in steps_of(folder)[KEEP:]:
        shutil.rmtree(path, ignore_errors=True)


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

    path = latest_good(context.folder, alert)
    if path is None:
        return None
    checkpoint = load(path)
    if checkpoint.state.get("fingerprint") != context.spec.fingerprint():
        raise RunError(
            f"{path} was written by a run with another spec.json; "
            "bring the old spec back, or delete the checkpoints folder to begin anew."
        )
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
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".", 2)
            state.setdefault(int(index), {})[key] = tensor
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
