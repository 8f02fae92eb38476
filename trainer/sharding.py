"""Weights that are split over the processes while they learn (FSDP2: Zhao et al. 2023).

Choices
- torch's own `fully_shard`, a layer at a time: each process holds its part of every weight, of its
  gradient and of its moments. A layer is whole only while it computes.
- For the trainer's own loops, `split`: sums, never means, as everywhere (distributed.py), so the
  gradient's divisor is 1; what a head shares with the network (a tied embedding), and what lies
  outside of it, stays whole in each process, and its gradient is summed as without splitting.
- transformers' Trainer splits by accelerate (trl_loop.py), which splits embedding and head as well
  and takes the mean of gradients; a frozen reference beside it is split here in the same way.
- Only learning is split. The model is loaded whole, and is a plain one again before it is measured
  and written, so that nothing else has to know; each process needs room for its weights alone.
Non-goals: frozen bases under adapters (small gradients, nothing to gain), weights kept on the CPU.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from accelerate.utils.fsdp_utils import fsdp2_prepare_model
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import PreTrainedModel

from trainer import ranks
from trainer.modeling import layers_of, trunk

Named = dict[str, nn.Parameter]


def split(
    model: PreTrainedModel, optimizer: torch.optim.Optimizer, learners: Sequence[Named]
) -> None:
    """Split the model's network over the processes, in place.

    The optimiser, which has learned nothing yet, and the parameters by name follow.
    """
    before = dict(model.named_parameters())
    device = next(iter(before.values())).device
    if device.type == "cuda":
        torch.cuda.set_device(device)
    mesh = init_device_mesh(device.type, (ranks.world(),))
    owner, name = layers_of(model)
    body = trunk(model)
    for part in [*getattr(owner, name), body]:
        sharded: Any = fully_shard(
            part, mesh=mesh, reshard_after_forward=True, ignored_params=_shared(model)
        )
        sharded.set_gradient_divide_factor(1.0)
        sharded.set_force_sum_reduction_for_comms(True)
    _follow(before, dict(model.named_parameters()), optimizer, learners)
    for group in optimizer.param_groups:
        group["foreach"] = False  # parts and whole tensors do not mix in one call


def _shared(model: PreTrainedModel) -> set[nn.Parameter]:
    """The network's parameters that something outside of it uses, too."""
    prefix = f"{model.base_model_prefix}."
    named = list(model.named_parameters(remove_duplicate=False))
    outside = {id(one) for name, one in named if not name.startswith(prefix)}
    return {one for name, one in named if name.startswith(prefix) and id(one) in outside}


def _follow(
    before: Mapping[str, nn.Parameter],
    after: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    learners: Sequence[Named],
) -> None:
    """Let the optimiser and the named parameters mean the tensors that took the place of others."""
    new = {id(one): after[name] for name, one in before.items()}
    for group in optimizer.param_groups:
        group["params"] = [new.get(id(one), one) for one in group["params"]]
    for learner in learners:
        learner |= {name: new.get(id(one), one) for name, one in learner.items()}


@torch.no_grad()
def join(
    model: PreTrainedModel, optimizer: torch.optim.Optimizer, learners: Sequence[Named]
) -> PreTrainedModel:
    """A plain model with the whole weights; what the optimiser knows is forgotten."""
    optimizer.state.clear()
    before = dict(model.named_parameters())
    kind: Any = type(model)
    plain: PreTrainedModel = kind(copy.deepcopy(model.config)).eval()
    wants = {name: one.requires_grad for name, one in before.items()}
    state = {
        name: tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        for name, tensor in model.state_dict().items()
    }
    plain.load_state_dict(state, assign=True)
    plain.tie_weights()
    plain.to(next(iter(state.values())).device)
    for name, parameter in plain.named_parameters():
        parameter.requires_grad_(wants[name])
    if hasattr(model, "generation_config"):
        plain.generation_config = model.generation_config
    _follow(before, dict(plain.named_parameters()), optimizer, learners)
    return plain


@contextlib.contextmanager
def whole(model: PreTrainedModel) -> Iterator[None]:
    """Within, every process has all the weights, for passes that learn nothing."""
    parts = [module for module in model.modules() if isinstance(module, FSDPModule)]
    for part in parts:
        part.set_reshard_after_forward(False, recurse=False)
        part.unshard()
    try:
        yield
    finally:
        for part in parts:
            part.reshard()
            part.set_reshard_after_forward(True, recurse=False)


def split_frozen(model: PreTrainedModel, accelerator: Any) -> None:
    """Split a model that only reads, as accelerate splits the one that learns, in place."""
    fsdp2_prepare_model(accelerator, model)


def part_of(tensor: Tensor, like: Tensor) -> Tensor:
    """This process's part of a whole tensor, split as `like` is; the tensor if `like` is whole."""
    if not isinstance(like, DTensor) or tensor.shape != like.shape:
        return tensor
    given = tensor.to(like.device)
    return distribute_tensor(given, like.device_mesh, like.placements, src_data_rank=None)
