"""One step's answers: written, brought into micro-batches, judged, and measured against the
reference.

Choices
- Old and reference log-probabilities come from the forward pass that is trained, in the very
  micro-batches that are trained: before the first update the KL is exactly 0 and the ratio exactly
  1.
- Answers to one prompt share its row; layers below the adapter run once for policy, reference and
  every pass of the update, and for the reward model too when it has the same ones.
- A reward model that can reads the very tokens, so that one pass gives the scores and the states
  that a linear critic reads; any other is asked about the texts (judging.py).
- The reference is the policy without its adapter; where every weight learns it is a frozen copy,
  which computes with the very kernels of what learns.
Non-goal: learning, which is the stage's part.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from trainer import adapters, distributed, modeling, ranks, rewards
from trainer.config import PPOConfig
from trainer.data import Messages, cut_in_order
from trainer.engines import Engine
from trainer.judging import Reader, Scorer, Verdict, judge_texts, judge_tokens, keep_states
from trainer.rollout import answer_seed
from trainer.trials import text_of
from trainer.types import Batch, Sampled, Stopwatch


@dataclass
class Actors:
    """Everything that stays in memory for the whole run."""

    policy: PreTrainedModel
    reward: Scorer | Reader
    tokenizer: PreTrainedTokenizerBase
    packs: bool  # whether answers may share their prompt's row
    depth: int  # lower layers that policy and reference have in common: they run once a step
    writer: Engine  # what the policy's answers are written with
    critic: str  # its kind: config.critic, or the one that goes with this reward model
    frozen: PreTrainedModel | None = None  # the reference, where the policy has no adapter
    second: Scorer | Reader | None = None  # a reward model that nothing is trained against

    @property
    def pad(self) -> int:
        return int(self.tokenizer.pad_token_id)

    @property
    def scorer(self) -> Scorer:
        """The reward model, where a critic stands on it."""
        if not isinstance(self.reward, Scorer):
            raise TypeError("a reward model that reads texts has no critic on it")
        return self.reward

    @contextlib.contextmanager
    def reference(self) -> Iterator[PreTrainedModel]:
        """The model that the KL penalty is measured against."""
        if self.frozen is not None:
            yield self.frozen
            return
        with adapters.reference(self.policy):
            yield self.policy


class Question(NamedTuple):
    """A prompt as people read it and as the policy does."""

    messages: Messages
    ids: list[int]


class MicroBatch(NamedTuple):
    """Answers that go through the policy together, always in this company within a step."""

    episodes: Tensor  # (n,) their numbers in the step
    batch: Batch
    judged: Batch  # the same for a reward model that reads tokens


class Rollout(NamedTuple):
    """One step's answers and all that is known about them. E episodes, w tokens in the longest."""

    answers: list[Sampled]
    minibatches: list[list[MicroBatch]]  # of this process alone; all else is everybody's
    mask: Tensor  # (E, w) True on answer tokens
    old: Tensor  # (E, w) log-probability under the policy that wrote them
    reference: Tensor  # (E, w) log-probability under the reference
    entropy: Tensor  # (E, w) nats
    score: Tensor  # (E,) normalised; those of the fixed prompts stand behind
    features: Tensor  # (E, w, d) states that predict each token, for a linear critic
    sampler_gap: float  # mean |old − sampler's own log-probability|: rounding between two kernels
    members: Tensor | None = None  # (E, M) normalised scores of an ensemble's members
    second: Tensor | None = None  # (E,) normalised scores of the second reward model

    @property
    def parts(self) -> list[MicroBatch]:
        """All micro-batches."""
        return [micro for minibatch in self.minibatches for micro in minibatch]


def roll_out(
    actors: Actors,
    config: PPOConfig,
    questions: Sequence[Question],
    draw: tuple[int, int],
    watch: Stopwatch,
    pause: Callable[[], None],
) -> Rollout:
    """Write a step's answers and judge them.

    `draw` is the run's seed and the step whose prompts and random numbers are drawn; `pause` is
    called after every micro-step and may raise.
    """
    seed, step = draw
    chosen = choose_prompts(len(questions), config, seed, step)

    # 1. answers, with those to the fixed prompts behind them
    watch.start("generate")
    many = config.answers_per_prompt
    seeds = [
        [answer_seed(seed, "episode", step, slot, n) for n in range(many)]
        for slot in range(len(chosen))
    ]
    fixed = list(range(min(config.samples, len(questions))))
    seeds += [[answer_seed(seed, "sample", index)] for index in fixed]
    asked = [questions[index] for index in chosen + fixed]
    slots = distributed.own(range(len(asked)))
    actors.writer.sync()
    written = actors.writer.write(
        [asked[slot].ids for slot in slots], [seeds[slot] for slot in slots], lambda done: pause()
    )
    answers = everybodys(written, slots)
    # 2. micro-batches, with what the lower layers make of them
    watch.start("lower")
    count = len(chosen) * many
    pack = Packer(actors, [one.ids for one in asked], answers, config, pause)
    minibatches = make_minibatches(pack, count, config, seed, step)
    samples = range(count, len(answers)) if ranks.is_main() else ()
    shown = pack.micro_batches(pack.rows(samples, together=False))

    # 3. scores, and the states that a critic on the reward model reads
    watch.start("score")
    parts = [micro for minibatch in minibatches for micro in minibatch]
    mask = length_mask(answers[:count], actors.policy.device)
    features = room_for_states(actors, mask)
    verdict = judge(
        actors,
        actors.reward,
        [*parts, *shown],
        asked,
        answers,
        pause,
        features if actors.critic == "head" else None,
    )
    second = None
    if actors.second is not None:
        second = judge(actors, actors.second, parts, asked, answers[:count], pause).score

    # 4. log-probabilities under the reference and under the policy that wrote the answers
    old, reference, entropy = (torch.zeros(mask.shape, device=mask.device) for _ in range(3))
    for place, batch, _ in parts:
        width = batch.mask.shape[1]
        with torch.no_grad():
            watch.start("reference")
            with actors.reference() as model:
                logprob, _entropy = modeling.response_logprobs(model, batch, config.temperature)
            reference[place, :width] = logprob
            watch.start("old")
            own = modeling.pick(modeling.hidden_states(actors.policy, batch), batch)
            logprob, spread = modeling.response_logprobs(
                actors.policy, batch, config.temperature, with_entropy=True, states=own
            )
            old[place, :width], entropy[place, :width] = logprob, spread
            if actors.critic == "policy":
                keep_states(features, place, batch, own)
        pause()
    distributed.total(old, reference, entropy, features)
    return Rollout(
        answers=answers,
        minibatches=minibatches,
        mask=mask,
        old=old,
        reference=reference,
        entropy=entropy,
        score=verdict.score,
        features=features,
        sampler_gap=sampler_gap(answers[:count], old, mask),
        members=None if verdict.members is None else verdict.members[:count],
        second=second,
    )


def everybodys(written: Sequence[Sampled], slots: Sequence[int]) -> list[Sampled]:
    """The answers that all processes wrote, in the order of their prompts.

    `slots` says which prompts were this process's own.
    """
    sets: list[list[Sampled]] = [[] for _ in slots]
    for one in written:
        sets[one.prompt].append(one._replace(prompt=slots[one.prompt]))
    return [one for some in distributed.gather(sets) for one in some]


def room_for_states(actors: Actors, mask: Tensor) -> Tensor:
    """(E, w, d) zeros for the states that a linear critic reads; d is 0 where there is none."""
    like = actors.policy.get_input_embeddings().weight
    size = int(actors.policy.config.hidden_size) if actors.critic == "policy" else 0
    if actors.critic == "head":
        head = actors.scorer.head
        like, size = head.weight, head.in_features
    return torch.zeros((*mask.shape, size), dtype=like.dtype, device=mask.device)


def judge(
    actors: Actors,
    model: Scorer | Reader,
    parts: Sequence[MicroBatch],
    asked: Sequence[Question],
    answers: Sequence[Sampled],
    pause: Callable[[], None],
    features: Tensor | None = None,
) -> Verdict:
    """What a reward model says to all answers, those in `parts` being this process's own."""
    if isinstance(model, Reader):
        own = [number for micro in parts for number in micro.episodes.tolist()]
        texts = [
            (n, asked[answers[n].prompt].messages, text_of(actors.tokenizer, answers[n].ids))
            for n in sorted(own)
        ]
        return judge_texts(model, texts, len(answers), pause)
    first = model is actors.reward  # its batches are there, as its critic may learn from them
    read = ((m.episodes, m.judged if first else model.reads(m.batch)) for m in parts)
    return judge_tokens(model, list(read), len(answers), pause, features)


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
            reward = self.actors.reward
            judged = reward.reads(batch) if isinstance(reward, Scorer) else batch
            found.append(MicroBatch(torch.tensor(episodes, device=device), batch, judged))
            self.pause()
        return found


def by_length(rows: Sequence[Row], budget: int) -> list[list[Row]]:
    """Rows of similar length together, at most `budget` tokens with padding, one row at least."""
    # Longest first, so that rows of like length stand together.
    ordered = sorted(rows, key=lambda row: (-row.length, row.episodes))
    parts = cut_in_order([row.length for row in ordered], budget)
    return [[ordered[place] for place in part] for part in parts]


def make_minibatches(
    pack: Packer, count: int, config: PPOConfig, seed: int, step: int
) -> list[list[MicroBatch]]:
    """Cut a step's answers at random into minibatches, and those by length into micro-batches.

    Of several processes each has its share of every minibatch.
    """
    rows = pack.rows(range(count), together=pack.actors.packs)
    generator = torch.Generator().manual_seed(answer_seed(seed, "minibatches", step))
    order = torch.randperm(len(rows), generator=generator).tolist()
    shares = [
        distributed.own(order[part :: config.minibatches])
        for part in range(min(config.minibatches, len(rows)))
    ]
    return [pack.micro_batches([rows[row] for row in share]) for share in shares]
