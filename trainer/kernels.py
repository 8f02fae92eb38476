"""Leaner forms of a few computations, for a CPU above all. Each equals a plain form, and a test
says so.

- `lean_attention`: eager attention without copies of the keys for every query head, its gradient
  written out.
- `LeanNorm`: the gradient of RMSNorm with a frozen weight in a handful of passes over memory.
- `LoraProduct`: a frozen linear layer with a low-rank adapter, without float32 copies of its input.
- `TokenLogprob`: log softmax at one token per row, with its gradient formed while the probabilities
  are at hand.
- `PackedLinear`: a linear layer whose weight is brought into the CPU library's own layout once, for
  inference.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

from trainer.types import HEAD_ROWS

#: of HEAD_ROWS those rows whose softmax is taken at once: their logits should fit into a cache
CACHE_ROWS = 16
#: name under which transformers knows `lean_attention`
LEAN = "labelhub_lean"


class _Attention(torch.autograd.Function):
    """softmax(s·q kᵀ + mask) v with the query heads of one key head as further rows."""

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float
    ) -> Tensor:
        # q (b, h, t, d) → (b, kv, g·t, d); k, v (b, kv, T, d)
        b, h, t, d = q.shape
        kv, far = k.shape[1], k.shape[2]
        rows = q.reshape(b, kv, (h // kv) * t, d)
        scores = torch.matmul(rows, k.transpose(2, 3)).mul_(scale).view(b, kv, h // kv, t, far)
        if mask is not None:
            scores += mask[:, :, None]
        p = scores.softmax(-1).view(b, kv, -1, far)
        if ctx is not None:
            ctx.save_for_backward(rows, k, v, p)
            ctx.scale = scale
        out: Tensor = torch.matmul(p, v).view(b, h, t, d)
        return out

    @staticmethod
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor | None, ...]:
        rows, k, v, p = ctx.saved_tensors
        b, h, t, d = d_out.shape
        g = d_out.reshape(b, k.shape[1], -1, d)
        d_v = torch.matmul(p.transpose(2, 3), g)
        d_p = torch.matmul(g, v.transpose(2, 3))
        d_s = torch.ops.aten._softmax_backward_data(d_p, p, -1, p.dtype).mul_(ctx.scale)
        d_q = torch.matmul(d_s, k).view(b, h, t, d)
        d_k = torch.matmul(d_s.transpose(2, 3), rows)
        return d_q, d_k, d_v, None, None


def lean_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention as transformers asks for it; refuses what it does not compute."""
    if dropout or kwargs.get("softcap") is not None or kwargs.get("s_aux") is not None:
        raise NotImplementedError("lean attention has no dropout, soft cap or sinks")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if torch.is_grad_enabled():
        out = _Attention.apply(query, key, value, attention_mask, scale)
    else:  # the same without the books that autograd keeps
        out = _Attention.forward(None, query, key, value, attention_mask, scale)
    return out.transpose(1, 2).contiguous(), None


AttentionInterface.register(LEAN, lean_attention)
AttentionMaskInterface.register(LEAN, eager_mask)


def norm_epsilon(layer: nn.Module) -> float | None:
    """The ε of an RMSNorm with a weight; None for other layers."""
    if not type(layer).__name__.endswith("RMSNorm") or getattr(layer, "weight", None) is None:
        return None
    return getattr(layer, "variance_epsilon", getattr(layer, "eps", None))


class LeanNorm(torch.autograd.Function):
    """w · x / √(mean x² + ε) with w frozen; computed in float32, kept in x's format."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        wide = x.float()
        length = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
        inverse = length.square().div_(x.shape[-1]).add_(epsilon).rsqrt_()
        unit = (wide * inverse).to(x.dtype)
        if ctx is not None:
            ctx.save_for_backward(unit, inverse, weight)
        return weight * unit

    @staticmethod
    def backward(ctx: Any, d_y: Tensor) -> tuple[Tensor | None, ...]:
        unit, inverse, weight = ctx.saved_tensors
        g = (d_y * weight).float()
        wide = unit.float()
        # d x = (g − u · mean(g u)) / √(mean x² + ε)
        d_x = torch.addcmul(g, wide, (g * wide).mean(-1, keepdim=True), value=-1).mul_(inverse)
        return d_x.to(d_y.dtype), None, None


class LoraProduct(torch.autograd.Function):
    """y = x Wᵀ + c + (x Aᵀ)(s B)ᵀ, W and c frozen; A, B are float32, products run in W's format."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scale: float
    ) -> Tensor:
        flat = x.reshape(-1, x.shape[-1])
        low_a, low_b = a.to(weight.dtype), (b * scale).to(weight.dtype)
        narrow = flat @ low_a.T  # (N, r)
        y = nn.functional.linear(flat, weight, bias)
        y.addmm_(narrow, low_b.T)
        ctx.save_for_backward(flat, weight, low_a, low_b, narrow)
        ctx.scale = scale
        return y.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, d_y: Tensor) -> tuple[Tensor | None, ...]:
        flat, weight, low_a, low_b, narrow = ctx.saved_tensors
        g = d_y.reshape(-1, d_y.shape[-1])
        g_narrow = g @ low_b  # (N, r)
        d_a = (g_narrow.T @ flat).float()
        d_b = (g.T @ narrow).float() * ctx.scale
        d_x = None
        if ctx.needs_input_grad[0]:
            d_x = (g @ weight).addmm_(g_narrow, low_a).view(*d_y.shape[:-1], -1)
        return d_x, None, None, d_a, d_b, None


class TokenLogprob(torch.autograd.Function):
    """log softmax(h Wᵀ / T) at one token per row, with its entropy, a chunk of rows at a time.

    d log p / d h = (W[token] − Σ_v p_v W_v) / T belongs to the row alone, so it is formed while the
    chunk's probabilities are at hand, and going backwards is one product per row. W is frozen.
    Where a gradient is wanted the entropy is left out (0).
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        token: Tensor,
        heat: float,
        with_entropy: bool,
    ) -> tuple[Tensor, Tensor]:
        slope = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        logprob = torch.empty(len(token), device=hidden.device)
        entropy = torch.zeros_like(logprob)
        for begin in range(0, len(token), HEAD_ROWS):
            rows = slice(begin, begin + HEAD_ROWS)
            logits = nn.functional.linear(hidden[rows], weight, bias)
            parts = zip(
                *(x.split(CACHE_ROWS) for x in (logits, token[rows], logprob[rows], entropy[rows])),
                strict=True,
            )
            for some, own, out, spread in parts:
                p = _softmax_part(some, own, heat, (out, spread if with_entropy else None))
                if slope is not None:
                    some.copy_(p)
            if slope is not None:  # the logits have become probabilities
                slope[rows] = (weight[token[rows]] - logits @ weight) / heat
        if slope is not None:
            ctx.save_for_backward(slope)
        ctx.mark_non_differentiable(entropy)
        return logprob, entropy

    @staticmethod
    def backward(ctx: Any, d_logprob: Tensor, _entropy: Tensor) -> tuple[Tensor | None, ...]:
        (slope,) = ctx.saved_tensors
        return (slope * d_logprob[:, None]).to(slope.dtype), None, None, None, None, None


def _softmax_part(
    logits: Tensor, token: Tensor, heat: float, out: tuple[Tensor, Tensor | None]
) -> Tensor:
    """Probabilities of (rows, V) logits; log-probability and entropy are written to `out`."""
    hot = logits if heat == 1.0 else logits.float() / heat
    # The normaliser comes from the likeliest token, whose probability cannot vanish.
    top, place = hot.max(-1)
    p = hot.softmax(-1, dtype=torch.float32)
    normaliser = top.float() - p.gather(1, place[:, None])[:, 0].log()
    logprob, entropy = out
    logprob.copy_(hot.gather(1, token[:, None])[:, 0].float() - normaliser)
    if entropy is not None:
        entropy.copy_(normaliser - (p * hot).sum(-1))
    return p


class PackedLinear(nn.Module):
    """A linear layer whose weight was brought into the CPU library's own layout once.

    An ordinary layer in bfloat16 is brought there at every call, which costs more than the product
    when there are few rows.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, rows: int) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        # Some architectures ask a layer's weight for its format or device.
        self.weight = weight
        self.bias = bias
        self.packed = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), rows)

    def forward(self, x: Tensor) -> Tensor:
        return self._product(x, "none")

    def swish(self, x: Tensor) -> Tensor:
        """silu(Wx + c); the activation is taken before the product is rounded."""
        return self._product(x, "swish")

    def times(self, x: Tensor, other: Tensor) -> Tensor:
        """(Wx + c) · other, multiplied before the product is rounded."""
        flat, same = x.reshape(-1, self.in_features), other.reshape(-1, self.out_features)
        product = torch.ops.mkldnn._linear_pointwise.binary
        y = product(flat, same, self.packed, self.bias, "mul")
        result: Tensor = y.view(*x.shape[:-1], self.out_features)
        return result

    def _product(self, x: Tensor, then: str) -> Tensor:
        flat = x.reshape(-1, self.in_features)
        y = torch.ops.mkldnn._linear_pointwise(flat, self.packed, self.bias, then, [], "")
        result: Tensor = y.view(*x.shape[:-1], self.out_features)
        return result


def can_pack(weight: Tensor) -> bool:
    """oneDNN packs float32 and bfloat16 on a CPU that has the instructions."""
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    if weight.dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return weight.dtype == torch.float32
