"""One step's answers: written, brought into micro-batches, judged, and measured against the
reference.

Choices
- Old and reference log-probabilities come from the forward pass that is trained, in the very
  micro-batches that are trained: before the first update the KL is exactly 0 and the ratio exactly
  1.
- Answers to one prompt share its row; layers below the adapter run once for policy, reference and
  every pass of the update, and for the reward model too when it has the same ones.
- One pass of the reward model gives the scores and the states that the critic reads.
Non-goal: learning, which is the stage's part.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from trainer import modeling, rewards
from trainer.config import PPOConfig
from trainer.rollout import answer_seed, generate
from trainer.types import Batch, Sampled, Stopwatch


@dataclass
class Actors:
    """Everything that stays in memory for the whole run."""

    policy: PreTrainedModel
    reward: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    mean: float  # of raw scores on reference answers
    std: float
    packs: bool  # whether answers may share their prompt's row
    depth: int  # lower layers that policy and reference have in common: they run once a step
    shares: bool  # whether the reward model has the same lower layers
    stop: set[int]

    @property
    def pad(self) -> int:
        return int(self.tokenizer.pad_token_id)


class MicroBatch(NamedTuple):
    """Answers that go through the policy together, always in this company within a step."""

    episodes: Tensor  # (n,) their numbers in the step
    batch: Batch


class Rollout(NamedTuple):
    """One step's answers and all that is known about them. E episodes, w tokens in the longest."""

    answers: list[Sampled]
    minibatches: list[list[MicroBatch]]
    mask: Tensor  # (E, w) True on answer tokens
    old: Tensor  # (E, w) log-probability under the policy that wrote them
    reference: Tensor  # (E, w) log-probability under the reference
    entropy: Tensor  # (E, w) nats
    score: Tensor  # (E,) normalised
    features: Tensor  # (E, w, d) reward-model states that predict each token
    sampler_gap: float  # mean |old − sampler's own log-probability|: rounding between two kernels


def roll_out(
    actors: Actors,
    config: PPOConfig,
    ids: Sequence[list[int]],
    draw: tuple[int, int],
    watch: Stopwatch,
    pause: Callable[[], None],
) -> Rollout:
    """Write a step's answers and judge them.

    `draw` is the run's seed and the step whose prompts and random numbers are drawn; `pause` is
    called after every micro-step and may raise.
    """
    seed, step = draw
    chosen = choose_prompts(len(ids), config, seed, step)

    # 1. answers, with those to the fixed prompts behind them
    watch.start("generate")
    many = config.answers_per_prompt
    seeds = [
        [answer_seed(seed, "episode", step, slot, n) for n in range(many)]
        for slot in range(len(chosen))
    ]
    fixed = list(range(min(config.samples, len(ids))))
    seeds += [[answer_seed(seed, "sample", index)] for index in fixed]
    with modeling.packed(actors.policy) as writer:
        answers = generate(
            writer,
            [ids[index] for index in chosen + fixed],
            seeds,
            stop=actors.stop,
            pad=actors.pad,
            max_new_tokens=config.max_new_tokens,
            temperature=config.temperature,
            batch_size=config.batch_size,
            after_batch=lambda done: pause(),
        )
    # 2. micro-batches, with what the lower layers make of them
    watch.start("lower")
    count = len(chosen) * many
    pack = Packer(actors, [ids[index] for index in chosen + fixed], answers, config, pause)
    minibatches = make_minibatches(pack, count, config, seed, step)
    shown = pack.micro_batches(pack.rows(range(count, len(answers)), together=False))

    # 3. scores, and the states that the critic reads
    watch.start("score")
    parts = [micro for minibatch in minibatches for micro in minibatch]
    score, features = judge(actors, [*parts, *shown], answers, pause)

    # 4. log-probabilities under the reference and under the policy that wrote the answers
    mask = length_mask(answers[:count], score.device)
    old, reference, entropy = (torch.zeros(mask.shape, device=score.device) for _ in range(3))
    for place, batch in parts:
        width = batch.mask.shape[1]
        with torch.no_grad():
            watch.start("reference")
            with modeling.reference(actors.policy):
                logprob, _ = modeling.response_logprobs(actors.policy, batch, config.temperature)
            reference[place, :width] = logprob
            watch.start("old")
            logprob, spread = modeling.response_logprobs(
                actors.policy, batch, config.temperature, with_entropy=True
            )
            old[place, :width], entropy[place, :width] = logprob, spread
        pause()
    return Rollout(
        answers=answers,
        minibatches=minibatches,
        mask=mask,
        old=old,
        reference=reference,
        entropy=entropy,
        score=score,
        features=features[:count, : mask.shape[1]],
        sampler_gap=sampler_gap(answers[:count], old, mask),
    )


def choose_prompts(count: int, config: PPOConfig, seed: int, step: int) -> list[int]:
    """The prompts of a step: the next ones of an endless row of shuffled passes over all."""
    many = config.episodes_per_step // config.answers_per_prompt
    chosen = []
    for at in range(step * many, (step + 1) * many):
        generator = torch.Generator().manual_seed(answer_seed(seed, "pass", at // count))
        chosen.append(int(torch.randperm(count, generator=generator)[at % count]))
    return chosen


def length_mask(answers: Sequence[Sampled], device: torch.device) -> Tensor:
    """(E, w) True on the tokens of each answer."""
    lengths = torch.tensor([len(answer.ids) for answer in answers], device=device)
    return torch.arange(int(lengths.max()), device=device) < lengths[:, None]


def sampler_gap(answers: Sequence[Sampled], old: Tensor, mask: Tensor) -> float:
    """Mean distance between the log-probabilities of the sampler and of the training pass."""
    own = torch.zeros(mask.shape)
    for row, answer in enumerate(answers):
        own[row, : len(answer.ids)] = torch.tensor(answer.logprobs)
    return float(rewards.masked_mean((old.cpu() - own).abs(), mask.cpu()))


@torch.no_grad()
def judge(
    actors: Actors,
    parts: Sequence[MicroBatch],
    answers: Sequence[Sampled],
    pause: Callable[[], None],
) -> tuple[Tensor, Tensor]:
    """Normalised scores (E,) and the states before each answer token (E, w, d), from one pass."""
    head = cast(nn.Linear, actors.reward.score)
    device, dtype = head.weight.device, head.weight.dtype
    width = max(len(answer.ids) for answer in answers)
    score = torch.zeros(len(answers), device=device)
    features = torch.zeros((len(answers), width, head.in_features), dtype=dtype, device=device)
    for place, batch in parts:
        whole = batch if actors.shares else batch._replace(lower=None)
        states = modeling.hidden_states(actors.reward, whole)
        flat = states.reshape(-1, states.shape[-1])
        score[place] = (head(flat[batch.last])[:, 0].float() - actors.mean) / actors.std
        features[place, : batch.mask.shape[1]] = flat[batch.source] * batch.mask[..., None]
        pause()
    return score, features


class Row(NamedTuple):
    """A prompt with one or more of its answers, each with its end for the reward model."""

    prompt: Sequence[int]
    answers: list[list[int]]
    episodes: list[int]

    @property
    def length(self) -> int:
        return len(self.prompt) + sum(map(len, self.answers))


@dataclass
class Packer:
    """Brings a step's answers into micro-batches."""

    actors: Actors
    prompts: Sequence[Sequence[int]]
    answers: Sequence[Sampled]
    config: PPOConfig
    pause: Callable[[], None]

    def rows(self, episodes: Sequence[int], *, together: bool) -> list[Row]:
        """The answers to a prompt in one row, or each in its own."""
        groups: dict[tuple[int, int], list[int]] = {}
        for episode in episodes:
            answer = self.answers[episode]
            groups.setdefault((answer.prompt, 0 if together else answer.n), []).append(episode)
        eos = int(self.actors.tokenizer.eos_token_id)
        return [
            Row(
                self.prompts[prompt],
                [modeling.judged_ids([], self.answers[episode].ids, eos) for episode in group],
                group,
            )
            for (prompt, _), group in groups.items()
        ]

    def micro_batches(self, rows: Sequence[Row]) -> list[MicroBatch]:
        """Rows of similar length together, with what the lower layers make of them."""
        device = self.actors.policy.device
        found = []
        for part in by_length(rows, self.config.token_budget):
            episodes = [episode for row in part for episode in row.episodes]
            own = [len(self.answers[episode].ids) for episode in episodes]
            pairs = [(row.prompt, row.answers) for row in part]
            batch = modeling.collate(pairs, self.actors.pad, device, own)
            batch = modeling.with_lower(self.actors.policy, batch, self.actors.depth)
            found.append(MicroBatch(torch.tensor(episodes, device=device), batch))
            self.pause()
        return found


def by_length(rows: Sequence[Row], budget: int) -> list[list[Row]]:
    """Rows of similar length together, at most `budget` tokens with padding, one row at least."""
    parts: list[list[Row]] = []
    for row in sorted(rows, key=lambda row: (-row.length, row.episodes)):
        # Longest first: the first row of a part sets the padded length of all.
        if parts and parts[-1][0].length * (len(parts[-1]) + 1) <= budget:
            parts[-1].append(row)
        else:
            parts.append([row])
    return parts


def make_minibatches(
    pack: Packer, count: int, config: PPOConfig, seed: int, step: int
) -> list[list[MicroBatch]]:
    """Cut a step's answers at random into minibatches, and those by length into micro-batches."""
    rows = pack.rows(range(count), together=pack.actors.packs)
    generator = torch.Generator().manual_seed(answer_seed(seed, "minibatches", step))
    order = torch.randperm(len(rows), generator=generator).tolist()
    return [
        pack.micro_batches([rows[row] for row in order[part :: config.minibatches]])
        for part in range(min(config.minibatches, len(rows)))
    ]
