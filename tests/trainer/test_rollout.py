"""Sampled answers: the right log-probabilities, and the same answer in whatever company."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from tests.tiny import make_tiny
from trainer import modeling, rollout
from trainer.types import Sampled

CPU = modeling.Placement(torch.device("cpu"), torch.float32)
PROMPTS = [[3, 6, 7, 8, 1, 4], [3, 9, 1, 4], [3, 10, 11, 12, 13, 1, 4], [3, 20, 1, 4]]


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedModel:
    return modeling.load_policy(make_tiny(tmp_path_factory.mktemp("models")), CPU)


def write(model: PreTrainedModel, prompts: list[list[int]], **settings: Any) -> list[Sampled]:
    seeds = [[rollout.answer_seed(0, str(prompt), n) for n in range(3)] for prompt in prompts]
    defaults: dict[str, Any] = {"stop": [1], "pad": 0, "max_new_tokens": 12}
    return rollout.generate(model, prompts, seeds, **(defaults | settings))


def test_answers_come_in_order_and_end_with_the_end_token(policy: PreTrainedModel) -> None:
    answers = write(policy, PROMPTS, max_new_tokens=30)
    assert [(one.prompt, one.n) for one in answers] == [(p, n) for p in range(4) for n in range(3)]
    for one in answers:
        assert 1 not in one.ids[:-1]
        assert one.finished == (one.ids[-1] == 1)
        assert one.finished or len(one.ids) == 30
        assert len(one.logprobs) == len(one.ids)
    assert {one.finished for one in answers} == {True, False}


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_sampled_log_probabilities_are_those_of_training(
    policy: PreTrainedModel, temperature: float
) -> None:
    answers = write(policy, PROMPTS, temperature=temperature)
    batch = modeling.collate([(PROMPTS[one.prompt], [one.ids]) for one in answers], pad=0)
    trained, _ = modeling.response_logprobs(policy, batch, temperature)
    for row, one in enumerate(answers):
        own = torch.tensor(one.logprobs)
        torch.testing.assert_close(trained[row, : len(own)], own, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 2, 5, 64])
def test_an_answer_does_not_depend_on_its_company(policy: PreTrainedModel, batch_size: int) -> None:
    wanted = [one.ids for one in write(policy, PROMPTS, batch_size=64)]
    assert [one.ids for one in write(policy, PROMPTS, batch_size=batch_size)] == wanted
    alone = [one.ids for prompt in PROMPTS for one in write(policy, [prompt])]
    assert alone == wanted


def test_packed_weights_write_the_same_answers(policy: PreTrainedModel) -> None:
    wanted = [one.ids for one in write(policy, PROMPTS)]
    with modeling.packed(policy) as quick:
        assert [one.ids for one in write(quick, PROMPTS)] == wanted


def test_another_seed_writes_another_answer(policy: PreTrainedModel) -> None:
    first, second, third = (one.ids for one in write(policy, PROMPTS[:1]))
    assert first != second != third != first


def test_temperature_0_takes_the_likeliest_token(policy: PreTrainedModel) -> None:
    answers = write(policy, PROMPTS[:1], temperature=0.0)
    assert answers[0].ids == answers[1].ids == answers[2].ids
    logits = policy(input_ids=torch.tensor([PROMPTS[0]])).logits[0, -1]
    assert answers[0].ids[0] == int(logits.argmax())


def test_top_k_1_takes_the_likeliest_token(policy: PreTrainedModel) -> None:
    greedy = write(policy, PROMPTS, temperature=0.0)
    assert [one.ids for one in write(policy, PROMPTS, top_k=1)] == [one.ids for one in greedy]


def test_the_inverse_cdf_of_three_tokens() -> None:
    # probabilities ½, 0, ½: below a half the first, from there on the third, never the second
    weights = torch.tensor([[2.0, 0.0, 2.0]])
    for u, wanted in ((0.0, 0), (0.4999, 0), (0.5, 2), (0.9999999999999999, 2)):
        token = rollout.invert(weights, torch.tensor([u], dtype=torch.float64))
        assert int(token) == wanted, u


def test_the_inverse_cdf_over_several_blocks() -> None:
    weights = torch.zeros(1, 2 * rollout.BLOCK + 10)
    weights[0, [3, rollout.BLOCK + 1, 2 * rollout.BLOCK + 9]] = torch.tensor([1.0, 2.0, 1.0])
    draws = [(0.2, 3), (0.3, rollout.BLOCK + 1), (0.7, rollout.BLOCK + 1), (0.8, 521)]
    for u, wanted in draws:
        assert int(rollout.invert(weights, torch.tensor([u]))) == wanted


def test_the_nucleus_keeps_the_fewest_that_reach_the_share() -> None:
    weights = torch.tensor([[1.0, 4.0, 3.0, 2.0]])
    # 4, then 7 of 10: 0.5 needs two tokens, 0.39 one, 0.71 three
    assert rollout.nucleus(weights, 0.5, 0).tolist() == [[0, 4, 3, 0]]
    assert rollout.nucleus(weights, 0.39, 0).tolist() == [[0, 4, 0, 0]]
    assert rollout.nucleus(weights, 0.71, 0).tolist() == [[0, 4, 3, 2]]
    assert rollout.nucleus(weights, 0.71, 2).tolist() == [[0, 4, 3, 0]]
    assert rollout.nucleus(weights, 1e-6, 0).tolist() == [[0, 4, 0, 0]]


def test_tokens_come_as_often_as_their_probability_says() -> None:
    count = 4000
    seeds = [rollout.answer_seed(0, n) for n in range(count)]
    logits = torch.tensor([0.1, 0.2, 0.7]).log().expand(count, 3)
    token, logprob = rollout.draw(logits, rollout.uniforms(seeds, 5), 1.0)
    shares = torch.bincount(token, minlength=3) / count
    # three standard errors of the largest share: 3·√(0.7·0.3/4000) = 0.022
    torch.testing.assert_close(shares, torch.tensor([0.1, 0.2, 0.7]), rtol=0, atol=0.022)
    torch.testing.assert_close(logprob, torch.tensor([0.1, 0.2, 0.7]).log()[token])


def test_uniform_numbers_differ_by_seed_and_place_and_come_again() -> None:
    first = rollout.uniforms([1, 2], 0)
    assert first[0] != first[1] != rollout.uniforms([1, 2], 1)[1]
    assert torch.equal(first, rollout.uniforms([1, 2], 0))
    assert bool(((first >= 0) & (first < 1)).all())


def test_batches_are_sorted_by_length_and_full() -> None:
    seeds = [[0, 1, 2]] * 4
    found = rollout.batches(PROMPTS, seeds, 5)
    assert found == [
        [(1, [0, 1, 2]), (3, [0, 1])],
        [(3, [2]), (0, [0, 1, 2]), (2, [0])],
        [(2, [1, 2])],
    ]
