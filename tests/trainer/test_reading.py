"""What a reward model reads: which tokens, and how deep."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
)

from tests.tiny import make_tiny, tiny_config
from tests.trainer.test_headstart import order, planted
from trainer.headstart import unseen_loss
from trainer.modeling import trunk
from trainer.reading import LOUD, best_depth, depths, read_evenly

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
def test_an_encoder_is_read_evenly_too() -> None:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=tiny_config().vocab_size, hidden_size=32, num_hidden_layers=2,
        num_attention_heads=2, intermediate_size=48, num_labels=1,
    )  # fmt: skip
    model = BertForSequenceClassification(config).eval()
    attention = model.bert.encoder.layer[-1].attention
    before = attention.output.dense.weight.clone()
    assert read_evenly(model)
    assert float(attention.self.query.weight.abs().max()) == 0.0
    assert torch.equal(attention.output.dense.weight, LOUD * before)


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


def test_the_depth_whose_states_decide_is_taken() -> None:
    states, rankings = planted(60)
    noise = [torch.randn(some.shape, generator=torch.Generator().manual_seed(n))
             for n, some in enumerate(states)]  # fmt: skip
    found = {5: noise, 7: states, 9: [some + 3 * other for some, other in
                                      zip(states, noise, strict=True)]}  # fmt: skip
    assert best_depth([5, 7, 9], rankings, found.__getitem__) == 7


def test_the_first_of_equals_is_taken() -> None:
    states, rankings = planted(20)
    assert best_depth([5, 7], rankings, lambda _: states) == 5


def test_what_cannot_be_told_costs_log_2_a_pair() -> None:
    """Half of the pairs one way, half the other, with states that are all alike."""
    rankings = [order(n, *((1, 2) if n % 2 else (2, 1))) for n in range(40)]
    states = [torch.ones(2, 3)] * 40
    assert unseen_loss(states, rankings) == pytest.approx(0.6931, abs=1e-3)


def test_rankings_that_are_ties_alone_cost_nothing() -> None:
    assert unseen_loss([torch.eye(3)[:2]] * 3, [order(n, 1, 1) for n in range(3)]) == 0.0
