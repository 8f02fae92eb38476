"""What a reward model reads: which tokens, and how deep."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    OPTConfig,
    PhiConfig,
    PreTrainedConfig,
    Qwen3Config,
)

from tests.tiny import make_tiny
from tests.trainer.test_headstart import order, planted
from trainer.headstart import unseen_loss
from trainer.modeling import layers_of, trunk
from trainer.reading import LOUD, depths, read_evenly

TOKENS = torch.tensor([[3, 8, 9, 11, 20, 1]])


@pytest.fixture
def model(tmp_path: Path) -> AutoModelForSequenceClassification:
    path = make_tiny(tmp_path)
    found = AutoModelForSequenceClassification.from_pretrained(str(path), num_labels=1)
    return found.eval()


@torch.no_grad()
def test_the_last_token_hears_the_mean_of_all_values(model: torch.nn.Module) -> None:
    assert read_evenly(model)
    attention = model.model.layers[-1].self_attn
    seen: dict[str, torch.Tensor] = {}
    attention.v_proj.register_forward_hook(lambda _m, _i, out: seen.update(values=out))
    attention.o_proj.register_forward_hook(lambda _m, inp, _o: seen.update(mixed=inp[0]))
    model(input_ids=TOKENS)
    mean = seen["values"][0].mean(0)  # one key head of 16, shared by two query heads
    assert torch.allclose(seen["mixed"][0, -1], mean.repeat(2), atol=1e-5)


@torch.no_grad()
def test_nothing_but_the_mean_is_left_at_the_end(model: torch.nn.Module) -> None:
    """What the layer adds is so loud that the state is the normed mean, through the output map."""
    attention = model.model.layers[-1].self_attn
    plain = attention.o_proj.weight.clone()
    read_evenly(model)
    assert torch.equal(attention.o_proj.weight, 1024 * plain)
    seen: dict[str, torch.Tensor] = {}
    attention.v_proj.register_forward_hook(lambda _m, _i, out: seen.update(values=out))
    state = trunk(model)(input_ids=TOKENS).last_hidden_state[0, -1]
    heard = plain @ seen["values"][0].mean(0).repeat(2)
    wanted = heard / heard.square().mean().sqrt() * trunk(model).norm.weight
    assert torch.allclose(state, wanted, atol=0.02)


@torch.no_grad()
@pytest.mark.parametrize(
    ("kind", "output"),
    [
        (Qwen3Config, "self_attn.o_proj"),
        (PhiConfig, "self_attn.dense"),
        (OPTConfig, "self_attn.out_proj"),
    ],
)
def test_other_families_are_read_evenly_too(kind: type[PreTrainedConfig], output: str) -> None:
    torch.manual_seed(0)
    more = {"ffn_dim": 48, "word_embed_proj_dim": 32} if kind is OPTConfig else {"head_dim": 16}
    config = kind(
        vocab_size=48, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, intermediate_size=48, num_labels=1, pad_token_id=0, **more,
    )  # fmt: skip
    model = AutoModelForSequenceClassification.from_config(config).eval()
    owner, name = layers_of(model)
    last = getattr(owner, name)[-1]
    before = last.get_submodule(output).weight.clone()
    assert read_evenly(model)
    assert float(last.self_attn.q_proj.weight.abs().max()) == 0.0
    assert torch.equal(last.get_submodule(output).weight, LOUD * before)
    assert model(input_ids=TOKENS).logits.isfinite().all()


def test_a_layer_whose_queries_are_no_map_of_their_own_stays_as_it_is() -> None:
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=48, n_embd=16, n_layer=1, n_head=2, n_positions=64, num_labels=1)
    model = GPT2ForSequenceClassification(config)
    before = {name: one.clone() for name, one in model.state_dict().items()}
    assert not read_evenly(model)
    assert all(torch.equal(one, before[name]) for name, one in model.state_dict().items())


def test_deep_models_have_three_depths_and_shallow_ones_no_choice() -> None:
    assert depths(30) == [16, 22, 30]
    assert depths(9) == [5, 7, 9]
    assert depths(8) == [8]
    assert depths(0) == [0]


def test_states_that_decide_cost_least() -> None:
    states, rankings = planted(60)
    noise = [torch.randn(some.shape, generator=torch.Generator().manual_seed(n))
             for n, some in enumerate(states)]  # fmt: skip
    mixed = [some + other for some, other in zip(states, noise, strict=True)]
    clear, blurred, dark = (unseen_loss(some, rankings) for some in (states, mixed, noise))
    assert clear < blurred < dark


def test_what_cannot_be_told_costs_log_2_a_pair() -> None:
    """Half of the pairs one way, half the other, with states that are all alike."""
    rankings = [order(n, *((1, 2) if n % 2 else (2, 1))) for n in range(40)]
    states = [torch.ones(2, 3)] * 40
    assert unseen_loss(states, rankings) == pytest.approx(0.6931, abs=1e-3)


def test_rankings_that_are_ties_alone_cost_nothing() -> None:
    assert unseen_loss([torch.eye(3)[:2]] * 3, [order(n, 1, 1) for n in range(3)]) == 0.0
