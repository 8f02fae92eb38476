"""Attention, feed-forward blocks and norms of a decoder in fewer operations, for inference.

Choices
- A block is known by its parts (`q_proj`, `k_proj`, `v_proj`, `o_proj`; `gate_proj`, `up_proj`,
  `down_proj`; a weight and an ε), not by the name of its model: Llama, Mistral, Qwen and their like
  have them.
- It is tried before it is used: `alike` runs the model on a few tokens and gives the twin what the
  model's own block was given. An architecture that computes something else keeps its own.
- Everything around the blocks (masks, positions, cache, residuals) stays transformers'.
Non-goals: training; blocks with experts, with biases of their own kind or with parallel residuals.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from trainer.kernels import LEAN, PackedLinear, norm_epsilon

Pack = Callable[[list[nn.Module]], PackedLinear | None]
"""Makes one packed layer of the layers, one below the other; None where it cannot."""

QKV = ("q_proj", "k_proj", "v_proj")
MLP = ("gate_proj", "up_proj", "down_proj")


class LeanMLP(nn.Module):
    """down(silu(gate x) · up x): activation and product happen within the matrix products."""

    def __init__(self, gate: PackedLinear, up: PackedLinear, down: PackedLinear) -> None:
        super().__init__()
        self.gate, self.up, self.down = gate, up, down

    def forward(self, x: Tensor, **_: object) -> Tensor:
        return self.down(self.up.times(x, self.gate.swish(x)))


class LeanAttention(nn.Module):
    """Self-attention with one product for queries, keys and values, turned by their position
    together.
    """

    def __init__(self, source: Any, qkv: PackedLinear, out: PackedLinear) -> None:
        super().__init__()
        self.qkv, self.out = qkv, out
        self.q_norm, self.k_norm = (getattr(source, name, None) for name in ("q_norm", "k_norm"))
        # what attention functions ask their module for
        self.config, self.layer_idx = source.config, source.layer_idx
        self.head_dim, self.scaling = source.head_dim, source.scaling
        self.num_key_value_groups = source.num_key_value_groups
        self.sliding_window = getattr(source, "sliding_window", None)
        self.is_causal = True
        self.keys = source.k_proj.out_features // self.head_dim
        self.queries = source.q_proj.out_features // self.head_dim

    def forward(
        self,
        hidden_states: Tensor,
        position_embeddings: tuple[Tensor, Tensor],
        attention_mask: Tensor | None = None,
        past_key_values: Any = None,
        **settings: Any,
    ) -> tuple[Tensor, None]:
        b, t, _ = hidden_states.shape
        heads = self._normed(self.qkv(hidden_states).view(b, t, -1, self.head_dim))
        if past_key_values is not None:
            layer = past_key_values.layers[self.layer_idx]
            if hasattr(layer, "attend"):  # it has the prompts apart (cache.SharedLayer)
                out = layer.attend(heads, position_embeddings, attention_mask, self.scaling)
                return self.out(out.view(b, t, -1)), None
        turned = turn(heads[:, :, : self.queries + self.keys], *position_embeddings)
        q, k = turned.transpose(1, 2).split([self.queries, self.keys], dim=1)
        v = heads[:, :, self.queries + self.keys :].transpose(1, 2)
        if past_key_values is not None:
            k, v = past_key_values.update(k, v, self.layer_idx)
        attend = ALL_ATTENTION_FUNCTIONS[self.config._attn_implementation]
        settings["sliding_window"] = self.sliding_window
        out, _ = attend(
            self, q, k, v, attention_mask, dropout=0.0, scaling=self.scaling, **settings
        )
        return self.out(out.reshape(b, t, -1)), None

    def _normed(self, heads: Tensor) -> Tensor:
        """Queries, keys and values (b, t, h, d), the first two after their own norms, if any."""
        if self.q_norm is None or self.k_norm is None:
            return heads
        q, k, v = heads.split([self.queries, self.keys, self.keys], dim=2)
        return torch.cat([self.q_norm(q), self.k_norm(k), v], dim=2)


def turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions (Su et al. 2021) on (b, t, h, d), halves of d paired, by (b, t, d) cosines
    and sines.
    """
    return torch.addcmul(x * cos[:, :, None], x.roll(x.shape[-1] // 2, -1), _signed(sin))


@lru_cache(maxsize=1)
def _signed(sin: Tensor) -> Tensor:
    """Sines for halves that have changed places; the same tensor comes to every layer of a pass."""
    half = sin.shape[-1] // 2
    return torch.cat([-sin[..., :half], sin[..., half:]], dim=-1)[:, :, None]


class CompiledNorm(nn.Module):
    """RMSNorm in one operation, for few rows at a time: with many the products take so long that
    it does not count.
    """

    def __init__(self, source: Any, epsilon: float) -> None:
        super().__init__()
        self.weight, self.epsilon = source.weight, epsilon
        # Only who writes answers loads the compiler.
        self.norm = importlib.import_module("trainer.decoding").norm

    def forward(self, x: Tensor, **_: object) -> Tensor:
        found: Tensor = self.norm(x.contiguous(), self.weight, self.epsilon)
        return found


class Found(NamedTuple):
    """A block of a model: its owner, its name there, itself."""

    owner: nn.Module
    name: str
    block: nn.Module


def find(model: nn.Module, norms: bool) -> list[Found]:
    """The blocks that have the parts of a twin; with or without the norms."""
    return [
        Found(owner, name, block)
        for owner in model.modules()
        for name, block in owner.named_children()
        if _is_attention(block) or _is_mlp(block) or (norms and norm_epsilon(block) is not None)
    ]


def lean_throughout(model: Any) -> bool:
    """Whether every attention block is a lean one, so that a cache may hold prompts apart."""
    lean = sum(isinstance(module, LeanAttention) for module in model.modules())
    config = model.config
    return lean == config.num_hidden_layers and config._attn_implementation == LEAN


def _is_attention(block: nn.Module) -> bool:
    told = ("config", "layer_idx", "head_dim", "scaling", "num_key_value_groups")
    return _has_layers(block, (*QKV, "o_proj")) and all(hasattr(block, name) for name in told)


def _is_mlp(block: nn.Module) -> bool:
    return _has_layers(block, MLP)


def _has_layers(block: nn.Module, names: Iterable[str]) -> bool:
    return all(hasattr(getattr(block, name, None), "out_features") for name in names)


def twin(block: Any, pack: Pack) -> nn.Module | None:
    """What computes the same as the block in fewer operations; None leaves it."""
    if _is_attention(block):
        qkv, out = pack([getattr(block, name) for name in QKV]), pack([block.o_proj])
        return None if qkv is None or out is None else LeanAttention(block, qkv, out)
    epsilon = norm_epsilon(block)
    if epsilon is not None:
        return CompiledNorm(block, epsilon) if block.weight.device.type == "cpu" else None
    gate, up, down = (pack([getattr(block, name)]) for name in MLP)
    if gate is None or up is None or down is None:
        return None
    return LeanMLP(gate, up, down)


def alike(
    found: list[Found], pack: Pack, run: Callable[[], Any], same: Callable[[Tensor, Tensor], bool]
) -> frozenset[type]:
    """The kinds of block whose first one gave, when `run` ran the model, what its twin gives."""
    kinds = {type(one.block): one.block for one in reversed(found)}
    if not kinds:
        return frozenset()
    seen: dict[type, tuple[Any, Any, Any]] = {}

    def take(block: nn.Module, args: Any, kwargs: Any, result: Any) -> None:
        # Its cache holds the tokens by now; without one it would have given the same.
        seen[type(block)] = args, kwargs | {"past_key_values": None}, result

    hooks = [block.register_forward_hook(take, with_kwargs=True) for block in kinds.values()]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    right: set[type] = set()
    for kind, (args, kwargs, wanted) in seen.items():
        other = twin(kinds[kind], pack)
        try:
            given = None if other is None else other(*args, **kwargs)
        except (RuntimeError, TypeError, ValueError, KeyError, NotImplementedError):
            continue
        if given is not None and same(_first(given), _first(wanted)):
            right.add(kind)
    return frozenset(right)


def _first(result: Any) -> Tensor:
    """The states of a block's result."""
    states: Tensor = result[0] if isinstance(result, tuple) else result
    return states
