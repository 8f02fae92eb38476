"""Leaner blocks: used where they give what the model's own give, and left alone elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    LlamaConfig,
    MistralConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)

from tests.tiny import tiny_config
from trainer import adapters, blocks, kernels, modeling, packing, placement, rollout
from trainer.types import Sampling

CPU = placement.Placement(torch.device("cpu"), torch.float32)
SHAPE: dict[str, Any] = {
    "vocab_size": 48, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None,
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2,
}  # fmt: skip
#: a family, and how many of the three kinds of block have a twin
FAMILIES: dict[str, tuple[Callable[[], Any], int]] = {
    "llama": (lambda: LlamaConfig(**SHAPE), 3),
    "llama with biases": (lambda: LlamaConfig(**SHAPE, attention_bias=True, mlp_bias=True), 3),
    "qwen2: biases on queries, keys and values": (lambda: Qwen2Config(**SHAPE), 3),
    "qwen3: norms of queries and keys": (lambda: Qwen3Config(**SHAPE, head_dim=8), 3),
    "mistral: a sliding window": (lambda: MistralConfig(**SHAPE, sliding_window=6), 3),
    "llama with another activation": (lambda: LlamaConfig(**SHAPE, hidden_act="gelu"), 2),
    "gemma2: soft caps, another activation, 1 + w": (lambda: Gemma2Config(**SHAPE, head_dim=8), 0),
}
PROMPTS = [[3, 6, 7, 8, 5, 4], [3, 9, 5, 4]]


def make(folder: Path, config: Any) -> PreTrainedModel:
    torch.manual_seed(0)
    plain = AutoModelForCausalLM.from_config(config)
    for value in plain.parameters():
        nn.init.normal_(value, std=0.3)
    plain.save_pretrained(str(folder))
    return modeling.load_policy(folder, CPU)


def kinds(model: nn.Module) -> set[type]:
    return {type(module) for module in model.modules()} & {
        blocks.LeanAttention,
        blocks.LeanMLP,
        blocks.CompiledNorm,
    }


@pytest.mark.parametrize("family", FAMILIES)
def test_a_block_has_a_twin_where_it_gives_the_same(family: str, tmp_path: Path) -> None:
    config, twins = FAMILIES[family]
    model = make(tmp_path, config())
    if not kernels.can_pack(model.lm_head.weight):
        pytest.skip("this machine has no packed products")
    before = dict(model.named_modules())
    ids = torch.tensor(PROMPTS[:1])
    own = model(input_ids=ids).logits
    with packing.packed(model) as quick:
        assert len(kinds(quick)) == twins
        torch.testing.assert_close(quick(input_ids=ids).logits, own, rtol=1e-4, atol=1e-4)
    assert dict(model.named_modules()) == before
    assert torch.equal(model(input_ids=ids).logits, own)


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_answers_are_those_of_transformers(family: str, tmp_path: Path) -> None:
    """Longer than a sliding window of 6, and of two prompts, one of which is padded."""
    model = make(tmp_path, FAMILIES[family][0]())
    wanted = [
        model.generate(
            torch.tensor([prompt]), do_sample=False, max_new_tokens=9, eos_token_id=1,
            pad_token_id=0,
        )[0, len(prompt) :].tolist()
        for prompt in PROMPTS
    ]  # fmt: skip
    with packing.packed(model) as quick:
        found = rollout.generate(
            quick, PROMPTS, [[0], [0]], Sampling(9, temperature=0.0), stop=[1], pad=0
        )
    assert [one.ids for one in found] == wanted


def test_an_adapter_is_part_of_the_twins(tmp_path: Path) -> None:
    model = make(tmp_path, tiny_config())
    adapters.add_lora(model, 4, 8.0, 0, adapters.linear_names(model))
    with torch.no_grad():
        for name, value in adapters.adapter_parameters(model).items():
            value += 0.1 if "lora_B" in name else 0.0
    ids = torch.tensor(PROMPTS[:1])
    own = model(input_ids=ids).logits
    with packing.packed(model) as quick:
        torch.testing.assert_close(quick(input_ids=ids).logits, own, rtol=1e-3, atol=1e-3)
    with torch.no_grad():
        for name, value in adapters.adapter_parameters(model).items():
            value -= 0.1 if "lora_B" in name else 0.0
    changed = model(input_ids=ids).logits
    assert not torch.allclose(own, changed, atol=1e-2)
    with packing.packed(model) as quick:  # the weights of now, not those of the last time
        torch.testing.assert_close(quick(input_ids=ids).logits, changed, rtol=1e-3, atol=1e-3)


def test_turning_by_position_pairs_the_halves() -> None:
    # d = 4: (1, 3) and (2, 4) are pairs; a quarter turn takes (x, y) to (−y, x)
    x = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 1, 1, 4)
    quarter = torch.zeros(1, 1, 4), torch.ones(1, 1, 4)
    assert blocks.turn(x, *quarter).flatten().tolist() == [-3.0, -4.0, 1.0, 2.0]
    none = torch.ones(1, 1, 4), torch.zeros(1, 1, 4)
    assert torch.equal(blocks.turn(x, *none), x)


def test_products_with_something_behind() -> None:
    weight, bias = torch.randn(6, 8), torch.randn(6)
    if not kernels.can_pack(weight):
        pytest.skip("this machine has no packed products")
    layer = kernels.PackedLinear(weight, bias, rows=4)
    x, other = torch.randn(2, 3, 8), torch.randn(2, 3, 6)
    plain = x @ weight.T + bias
    torch.testing.assert_close(layer.swish(x), plain * plain.sigmoid(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(layer.times(x, other), plain * other, rtol=1e-4, atol=1e-5)


def test_norms_stay_the_models_own_where_nobody_writes(tmp_path: Path) -> None:
    """Who scores need not load the compiler; and one use of a model says nothing about another."""
    model = make(tmp_path, tiny_config())
    for compiled in (False, True, False):
        with packing.packed(model, norms=compiled) as quick:
            assert (blocks.CompiledNorm in kinds(quick)) == compiled
