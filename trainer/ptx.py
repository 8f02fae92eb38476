"""Next-token learning mixed into PPO, so that the policy forgets less of what it could do.

Choices: the loss is −log π of the answers of given pairs, at temperature 1, their prompts not
learned; each optimiser step takes the next pairs of an endless row of shuffled passes, so that a
resumed run takes the same ones (Ouyang et al. 2022, who mix in pretraining text). A token of any
pair counts the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel

from trainer import distributed, modeling
from trainer.data import Pair, length_buckets
from trainer.rollout import answer_seed

Row = tuple[list[int], list[list[int]]]  # prompt tokens, [answer tokens with their end]


@dataclass
class Ptx:
    """Pairs to go on learning from."""

    rows: list[Row]
    pad: int
    depth: int  # layers below the adapter
    token_budget: int
    coef: float
    batch_size: int
    seed: int

    def chosen(self, index: int) -> list[Row]:
        """The pairs of the optimiser step of that number."""
        found = []
        for at in range(index * self.batch_size, (index + 1) * self.batch_size):
            dice = torch.Generator()
            dice.manual_seed(answer_seed(self.seed, "ptx", at // len(self.rows)))
            order = torch.randperm(len(self.rows), generator=dice)
            found.append(self.rows[int(order[at % len(self.rows)])])
        return found

    def backward(self, model: PreTrainedModel, index: int, pause: Callable[[], None]) -> float:
        """Add the gradient of coef × loss of a step's pairs; returns the loss, nats a token."""
        rows = self.chosen(index)
        tokens = sum(len(answers[0]) for _, answers in rows)
        rows = distributed.own(rows)
        total = 0.0
        sizes = [len(prompt) + len(answers[0]) for prompt, answers in rows]
        for bucket in length_buckets(sizes, self.token_budget):
            batch = modeling.collate([rows[n] for n in bucket], self.pad, model.device)
            batch = modeling.with_lower(model, batch, self.depth)
            logprob, _ = modeling.response_logprobs(model, batch, 1.0)
            loss = -logprob.sum() / tokens
            (self.coef * loss).backward()
            total += float(loss.detach())
            pause()
        return distributed.sums([total])[0]


def rows_of(tokenizer: Any, pairs: Sequence[Pair], window: int) -> list[Row]:
    """Each pair as a row with its one answer."""
    rows = []
    for one in pairs:
        asked = modeling.chat_ids(tokenizer, one.messages)
        prompt, answer = modeling.conversation_ids(tokenizer, asked, one.answer, window)
        rows.append((prompt, [answer]))
    return rows
