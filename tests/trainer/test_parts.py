"""Small parts of the stages, each by hand."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.tiny import tiny_tokenizer
from trainer import ranks, schedules
from trainer.config import RewardConfig
from trainer.critics import head_of
from trainer.data import Pair, Ranking
from trainer.episodes import length_mask, sampler_gap
from trainer.reports import _information
from trainer.scoring import Normalisation
from trainer.stages import bestofn, prefer, reward, sft
from trainer.trials import Tried
from trainer.types import Sampled, padded


def ranking(*ranks: int, weight: float = 1.0) -> Ranking:
    return Ranking(
        messages=({"role": "user", "content": "I like"},),
        answer_ids=tuple("abcd"[: len(ranks)]),
        texts=("tea", "warm tea", "cold", "rain")[: len(ranks)],
        ranks=ranks,
        gaps=(0.0,) * (max(ranks) - 1),
        weight=weight,
    )


def answer(*logprobs: float) -> Sampled:
    return Sampled(0, 0, 0, [7] * len(logprobs), list(logprobs), True)


def test_the_mask_covers_each_answers_tokens() -> None:
    mask = length_mask([answer(-1.0, -1.0), answer(-1.0)], torch.device("cpu"))
    assert mask.tolist() == [[True, True], [True, False]]


def test_the_samplers_gap_is_a_mean_over_real_tokens() -> None:
    answers = [answer(-1.0, -2.0), answer(-1.0)]
    old = torch.tensor([[-1.5, -2.0], [-2.0, 0.0]])
    mask = torch.tensor([[True, True], [True, False]])
    assert sampler_gap(answers, old, mask) == pytest.approx((0.5 + 0.0 + 1.0) / 3)


def test_the_mean_score_of_each_prompts_answers() -> None:
    tried = Tried([], [], [1.0, 3.0, 5.0, 5.0])
    assert tried.by_prompt(2) == [2.0, 5.0]
    assert tried.mean == 3.5


def test_a_batch_is_at_most_an_eighth_wider_than_its_longest_row() -> None:
    assert [padded(n) for n in (1, 8, 9, 64, 65, 128, 129, 256, 257, 2047, 2049)] == [
        8, 8, 16, 64, 72, 128, 144, 256, 288, 2048, 2304
    ]  # fmt: skip
    assert all(n <= padded(n) < max(n + 8, n * 9 / 8) for n in range(1, 5000))
    assert all(padded(padded(n)) == padded(n) for n in range(5000))
    assert len({padded(n) for n in range(1025, 2049)}) == 8


def test_a_linear_rate_rises_and_falls() -> None:
    # four steps, a quarter of them rising: 1/1; then down to nothing: 3/4, 2/4, 1/4
    assert [schedules.linear(step, 4, 0.25) for step in range(4)] == [1.0, 0.75, 0.5, 0.25]
    # half of them rising: 1/2, 1; then 2/3, 1/3
    rates = [schedules.linear(step, 4, 0.5) for step in range(4)]
    assert rates == pytest.approx([0.5, 1.0, 2 / 3, 1 / 3])
    # none of them rising: the first has all of it
    assert [schedules.linear(step, 4) for step in range(4)] == [1.0, 0.75, 0.5, 0.25]


def test_a_reward_run_settles_what_was_left_open() -> None:
    def settled(answers: list[int], **config: Any) -> tuple[int, float]:
        found = schedules.settled(RewardConfig.from_json(config), answers)
        return found.rankings_per_step, found.lr

    # 128 rankings of four: 4 · 6 pairs a step, 32 steps an epoch, two epochs
    assert settled([4] * 128) == (4, 1e-3)
    # twice as many steps: as far on noise at 1/√2 of the rate
    assert settled([4] * 256) == (4, pytest.approx(1e-3 / math.sqrt(2)))
    assert settled([4] * 128, epochs=8) == (4, pytest.approx(5e-4))
    # pairs alone: 24 of them; 3,840 in 160 steps, twice
    assert settled([2] * 3840) == (24, pytest.approx(1e-3 * math.sqrt(64 / 320)))
    assert settled([3] * 10)[0] == 8
    assert settled([9] * 10)[0] == 4  # 36 pairs each, but never fewer rankings than four
    assert settled([2, 4] * 50)[0] == 7  # 3.5 pairs each
    assert settled([4] * 128, rankings_per_step=1) == (1, pytest.approx(5e-4))
    assert settled([4] * 256, lr=2e-3) == (4, 2e-3)


def test_right_pairs_are_counted_for_each_ranking() -> None:
    # first: 1 > 0 right, 1 > 2 wrong, 0 > 2 wrong; second: a tie and nothing else; third: equal
    counted = reward.pairs_right(
        [1.0, 0.0, 2.0, 5.0, 4.0, 3.0, 3.0], [ranking(1, 2, 3), ranking(1, 1), ranking(1, 2)]
    )
    assert counted == [[1.0, 3.0], [0.0, 0.0], [0.5, 1.0]]


def test_the_margin_is_the_better_less_the_worse() -> None:
    # a over b: 3 − 1; a over c: 3 − 0; b and c tie
    assert prefer.mean_margin([ranking(1, 2, 2)], [[3.0, 1.0, 0.0]]) == 2.5
    assert prefer.mean_margin([ranking(1, 1)], [[3.0, 1.0]]) is None


def test_every_untied_pair_is_a_choice_and_weights_have_mean_1() -> None:
    tokenizer = tiny_tokenizer()
    end = tokenizer.eos_token_id
    tea, warm, cold = (tokenizer(word)["input_ids"][0] for word in ("tea", "warm", "cold"))
    rankings = [ranking(1, 2, 2), ranking(2, 1, weight=4.0)]
    choices = prefer.choices_of(tokenizer, rankings, 64, False)
    assert [(one.better, one.worse) for one in choices] == [
        ([tea, end], [warm, tea, end]),
        ([tea, end], [cold, end]),
        ([warm, tea, end], [tea, end]),
    ]
    assert [one.weight for one in choices] == [0.5, 0.5, 2.0]
    best = prefer.choices_of(tokenizer, [ranking(1, 2, 3)], 64, True)
    assert [(one.better, one.worse) for one in best] == [([tea, end], [cold, end])]


def test_the_critic_begins_with_normalised_scores() -> None:
    """A head 2x + 3 whose scores have mean 5 and deviation 4: (2x + 3 − 5) / 4."""
    head = torch.nn.Linear(1, 1)
    with torch.no_grad():
        head.weight.fill_(2.0)
        head.bias.fill_(3.0)
    judge = SimpleNamespace(normalisation=Normalisation(5.0, 4.0))
    scorer: Any = SimpleNamespace(head=head, judge=judge)
    found = head_of(scorer)
    assert (found.weight.item(), found.bias.item()) == (0.5, -0.5)


def test_disagreement_is_what_the_members_do_not_share() -> None:
    """All of them unsure alike is nothing; sure of opposite orders is all of a coin's log 2."""
    found = _information(np.array([[0.0, 0.0], [1.5, 1.5], [30.0, -30.0]]))
    assert found == pytest.approx([0.0, 0.0, math.log(2)], abs=1e-6)


def test_a_weight_multiplies_the_gradient_and_leaves_the_value() -> None:
    logprob = torch.tensor([[-1.0, -2.0], [-3.0, -4.0]], requires_grad=True)
    outputs: Any = SimpleNamespace(log_probs=logprob)
    trainer: Any = SimpleNamespace(weight=torch.tensor([0.5, 2.0]))
    prefer.DPO.weigh(trainer, None, None, outputs)
    assert torch.equal(outputs.log_probs, logprob)
    outputs.log_probs.sum().backward()
    assert logprob.grad is not None
    assert logprob.grad.tolist() == [[0.5, 0.5], [2.0, 2.0]]


@pytest.mark.parametrize(("world", "wanted"), [(1, 0.75), (2, 1.5)])
def test_a_part_of_a_dpo_step_counts_by_its_pairs(
    world: int, wanted: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TRL's mean over two pairs is 3, and the step has eight: 3 · 2 / 8.

    Two processes take the mean of their gradients, so each gives twice as much.
    """
    heard: list[list[float]] = []

    def compute_loss(self: prefer.DPO, _model: Any, inputs: Any, *_: Any) -> torch.Tensor:
        assert inputs == {"ids": "tokens"}
        assert self.weight is not None
        heard.append(self.weight.tolist())
        return torch.tensor(3.0)

    monkeypatch.setattr(prefer.DPOTrainer, "compute_loss", compute_loss)
    monkeypatch.setattr(ranks, "world", lambda: world)
    fit = object.__new__(prefer.DPO)
    inputs = {"ids": "tokens", "weight": torch.tensor([0.5, 2.0])}
    assert float(fit.compute_loss(None, inputs, num_items_in_batch=8)) == wanted
    assert heard == [[0.5, 2.0, 0.5, 2.0]]  # the better answers, then the worse ones
    assert fit.weight is None


def test_an_implicit_reward_is_what_the_policy_says_more_than_its_base(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The n-th answer has log-probability 3n under the policy and n under its base; β is ½."""
    asked: list[Any] = []

    def logprobs(model: int, rows: Any, pad: int, temperature: float, *_: Any) -> list[float]:
        assert (pad, temperature) == (0, 1.0)
        asked.extend(rows)
        return [float(model * n) for n in range(len(rows))]

    monkeypatch.setattr(prefer.trials, "logprobs", logprobs)
    tokenizer = tiny_tokenizer()
    context = SimpleNamespace(leave_if_asked=None)
    config = SimpleNamespace(beta=0.5, token_budget=64)
    opened: Any = SimpleNamespace(tokenizer=tokenizer, pad=0, config=config, context=context)
    rankings = [ranking(1, 2), ranking(1, 2, 3)]
    assert prefer.implicit_rewards(opened, 3, 1, rankings, 5) == [[0.0, 1.0], [2.0, 3.0, 4.0]]
    # A window of five has room for two or three tokens of the prompt beside the answer.
    words = [tuple(map(tokenizer.convert_ids_to_tokens, row)) for row in asked[:2]]
    assert words == [
        (["like", "<end>", "<assistant>"], ["tea", "<end>"]),
        (["<end>", "<assistant>"], ["warm", "tea", "<end>"]),
    ]


@pytest.mark.parametrize("world", [1, 2])
def test_the_loss_of_the_winners_is_a_part_of_the_steps_mean_over_tokens(
    world: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of tokens with chances ¾ and ⅞, in a step of four: (log 4/3 + log 8/7) / 4 = 0.1053034.

    What follows the last token is foretold, too, but nobody knows it.
    """
    chances = torch.tensor([[[0.25, 0.75], [0.875, 0.125], [0.001, 0.999]]])
    model = Foretelling(chances.log())
    labels = torch.tensor([[bestofn.IGNORED, 1, 0]])
    inputs = {"input_ids": labels, "attention_mask": labels, "labels": labels}
    monkeypatch.setattr(ranks, "world", lambda: world)
    fit: Any = SimpleNamespace(model=model)
    loss = bestofn.Fit.compute_loss(fit, model, inputs, num_items_in_batch=4)
    assert float(loss) == pytest.approx(world * 0.1053034, abs=1e-6)


class Foretelling(nn.Module):
    """A model whose states are its logits, always the same."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = logits
        self.base_model = nn.Identity()

    def forward(self, **_: Any) -> Any:
        states = self.base_model(SimpleNamespace(last_hidden_state=self.logits))
        return SimpleNamespace(logits=states.last_hidden_state)


def test_a_row_to_learn_has_one_end_and_knows_where_its_answer_begins() -> None:
    tokenizer = tiny_tokenizer()
    row = sft.row_of(tokenizer, Pair(({"role": "user", "content": "tea"},), "warm tea"), 64)
    words = tokenizer.convert_ids_to_tokens(row.ids)
    assert words == ["<user>", "tea", "<end>", "<assistant>", "warm", "tea", "<end>"]
    assert row.prompt == 4
