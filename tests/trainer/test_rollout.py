"""Sampled answers: the right log-probabilities, and the same answer in whatever company."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel
from transformers.generation.logits_process import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from tests.tiny import make_tiny
from trainer import modeling, packing, placement, rollout
from trainer.events import RunError
from trainer.types import Sampled, Sampling

CPU = placement.Placement(torch.device("cpu"), torch.float32)
PROMPTS = [[3, 6, 7, 8, 1, 4], [3, 9, 1, 4], [3, 10, 11, 12, 13, 1, 4], [3, 20, 1, 4]]


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedModel:
    return modeling.load_policy(make_tiny(tmp_path_factory.mktemp("models")), CPU)


def write(model: PreTrainedModel, prompts: list[list[int]], **settings: Any) -> list[Sampled]:
    seeds = [[rollout.answer_seed(0, str(prompt), n) for n in range(3)] for prompt in prompts]
    settings = {"stop": [1], "pad": 0, "max_new_tokens": 12} | settings
    names = {item.name for item in fields(Sampling)}
    sampling = Sampling(**{name: settings.pop(name) for name in names & settings.keys()})
    return rollout.generate(model, prompts, seeds, sampling, **settings)


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


@pytest.mark.parametrize(
    "settings",
    [{}, {"min_p": 0.1, "repetition_penalty": 1.5}, {"top_p": 0.8, "top_k": 12}],
)
@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_an_answer_does_not_depend_on_its_company(
    policy: PreTrainedModel, batch_size: int, settings: dict[str, Any]
) -> None:
    wanted = [one.ids for one in write(policy, PROMPTS, batch_size=64, **settings)]
    assert [one.ids for one in write(policy, PROMPTS, batch_size=batch_size, **settings)] == wanted
    alone = [one.ids for prompt in PROMPTS for one in write(policy, [prompt], **settings)]
    assert alone == wanted


def test_packed_weights_write_the_same_answers(policy: PreTrainedModel) -> None:
    wanted = [one.ids for one in write(policy, PROMPTS)]
    with packing.packed(policy) as quick:
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


def test_the_inverse_cdf_within_a_block_begins_where_the_block_does() -> None:
    """Weights 1 | 2 2 in two blocks: half of 5 is 2.5, which is 1.5 into the second block."""
    weights = torch.zeros(1, 2 * rollout.BLOCK)
    weights[0, [0, rollout.BLOCK + 1, rollout.BLOCK + 2]] = torch.tensor([1.0, 2.0, 2.0])
    for u, wanted in ((0.5, rollout.BLOCK + 1), (0.7, rollout.BLOCK + 2)):
        assert int(rollout.invert(weights, torch.tensor([u]))) == wanted


def test_a_share_that_is_reached_exactly_needs_no_further_token() -> None:
    assert rollout.cut(torch.tensor([[1.0, 4.0, 2.0, 1.0]]), 0, 0.5, 0.0).tolist() == [[0, 4, 0, 0]]


def test_the_nucleus_keeps_the_fewest_that_reach_the_share() -> None:
    weights = torch.tensor([[1.0, 4.0, 3.0, 2.0]])
    # 4, then 7 of 10: 0.5 needs two tokens, 0.39 one, 0.71 three
    assert rollout.cut(weights, 0, 0.5, 0.0).tolist() == [[0, 4, 3, 0]]
    assert rollout.cut(weights, 0, 0.39, 0.0).tolist() == [[0, 4, 0, 0]]
    assert rollout.cut(weights, 0, 0.71, 0.0).tolist() == [[0, 4, 3, 2]]
    assert rollout.cut(weights, 0, 1e-6, 0.0).tolist() == [[0, 4, 0, 0]]


def test_top_p_is_a_share_of_what_top_k_left() -> None:
    # of the two that are left the first one weighs 4/7 = 0.571
    weights = torch.tensor([[1.0, 4.0, 3.0, 2.0]])
    assert rollout.cut(weights, 2, 0.57, 0.0).tolist() == [[0, 4, 0, 0]]
    assert rollout.cut(weights, 2, 0.58, 0.0).tolist() == [[0, 4, 3, 0]]


def test_min_p_is_a_share_of_the_heaviest() -> None:
    weights = torch.tensor([[1.0, 4.0, 3.0, 2.0]])
    assert rollout.cut(weights, 0, 1.0, 0.5).tolist() == [[0, 4, 3, 2]]
    assert rollout.cut(weights, 0, 1.0, 0.51).tolist() == [[0, 4, 3, 0]]
    assert rollout.cut(weights, 0, 1.0, 1.0).tolist() == [[0, 4, 0, 0]]


def test_a_penalty_divides_what_is_positive_and_multiplies_what_is_negative() -> None:
    scores = torch.tensor([[2.0, -1.0, 2.0, -1.0]])
    seen = torch.tensor([[True, True, False, False]])
    assert rollout.penalised(scores, seen, 4.0).tolist() == [[0.5, -4.0, 2.0, -1.0]]


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": 0.7},
        {"top_k": 7},
        {"top_p": 0.6},
        {"min_p": 0.2},
        {"repetition_penalty": 1.7},
        {"repetition_penalty": 0.6, "temperature": 1.4},
        {"top_k": 9, "top_p": 0.5, "min_p": 0.3, "temperature": 0.8, "repetition_penalty": 1.3},
    ],
)
@pytest.mark.parametrize("size", [40, 3000])
def test_what_may_be_drawn_is_what_transformers_says(settings: dict[str, Any], size: int) -> None:
    """Every step of u through a row's distribution: where the token changes, and to which."""
    dice = torch.Generator().manual_seed(size)
    logits = torch.randn(1, size, generator=dice) * 3
    text = torch.randint(size, (1, 12), generator=dice)
    processors = LogitsProcessorList()
    if "repetition_penalty" in settings:
        processors.append(RepetitionPenaltyLogitsProcessor(settings["repetition_penalty"]))
    for name, kind in (
        ("temperature", TemperatureLogitsWarper),
        ("top_k", TopKLogitsWarper),
        ("top_p", TopPLogitsWarper),
        ("min_p", MinPLogitsWarper),
    ):
        if name in settings:
            processors.append(kind(settings[name]))
    shares = processors(text, logits.clone()).softmax(-1)[0].double()
    ends = shares.cumsum(-1) / shares.sum()
    u = torch.arange(0.0005, 1, 0.001, dtype=torch.float64)
    u = u[(u[:, None] - ends).abs().amin(-1) > 1e-5]  # nothing on a border between two tokens
    seen = torch.zeros(1, size, dtype=torch.bool)
    seen[0, text] = True
    token, logprob = rollout.draw(
        logits.expand(len(u), -1),
        u,
        Sampling(1, **settings),
        seen.expand(len(u), -1) if "repetition_penalty" in settings else None,
    )
    assert token.tolist() == torch.searchsorted(ends, u, right=True).tolist()
    own = (logits / settings.get("temperature", 1.0)).log_softmax(-1)[0]
    torch.testing.assert_close(logprob, own[token], rtol=1e-4, atol=1e-4)


def test_greedy_answers_are_those_of_transformers(policy: PreTrainedModel) -> None:
    for penalty in (1.0, 1.3):
        for prompt in PROMPTS:
            (own, *_) = write(policy, [prompt], temperature=0.0, repetition_penalty=penalty)
            whole = policy.generate(
                torch.tensor([prompt]),
                do_sample=False,
                max_new_tokens=12,
                eos_token_id=1,
                pad_token_id=0,
                repetition_penalty=penalty,
            )
            assert own.ids == whole[0, len(prompt) :].tolist()


@pytest.mark.parametrize("settings", [{}, {"temperature": 0.0}, {"top_p": 0.8}])
def test_answers_are_the_same_where_a_prompt_is_kept_once(
    policy: PreTrainedModel, settings: dict[str, Any]
) -> None:
    """Packed weights let a prompt's answers share its keys; they end at different times."""
    wanted = write(policy, PROMPTS, max_new_tokens=30, **settings)
    with packing.packed(policy) as writer:
        found = write(writer, PROMPTS, max_new_tokens=30, **settings)
    assert [one.ids for one in found] == [one.ids for one in wanted]
    for one, other in zip(found, wanted, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, rel=1e-3, abs=1e-4)


def test_prompts_are_read_in_parts_where_that_saves_padding() -> None:
    # a part costs as much as 64 tokens: 3 × 10 + 2 × 100 + 2 × 64 = 358 beside 5 × 100 + 64 = 564
    assert rollout.by_length([10, 100, 9, 100, 10]) == [[2, 0, 4], [1, 3]]
    assert rollout.by_length([10, 20, 10]) == [[0, 2, 1]]
    # 2 × 40 + 64 = 144 for both together, 10 + 40 + 128 = 178 apart
    assert rollout.by_length([40, 10]) == [[1, 0]]


def test_parts_give_what_one_pass_gives(
    policy: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = rollout._read_part(policy, PROMPTS, pad=0)
    monkeypatch.setattr(rollout, "PASS", 0)
    passes = []
    read = rollout._read_part
    monkeypatch.setattr(rollout, "_read_part", lambda *a, **k: passes.append(1) or read(*a, **k))
    logits, cache, mask = rollout._read_prompts(policy, PROMPTS, pad=0)
    assert len(passes) == 3
    torch.testing.assert_close(logits, whole[0], rtol=1e-4, atol=1e-5)
    assert torch.equal(mask, whole[2])
    hidden = mask[:, None, :, None].bool()
    for one, other in zip(cache.layers, whole[1].layers, strict=True):
        assert one.filled == other.filled == 7
        torch.testing.assert_close(one.keys * hidden, other.keys * hidden, rtol=1e-4, atol=1e-5)


def test_tokens_come_as_often_as_their_probability_says() -> None:
    count = 4000
    seeds = [rollout.answer_seed(0, n) for n in range(count)]
    logits = torch.tensor([0.1, 0.2, 0.7]).log().expand(count, 3)
    token, logprob = rollout.draw(logits, rollout.uniforms(seeds, 5), Sampling(1))
    shares = torch.bincount(token, minlength=3) / count
    # three standard errors of the largest share: 3·√(0.7·0.3/4000) = 0.022
    torch.testing.assert_close(shares, torch.tensor([0.1, 0.2, 0.7]), rtol=0, atol=0.022)
    torch.testing.assert_close(logprob, torch.tensor([0.1, 0.2, 0.7]).log()[token])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nothing_is_drawn_from_what_is_no_number(value: float) -> None:
    logits = torch.tensor([[0.0, 1.0], [0.0, value]])
    with pytest.raises(RunError, match="The policy's logits are no number any more"):
        rollout.draw(logits, rollout.uniforms([1, 2], 0), Sampling(1))


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
