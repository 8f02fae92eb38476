"""Weights that DeepSpeed splits while they learn (ZeRO-3: Rajbhandari et al. 2020).

Choices
- transformers' Trainer and accelerate drive DeepSpeed; here is only what they leave to DeepSpeed's
  own files: weights and moments are read and put back by parameter, under the names that one
  process alone would give them, so that checkpoints and results are the same in all modes.
- Weights are read from their float32 copies, which are what learns.
- DeepSpeed is imported here alone; it is no requirement.
Non-goals: stages 1 and 2, weights or moments kept on the CPU or on disk.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import deepspeed
import torch
from deepspeed.utils import (
    safe_get_full_fp32_param,
    safe_get_full_optimizer_state,
    safe_set_local_fp32_param,
    safe_set_local_optimizer_state,
)
from torch import Tensor, nn
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from trainer import distributed, ranks


def whole(parameter: nn.Parameter) -> Tensor:
    """The weight as one process alone would have it; all processes ask together."""
    if parameter.requires_grad:
        learned: Tensor = safe_get_full_fp32_param(parameter)
        return learned
    with deepspeed.zero.GatheredParameters([parameter]):
        return parameter.detach().clone()


def optimizer_state(optimizer: Any, parameters: Sequence[nn.Parameter]) -> dict[str, Tensor]:
    """What checkpoints.optimizer_state gives of an optimiser of these parameters that is not split;
    all processes ask together, process 0 gets it.
    """
    known: dict[str, Tensor] = next(iter(_inner(optimizer).optimizer.state.values()))
    tensors = {}
    for index, parameter in enumerate(parameters):
        for key, value in known.items():
            state = safe_get_full_optimizer_state(parameter, key) if value.dim() else value
            if ranks.is_main():
                tensors[f"optimizer.{index}.{key}"] = state.cpu().clone()
    return tensors


def load(
    optimizer: Any,
    parameters: Sequence[nn.Parameter],
    weights: Sequence[Tensor],
    tensors: Mapping[str, Tensor],
) -> None:
    """Put back the parameters' weights, and of `tensors` what `optimizer_state` took."""
    keys = [name.rpartition(".")[2] for name in tensors if name.startswith("optimizer.0.")]
    first = {key: tensors[f"optimizer.0.{key}"] for key in keys}
    for flat in _inner(optimizer).fp32_partitioned_groups_flat:
        # An optimiser that has made no step yet has no states.
        _inner(optimizer).optimizer.state[flat] = {
            key: torch.zeros_like(flat) if one.dim() else one.clone() for key, one in first.items()
        }
    for index, (parameter, weight) in enumerate(zip(parameters, weights, strict=True)):
        given: Any = parameter
        size = given.ds_tensor.numel()
        safe_set_local_fp32_param(parameter, distributed.own_piece(weight, size))
        for key in keys:
            state = tensors[f"optimizer.{index}.{key}"]
            if state.dim():
                piece = distributed.own_piece(state, size)
                safe_set_local_optimizer_state(parameter, piece, key)


def forget() -> None:
    """From here on models are loaded whole again."""
    unset_hf_deepspeed_config()


def _inner(optimizer: Any) -> Any:
    """DeepSpeed's optimiser behind accelerate's wrapper."""
    return optimizer.optimizer
