"""Improve a policy against a reward model with PPO, held near its reference by a KL penalty.

Choices
- One base in memory: the policy is a low-rank adapter on it, the reference is the base without it.
  Where every weight learns (`lora` false) they are float32, and the reference is a frozen copy.
- Three kinds of critic (critics.py). The cheapest reads the frozen reward model's states, so one
  pass of the reward model gives scores and everything the critic will ever need. On a reward model
  that can only be asked about texts (judging.py) it reads the policy's states instead.
- Old and reference log-probabilities come from the forward pass that is trained, in the very
  micro-batches that are trained: at step 0 the KL is exactly 0 and at the first update the ratio is
  exactly 1.
- A step begins at a boundary from which it can be repeated bit for bit; being stopped in the middle
  costs that step.
- Tokens, not micro-batches, weigh equally: sums are divided by the tokens of the whole minibatch.
- Held-out prompts are answered with the same random numbers at every look, so that looks differ by
  the policy alone.
Non-goals: entropy bonus.
"""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from trainer import (
    adapters,
    checkpoints,
    distributed,
    modeling,
    placement,
    rewards,
    schedules,
    scoring,
)
from trainer.alarms import alarms, over_budget
from trainer.cards import Card, parent_name, write_card
from trainer.config import PPOConfig
from trainer.critics import Critic, calibrate, new_critic
from trainer.data import Prompt, read_pairs, read_prompts, shared_prompts
from trainer.engines import engine_for
from trainer.episodes import Actors, MicroBatch, Question, Rollout, roll_out
from trainer.events import RunError, Stopped, no_number
from trainer.judging import Reader, Scorer, reads_tokens
from trainer.policy_reports import kl_curves
from trainer.ptx import Ptx, rows_of
from trainer.rollout import answer_seed
from trainer.statistics import distinct
from trainer.trials import text_of
from trainer.types import RunContext, Stopwatch, adapted_depth

#: parts of a step that are timed
PARTS = ("generate", "score", "lower", "reference", "old", "update", "watch")


@dataclass
class Learner:
    """What learns, and what must be kept to go on as if nothing had happened."""

    weights: dict[str, nn.Parameter]  # of the policy: its adapter, or everything
    critic: Critic
    optimizer: torch.optim.Optimizer
    kl_coef: float
    kept: dict[str, Tensor]  # weights at the last boundary whose KL was within the budget
    history: list[dict[str, Any]] = field(default_factory=list)
    alerts: list[str] = field(default_factory=list)

    def learned(self) -> list[nn.Parameter]:
        """Everything that the optimiser moves."""
        return [*self.weights.values(), *self.critic.parameters().values()]

    def tensors(self) -> dict[str, Tensor]:
        """All that a checkpoint needs, copied where learning would change it."""
        found: dict[str, Tensor] = {f"policy.{name}": value for name, value in self.weights.items()}
        found |= {f"critic.{name}": value for name, value in self.critic.parameters().items()}
        found |= checkpoints.optimizer_state(self.optimizer)
        copies = {name: value.detach().clone() for name, value in found.items()}
        return copies | {f"kept.{name}": value for name, value in self.kept.items()}

    def state(self) -> dict[str, Any]:
        """The numbers beside the tensors."""
        return {
            "kl_coef": self.kl_coef,
            "history": json.loads(json.dumps(self.history)),
            "alerts": list(self.alerts),
        }

    @torch.no_grad()
    def restore(self, checkpoint: checkpoints.Checkpoint) -> None:
        """Go back to a checkpoint."""
        tensors = checkpoint.tensors
        for name, value in self.weights.items():
            value.copy_(tensors[f"policy.{name}"])
            self.kept[name] = tensors[f"kept.{name}"].to(value.device)
        for name, value in self.critic.parameters().items():
            value.copy_(tensors[f"critic.{name}"])
        checkpoints.load_optimizer(self.optimizer, tensors)
        self.kl_coef = checkpoint.state["kl_coef"]
        self.history = checkpoint.state["history"]
        self.alerts = checkpoint.state["alerts"]


@dataclass
class Material:
    """What a run reads besides models."""

    prompts: list[Prompt]
    questions: list[Question]  # the prompts with their tokens
    heldout: list[Question]  # prompts that are only looked at; may be none
    ptx: Ptx | None


def run(context: RunContext) -> dict[str, Any]:
    """Train; returns the report."""
    config = cast(PPOConfig, context.spec.config)

    # 1. read what is asked, and go on from the last checkpoint if there is one
    policy_path, reward_path = context.input("policy"), context.input("reward")
    checkpoint = checkpoints.resume(context)
    place = placement.start(context, policy_path, checkpoint.step if checkpoint else None)
    actors, material = load_actors(context, policy_path, reward_path, place)
    learner = new_learner(actors, config, context.spec.seed)
    # with held-out prompts the second reward model is asked about them alone
    writers = dataclasses.replace(actors, second=None) if material.heldout else actors
    if checkpoint:
        learner.restore(checkpoint)

    # 2. step by step: write answers, judge them, learn from them
    step = checkpoint.step if checkpoint else 0
    stopped_early = ""
    while step < config.steps:
        boundary = _Boundary(context, learner, step)
        if distributed.agree_to_stop(context):
            boundary.leave_if_asked()
        watch = Stopwatch()
        context.progress(step_share(step, config, 0.0))
        shows = step % config.sample_every == 0
        asked = config if shows else dataclasses.replace(config, samples=0)
        rollout = roll_out(
            writers,
            asked,
            material.questions,
            (context.spec.seed, step),
            watch,
            boundary.leave_if_asked,
        )
        measured = measure(rollout, learner, config)
        if step % config.watch_every == 0:
            watch.start("watch")
            measured |= look(actors, material, config, context, boundary)
        stopped_early = over_budget(measured["kl"], config.kl_budget)
        if stopped_early:
            context.emit("alert", step, code="kl_budget", message=stopped_early)
            break
        learner.kept = {name: boundary.tensors[f"policy.{name}"] for name in learner.weights}
        watch.start("update")
        measured["lr"] = set_rates(learner, config, step)
        if step == 0:
            calibrate(learner.critic, rollout)
        learned = update(actors, learner, rollout, material.ptx, context, step, boundary)
        tell(context, config, learner, measured | learned, step, watch)
        tell_samples(context, actors, material.prompts, rollout, config, step)
        if config.kl_control == "adaptive" and step >= config.critic_warmup:
            learner.kl_coef = rewards.adapt_kl_coef(
                learner.kl_coef,
                measured["kl"],
                config.kl_target,
                config.episodes_per_step,
                config.kl_horizon,
            )
        step += 1
        if step % config.checkpoint_every == 0 or step == config.steps:
            _Boundary(context, learner, step).save()

    # 3. measure the weights that will be kept on the prompts and seeds of step 0
    if stopped_early:
        final = None
    else:
        boundary = _Boundary(context, learner, step)
        rollout = roll_out(
            writers,
            config,
            material.questions,
            (context.spec.seed, 0),
            Stopwatch(),
            boundary.leave_if_asked,
        )
        final = measure(rollout, learner, config)
        final |= look(actors, material, config, context, boundary)
        stopped_early = over_budget(final["kl"], config.kl_budget)
        raise_alarms(context, learner, [*learner.history, {"step": step, **final}], step)
        if stopped_early:
            context.emit("alert", step, code="kl_budget", message=stopped_early)
        tell_samples(context, actors, material.prompts, rollout, config, step)
    if stopped_early:
        go_back(learner)
        final = learner.history[-1] if learner.history else final

    # 4. publish the merged policy
    actors.writer.close()
    report = make_report(config, actors.critic, learner, final, stopped_early)
    publish(context, actors, report)
    context.progress(1.0)
    return report


# --- setting up ---------------------------------------------------------------------------------


def load_actors(
    context: RunContext, policy_path: Path, reward_path: Path, place: placement.Placement
) -> tuple[Actors, Material]:
    """Load all models, make sure that they fit; also the prompts and pairs as tokens."""
    config = cast(PPOConfig, context.spec.config)
    tokenizer = modeling.load_tokenizer(policy_path)
    modeling.keep_template(tokenizer)
    if not config.lora and config.dtype == "auto":
        place = place._replace(dtype=torch.float32)  # bfloat16 would round small steps away
    policy = modeling.load_policy(policy_path, place)
    reward = load_scorer(context, reward_path, tokenizer, place)
    if not reward.judge.size and (config.pessimism or config.ensemble != "mean"):
        raise RunError(
            f"The reward model {reward_path} is no ensemble, so config.pessimism and "
            "config.ensemble mean nothing; take one, or leave them at their defaults."
        )
    second = None
    if "second" in context.spec.inputs:
        second = load_scorer(context, context.input("second"), tokenizer, place)
    scorers = [one for one in (reward, second) if isinstance(one, Scorer)]
    models = [policy, *(scorer.model for scorer in scorers)]

    # one more than the longest answer: the reward model reads an end behind a cut one
    new = config.max_new_tokens + 1
    window = min(map(modeling.longest_context, models))
    material = read_material(context, tokenizer, new, window)
    probe = max((one.ids for one in material.questions + material.heldout), key=len)
    pad = int(tokenizer.pad_token_id)

    frozen, depth = None, 0
    if config.lora:
        depth = adapted_depth(policy.config.num_hidden_layers, config.lora_layers)
        targets = adapters.linear_names(policy, depth)
        adapters.add_lora(policy, config.lora_r, config.lora_alpha, context.spec.seed, targets)
        depth = depth if modeling.splits(policy, probe, pad, depth) else 0
    else:
        frozen = modeling.load_policy(policy_path, place)
        for model in (policy, frozen):
            # Never given to an optimiser, the copy wants gradients for one reason: some layers
            # choose their kernel by that, and the reference must round as the policy does.
            model.requires_grad_(True)
    packs = config.answers_per_prompt > 1 and all(
        modeling.shares_prompts(model, probe, pad, len(probe) + new) for model in models
    )
    for scorer in scorers:
        scorer.shares = modeling.share_lower(policy, scorer.model, depth, pad)
    critic = critic_kind(config, reward, reward_path)
    if critic == "adapter" and isinstance(reward, Scorer) and not reward.shares:
        below = adapted_depth(reward.model.config.num_hidden_layers, config.lora_layers)
        reward.depth = below if modeling.splits(reward.model, probe, pad, below) else 0
    if material.ptx is not None:
        material.ptx.depth = depth
    actors = Actors(
        policy=policy,
        reward=reward,
        tokenizer=tokenizer,
        packs=packs,
        depth=depth,
        writer=engine_for(config, policy, tokenizer),
        critic=critic,
        frozen=frozen,
        second=second,
    )
    return actors, material


def load_scorer(
    context: RunContext, path: Path, tokenizer: Any, place: placement.Placement
) -> Scorer | Reader:
    """Open a reward model as one that reads the policy's tokens or, if it cannot, its texts."""
    config = cast(PPOConfig, context.spec.config)
    dtype = placement.choose_dtype(config.dtype, place.device, path)
    whole_window = sys.maxsize  # a Reader cuts what is longer than its model allows
    judge = scoring.load_judge(path, placement.Placement(place.device, dtype), whole_window)
    if not (path / scoring.NORMALISATION).is_file():
        context.emit(
            "alert",
            code="no_normalisation",
            message=f"{path} has no {scoring.NORMALISATION}; its scores are used as they are.",
        )
    if reads_tokens(judge, tokenizer):
        return Scorer(judge)
    return Reader(judge, config.token_budget)


def critic_kind(config: PPOConfig, reward: Scorer | Reader, path: Path) -> str:
    """The critic that goes with a reward model; refuses one that cannot stand on it."""
    if isinstance(reward, Scorer) or config.critic == "policy":
        return config.critic
    if config.critic == "adapter":
        raise RunError(
            f"The reward model {path} reads texts (it is an encoder, or its tokenizer is not the "
            "policy's), so config.critic cannot be adapter; set it to policy."
        )
    return "policy"


def read_material(context: RunContext, tokenizer: Any, new: int, window: int) -> Material:
    """Prompts with room for `new` tokens, held-out ones too, and the pairs of the ptx loss."""
    config = cast(PPOConfig, context.spec.config)
    prompts = read_prompts(context.input("prompts"))
    looked_at = []
    if "heldout" in context.spec.inputs:
        looked_at = read_prompts(context.input("heldout"))
    if shared := shared_prompts(prompts, looked_at):
        raise RunError(
            f"{len(shared)} of the held-out prompts are trained on as well; take them out of the "
            "input prompts or of the input heldout."
        )
    questions, heldout = (
        [Question(one.messages, modeling.chat_ids(tokenizer, one.messages)) for one in some]
        for some in (prompts, looked_at)
    )
    names = [prompt.id for prompt in [*prompts, *looked_at]]
    modeling.check_room(names, [one.ids for one in questions + heldout], new, window)
    ptx = None
    if config.ptx_coef:
        ptx = Ptx(
            rows=rows_of(tokenizer, read_pairs(context.input("pairs")), window),
            pad=int(tokenizer.pad_token_id),
            depth=0,
            token_budget=config.token_budget,
            coef=config.ptx_coef,
            batch_size=config.ptx_batch,
            seed=context.spec.seed,
        )
    return Material(prompts, questions, heldout, ptx)


def new_learner(actors: Actors, config: PPOConfig, seed: int) -> Learner:
    """The policy's weights (an adapter with B = 0, or all), a critic, and their optimiser."""
    critic = new_critic(actors, config, seed)
    if config.lora:
        weights = adapters.adapter_parameters(actors.policy)
    else:
        weights = dict(actors.policy.named_parameters())
    optimizer = torch.optim.Adam(
        [
            {"params": list(weights.values()), "lr": config.lr},
            {"params": list(critic.parameters().values()), "lr": config.critic_lr},
        ],
        eps=1e-5,
    )
    kept = {name: value.detach().clone() for name, value in weights.items()}
    return Learner(weights, critic, optimizer, config.kl_coef, kept)


def set_rates(learner: Learner, config: PPOConfig, step: int) -> float:
    """Give the optimiser a step's learning rates; returns that of the policy.

    With whitened advantages, and under Adam anyway, an update is as large beside the optimum as far
    from it: at a constant rate the policy ends up moving about the optimum instead of into it.
    """
    share = schedules.linear(step, config.steps) if config.lr_schedule == "linear" else 1.0
    policy, critic = learner.optimizer.param_groups
    policy["lr"], critic["lr"] = share * config.lr, share * config.critic_lr
    return share * config.lr


class _Boundary:
    """The state at the start of a step: what a run that is stopped within it goes on from."""

    def __init__(self, context: RunContext, learner: Learner, step: int) -> None:
        self.context, self.step = context, step
        self.tensors = learner.tensors()
        self.state = learner.state()

    def save(self) -> None:
        # A step's answers tell how good the policy is that wrote them: the one that it began with.
        scores = {entry["step"]: entry["objective"] for entry in self.state["history"]}
        checkpoints.record(self.context, self.step, self.tensors, self.state, scores)

    def leave_if_asked(self) -> None:
        """Called after every micro-step: when asked to stop, save the boundary and leave."""
        if self.context.should_stop():
            self.save()
            steps = cast(PPOConfig, self.context.spec.config).steps
            raise Stopped(
                f"Stopped after {self.step} of {steps} steps; run the folder again to go on."
            )


# --- learning -----------------------------------------------------------------------------------


class Targets(NamedTuple):
    """What the passes of a step steer to, all (E, w)."""

    old_values: Tensor
    advantages: Tensor
    returns: Tensor


@torch.no_grad()
def targets_of(learner: Learner, rollout: Rollout, config: PPOConfig) -> Targets:
    """Rewards, values, advantages."""
    mask = rollout.mask
    penalty = rewards.KL_ESTIMATORS[config.kl_estimator](rollout.old, rollout.reference, mask)
    score = final_score(rollout, config)
    shaped = rewards.shaped_rewards(penalty, score, mask, learner.kl_coef)
    old_values = learner.critic.all_values(rollout)
    advantages, returns = rewards.gae(shaped, old_values, mask, config.gamma, config.lam)
    if config.whiten:
        advantages = rewards.whiten(advantages, mask)
    return Targets(old_values, advantages, returns)


def update(
    actors: Actors,
    learner: Learner,
    rollout: Rollout,
    ptx: Ptx | None,
    context: RunContext,
    step: int,
    boundary: _Boundary,
) -> dict[str, float]:
    """Some passes of clipped updates over the step's answers; returns what happened, per token."""
    config = cast(PPOConfig, context.spec.config)
    targets = targets_of(learner, rollout, config)
    warming = step < config.critic_warmup
    seen = _Sums()
    count = config.epochs * len(rollout.minibatches)
    done = 0
    for epoch in range(config.epochs):
        generator = torch.Generator()
        generator.manual_seed(answer_seed(context.spec.seed, "order", step, epoch))
        for number in torch.randperm(len(rollout.minibatches), generator=generator).tolist():
            minibatch = rollout.minibatches[number]
            own = sum(int(micro.batch.mask.sum()) for micro in minibatch)
            tokens = int(distributed.sums([own])[0])
            learner.optimizer.zero_grad(set_to_none=True)
            here = _Sums()
            for micro in minibatch:
                value = critic_backward(learner.critic, rollout, micro, targets, tokens, config)
                policy = policy_backward(
                    None if warming else actors, rollout, micro, targets, tokens, config
                )
                here.add(policy, value, tokens=int(micro.batch.mask.sum()))
                boundary.leave_if_asked()
            if ptx is not None and not warming:
                index = step * count + done
                here.ptx.append(ptx.backward(actors.policy, index, boundary.leave_if_asked))
            here.share()
            distributed.sum_gradients(learner.learned())
            refuse_nan(here, step)
            if not done:
                first_ratio = here.mean("ratio")
            seen.gradients.append(clip_gradients(learner, config.grad_clip))
            learner.optimizer.step()
            seen.join(here)
            done += 1
            context.progress(step_share(step, config, 0.4 + 0.6 * done / count))
            if config.target_kl and here.mean("approx_kl") > config.target_kl:
                return finish_update(rollout, targets, seen, first_ratio, done)
    return finish_update(rollout, targets, seen, first_ratio, done)


def critic_backward(
    critic: Critic,
    rollout: Rollout,
    micro: MicroBatch,
    targets: Targets,
    tokens: int,
    config: PPOConfig,
) -> Tensor:
    """Add the gradient of a micro-batch's value loss; returns the loss, summed over its tokens."""
    place, mask = micro.episodes, micro.batch.mask
    width = mask.shape[1]
    loss = rewards.value_loss(
        critic.values(rollout, micro),
        targets.old_values[place, :width],
        targets.returns[place, :width],
        mask,
        config.value_clip,
    )
    (config.vf_coef * loss / tokens).backward()
    return loss


def policy_backward(
    actors: Actors | None,
    rollout: Rollout,
    micro: MicroBatch,
    targets: Targets,
    tokens: int,
    config: PPOConfig,
) -> rewards.PolicyLoss:
    """Add the gradient of a micro-batch's clipped objective; returns its sums.

    Without actors, while the critic warms up, the policy is the one that wrote the answers.
    """
    place, mask = micro.episodes, micro.batch.mask
    width = mask.shape[1]
    old = rollout.old[place, :width]
    logprob = old
    if actors is not None:
        logprob, _ = modeling.response_logprobs(actors.policy, micro.batch, config.temperature)
    found = rewards.policy_loss(logprob, old, targets.advantages[place, :width], mask, config.clip)
    if actors is not None:
        (found.loss / tokens).backward()
    return found


def step_share(step: int, config: PPOConfig, within: float) -> float:
    """How much of the stage is done, the last measurement included."""
    return min((step + within) / (config.steps + 0.4), 0.99)


def final_score(rollout: Rollout, config: PPOConfig) -> Tensor:
    """(E,) normalised score as the reward uses it: bounded, less for an answer without its end."""
    count = rollout.mask.shape[0]
    score = rollout.score[:count]
    if rollout.members is not None:
        score = rewards.ensemble_score(rollout.members, config.ensemble, config.pessimism)
    if config.score_clip:
        score = score.clamp(-config.score_clip, config.score_clip)
    cut = [not answer.finished for answer in rollout.answers[:count]]
    return score - config.missing_eos_penalty * torch.tensor(cut, device=score.device)


class _Sums:
    """Sums over the tokens of one or more minibatches."""

    def __init__(self) -> None:
        self.tokens = 0
        self.sums = dict.fromkeys(("loss", "clipped", "ratio", "approx_kl", "value"), 0.0)
        self.gradients: list[float] = []
        self.ptx: list[float] = []  # nats a token, one for each optimiser step

    def add(self, policy: rewards.PolicyLoss, value: Tensor, tokens: int) -> None:
        self.tokens += tokens
        for name, number in zip(self.sums, (*policy, value), strict=True):
            self.sums[name] += float(number.detach())

    def join(self, other: _Sums) -> None:
        self.tokens += other.tokens
        for name, number in other.sums.items():
            self.sums[name] += number
        self.ptx += other.ptx

    def share(self) -> None:
        """Take the other processes' sums of the same minibatch to those of this one."""
        found = distributed.sums([self.tokens, *self.sums.values()])
        self.tokens = int(found[0])
        self.sums = dict(zip(self.sums, found[1:], strict=True))

    def mean(self, name: str) -> float:
        """Per token."""
        return self.sums[name] / max(self.tokens, 1)


def refuse_nan(sums: _Sums, step: int) -> None:
    """A loss that is no number would spoil every weight."""
    if not all(map(math.isfinite, [*sums.sums.values(), *sums.ptx])):
        raise no_number("The loss is", step)


def clip_gradients(learner: Learner, most: float) -> float:
    """Norm of the policy's gradient before clipping; policy and critic are clipped apart."""
    limit = most or math.inf
    nn.utils.clip_grad_norm_(list(learner.critic.parameters().values()), limit)
    return float(nn.utils.clip_grad_norm_(list(learner.weights.values()), limit))


def finish_update(
    rollout: Rollout, targets: Targets, seen: _Sums, first_ratio: float, done: int
) -> dict[str, float]:
    """What the update did, as metrics."""
    mask = rollout.mask
    return {
        "policy_loss": seen.mean("loss"),
        "value_loss": seen.mean("value"),
        "clip_fraction": seen.mean("clipped"),
        "ratio_mean": seen.mean("ratio"),
        "ratio_first": first_ratio,
        "approx_kl": seen.mean("approx_kl"),
        "grad_norm": sum(seen.gradients) / max(len(seen.gradients), 1),
        "updates": done,
        "value_mean": float(rewards.masked_mean(targets.old_values, mask)),
        "explained_variance": rewards.explained_variance(targets.old_values, targets.returns, mask),
        **({"ptx_loss": sum(seen.ptx) / len(seen.ptx)} if seen.ptx else {}),
    }


# --- telling ------------------------------------------------------------------------------------


def measure(rollout: Rollout, learner: Learner, config: PPOConfig) -> dict[str, float]:
    """What the answers of a rollout say about the policy that wrote them; all means are over real
    tokens.
    """
    mask, count = rollout.mask, rollout.mask.shape[0]
    per_reply = rewards.kl_k1(rollout.old, rollout.reference, mask).sum(-1)
    penalty = rewards.KL_ESTIMATORS[config.kl_estimator](rollout.old, rollout.reference, mask)
    score = rollout.score[:count]
    own = rollout.answers[:count]
    paid = final_score(rollout, config) - learner.kl_coef * penalty.sum(-1)
    return {
        "reward": float(score.mean()),
        "reward_std": float(score.std(correction=0)),
        "objective": float(paid.mean()),
        "kl": float(per_reply.mean()),
        "kl_k3": float(rewards.kl_k3(rollout.old, rollout.reference, mask).sum(-1).mean()),
        "kl_coef": learner.kl_coef,
        "entropy": float(rewards.masked_mean(rollout.entropy, mask)),
        "eos_rate": sum(answer.finished for answer in own) / count,
        "length": float(mask.sum(-1).float().mean()),
        # Where no answer has two tokens nothing is said twice.
        "distinct_2": distinct([answer.ids for answer in own], 2) or 1.0,
        "sampler_gap": rollout.sampler_gap,
        "episodes": count,
        **judged(rollout, "member"),
    }


def judged(rollout: Rollout, name: str) -> dict[str, float]:
    """What is not trained on says about the answers: an ensemble's members, a second reward model.

    The members' figures are NAME_spread and NAME_min.
    """
    found: dict[str, float] = {}
    if rollout.members is not None:
        found[f"{name}_spread"] = float(rollout.members.std(-1, correction=0).mean())
        found |= _with_error(f"{name}_min", rollout.members.amin(-1))
    if rollout.second is not None:
        found |= _with_error("second_reward", rollout.second)
    return found


def _with_error(name: str, scores: Tensor) -> dict[str, float]:
    """Mean of one score an answer, with its standard error."""
    error = float(scores.std(correction=0)) / math.sqrt(len(scores))
    return {name: float(scores.mean()), f"{name}_se": error}


def look(
    actors: Actors,
    material: Material,
    config: PPOConfig,
    context: RunContext,
    boundary: _Boundary,
) -> dict[str, float]:
    """How the policy does on the held-out prompts, one answer each; nothing without them."""
    if not material.heldout:
        return {}
    whole = dataclasses.replace(
        config,
        episodes_per_step=len(material.heldout),
        answers_per_prompt=1,
        minibatches=1,
        samples=0,
    )
    draw = (answer_seed(context.spec.seed, "heldout"), 0)
    rollout = roll_out(actors, whole, material.heldout, draw, Stopwatch(), boundary.leave_if_asked)
    kl = rewards.kl_k1(rollout.old, rollout.reference, rollout.mask).sum(-1).mean()
    return {
        "heldout_reward": float(rollout.score.mean()),
        "heldout_kl": float(kl),
        "sqrt_kl": math.sqrt(max(float(kl), 0.0)),
        **judged(rollout, "heldout"),
    }


def tell(
    context: RunContext,
    config: PPOConfig,
    learner: Learner,
    metrics: Mapping[str, float],
    step: int,
    watch: Stopwatch,
) -> None:
    """Keep a step's numbers, write its metric event and the alerts that they give rise to."""
    learner.history.append({"step": step, **metrics})
    context.emit("metric", step, total=config.steps, **metrics, **watch.metrics(PARTS))
    raise_alarms(context, learner, learner.history, step)


def raise_alarms(
    context: RunContext, learner: Learner, history: Sequence[Mapping[str, Any]], step: int
) -> None:
    """Write each alarm once."""
    for code, message in alarms(history):
        if code not in learner.alerts:
            learner.alerts.append(code)
            context.emit("alert", step, code=code, message=message)


def tell_samples(
    context: RunContext,
    actors: Actors,
    prompts: Sequence[Prompt],
    rollout: Rollout,
    config: PPOConfig,
    step: int,
) -> None:
    """Show the answers to the fixed prompts, if the rollout has any; the same random numbers are
    drawn for them every time.
    """
    count = rollout.mask.shape[0]
    samples = [
        {
            "prompt_id": prompt.id,
            "prompt": list(prompt.messages),
            "text": text_of(actors.tokenizer, answer.ids),
            "score": float(score),
        }
        for prompt, answer, score in zip(
            prompts, rollout.answers[count:], rollout.score[count:], strict=False
        )
    ]
    if samples:
        context.emit("sample", step, total=config.steps, samples=samples)


@torch.no_grad()
def go_back(learner: Learner) -> None:
    """Take the last weights whose KL was within the budget."""
    for name, value in learner.weights.items():
        value.copy_(learner.kept[name])


def make_report(
    config: PPOConfig,
    critic: str,
    learner: Learner,
    final: Mapping[str, float] | None,
    stopped_early: str,
) -> dict[str, Any]:
    """The run in numbers; nothing in it depends on the clock, so equal runs give equal folders."""
    history = learner.history
    last = final or history[-1]
    before = history[0]["reward"] if history else last["reward"]
    return {
        "stage": "ppo",
        "steps": len(history),
        "episodes": len(history) * config.episodes_per_step,
        "kl": last["kl"],
        "score_before": before,
        "score_after": last["reward"],
        "critic": critic,
        "stopped_early": stopped_early or None,
        "alerts": learner.alerts,
        "final": dict(last),
        "curve": kl_curves(history),
        "history": history,
    }


def publish(context: RunContext, actors: Actors, report: Mapping[str, Any]) -> None:
    """Write out/: the plain policy with tokenizer, card and report, and an adapter alone."""
    config = cast(PPOConfig, context.spec.config)
    base = context.spec.inputs["policy"]
    name = base if isinstance(base, str) else base["path"]

    def write(folder: Path) -> None:
        if not config.lora:  # in the number format that policies have on this machine
            path = context.input("policy")
            actors.policy.to(placement.choose_dtype(config.dtype, actors.policy.device, path))
        adapters.save_merged(actors.policy, actors.tokenizer, folder)
        if config.lora:
            adapters.save_adapter(actors.policy, folder / "adapter", name)
        (folder / "report.json").write_text(json.dumps(report, indent=1) + "\n", "utf-8")
        write_card(context, folder, card(context, report, parent_name(context.spec, "policy")))

    checkpoints.publish(context.out, write)


WATCHED_WORDS = {
    "heldout_reward": "score on held-out prompts",
    "second_reward": "score of the second reward model, which was not trained against,",
}


def card(context: RunContext, report: Mapping[str, Any], base: str) -> Card:
    """What the model card says."""
    reward = parent_name(context.spec, "reward")
    weights = "The weights load with `AutoModelForCausalLM.from_pretrained`; "
    if cast(PPOConfig, context.spec.config).lora:
        weights = (
            "The weights are merged and load with `AutoModelForCausalLM.from_pretrained`; "
            "`adapter/` holds the low-rank adapter alone, for peft; "
        )
    stopped = f" {report['stopped_early']}" if report["stopped_early"] else ""
    figures = [
        f"reward-model score {report['score_before']:.3f} before, {report['score_after']:.3f} "
        "after (in standard deviations of the reward model's reference answers)",
        f"KL from the reference {report['kl']:.2f} nats an answer",
    ]
    for name, words in WATCHED_WORDS.items():
        if name in report["final"]:
            figures.append(f"{words} {report['final'][name]:.3f} at the end")
    if report["alerts"]:
        figures.append(f"alerts: {', '.join(report['alerts'])} (see the run's events)")
    return Card(
        title="Policy",
        about=(
            f"Trained by PPO from `{base}` against the reward model `{reward}`: "
            f"{report['steps']} steps, {report['episodes']} answers.{stopped}"
        ),
        figures=figures,
        use=f"{weights}`report.json` holds every step.",
        limits=(
            "The score is that of the reward model that was trained against, on training prompts "
            "and single steps, hence without interval: it shows that training worked, not that "
            "people like the answers better. The stage `evaluate` and blind comparisons tell that."
        ),
    )
