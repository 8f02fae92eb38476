"""A policy tried out: log-probabilities that company, padding and order do not change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny import make_tiny, make_tiny_reward, tiny_tokenizer
from trainer import trials
from trainer.config import BestOfNConfig
from trainer.data import Pair, Prompt
from trainer.modeling import load_policy
from trainer.placement import Placement
from trainer.scoring import load_judge
from trainer.stages import sft
from trainer.types import Sampled

PLAIN = Placement(torch.device("cpu"), torch.float32)
ROWS = [([3, 8, 9, 10], [7, 6, 1]), ([3, 12], [20, 21, 22, 23, 24, 1]), ([3, 9, 9, 9, 9, 9], [1])]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load_policy(make_tiny(tmp_path_factory.mktemp("trials")), PLAIN)


@pytest.mark.parametrize("budget", [8, 16, 1000])
def test_neither_padding_nor_company_changes_a_log_probability(model: Any, budget: int) -> None:
    alone = [trials.logprobs(model, [row], 0, 1.0, 1000)[0] for row in ROWS]
    assert trials.logprobs(model, ROWS, 0, 1.0, budget) == pytest.approx(alone, abs=1e-5)
    back = trials.logprobs(model, ROWS[::-1], 0, 1.0, budget)
    assert back[::-1] == pytest.approx(alone, abs=1e-5)


def test_a_log_probability_is_that_of_transformers_at_the_temperature(model: Any) -> None:
    prompt, answer = ROWS[1]
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([prompt + answer])).logits[0] / 0.7
    scores = logits.log_softmax(-1)
    wanted = sum(
        float(scores[len(prompt) - 1 + place, token]) for place, token in enumerate(answer)
    )
    found = trials.logprobs(model, [(prompt, answer)], 0, 0.7, 64)
    assert found == pytest.approx([wanted], abs=1e-4)


@pytest.mark.parametrize("budget", [8, 1000])
def test_held_out_answers_are_measured_each_by_itself(model: Any, budget: int) -> None:
    tokenizer = tiny_tokenizer()
    pairs = [
        Pair(({"role": "user", "content": "tea " * n},), "good " * (4 - n)) for n in range(1, 4)
    ]
    rows = [sft.row_of(tokenizer, pair, 64) for pair in pairs]
    pauses: list[None] = []
    nats, counts = sft.measure(model, rows, 0, budget, lambda _: pauses.append(None))
    assert len(pauses) == (3 if budget == 8 else 1)
    assert counts == [4, 3, 2]  # the words and the end
    for row, own in zip(rows, nats, strict=True):
        ids = torch.tensor([row.ids])
        with torch.no_grad():
            loss = model(
                input_ids=ids, labels=ids.masked_fill(torch.arange(ids.shape[1]) < row.prompt, -100)
            ).loss
        assert own == pytest.approx(float(loss) * (len(row.ids) - row.prompt), abs=1e-4)


def test_two_policies_answer_with_the_same_dice(model: Any, tmp_path: Path) -> None:
    """The policy against itself: the same answers, whatever the batch, and a KL of exactly 0."""
    judge = load_judge(make_tiny_reward(tmp_path), PLAIN, 64)
    prompts = [Prompt(f"p{n}", ({"role": "user", "content": "tea " * (n + 1)},)) for n in range(3)]
    tokenizer = tiny_tokenizer()
    tried = [
        trials.try_out(
            model, tokenizer, judge, prompts, 2, 7,
            BestOfNConfig(max_new_tokens=4, write_batch=batch),
        )
        for batch in (1, 6)
    ]  # fmt: skip
    assert tried[0].texts == tried[1].texts
    assert tried[0].scores == pytest.approx(tried[1].scores, abs=1e-5)
    manner = BestOfNConfig(max_new_tokens=4)
    assert trials.kl(model, model, tokenizer, prompts, tried[0], manner) == 0.0
    assert tried[0].by_prompt(2) == pytest.approx(
        [(tried[0].scores[at] + tried[0].scores[at + 1]) / 2 for at in (0, 2, 4)]
    )


def test_the_kl_is_the_mean_over_answers_of_what_the_policy_says_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """−1 and −4 nats under the policy, −3 twice under the reference: (2 − 1) / 2."""
    asked: list[Any] = []

    def logprobs(model: str, rows: Any, pad: int, temperature: float, *_: Any) -> list[float]:
        assert (pad, temperature) == (0, 0.7)
        asked.append(rows)
        return {"policy": [-1.0, -4.0], "reference": [-3.0, -3.0]}[model]

    monkeypatch.setattr(trials, "logprobs", logprobs)
    monkeypatch.setattr(trials, "prompt_tokens", lambda *_: [[3], [4]])
    sampled = [Sampled(1, 0, 0, [7, 1], [0.0, 0.0], True), Sampled(0, 0, 0, [8], [0.0], False)]
    tried = trials.Tried(sampled, ["", ""], [0.0, 0.0])
    manner = BestOfNConfig(temperature=0.7)
    found = trials.kl("policy", "reference", tiny_tokenizer(), [], tried, manner)
    assert found == 0.5
    assert asked == [[([4], [7, 1]), ([3], [8])]] * 2  # each behind its own prompt
    nobody = trials.Tried([], [], [])
    assert trials.kl("policy", "reference", tiny_tokenizer(), [], nobody, manner) is None
