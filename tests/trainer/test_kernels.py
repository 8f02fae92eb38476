"""The lean forms give what the plain ones give, forwards and backwards."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from trainer import kernels


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def gradients(compute: Callable[..., Tensor], *inputs: Tensor) -> list[Tensor]:
    """The result and the gradient of its weighted sum for each input."""
    own = [x.clone().requires_grad_(True) for x in inputs]
    result = compute(*own)
    (result * numbers(*result.shape, seed=9)).sum().backward()
    return [result.detach(), *(x.grad for x in own if x.grad is not None)]


def equal(found: list[Tensor], wanted: list[Tensor]) -> None:
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_lean_attention_is_attention_with_shared_keys() -> None:
    q, k, v = numbers(2, 4, 5, 8), numbers(2, 2, 5, 8, seed=1), numbers(2, 2, 5, 8, seed=2)
    mask = torch.zeros(2, 1, 5, 5).masked_fill(torch.ones(5, 5).triu(1).bool(), -1e9)

    def plain(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        k, v = k.repeat_interleave(2, 1), v.repeat_interleave(2, 1)
        p = (q @ k.transpose(2, 3) * 0.3 + mask).softmax(-1)
        return (p @ v).transpose(1, 2)

    def lean(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return kernels.lean_attention(nn.Identity(), q, k, v, mask, scaling=0.3)[0]

    equal(gradients(lean, q, k, v), gradients(plain, q, k, v))


def test_lean_attention_refuses_what_it_does_not_compute() -> None:
    q = numbers(1, 1, 2, 4)
    with pytest.raises(NotImplementedError):
        kernels.lean_attention(nn.Identity(), q, q, q, None, softcap=50.0)


def test_lean_norm_is_rms_norm() -> None:
    x, weight = numbers(3, 7, 16), numbers(16, seed=1)

    def plain(x: Tensor) -> Tensor:
        return weight * (x * (x.square().mean(-1, keepdim=True) + 1e-5).rsqrt())

    equal(gradients(lambda x: kernels.LeanNorm.apply(x, weight, 1e-5), x), gradients(plain, x))


def test_the_norm_of_next_to_nothing_stays_small() -> None:
    """x = 0.001 everywhere: mean x² = 1e-6, and with ε = 3e-6 the root is 0.002."""
    x, weight = torch.full((1, 4), 1e-3), torch.full((4,), 3.0)
    found = kernels.LeanNorm.apply(x, weight, 3e-6)
    torch.testing.assert_close(found, torch.full((1, 4), 1.5))


def test_the_adapter_product_is_base_plus_low_rank() -> None:
    x, weight, bias = numbers(2, 3, 8), numbers(6, 8, seed=1), numbers(6, seed=2)
    a, b = numbers(4, 8, seed=3), numbers(6, 4, seed=4)

    def plain(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return x @ weight.T + bias + 2.0 * (x @ a.T) @ b.T

    def lean(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return kernels.LoraProduct.apply(x, weight, bias, a, b, 2.0)

    equal(gradients(lean, x, a, b), gradients(plain, x, a, b))


def test_token_logprobs_are_those_of_the_softmax_over_several_chunks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kernels, "HEAD_ROWS", 6)
    monkeypatch.setattr(kernels, "CACHE_ROWS", 4)
    hidden, weight, bias = numbers(10, 8), numbers(30, 8, seed=1), numbers(30, seed=2)
    token = torch.arange(10) * 3

    def plain(hidden: Tensor) -> Tensor:
        return ((hidden @ weight.T + bias) / 0.7).log_softmax(-1)[torch.arange(10), token]

    def lean(hidden: Tensor) -> Tensor:
        return kernels.TokenLogprob.apply(hidden, weight, bias, token, 0.7, False)[0]

    equal(gradients(lean, hidden), gradients(plain, hidden))


def test_entropy_comes_with_log_probabilities() -> None:
    hidden, weight = numbers(5, 8), numbers(30, 8, seed=1)
    _, entropy = kernels.TokenLogprob.apply(hidden, weight, None, torch.zeros(5).long(), 1.0, True)
    wanted = torch.distributions.Categorical(logits=hidden @ weight.T).entropy()
    torch.testing.assert_close(entropy, wanted)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("has_bias", [True, False])
def test_a_packed_layer_gives_what_the_plain_one_gives(dtype: torch.dtype, has_bias: bool) -> None:
    layer = nn.Linear(24, 40, bias=has_bias).to(dtype).requires_grad_(False)
    if not kernels.can_pack(layer.weight):
        pytest.skip("this machine has no packed products in that format")
    packed = kernels.PackedLinear(layer.weight, layer.bias, rows=8)
    for rows in (1, 8, 33):
        x = numbers(2, rows, 24).to(dtype)
        torch.testing.assert_close(packed(x), layer(x), rtol=1e-2, atol=1e-2)
