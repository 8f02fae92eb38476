"""One step's answers: written, brought into micro-batches, judged, and measured against the
reference.

Choices
- Old and reference log-probabilities come from the forward pass that is trained, in the very
  micro-batches that are trained: before the first update the KL is exactly 0 and the ratio exactly
  1.
- Answers to one prompt share its row; layers below the adapter run once for policy, reference and
  every pass of the update, and for the reward model too when it has the same ones.
- One pass of the reward model gives the scores and the states that a linear critic reads.
- The reference is the policy without its adapter; where every weight learns it is a frozen copy,
  which computes with the very kernels of what learns.
Non-goal: learning, which is the stage's part.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from trainer import distributed, modeling, ranks, rewards, scoring
from trainer.config import PPOConfig
from trainer.engines import Engine
from trainer.rollout import answer_seed
from trainer.types import Batch, Sampled, Stopwatch


@dataclass
class Scorer:
    """A reward model as it is asked here."""

    model: PreTrainedModel
    scale: scoring.Normalisation
    members: nn.Linear | None = None  # the heads of an ensemble
    adapters: Sequence[scoring.Member] = ()  # or its further members, beside the model itself
    shares: bool = False  # whether it has the policy's lower layers
    depth: int = 0  # lower layers of its own that run once a step, for a critic with an adapter

    @property
    def size(self) -> int:
        """Members of the ensemble; 0 for a model that is none."""
        if self.members is not None:
            return int(self.members.out_features)
        return len(self.adapters) + 1 if self.adapters else 0

    @property
    def head(self) -> nn.Linear:
        return cast(nn.Linear, self.model.score)

    def reads(self, batch: Batch) -> Batch:
        """The policy's batch as this model wants to see it."""
        if self.shares:
            return batch
        return modeling.with_lower(self.model, batch._replace(lower=None), self.depth)


@dataclass
class Actors:
    """Everything that stays in memory for the whole run."""

    policy: PreTrainedModel
    reward: Scorer
    tokenizer: PreTrainedTokenizerBase
    packs: bool  # whether answers may share their prompt's row
    depth: int  # lower layers that policy and reference have in common: they run once a step
    writer: Engine  # what the policy's answers are written with
    frozen: PreTrainedModel | None = None  # the reference, where the policy has no adapter
    second: Scorer | None = None  # a reward model that nothing is trained against

    @property
    def pad(self) -> int:
        return int(self.tokenizer.pad_token_id)

    @contextlib.contextmanager
    def reference(self) -> Iterator[PreTrainedModel]:
        """The model that the KL penalty is measured against."""
        if self.frozen is not None:
            yield self.frozen
            return
        with modeling.reference(self.policy):
            yield self.policy


class MicroBatch(NamedTuple):
    """Answers that go through the policy together, always in this company within a step."""

    episodes: Tensor  # (n,) their numbers in the step
    batch: Batch
    judged: Batch  # the same for the reward model


class Verdict(NamedTuple):
    """What a reward model says. E answers, M members."""

    score: Tensor  # (E,) normalised
    members: Tensor | None  # (E, M) normalised; None without an ensemble


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
    tokens = [ids[index] for index in chosen + fixed]
    slots = distributed.own(range(len(tokens)))
    actors.writer.sync()
    written = actors.writer.write(
        [tokens[slot] for slot in slots], [seeds[slot] for slot in slots], lambda done: pause()
    )
    answers = everybodys(written, slots)
    # 2. micro-batches, with what the lower layers make of them
    watch.start("lower")
    count = len(chosen) * many
    pack = Packer(actors, tokens, answers, config, pause)
    minibatches = make_minibatches(pack, count, config, seed, step)
    samples = range(count, len(answers)) if ranks.is_main() else ()
    shown = pack.micro_batches(pack.rows(samples, together=False))

    # 3. scores, and the states that a critic on the reward model reads
    watch.start("score")
    parts = [micro for minibatch in minibatches for micro in minibatch]
    mask = length_mask(answers[:count], actors.policy.device)
    features = room_for_states(actors, config.critic, mask)
    verdict = judge(
        actors.reward,
        [*parts, *shown],
        len(answers),
        pause,
        features if config.critic == "head" else None,
    )
    second = None
    if actors.second is not None:
        asked = [micro._replace(judged=actors.second.reads(micro.batch)) for micro in parts]
        second = judge(actors.second, asked, count, pause).score

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
            if config.critic == "policy":
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


def room_for_states(actors: Actors, critic: str, mask: Tensor) -> Tensor:
    """(E, w, d) zeros for the states that a linear critic reads; d is 0 where there is none."""
    like = actors.policy.get_input_embeddings().weight
    size = int(actors.policy.config.hidden_size) if critic == "policy" else 0
    if critic == "head":
        like, size = actors.reward.head.weight, actors.reward.head.in_features
    return torch.zeros((*mask.shape, size), dtype=like.dtype, device=mask.device)


def keep_states(features: Tensor, place: Tensor, batch: Batch, states: Tensor) -> None:
    """Write a micro-batch's states (N, d), in the order of its mask, to their episodes."""
    block = features.new_zeros((*batch.mask.shape, features.shape[-1]))
    block[batch.mask] = states
    features[place, : batch.mask.shape[1]] = block


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
    scorer: Scorer,
    parts: Sequence[MicroBatch],
    count: int,
    pause: Callable[[], None],
    features: Tensor | None = None,
) -> Verdict:
    """Normalised scores of `count` answers; the states before each of their tokens go to
    `features`, whose episodes are the first ones.
    """
    device, scale = scorer.head.weight.device, scorer.scale
    score = torch.zeros(count, device=device)
    members = torch.zeros((count, scorer.size), device=device) if scorer.size else None
    for place, _, batch in parts:
        with modeling.reference(scorer.model):  # a critic's adapter has no say here
            states = modeling.hidden_states(scorer.model, batch)
        flat = states.reshape(-1, states.shape[-1])
        ends = flat[batch.last]
        score[place] = scale.apply(scorer.head(ends)[:, 0].float())
        if members is not None and scorer.members is not None:
            members[place] = scale.apply(scoring.head_scores(scorer.members, ends.float()))
        if features is not None and int(place.max()) < len(features):
            keep_states(features, place, batch, modeling.pick(states, batch))
        pause()
    if members is not None and scorer.adapters:
        members[:, 0] = score
    for number, member in enumerate(scorer.adapters, 1):
        with scoring.speaking(scorer.model, member), modeling.reference(scorer.model):
            for place, _, batch in parts:
                # What lower layers gave is the first member's.
                ends = scoring.last_states(scorer.model, batch._replace(lower=None))
                raw = scorer.head(ends.to(scorer.head.weight.dtype))[:, 0].float()
                cast(Tensor, members)[place, number] = scale.apply(raw)
                pause()
    distributed.total(score, *([] if members is None else [members]))
    return Verdict(score, members)


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
            judged = self.actors.reward.reads(batch)
            found.append(MicroBatch(torch.tensor(episodes, device=device), batch, judged))
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
