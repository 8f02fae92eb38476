"""Reward models as PPO asks them.

Choices
- `Scorer`: a decoder with the policy's words. It reads the policy's own tokens in the policy's own
  micro-batches; one pass gives the scores and the states that a linear critic reads.
- `Reader`: any other reward model: an encoder, or a decoder with a tokenizer of its own. It is
  asked about texts, as everywhere else (scoring.py), and its states say nothing token by token.
Non-goals: what is made of the scores (rewards.py), the critic (critics.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from trainer import adapters, distributed, modeling, scoring
from trainer.data import Messages
from trainer.types import Batch


@dataclass
class Scorer:
    """A reward model that reads the policy's tokens."""

    judge: scoring.Judge
    shares: bool = False  # whether it has the policy's lower layers
    depth: int = 0  # lower layers of its own that run once a step, for a critic with an adapter

    @property
    def model(self) -> PreTrainedModel:
        found: PreTrainedModel = self.judge.model
        return found

    @property
    def head(self) -> nn.Linear:
        return cast(nn.Linear, self.model.score)

    def reads(self, batch: Batch) -> Batch:
        """The policy's batch as this model wants to see it."""
        if self.shares:
            return batch
        return modeling.with_lower(self.model, batch._replace(lower=None), self.depth)


@dataclass
class Reader:
    """A reward model that reads texts."""

    judge: scoring.Judge
    token_budget: int


class Verdict(NamedTuple):
    """What a reward model says. E answers, M members."""

    score: Tensor  # (E,) normalised
    members: Tensor | None  # (E, M) normalised; None without an ensemble


def reads_tokens(judge: scoring.Judge, tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a reward model can read that tokenizer's tokens one by one."""
    same = tokenizer.get_vocab() == judge.tokenizer.get_vocab()
    return same and scoring.score_head(judge.model) is not None


@torch.no_grad()
def judge_tokens(
    scorer: Scorer,
    parts: Sequence[tuple[Tensor, Batch]],
    count: int,
    pause: Callable[[], None],
    features: Tensor | None = None,
) -> Verdict:
    """Normalised scores of `count` answers, each part being some answers' numbers and tokens.

    The states before each of their tokens go to `features`, whose answers are the first ones.
    """
    judge, scale = scorer.judge, scorer.judge.normalisation
    score, members = found = blank(judge, count)
    for place, batch in parts:
        with adapters.reference(scorer.model):  # a critic's adapter has no say here
            states = modeling.hidden_states(scorer.model, batch)
        flat = states.reshape(-1, states.shape[-1])
        ends = flat[batch.last]
        score[place] = scale.apply(scorer.head(ends)[:, 0].float())
        if members is not None and judge.members is not None:
            members[place] = scale.apply(scoring.head_scores(judge.members, ends.float()))
        if features is not None and int(place.max()) < len(features):
            keep_states(features, place, batch, modeling.pick(states, batch))
        pause()
    if members is not None and judge.adapters:
        members[:, 0] = score
    for number, member in enumerate(judge.adapters, 1):
        with scoring.speaking(scorer.model, member), adapters.reference(scorer.model):
            for place, batch in parts:
                # What lower layers gave is the first member's.
                ends = scoring.last_states(scorer.model, batch._replace(lower=None))
                raw = scorer.head(ends.to(scorer.head.weight.dtype))[:, 0].float()
                cast(Tensor, members)[place, number] = scale.apply(raw)
                pause()
    return joined(found)


@torch.no_grad()
def judge_texts(
    reader: Reader,
    asked: Sequence[tuple[int, Messages, str]],
    count: int,
    pause: Callable[[], None],
) -> Verdict:
    """Normalised scores of `count` answers, of which this process is asked about some: an answer's
    number, its prompt, its text.
    """
    score, members = found = blank(reader.judge, count)
    outputs = scoring.judge_answers(
        reader.judge,
        [(messages, [text]) for _, messages, text in asked],
        token_budget=reader.token_budget,
        after_batch=lambda done: pause(),
    )
    for (place, _, _), raw in zip(asked, outputs, strict=True):
        own = reader.judge.normalisation.apply(raw[0].to(score.device))
        score[place] = own[0]
        if members is not None:
            members[place] = own[1:]
    return joined(found)


def blank(judge: scoring.Judge, count: int) -> Verdict:
    """Zeros for the scores of so many answers."""
    device = next(judge.model.parameters()).device
    members = torch.zeros((count, judge.size), device=device) if judge.size else None
    return Verdict(torch.zeros(count, device=device), members)


def joined(own: Verdict) -> Verdict:
    """The verdict of all processes, each of which knows its own answers and says 0 of others."""
    distributed.total(*(part for part in own if part is not None))
    return own


def keep_states(features: Tensor, place: Tensor, batch: Batch, states: Tensor) -> None:
    """Write a micro-batch's states (N, d), in the order of its mask, to their episodes."""
    block = features.new_zeros((*batch.mask.shape, features.shape[-1]))
    block[batch.mask] = states
    features[place, : batch.mask.shape[1]] = block
