"""Fit a reward model to whole rankings.

Reads `base` and `rankings` (and `heldout`, else a share of the prompts is held out); writes out/:
the merged model with its normalisation, report.json on the held-out rankings and
heldout_scores.jsonl.

Choices
- Every answer is encoded once; the answers of a ranking share their prompt's encoding where the
  architecture allows it. All pairs of a ranking are one element of the batch (losses.py).
- Low-rank adapter on a frozen base by default; adapter and head are float32.
- The head starts as N(0, 1/√(d+1)) (Stiennon et al. 2020) and is not scaled to the first scores:
  what a larger one says by chance has to be unlearned, and costs accuracy (docs/log.md,
  2026-11-29). With `head_start` it starts where it orders the training rankings best while the
  network stands still (headstart.py), on states of a depth at which it orders others best, too
  (reading.py). A base that has a head goes on from it as it is.
- The members of an ensemble have a start of their own and see the rankings with weights of their
  own, n · Dirichlet(1, …, 1), the Bayesian bootstrap (Rubin 1981; on one trunk as in Osband et al.
  2016). Heads read the same states, and the loss is their mean; the model's head becomes their
  mean. Or each member is an adapter with a head, on one frozen base, and learns as if alone; the
  model is the first of them, the others lie beside it.
- With `lora_layers` the layers below the adapter run once, without gradient, before training, and
  what they give is kept as long as memory allows. A row's lower states are always computed in the
  same company, so a resumed run has the same ones to the bit.
- Davidson's ν (one a member) starts at the share of ties and is learned with the rest.
- A ranking of weight 2 counts as the ranking twice, one of weight 0 as if it were not there.
- Nothing is random but what follows from the seed: an epoch's order from seed and epoch alone, no
  dropout. So a resumed run is bit for bit the undisturbed one.
- The report's figures come from the weights as they are written: merged, in the base's numbers.
- The temperature that makes differences of scores honest probabilities is fitted to the held-out
  pairs (calibration.py).
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections import deque
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as recomputed

from trainer import distributed, ranks, schedules
from trainer.adapters import ADAPTER, adapter_parameters, add_lora, linear_names, lora_layers, merge
from trainer.calibration import FEWEST, crossed_calibration_error, fit_temperature
from trainer.cards import Card, with_interval, write_card
from trainer.checkpoints import Checkpoint, load_optimizer, optimizer_state, publish, record, resume
from trainer.config import RewardConfig
from trainer.data import (
    Pairs,
    Ranking,
    cut_in_order,
    length_buckets,
    pairs_of,
    prompt_hash,
    rankings_of,
)
from trainer.events import RunError, Stopped, no_number
from trainer.headstart import start_heads, unseen_loss
from trainer.losses import (
    Ties,
    first_log_nu,
    plackett_luce_loss,
    ranking_losses,
    weighted_sum,
)
from trainer.modeling import (
    collate,
    layers_in,
    load_reward,
    load_tokenizer,
    longest_context,
    settings_of,
    trunk,
    with_lower,
)
from trainer.packing import packed
from trainer.placement import Placement, start
from trainer.reading import SAMPLE, depths, read_evenly
from trainer.reports import ensemble_report, reward_report
from trainer.scoring import (
    Judge,
    Member,
    Normalisation,
    Row,
    batch_scores,
    can_share,
    encode,
    fit_normalisation,
    fit_window,
    head_scores,
    judge_answers,
    last_states,
    make_members,
    read_members,
    score_head,
    score_line,
    score_rows,
    split,
    width,
    write_adapters,
    write_members,
)
from trainer.statistics import pair_outcomes
from trainer.types import Batch, Lower, RunContext

#: training rankings whose answers set the scale of the scores
REFERENCE_RANKINGS = 64
#: training rankings over which the running accuracy is taken
RUNNING = 32
#: name of the logarithm of Davidson's ν among what is trained
LOG_NU = "log_nu"
#: share of the run's time until training ends, until the scale is set, until the held-out test ends
TRAINED, SCALED, TESTED = 0.8, 0.92, 0.98

Group = list[Row]  # the rows that hold one ranking's answers, in their order
#: what one pass through the model trains, by name: one for heads, one for each adapter otherwise
Learner = dict[str, nn.Parameter]
#: what the layers below the adapter give for each row of each group, (t, d); None: not kept
Lowered = list[list[Tensor]] | None


@dataclass
class Fit:
    """A reward model in the making."""

    model: Any
    tokenizer: Any
    config: RewardConfig
    learners: list[Learner]
    optimizer: torch.optim.Optimizer
    max_length: int
    depth: int = 0  # layers below the adapter
    members: nn.Linear | None = None  # the heads of an ensemble; without one the model's own learns
    step: int = 0
    recent: deque[list[float]] = field(default_factory=lambda: deque(maxlen=RUNNING))

    @property
    def pad(self) -> int:
        return int(self.tokenizer.pad_token_id)

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """Everything that is trained, by a name of its own."""
        return {
            f"member_{number}.{name}" if number else name: parameter
            for number, learner in enumerate(self.learners)
            for name, parameter in learner.items()
        }


def run(context: RunContext) -> dict[str, Any]:
    """Train, measure and publish; returns the report."""
    config = cast(RewardConfig, context.spec.config)

    # 1. read what people ranked
    base = context.input("base")
    training, heldout = read_data(context, config)
    config = schedules.settled(config, [len(one.ranks) for one in training])

    # 2. open the base with head and adapter; take up an earlier attempt
    checkpoint = resume(context)
    placement = start(context, base, checkpoint.step if checkpoint else None)
    layers = (
        checkpoint.state["layers"]
        if checkpoint
        else choose_layers(context, config, placement, training)
    )
    config = dataclasses.replace(config, layers=layers)
    fit = open_fit(base, config, placement, context.spec.seed)
    if config.loss == "davidson":
        add_nu(fit, training)
    groups = arrange(fit, training)
    if checkpoint:
        restore(fit, checkpoint)
    shares = bootstrap_shares(len(training), config.ensemble, context.spec.seed)

    # 3. train
    if fit.step < schedules.steps_in(config, len(training)) or not config.epochs:
        lowered = begin(context, fit, training, groups, shares, fresh=not has_head(base))
        distributed.split(fit.model, fit.optimizer, fit.learners)
        if checkpoint:
            load_optimizer(fit.optimizer, checkpoint.tensors)
        train(context, fit, training, groups, lowered, shares)
        fit.model = distributed.join(fit.model, fit.optimizer, fit.learners)
    nu = fitted_nu(fit)
    judge = finish(fit)

    # 4. set scale and temperature, test on held-out rankings
    raw = score_groups(context, fit, groups[:REFERENCE_RANKINGS])
    normalisation = fit_normalisation([score for scores in raw for score in scores])
    outputs = score_heldout(context, fit, judge, heldout)
    raw_heldout = [scores[:, 0].tolist() for scores in outputs]
    normalisation, calibration = calibrate(normalisation, heldout, raw_heldout)
    report = {
        "stage": "reward",
        **reward_report(heldout, raw_heldout, normalisation),
        **calibration,
        "train_pair_accuracy": accuracy(training[:REFERENCE_RANKINGS], raw),
        "train_rankings": len(training),
        "steps": fit.step,
        "rankings_per_step": config.rankings_per_step,
        "lr": config.lr,
        "layers": fit.model.config.num_hidden_layers,
        "normalisation": dataclasses.asdict(normalisation),
    }
    if nu is not None:
        report["nu"] = nu
    if judge.size:
        report["ensemble"] = ensemble_report(heldout, outputs, normalisation, judge.size)
        report["ensemble"]["kind"] = config.ensemble_kind
    for code, message in warnings(report):
        context.emit("alert", fit.step, code=code, message=message)

    # 5. publish
    lines = score_lines(heldout, outputs, normalisation)
    judge.normalisation = normalisation
    publish(context.out, lambda folder: write_out(folder, context, judge, report, lines))
    context.progress(1.0)
    return report


# 1. data ------------------------------------------------------------------------------------------


def read_data(context: RunContext, config: RewardConfig) -> tuple[list[Ranking], list[Ranking]]:
    """Training rankings, weights brought to mean 1, and held-out ones."""
    training, heldout = rankings_of(context, config.heldout_fraction)
    mean = sum(ranking.weight for ranking in training) / len(training)
    return [dataclasses.replace(one, weight=one.weight / mean) for one in training], heldout


def bootstrap_shares(rankings: int, members: int, seed: int) -> Tensor:
    """What each ranking counts for each head, (g, M) with mean 1 in each column; one head: all 1.

    n · Dirichlet(1, …, 1): independent exponential numbers divided by their mean.
    """
    if members == 1:
        return torch.ones(rankings, 1)
    dice = torch.Generator().manual_seed(seed * 1_000_003 % 2**63 + 2**62)
    drawn = torch.empty(rankings, members, dtype=torch.float64).exponential_(generator=dice)
    return (drawn / drawn.mean(0)).float()


def arrange(fit: Fit, rankings: Sequence[Ranking]) -> list[Group]:
    """The rows of each ranking: one if its answers may share their prompt, else one an answer."""
    rows = [encode(fit.tokenizer, ranking.messages, ranking.texts) for ranking in rankings]
    share = can_share(fit.model, rows, fit.pad)
    groups = []
    for row in rows:
        cut = fit_window(row, fit.max_length)
        together = share and len(cut) == 1 and width(row) <= fit.config.token_budget
        groups.append(cut if together else [single for part in cut for single in split(part)])
    return groups


# 2. model -----------------------------------------------------------------------------------------


def choose_layers(
    context: RunContext, config: RewardConfig, placement: Placement, training: Sequence[Ranking]
) -> int:
    """How many of the base's first layers are kept; 0: all. Without a wish those at which a head
    that starts anew orders unseen pairs best.
    """
    base = context.input("base")
    tried = depths(layers_in(base))
    wanted = config.head_start and config.even_reading and not has_head(base)
    if config.layers or not wanted or len(tried) == 1:
        return config.layers

    def find() -> int | None:
        try:
            return best_depth(context, config, placement, training[:SAMPLE], tried)
        except Stopped:
            return None  # the other processes wait for an answer

    chosen = distributed.from_main(find)
    if chosen is None:
        raise Stopped("Stopped before the first step.")
    return chosen


def best_depth(
    context: RunContext,
    config: RewardConfig,
    placement: Placement,
    sample: Sequence[Ranking],
    tried: Sequence[int],
) -> int:
    """The number of first layers on whose states a head orders unseen pairs best; 0, all, for a
    network whose head is more than a linear layer, as an encoder's.
    """
    base = context.input("base")
    losses = {}
    for layers in tried:
        only = dataclasses.replace(config, layers=layers, ensemble=1, lora_layers=0)
        fit = open_fit(base, only, placement, context.spec.seed)
        if score_head(fit.model) is None:
            return 0
        _, states = first_pass(context, fit, arrange(fit, sample), with_states=True)
        losses[layers] = unseen_loss(states, sample)
    return min(losses, key=losses.__getitem__)


def open_fit(base: Path, config: RewardConfig, placement: Placement, seed: int) -> Fit:
    """The base with its head, its adapter and an optimiser over what is trained."""
    tokenizer = load_tokenizer(base)
    if not config.lora and config.dtype == "auto":
        placement = Placement(placement.device, torch.float32)  # bfloat16 would swallow small steps
    model: Any = load_reward(
        base,
        placement,
        fresh_head=True,
        pad_token_id=tokenizer.pad_token_id,
        layers=config.layers,
    )
    if config.even_reading and not has_head(base) and score_head(model) is not None:
        read_evenly(model)  # where its last layer can
    heads = config.ensemble if config.ensemble_kind == "heads" else 1
    members = open_members(model, base, heads, seed)
    if members is None and not has_head(base):
        fresh_head(score_head(model), seed)
    depth = 0
    if config.lora:
        depth = max(model.config.num_hidden_layers - config.lora_layers, 0)
        depth = depth if config.lora_layers else 0
        add_lora(model, config.lora_r, config.lora_alpha, seed, linear_names(model, depth))
    learners = [trainable(model, config.lora, members)]
    if config.ensemble_kind == "lora":
        fresh = not has_head(base)
        learners += [
            another(model, learners[0], seed + number, fresh_start=fresh)
            for number in range(1, config.ensemble)
        ]
    everything = [parameter for learner in learners for parameter in learner.values()]
    optimizer = torch.optim.AdamW(everything, lr=config.lr, weight_decay=config.weight_decay)
    window = min(config.max_length, longest_context(model))
    return Fit(model, tokenizer, config, learners, optimizer, window, depth, members)


def another(model: Any, first: Learner, seed: int, *, fresh_start: bool) -> Learner:
    """A further member: an adapter with a start of its own and a head, which starts anew if
    `fresh_start`.
    """
    dice = torch.Generator().manual_seed(seed * 1_000_003 % 2**63 + 2**61)
    learner = {}
    for name, parameter in first.items():
        fresh = parameter.detach().clone()
        if ".lora_A." in name:  # as peft draws it
            bound = 1 / math.sqrt(fresh.shape[1])
            drawn = torch.empty(fresh.shape).uniform_(-bound, bound, generator=dice)
            fresh.copy_(drawn)
        learner[name] = nn.Parameter(fresh)
    if fresh_start and score_head(model) is not None:
        wear(model, learner)
        fresh_head(score_head(model), seed)
        wear(model, first)
    return learner


def wear(model: nn.Module, learner: Learner) -> None:
    """Put these parameters into the model; what it wore before stays as it is."""
    for name, parameter in learner.items():
        owner, _, leaf = name.rpartition(".")
        if owner and not owner.startswith("members"):
            setattr(model.get_submodule(owner), leaf, parameter)


def add_nu(fit: Fit, rankings: Sequence[Ranking]) -> None:
    """Let every member learn Davidson's ν, from the share of ties on."""
    pairs = pairs_of(rankings)
    start_at = first_log_nu(int(pairs.tied.sum()), len(pairs.tied))
    device = next(fit.model.parameters()).device
    for learner in fit.learners:
        heads = 1 if fit.members is None else fit.members.out_features
        learner[LOG_NU] = nn.Parameter(torch.full((heads,), start_at, device=device))
    group = {"params": [learner[LOG_NU] for learner in fit.learners], "weight_decay": 0.0}
    fit.optimizer.add_param_group(group)


def fitted_nu(fit: Fit) -> list[float] | None:
    """Davidson's ν of each member; None under another loss."""
    logs = [learner[LOG_NU].detach() for learner in fit.learners if LOG_NU in learner]
    return torch.cat(logs).exp().tolist() if logs else None


def has_head(base: Path) -> bool:
    """Whether the base is itself a reward model, to be trained on."""
    names = settings_of(base).get("architectures") or []
    return any("SequenceClassification" in name for name in names)


def open_members(model: Any, base: Path, count: int, seed: int) -> nn.Linear | None:
    """The heads of an ensemble; those of the base when it has as many, else from its one head."""
    if count == 1:
        return None
    head = score_head(model)
    if head is None:
        raise RunError(
            f"{type(model).__name__} has no single linear head, so it can have no ensemble of "
            "heads; set config.ensemble to 1 or config.ensemble_kind to lora."
        )
    earlier = read_members(base, head) if has_head(base) else None
    if earlier is not None and earlier.out_features == count:
        return earlier
    members = make_members(head, count)
    if not has_head(base):
        fresh_head(members, seed)
    return members


@torch.no_grad()
def fresh_head(head: Any, seed: int) -> None:
    """N(0, 1/√(d+1)) and bias 0 (Stiennon et al. 2020); other kinds of heads keep their start."""
    if head is None:
        return
    dice = torch.Generator().manual_seed(seed)
    weight = torch.randn(head.weight.shape, generator=dice) / math.sqrt(head.in_features + 1)
    head.weight.copy_(weight)
    if head.bias is not None:
        head.bias.zero_()


def trainable(model: Any, lora: bool, members: nn.Linear | None) -> dict[str, nn.Parameter]:
    """What the optimiser moves, by name in a fixed order: adapter and head, or everything.

    The heads of an ensemble stand in for the model's own, which becomes their mean at the end.
    """
    inside = {id(parameter) for parameter in trunk(model).parameters()}
    chosen = adapter_parameters(model) if lora else {}
    if score_head(model) is None:
        model.float()  # its own forward pass needs one number format throughout
    for name, parameter in model.named_parameters():
        if id(parameter) not in inside:
            parameter.data = parameter.data.float()
        if id(parameter) not in inside or not lora:
            parameter.requires_grad_(True)
            chosen[name] = parameter
    if members is not None:
        for parameter in score_head(model).parameters():
            parameter.requires_grad_(False)
        chosen = {name: one for name, one in chosen.items() if not name.startswith("score.")}
        members.requires_grad_(True)
        chosen |= {f"members.{name}": one for name, one in members.named_parameters()}
    return chosen


@torch.no_grad()
def begin(
    context: RunContext,
    fit: Fit,
    rankings: Sequence[Ranking],
    groups: Sequence[Group],
    shares: Tensor,
    *,
    fresh: bool,
) -> Lowered:
    """Bring fresh heads to where training begins; returns the states below the adapter."""
    fitted = fresh and fit.step == 0 and score_head(fit.model) is not None and fit.config.head_start
    lowered, states = first_pass(context, fit, groups, with_states=fitted)
    if not fitted:
        return lowered
    heads = start_heads(states, rankings, shares)
    for learner, some in zip(
        fit.learners, heads.split(len(heads) // len(fit.learners)), strict=True
    ):
        wear(fit.model, learner)
        head = score_head(fit.model) if fit.members is None else fit.members
        head.weight.copy_(some)
    wear(fit.model, fit.learners[0])
    return lowered


def restore(fit: Fit, checkpoint: Checkpoint) -> None:
    """Put back what `checkpoint_now` took, but for the optimiser's state."""
    with torch.no_grad():
        for name, parameter in fit.parameters.items():
            parameter.copy_(checkpoint.tensors[f"model.{name}"])
    fit.step = checkpoint.step
    fit.recent.extend(checkpoint.state["recent"])


def checkpoint_now(context: RunContext, fit: Fit) -> None:
    """Save what is needed to go on after `fit.step` steps."""
    tensors: dict[str, Tensor] = {
        f"model.{name}": parameter for name, parameter in fit.parameters.items()
    }
    tensors |= optimizer_state(fit.optimizer)
    share = running_accuracy(fit)
    scores = {} if share is None else {fit.step: share}
    state = {"recent": list(fit.recent), "layers": fit.config.layers}
    record(context, fit.step, tensors, state, scores)


# 3. training --------------------------------------------------------------------------------------


def train(
    context: RunContext,
    fit: Fit,
    rankings: Sequence[Ranking],
    groups: Sequence[Group],
    lowered: Lowered,
    shares: Tensor,
) -> None:
    """All optimiser steps that are still to do; `shares` (g, M) as `bootstrap_shares` has them."""
    config = fit.config
    plan = plan_steps(len(rankings), config.epochs, config.rankings_per_step, context.spec.seed)
    saved = fit.step
    while fit.step < len(plan):
        context.progress(TRAINED * fit.step / len(plan))
        distributed.agree_to_stop(context)
        rate = config.lr * schedules.linear(fit.step, len(plan), config.warmup)
        loss = take_step(context, fit, rankings, groups, lowered, shares, plan[fit.step], rate)
        if loss is None:
            if saved != fit.step:
                checkpoint_now(context, fit)
            raise Stopped(f"Stopped after {fit.step} of {len(plan)} steps.")
        fit.step += 1
        context.emit(
            "metric",
            fit.step,
            total=len(plan),
            loss=loss,
            pair_accuracy=running_accuracy(fit),
            lr=rate,
            epoch=fit.step * config.epochs / len(plan),
        )
        if fit.step % config.checkpoint_every == 0 or fit.step == len(plan):
            checkpoint_now(context, fit)
            saved = fit.step


def running_accuracy(fit: Fit) -> float | None:
    """Share of the latest training pairs that were in the right order when they were learned."""
    pairs = sum(count for _, count in fit.recent)
    return sum(right for right, _ in fit.recent) / pairs if pairs else None


@torch.no_grad()
def first_pass(
    context: RunContext, fit: Fit, groups: Sequence[Group], *, with_states: bool
) -> tuple[Lowered, list[Tensor]]:
    """What the layers below the adapter give for every row, if it fits into memory; with them the
    states (K, d) at which each ranking's answers are scored, if they are wanted.

    All rows go through in buckets of like length, also in a resumed run, so that each meets the
    same neighbours and rounding.
    """
    rows = [row for group in groups for row in group]
    sizes = [width(row) for row in rows]
    total = schedules.steps_in(fit.config, len(groups))
    parameter = next(trunk(fit.model).parameters())
    each = fit.model.config.hidden_size * parameter.element_size()
    keep = fit.depth > 0 and sum(sizes) * each <= fit.config.lower_mib * 2**20
    lower: dict[int, Tensor] = {}
    states: dict[int, Tensor] = {}
    budget = fit.config.token_budget
    buckets = length_buckets(sizes, budget) if keep or with_states else []
    with packed(fit.model, budget, norms=False) if buckets else nullcontext():
        for bucket in buckets:
            if context.should_stop():
                raise Stopped(f"Stopped after {fit.step} of {total} steps.")
            batch = collate([rows[place] for place in bucket], fit.pad, parameter.device)
            batch = with_lower(fit.model, batch, fit.depth if keep else 0)
            if batch.lower is not None and not isinstance(batch.lower.result, Tensor):
                keep = False  # layers that hand on more than one tensor are run in each step
            elif batch.lower is not None:
                parts = zip(bucket, batch.lower.result, strict=True)
                lower |= {place: part[: sizes[place]].clone() for place, part in parts}
            if with_states:
                found = last_states(fit.model, batch).cpu()
                counts = [len(rows[place][1]) for place in bucket]
                states |= dict(zip(bucket, found.split(counts), strict=True))
    numbers = iter(range(len(rows)))
    places = [[next(numbers) for _ in group] for group in groups]
    kept = [[lower[place] for place in some] for some in places] if keep else None
    return kept, [torch.cat([states[place] for place in some]) for some in places if states]


def plan_steps(rankings: int, epochs: int, per_step: int, seed: int) -> list[list[int]]:
    """The rankings of every step; each epoch has its own order, which depends on nothing else."""
    steps = []
    for epoch in range(epochs):
        dice = torch.Generator().manual_seed(seed * 1_000_003 % 2**63 + epoch)
        order = torch.randperm(rankings, generator=dice).tolist()
        steps += [order[begin : begin + per_step] for begin in range(0, rankings, per_step)]
    return steps


def take_step(
    context: RunContext,
    fit: Fit,
    rankings: Sequence[Ranking],
    groups: Sequence[Group],
    lowered: Lowered,
    shares: Tensor,
    chosen: Sequence[int],
    rate: float,
) -> float | None:
    """One optimiser step over the chosen rankings, in micro-batches of like length.

    Returns the mean loss. When the run is asked to stop, the started step is dropped: None.
    """
    total = 0.0
    seen: list[tuple[int, int, list[float]]] = []
    mine = distributed.own(chosen)
    sizes = [len(groups[index]) * max(map(width, groups[index])) for index in mine]
    buckets = length_buckets(sizes, fit.config.token_budget)
    idle: list[list[int]] = [[]] * distributed.idle_passes(len(buckets))
    for bucket in [*buckets, *idle] or [[]]:
        if context.should_stop():
            return None
        if not bucket:  # more processes than rankings in this step, or less to do than others
            if idle:
                idle_pass(fit, groups[chosen[0]])
            continue
        part = [mine[place] for place in bucket]
        rows = [row for index in part for row in groups[index]]
        states = None if lowered is None else [one for index in part for one in lowered[index]]
        ranked = [rankings[index] for index in part]
        loss, scores = learn(fit, batches_of(fit, rows, states), ranked, shares[part], len(chosen))
        total += loss
        places = [(sizes[place], chosen.index(mine[place])) for place in bucket]
        right = pairs_right(scores.mean(1).tolist(), ranked)
        seen += [(*place, counts) for place, counts in zip(places, right, strict=True)]
    (total,) = distributed.sums([total])
    distributed.sum_gradients(one for own in fit.learners for one in own.values())
    limit = fit.config.grad_clip or math.inf
    norms = [distributed.clip_gradients(own.values(), limit) for own in fit.learners]
    if not (math.isfinite(total) and all(map(math.isfinite, norms))):
        raise no_number("The loss is", fit.step + 1, fit.config.lr)
    for group in fit.optimizer.param_groups:
        group["lr"] = rate
    fit.optimizer.step()
    fit.optimizer.zero_grad(set_to_none=True)
    fit.recent.extend(counts for *_, counts in sorted(distributed.gather(seen)))
    return total


def batches_of(fit: Fit, rows: Sequence[Row], lowered: Sequence[Tensor] | None) -> list[Batch]:
    """The rows of a micro-batch as one batch; of a ranking that is longer than the token budget as
    several, unless the weights are split: then every process makes the same number of passes.
    """
    budget = math.inf if ranks.splits() else fit.config.token_budget
    device = next(fit.model.parameters()).device
    found = []
    for piece in cut_in_order([width(row) for row in rows], budget):
        batch = collate([rows[place] for place in piece], fit.pad, device)
        if lowered is None:
            found.append(with_lower(fit.model, batch, fit.depth))
            continue
        length = batch.ids.shape[1]
        own = (lowered[place] for place in piece)
        states = [nn.functional.pad(one, (0, 0, 0, length - len(one))) for one in own]
        found.append(batch._replace(lower=Lower(fit.depth, torch.stack(states))))
    return found


def learn(
    fit: Fit, batches: Sequence[Batch], rankings: Sequence[Ranking], shares: Tensor, of: int
) -> tuple[float, Tensor]:
    """Gradients of one micro-batch of a step with so many rankings.

    Returns its part of the mean loss, and the raw scores by each member, (n, M). Adapters learn
    each from its own loss, heads from the mean of theirs.
    """
    total, columns = 0.0, []
    parts = shares.split(shares.shape[1] // len(fit.learners), dim=1)
    for learner, own in zip(reversed(fit.learners), reversed(parts), strict=True):
        if len(fit.learners) > 1:
            wear(fit.model, learner)
        scores = training_scores(fit, batches)
        loss = ensemble_loss(fit.config, scores, rankings, own, learner.get(LOG_NU)) / of
        loss.backward()
        total += loss.item() / len(fit.learners)
        columns.append(scores.detach())
    return total, torch.cat(columns[::-1], dim=1)


def idle_pass(fit: Fit, rows: Group) -> None:
    """A pass over one ranking that adds 0 to every gradient: see `distributed.idle_passes`."""
    batch = collate(rows, fit.pad, next(fit.model.parameters()).device)
    (learned_scores(fit, batch).sum() * 0.0).backward()


def training_scores(fit: Fit, batches: Sequence[Batch]) -> Tensor:
    """Raw scores of the batches' answers by each head that learns, (n, M).

    Of several batches none keeps its states for the gradient: each is read again when its turn
    comes (Chen et al. 2016), so a ranking takes no more memory than one of its batches.
    """
    if len(batches) == 1:
        return learned_scores(fit, batches[0])
    return torch.cat(
        [
            recomputed(learned_scores, fit, batch, use_reentrant=False, preserve_rng_state=False)
            for batch in batches
        ]
    )


def learned_scores(fit: Fit, batch: Batch) -> Tensor:
    """Raw scores of one batch's answers, (n, M)."""
    if fit.members is None:
        return batch_scores(fit.model, batch, fit.pad)[:, None]
    return head_scores(fit.members, last_states(fit.model, batch))


def ensemble_loss(
    config: RewardConfig,
    scores: Tensor,
    rankings: Sequence[Ranking],
    shares: Tensor,
    log_nu: Tensor | None = None,
) -> Tensor:
    """Mean over the heads of the weighted sum of the rankings' losses.

    Scores are (n, M), shares (g, M): a head counts a ranking by its weight times its share of it.
    Davidson's `log_nu` is (M,).
    """
    pairs = pairs_of(rankings).to(scores.device)
    weights = pairs.weight[:, None] * shares.to(scores.device)
    nus = [None] * scores.shape[1] if log_nu is None else list(log_nu.unbind())
    heads = zip(scores.unbind(1), weights.unbind(1), nus, strict=True)
    sums = [
        weighted_sum(order_losses(config, own, rankings, pairs, nu), weight)
        for own, weight, nu in heads
    ]
    return torch.stack(sums).mean()


def order_losses(
    config: RewardConfig,
    scores: Tensor,
    rankings: Sequence[Ranking],
    pairs: Pairs,
    log_nu: Tensor | None = None,
) -> Tensor:
    """The loss of each ranking under one head's scores (n,): (g,)."""
    if config.loss != "plackett_luce":
        return ranking_losses(
            scores,
            pairs,
            ties=cast(Ties, config.ties),
            margin=config.margin,
            centring=config.centre,
            log_nu=log_nu,
        )
    parts = scores.split([len(ranking.ranks) for ranking in rankings])
    ranks = [torch.tensor(ranking.ranks, device=scores.device) for ranking in rankings]
    return torch.stack([plackett_luce_loss(*one) for one in zip(parts, ranks, strict=True)])


def pairs_right(scores: Sequence[float], rankings: Sequence[Ranking]) -> list[list[float]]:
    """[pairs in the right order, untied pairs] of each ranking; scores are flat."""
    pairs = pairs_of(rankings)
    flat = torch.tensor(scores, dtype=torch.float64)
    difference = flat[pairs.better] - flat[pairs.worse]
    counts = []
    for number in range(len(rankings)):
        mine = difference[(pairs.ranking == number) & ~pairs.tied].numpy()
        counts.append([float(pair_outcomes(mine).sum()), float(len(mine))])
    return counts


# 4. measuring -------------------------------------------------------------------------------------


@torch.no_grad()
def finish(fit: Fit) -> Judge:
    """The model as it will be written: plain layers, a head in the base's numbers.

    The head of an ensemble of heads becomes the mean of its members. What rounding takes from the
    mean is taken from each of them, too, so that the model's score is the mean of the members'.
    Further members that are adapters are told by what they differ from the first.
    """
    dtype = next(trunk(fit.model).parameters()).dtype
    wear(fit.model, fit.learners[0])
    adapters = [differing(fit, learner, dtype) for learner in fit.learners[1:]]
    members = None if fit.members is None else dict(fit.members.named_parameters())
    if members is not None:
        for name, parameter in score_head(fit.model).named_parameters():
            mean = members[name].mean(0)
            parameter.copy_(mean.to(dtype))
            members[name].add_(parameter - mean)
    inside = {id(parameter) for parameter in trunk(fit.model).parameters()}
    for parameter in fit.model.parameters():
        if id(parameter) not in inside:
            parameter.copy_(parameter.to(dtype))
    merge(fit.model)
    window = fit.max_length
    return Judge(fit.model, fit.tokenizer, Normalisation(), window, fit.members, adapters)


def differing(fit: Fit, learner: Learner, dtype: torch.dtype) -> Member:
    """A further member as an adapter of twice the rank on the first: s·(B A − B₀ A₀)."""
    first = fit.learners[0]
    low, whole = {}, {}
    for name, layer in lora_layers(fit.model).items():
        keys = [f"{name}.lora_{side}.{ADAPTER}.weight" for side in "AB"]
        (a, b), (a0, b0) = ([one[key].detach().cpu() for key in keys] for one in (learner, first))
        scale = layer.scaling[ADAPTER]
        low[name] = torch.cat([a, a0]), torch.cat([scale * b, -scale * b0], dim=1)
    for name, parameter in learner.items():
        if ".lora_" not in name and name != LOG_NU:
            whole[name] = parameter.detach().to("cpu", dtype)
    return Member(low, whole)


def score_groups(context: RunContext, fit: Fit, groups: Sequence[Group]) -> list[list[float]]:
    """Raw scores of each ranking's answers, by the merged weights."""
    rows = [row for group in groups for row in group]

    def after_batch(done: int) -> None:
        go_on(context, fit, TRAINED + (SCALED - TRAINED) * done / len(rows))

    budget = fit.config.token_budget
    found = dict(
        score_rows(fit.model, rows, pad=fit.pad, token_budget=budget, after_batch=after_batch)
    )
    numbers = iter(range(len(rows)))
    return [
        [score for _ in group for score in found[next(numbers)][:, 0].tolist()] for group in groups
    ]


def score_heldout(
    context: RunContext, fit: Fit, judge: Judge, rankings: Sequence[Ranking]
) -> list[Tensor]:
    """Raw scores of the held-out answers, (K, 1 + M) of each ranking, as evaluate and score do."""
    answers = sum(len(ranking.texts) for ranking in rankings)

    def after_batch(done: int) -> None:
        go_on(context, fit, SCALED + (TESTED - SCALED) * done / answers)

    asked = [(ranking.messages, ranking.texts) for ranking in rankings]
    budget = fit.config.token_budget
    return judge_answers(judge, asked, token_budget=budget, after_batch=after_batch)


def calibrate(
    normalisation: Normalisation, rankings: Sequence[Ranking], raw: Sequence[Sequence[float]]
) -> tuple[Normalisation, dict[str, Any]]:
    """The normalisation with its temperature, and what the report says of it."""
    pairs = pairs_of(rankings)
    untied = ~pairs.tied
    flat = torch.tensor([score for scores in raw for score in scores], dtype=torch.float64)
    difference = (flat[pairs.better] - flat[pairs.worse])[untied].numpy()
    prompts = [prompt_hash(one.messages) for one in rankings]
    own = [prompts[number] for number in pairs.ranking[untied].tolist()]
    temperature = fit_temperature(difference)
    return dataclasses.replace(normalisation, temperature=temperature), {
        "temperature": temperature if len(own) >= FEWEST else None,
        "ece_calibrated": crossed_calibration_error(difference, own) if own else None,
    }


def go_on(context: RunContext, fit: Fit, progress: float) -> None:
    """Tell the progress; stop when asked to (the end of training is saved already)."""
    context.progress(progress)
    if context.should_stop():
        raise Stopped(f"Stopped after all {fit.step} steps, before the test.")


def accuracy(rankings: Sequence[Ranking], raw: Sequence[Sequence[float]]) -> float | None:
    """Share of untied pairs in the right order."""
    counts = pairs_right([score for some in raw for score in some], rankings)
    right, pairs = (sum(column) for column in zip(*counts, strict=True))
    return right / pairs if pairs else None


def warnings(report: dict[str, Any]) -> list[tuple[str, str]]:
    """What a person should know before trusting this model, as (code, sentence)."""
    if report["ci95"] is None:
        return [
            (
                "no_heldout",
                "No held-out pair could be tested, so nobody knows how good this reward model is; "
                "rank answers to more prompts.",
            )
        ]
    low, baseline = report["ci95"][0], report["length_baseline"]
    found = []
    if low <= 0.5:
        found.append(
            (
                "reward_at_chance",
                f"On held-out prompts the reward model orders {report['pair_accuracy']:.0%} of the "
                "pairs rightly, which may be chance; collect more rankings before training on it.",
            )
        )
    if report["pair_accuracy"] <= max(baseline, 1 - baseline):
        found.append(
            (
                "reward_no_better_than_length",
                "The reward model is no better than looking at the length of the answers alone.",
            )
        )
    return found


# 5. publishing ------------------------------------------------------------------------------------


def score_lines(
    rankings: Sequence[Ranking], outputs: Sequence[Tensor], normalisation: Normalisation
) -> list[dict[str, Any]]:
    """Lines of heldout_scores.jsonl: each answer once, as rankings of one set repeat them."""
    lines = {}
    for ranking, some in zip(rankings, outputs, strict=True):
        for answer, row in zip(ranking.answer_ids, some.tolist(), strict=True):
            lines[answer] = score_line(answer, row, normalisation)
    return list(lines.values())


def write_out(
    folder: Path,
    context: RunContext,
    judge: Judge,
    report: dict[str, Any],
    lines: Sequence[dict[str, Any]],
) -> None:
    """The merged model as transformers loads it, its scale, its figures and its card."""
    model = judge.model
    dtype = next(trunk(model).parameters()).dtype
    state = {
        name: tensor.detach().to("cpu", dtype if tensor.is_floating_point() else None).contiguous()
        for name, tensor in model.state_dict().items()
    }
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    config = model.config
    config.architectures = [type(model).__name__]
    config.dtype = dtype
    config.save_pretrained(folder)
    judge.tokenizer.save_pretrained(folder)
    judge.normalisation.write(folder)
    if judge.members is not None:
        write_members(judge.members, folder)
    write_adapters(judge.adapters, model, folder)
    (folder / "report.json").write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    body = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    (folder / "heldout_scores.jsonl").write_text(body, "utf-8")
    write_card(context, folder, card(report))


def card(report: dict[str, Any]) -> Card:
    """What the model card says."""
    if report["ci95"] is None:
        figures = ["it was not tested: no ranking was held out"]
    else:
        figures = [
            f"on {report['rankings']} held-out rankings of {report['prompts']} other prompts it "
            f"orders {with_interval(report['pair_accuracy'], report['ci95'])} of "
            f"{report['pairs']} pairs rightly; the longer answer wins "
            f"{with_interval(report['length_baseline'], report['length_baseline_ci95'])}",
        ]
    if report["ece"] is not None:
        figures.append(f"calibration error {report['ece']:.3f}")
    if report["annotator_agreement"] is not None:
        agreed = report["annotator_agreement"]
        share = with_interval(agreed["agreement"], agreed["ci95"])
        figures.append(f"annotators agree with one another on {share} of {agreed['pairs']} pairs")
    scale, members = report["normalisation"], ""
    if "ensemble" in report and report["ensemble"]["kind"] == "heads":
        members = (
            f" It is the mean of {report['ensemble']['members']} heads on the same states, which "
            "lie in `ensemble.safetensors`; where they disagree it is not sure of itself."
        )
    elif "ensemble" in report:
        members = (
            f" It is the first of {report['ensemble']['members']} members; the others are adapters "
            "on it, which peft loads from `members/1` and so on. Where they disagree it is not "
            "sure of itself."
        )
    if report["temperature"] is not None:
        members += (
            f" σ(difference of r / {report['temperature']:.3g}) is the share of pairs that people "
            "order so."
        )
    return Card(
        title="Reward model",
        about=(
            f"Trained on {report['train_rankings']} rankings, all pairs of a ranking as one "
            f"element of the batch, {report['rankings_per_step']} rankings a step at a rate of at "
            f"most {report['lr']:.3g}, on the first {report['layers']} layers of its base."
        ),
        figures=figures,
        use=(
            "`AutoModelForSequenceClassification.from_pretrained` loads it. It reads the "
            "conversation through the chat template, the answer, and one end-of-text token. Its "
            "output r is turned into a score of mean 0 and standard deviation 1 on training "
            f"answers by (r − {scale['mean']:.6g}) / {scale['std']:.6g} (`normalisation.json`)."
            f"{members}"
        ),
        limits=(
            "It knows what its annotators preferred on prompts like theirs, and nothing else; a "
            "policy that is trained against it for long will find its mistakes."
        ),
    )
