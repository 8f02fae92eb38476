"""A policy tried out on prompts: answers, their scores, and how far they are from the reference.

Choices: an answer's random numbers belong to the run's seed, its prompt's id and its number, so two
policies answer with the same dice and their difference is theirs; the KL is the mean over answers
of log π − log π_ref at the sampling temperature (k1, Schulman 2020), in nats a reply.
Not here: learning.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from trainer import engines
from trainer.data import Prompt, length_buckets
from trainer.engines import Engine
from trainer.modeling import chat_ids, check_room, collate, longest_context, response_logprobs
from trainer.rollout import answer_seed
from trainer.scoring import Judge, score_answers
from trainer.types import Sampled


class Manner(engines.Manner, Protocol):
    """The settings by which answers are written and read."""

    @property
    def token_budget(self) -> int: ...


@dataclass(frozen=True)
class Tried:
    """Answers to prompts; `sampled`, `texts` and `scores` run over prompts, then their answers."""

    sampled: list[Sampled]
    texts: list[str]
    scores: list[float]  # normalised

    @property
    def mean(self) -> float | None:
        """Mean score; None without answers."""
        return sum(self.scores) / len(self.scores) if self.scores else None

    def by_prompt(self, answers: int) -> list[float]:
        """Mean score of each prompt's answers."""
        starts = range(0, len(self.scores), answers)
        return [sum(self.scores[at : at + answers]) / answers for at in starts]


def prompt_tokens(
    model: Any, tokenizer: Any, prompts: Sequence[Prompt], manner: Manner
) -> list[list[int]]:
    """Each prompt as the policy sees it; one that leaves no room for its answer is refused."""
    ids = [chat_ids(tokenizer, prompt.messages) for prompt in prompts]
    names = [prompt.id for prompt in prompts]
    check_room(names, ids, manner.max_new_tokens, longest_context(model))
    return ids


def writer(model: Any, tokenizer: Any, manner: Manner) -> AbstractContextManager[Engine]:
    """What writes answers in this manner with the model, for as long as the context lasts."""
    return closing(engines.engine_for(manner, model, tokenizer))


def write(
    model: Any,
    tokenizer: Any,
    ids: Sequence[list[int]],
    seeds: Sequence[Sequence[int]],
    manner: Manner,
    after_batch: Callable[[int], None] = lambda done: None,
) -> list[Sampled]:
    """One answer for each seed of each prompt."""
    with writer(model, tokenizer, manner) as engine:
        return engine.write(ids, seeds, after_batch)


def try_out(
    model: Any,
    tokenizer: Any,
    judge: Judge,
    prompts: Sequence[Prompt],
    answers: int,
    seed: int,
    manner: Manner,
    after_batch: Callable[[int], None] = lambda done: None,
) -> Tried:
    """Let the policy answer each prompt that many times, and score it."""
    if not prompts:
        return Tried([], [], [])
    ids = prompt_tokens(model, tokenizer, prompts, manner)
    seeds = [[answer_seed(seed, prompt.id, n) for n in range(answers)] for prompt in prompts]
    sampled = write(model, tokenizer, ids, seeds, manner, after_batch)
    texts = [text_of(tokenizer, one.ids) for one in sampled]
    asked = [prompts[one.prompt] for one in sampled]
    return Tried(sampled, texts, score(judge, asked, texts, manner.token_budget))


def answer_line(
    prompt: Prompt, one: Sampled, text: str, drawn: Mapping[str, Any]
) -> dict[str, Any]:
    """A line of answers.jsonl: an answer, its seed and how it was `drawn`."""
    return {
        "id": f"{prompt.id}-{one.n}",
        "prompt_id": prompt.id,
        "prompt": list(prompt.messages),
        "text": text,
        "logprob": round(one.logprob, 5),
        "tokens": len(one.ids),
        "finished": one.finished,
        "seed": one.seed,
        **drawn,
    }


def text_of(tokenizer: Any, ids: Sequence[int]) -> str:
    """An answer as people read it."""
    text: str = tokenizer.decode(ids, skip_special_tokens=True)
    return text.strip()


def score(
    judge: Judge, prompts: Sequence[Prompt], texts: Sequence[str], token_budget: int
) -> list[float]:
    """Normalised score of each text as an answer to the prompt beside it."""
    asked = [(prompt.messages, [text]) for prompt, text in zip(prompts, texts, strict=True)]
    raw = score_answers(judge, asked, token_budget=token_budget)
    return [judge.normalisation.apply(one) for (one,) in raw]


@torch.no_grad()
def logprobs(
    model: Any,
    rows: Sequence[tuple[Sequence[int], Sequence[int]]],
    pad: int,
    temperature: float,
    token_budget: int,
    after_batch: Callable[[int], None] = lambda done: None,
) -> list[float]:
    """Log-probability of each answer (prompt tokens, answer tokens) in nats."""
    device = next(model.parameters()).device
    found = [0.0] * len(rows)
    done = 0
    for bucket in length_buckets([len(prompt) + len(own) for prompt, own in rows], token_budget):
        batch = collate([(rows[n][0], [rows[n][1]]) for n in bucket], pad, device)
        values, _ = response_logprobs(model, batch, temperature)
        for n, value in zip(bucket, values.double().sum(-1).tolist(), strict=True):
            found[n] = value
        done += len(bucket)
        after_batch(done)
    return found


def kl(
    model: Any,
    reference: Any,
    tokenizer: Any,
    prompts: Sequence[Prompt],
    tried: Tried,
    manner: Manner,
    after_batch: Callable[[int], None] = lambda done: None,
) -> float | None:
    """KL of the policy from the reference on the policy's own answers; None without any."""
    if not tried.sampled:
        return None
    ids = prompt_tokens(model, tokenizer, prompts, manner)
    rows = [(ids[one.prompt], one.ids) for one in tried.sampled]
    pad, budget = tokenizer.pad_token_id, manner.token_budget
    own, other = (
        logprobs(one, rows, pad, manner.temperature, budget, after_batch)
        for one in (model, reference)
    )
    return sum(a - b for a, b in zip(own, other, strict=True)) / len(rows)


def samples(prompts: Sequence[Prompt], tried: Tried, count: int) -> list[dict[str, Any]]:
    """The first answers to the first prompts, as a sample event shows them."""
    return [
        {
            "prompt_id": prompts[one.prompt].id,
            "prompt": list(prompts[one.prompt].messages),
            "text": text,
            "score": value,
        }
        for one, text, value in zip(tried.sampled, tried.texts, tried.scores, strict=True)
        if one.n == 0 and one.prompt < count
    ]
