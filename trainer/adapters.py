"""Low-rank adapters: put into a frozen model, switched off for the reference, merged and saved.

Choices: an adapter is float32 on every linear layer of the trunk, or on those that are named; its
layers are swapped for twins of peft's own that compute the same without copies of their input.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model
from peft.tuners.lora import Linear as LoraLinear
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from trainer.events import RunError
from trainer.kernels import LoraProduct
from trainer.modeling import layers_of, trunk

ADAPTER = "default"


class _LeanLora(LoraLinear):
    """peft's LoRA linear layer with one adapter and no dropout, computed without float32 copies of
    its input.
    """

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        base = self.base_layer
        if self.disable_adapters or self.merged or args or kwargs:
            result: Tensor = super().forward(x, *args, **kwargs)
            return result
        a, b = self.lora_A[ADAPTER].weight, self.lora_B[ADAPTER].weight
        return LoraProduct.apply(x, base.weight, base.bias, a, b, self.scaling[ADAPTER])


def add_lora(
    model: PreTrainedModel, r: int, alpha: float, seed: int, targets: Sequence[str] = ()
) -> PreTrainedModel:
    """Put a float32 low-rank adapter on every linear layer of the trunk, or on `targets`, in place.

    B starts at 0, so the adapted model is the base until the first step. Only adapter weights want
    gradients.
    """
    names = list(targets) or linear_names(model)
    config = LoraConfig(
        r=r,
        lora_alpha=alpha,
        lora_dropout=0.0,
        bias="none",
        target_modules=names,
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            inject_adapter_in_model(config, model, adapter_name=ADAPTER)
        except ValueError as error:
            reason = " ".join(str(error).split())[:200]
            raise RunError(
                f"{type(model).__name__} takes no low-rank adapter ({reason}); use another base."
            ) from error
    model.requires_grad_(False)
    for layer in lora_layers(model).values():
        layer.lora_A[ADAPTER].float().requires_grad_(True)
        layer.lora_B[ADAPTER].float().requires_grad_(True)
        if type(layer) is LoraLinear and type(layer.base_layer) is nn.Linear:
            layer.__class__ = _LeanLora
    return model


def linear_names(model: PreTrainedModel, depth: int = 0) -> list[str]:
    """Full names of the trunk's linear layers, those of its first `depth` layers left out."""
    lower: set[nn.Module] = set()
    if depth:
        owner, name = layers_of(model)
        lower = {module for layer in getattr(owner, name)[:depth] for module in layer.modules()}
    prefix = model.base_model_prefix
    return [
        f"{prefix}.{name}"
        for name, module in trunk(model).named_modules()
        if isinstance(module, (nn.Linear, Conv1D)) and module not in lower
    ]


def lora_layers(model: nn.Module) -> dict[str, LoraLinear]:
    """The adapted layers by name."""
    return {
        name: module for name, module in model.named_modules() if isinstance(module, LoraLinear)
    }


def adapter_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Trainable adapter weights by name, in a fixed order."""
    return {name: value for name, value in model.named_parameters() if "lora_" in name}


@contextlib.contextmanager
def reference(model: nn.Module) -> Iterator[None]:
    """The frozen policy that the KL penalty is measured against: the same weights, adapter off.

    Only the switch of each layer is turned. peft's own methods also turn requires_grad of adapters
    off and on, which between two forward passes freezes one silently.
    """
    layers = list(lora_layers(model).values())
    for layer in layers:
        layer._disable_adapters = True
    try:
        yield
    finally:
        for layer in layers:
            layer._disable_adapters = False


def merged_weight(layer: LoraLinear) -> Tensor:
    """W + s·BA in the base's number format; summed in float32."""
    base = layer.base_layer.weight
    delta = layer.lora_B[ADAPTER].weight @ layer.lora_A[ADAPTER].weight
    if isinstance(layer.base_layer, Conv1D):
        delta = delta.T
    return torch.add(base.float(), delta, alpha=layer.scaling[ADAPTER]).to(base.dtype)


@torch.no_grad()
def merged_state(model: PreTrainedModel) -> dict[str, Tensor]:
    """The weights of the plain model that computes what the adapted one does."""
    layers = lora_layers(model)
    state = {}
    for name, tensor in model.state_dict().items():
        if ".lora_" in name:
            continue
        owner, _, leaf = name.rpartition(".base_layer.")
        plain = f"{owner}.{leaf}" if owner else name
        merge = owner in layers and leaf == "weight"
        state[plain] = merged_weight(layers[owner]) if merge else tensor
    return state


@torch.no_grad()
def merge(model: PreTrainedModel) -> None:
    """Make the adapted model the plain one that computes the same, in place."""
    for name, layer in lora_layers(model).items():
        owner, _, leaf = name.rpartition(".")
        plain = layer.base_layer
        plain.weight.data = merged_weight(layer)
        setattr(model.get_submodule(owner), leaf, plain)


def save_merged(model: PreTrainedModel, tokenizer: Any, folder: Path) -> None:
    """The plain model with its tokenizer, as `from_pretrained` loads it."""
    model.save_pretrained(str(folder), state_dict=merged_state(model))
    tokenizer.save_pretrained(str(folder))


def save_adapter(model: PreTrainedModel, folder: Path, base: str) -> None:
    """The adapter alone, as peft loads it on the base model."""
    folder.mkdir(parents=True, exist_ok=True)
    state = get_peft_model_state_dict(model, adapter_name=ADAPTER)
    weights = {
        f"base_model.model.{name}": tensor.detach().cpu().contiguous()
        for name, tensor in state.items()
    }
    save_file(weights, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = model.peft_config[ADAPTER]
    write_adapter_config(
        folder,
        task_type="CAUSAL_LM",
        base_model_name_or_path=base,
        r=config.r,
        lora_alpha=config.lora_alpha,
        targets=list(config.target_modules),
        fan_in_fan_out=config.fan_in_fan_out,
    )


def write_adapter_config(folder: Path, *, targets: Sequence[str], r: int, **settings: Any) -> None:
    """adapter_config.json of a finished adapter; without lora_alpha its scale is 1."""
    plain = LoraConfig(
        r=r,
        inference_mode=True,
        lora_dropout=0.0,
        bias="none",
        **({"lora_alpha": r} | settings),
    )
    # peft keeps the targets as a set, whose order differs from process to process
    body = plain.to_dict() | {"target_modules": sorted(targets)}
    text = json.dumps(body, indent=1, sort_keys=True, default=str)
    (folder / "adapter_config.json").write_text(text + "\n", "utf-8")
