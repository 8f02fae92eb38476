"""Improve a policy against a reward model with PPO, held near its reference by a KL penalty.

Choices
- One base in memory: the policy is a low-rank adapter on it, the reference is the base without it.
- The critic is a linear head on the frozen reward model's states and begins as the reward model's
  own head, so one pass of the reward model gives scores and everything the critic will ever need.
- Old and reference log-probabilities come from the forward pass that is trained, in the very
  micro-batches that are trained: at step 0 the KL is exactly 0 and at the first update the ratio is
  exactly 1.
- A step begins at a boundary from which it can be repeated bit for bit; being stopped in the middle
  costs that step.
- Tokens, not micro-batches, weigh equally: sums are divided by the tokens of the whole minibatch.
Non-goals: several devices, entropy bonus, a critic of its own.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from trainer import checkpoints, modeling, rewards, scoring
from trainer.config import PPOConfig
from trainer.data import Prompt, read_prompts
from trainer.episodes import Actors, Rollout, roll_out
from trainer.events import RunError, Stopped, no_number
from trainer.rollout import answer_seed
from trainer.types import RunContext, Stopwatch

#: parts of a step that are timed
PARTS = ("generate", "score", "lower", "reference", "old", "update")


@dataclass
class Learner:
    """What learns, and what must be kept to go on as if nothing had happened."""

    adapter: dict[str, nn.Parameter]
    critic: nn.Linear
    optimizer: torch.optim.Optimizer
    kl_coef: float
    kept: dict[str, Tensor]  # adapter at the last boundary whose KL was within the budget
    history: list[dict[str, Any]] = field(default_factory=list)
    alerts: list[str] = field(default_factory=list)

    def tensors(self) -> dict[str, Tensor]:
        """Copies of all that a checkpoint needs."""
        found = {f"adapter.{name}": value.detach() for name, value in self.adapter.items()}
        found |= {f"critic.{name}": value for name, value in self.critic.state_dict().items()}
        found |= {f"kept.{name}": value for name, value in self.kept.items()}
        found |= checkpoints.optimizer_state(self.optimizer)
        return {name: value.detach().clone() for name, value in found.items()}

    def state(self, fingerprint: str) -> dict[str, Any]:
        """The numbers beside the tensors."""
        return {
            "fingerprint": fingerprint,
            "kl_coef": self.kl_coef,
            "history": json.loads(json.dumps(self.history)),
            "alerts": list(self.alerts),
        }

    @torch.no_grad()
    def restore(self, checkpoint: checkpoints.Checkpoint) -> None:
        """Go back to a checkpoint."""
        tensors = checkpoint.tensors
        for name, value in self.adapter.items():
            value.copy_(tensors[f"adapter.{name}"])
            self.kept[name] = tensors[f"kept.{name}"].to(value.device)
        critic = {name: tensors[f"critic.{name}"] for name in self.critic.state_dict()}
        self.critic.load_state_dict(critic)
        checkpoints.load_optimizer(self.optimizer, tensors)
        self.kl_coef = checkpoint.state["kl_coef"]
        self.history = checkpoint.state["history"]
        self.alerts = checkpoint.state["alerts"]


def run(context: RunContext) -> dict[str, Any]:
    """Train; returns the report."""
    config = cast(PPOConfig, context.spec.config)
    watch = Stopwatch()

    # 1. read what is asked, and go on from the last checkpoint if there is one
    policy_path, reward_path = context.input("policy"), context.input("reward")
    prompts = read_prompts(context.input("prompts"))
    checkpoint = checkpoints.resume(context)
    place = modeling.start(context, policy_path, checkpoint.step if checkpoint else None)
    actors, ids = load_actors(context, policy_path, reward_path, place, prompts)
    learner = new_learner(actors, config)
    if checkpoint:
        learner.restore(checkpoint)

    # 2. step by step: write answers, judge them, learn from them
    step = checkpoint.step if checkpoint else 0
    stopped_early = ""
    while step < config.steps:
        boundary = _Boundary(context, learner, step)
        watch = Stopwatch()
        context.progress(step_share(step, config, 0.0))
        rollout = roll_out(
            actors, config, ids, (context.spec.seed, step), watch, boundary.leave_if_asked
        )
        measured = measure(rollout, learner, config)
        stopped_early = over_budget(measured["kl"], config)
        if stopped_early:
            context.emit("alert", step, code="kl_budget", message=stopped_early)
            break
        learner.kept = {name: value.detach().clone() for name, value in learner.adapter.items()}
        watch.start("update")
        if step == 0:
            calibrate(learner, rollout)
        learned = update(actors, learner, rollout, config, context, step, boundary)
        tell(context, config, learner, measured | learned, step, watch)
        if step % config.sample_every == 0:
            tell_samples(context, actors, prompts, rollout, config, step)
        if config.kl_control == "adaptive":
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
            actors, config, ids, (context.spec.seed, 0), Stopwatch(), boundary.leave_if_asked
        )
        final = measure(rollout, learner, config)
        stopped_early = over_budget(final["kl"], config)
        tell_samples(context, actors, prompts, rollout, config, step)
    if stopped_early:
        go_back(learner)
        final = learner.history[-1] if learner.history else final

    # 4. publish the merged policy
    report = make_report(config, learner, final, stopped_early)
    publish(context, actors, report)
    context.progress(1.0)
    return report


# --- setting up ---------------------------------------------------------------------------------


def load_actors(
    context: RunContext,
    policy_path: Path,
    reward_path: Path,
    place: modeling.Placement,
    prompts: Sequence[Prompt],
) -> tuple[Actors, list[list[int]]]:
    """Load policy and reward model, make sure that they fit; also the prompts as tokens."""
    config = cast(PPOConfig, context.spec.config)
    tokenizer = modeling.load_tokenizer(policy_path)
    if tokenizer.get_vocab() != modeling.load_tokenizer(reward_path).get_vocab():
        raise RunError(
            f"The policy {policy_path} and the reward model {reward_path} have different "
            "tokenizers; train the reward model on a base with the policy's tokenizer."
        )
    policy = modeling.load_policy(policy_path, place)
    dtype = modeling.choose_dtype(config.dtype, place.device, reward_path)
    reward = modeling.load_reward(reward_path, modeling.Placement(place.device, dtype))
    if not isinstance(getattr(reward, "score", None), nn.Linear):
        raise RunError(
            f"The reward model {reward_path} ({type(reward).__name__}) reads both ways; PPO needs "
            "one with a decoder base, whose states its critic can read token by token."
        )
    ids = [modeling.chat_ids(tokenizer, prompt.messages) for prompt in prompts]
    # one more than the longest answer: the reward model reads an end behind a cut one
    new = config.max_new_tokens + 1
    window = min(map(modeling.longest_context, (policy, reward)))
    modeling.check_room([prompt.id for prompt in prompts], ids, new, window)

    depth = modeling.adapted_depth(policy, config.lora_layers)
    targets = modeling.linear_names(policy, depth)
    modeling.add_lora(policy, config.lora_r, config.lora_alpha, context.spec.seed, targets)
    scale = scale_of(context, reward_path)
    probe, pad = max(ids, key=len), int(tokenizer.pad_token_id)
    depth = depth if modeling.splits(policy, probe, pad, depth) else 0
    packs = config.answers_per_prompt > 1 and all(
        modeling.shares_prompts(model, probe, pad, len(probe) + new) for model in (policy, reward)
    )
    actors = Actors(
        policy=policy,
        reward=reward,
        tokenizer=tokenizer,
        mean=scale.mean,
        std=scale.std,
        packs=packs,
        depth=depth,
        shares=modeling.share_lower(policy, reward, depth, pad),
        stop=modeling.stop_ids(policy, tokenizer),
    )
    return actors, ids


def scale_of(context: RunContext, reward_path: Path) -> scoring.Normalisation:
    """Mean and standard deviation of the reward model's scores on reference answers."""
    if not (reward_path / scoring.NORMALISATION).is_file():
        context.emit(
            "alert",
            code="no_normalisation",
            message=f"{reward_path} has no {scoring.NORMALISATION}; "
            "its scores are used as they are.",
        )
    return scoring.read_normalisation(reward_path)


def new_learner(actors: Actors, config: PPOConfig) -> Learner:
    """Adapter with B = 0, critic = the reward model's head after normalisation, and their
    optimiser.
    """
    score = cast(nn.Linear, actors.reward.score)
    critic = nn.Linear(score.in_features, 1, device=score.weight.device)
    with torch.no_grad():
        critic.weight.copy_(score.weight.float() / actors.std)
        offset = 0.0 if score.bias is None else float(score.bias)
        critic.bias.fill_((offset - actors.mean) / actors.std)
    adapter = modeling.adapter_parameters(actors.policy)
    optimizer = torch.optim.Adam(
        [
            {"params": list(adapter.values()), "lr": config.lr},
            {"params": list(critic.parameters()), "lr": config.critic_lr},
        ],
        eps=1e-5,
    )
    kept = {name: value.detach().clone() for name, value in adapter.items()}
    return Learner(adapter, critic, optimizer, config.kl_coef, kept)


class _Boundary:
    """The state at the start of a step: what a run that is stopped within it goes on from."""

    def __init__(self, context: RunContext, learner: Learner, step: int) -> None:
        self.context, self.step = context, step
        self.tensors = learner.tensors()
        self.state = learner.state(context.spec.fingerprint())

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


def values_of(learner: Learner, features: Tensor) -> Tensor:
    """The critic's value before each token, (…, w)."""
    values: Tensor = learner.critic(features.float())[..., 0]
    return values


@torch.no_grad()
def calibrate(learner: Learner, rollout: Rollout) -> None:
    """Bring the critic's first values onto the scores of the first answers: V ← a V + b.

    The reward model's head was fitted at the ends of answers, and says something else in their
    middle. Two numbers by least squares over all tokens cannot learn the answers by heart.
    """
    mask = rollout.mask
    values = values_of(learner, rollout.features)
    scores = rollout.score[: len(mask), None].expand_as(values)
    mean, target = rewards.masked_mean(values, mask), rewards.masked_mean(scores, mask)
    spread = rewards.masked_mean((values - mean).square(), mask)
    common = rewards.masked_mean((values - mean) * (scores - target), mask)
    slope = torch.where(spread > 0, common / spread.clamp(min=1e-12), torch.zeros_like(spread))
    learner.critic.weight.mul_(slope)
    learner.critic.bias.mul_(slope).add_(target - slope * mean)


def update(
    actors: Actors,
    learner: Learner,
    rollout: Rollout,
    config: PPOConfig,
    context: RunContext,
    step: int,
    boundary: _Boundary,
) -> dict[str, float]:
    """Some passes of clipped updates over the step's answers; returns what happened, per token."""
    # 1. rewards, values, advantages
    mask = rollout.mask
    kl = rewards.kl_k1(rollout.old, rollout.reference, mask)
    score = final_score(rollout, config)
    shaped = rewards.shaped_rewards(kl, score, mask, learner.kl_coef)
    with torch.no_grad():
        old_values = values_of(learner, rollout.features) * mask
    advantages, returns = rewards.gae(shaped, old_values, mask, config.gamma, config.lam)
    if config.whiten:
        advantages = rewards.whiten(advantages, mask)

    # 2. passes over the minibatches, in a new order each time
    seen = _Sums()
    count = config.epochs * len(rollout.minibatches)
    done = 0
    for epoch in range(config.epochs):
        generator = torch.Generator()
        generator.manual_seed(answer_seed(context.spec.seed, "order", step, epoch))
        for number in torch.randperm(len(rollout.minibatches), generator=generator).tolist():
            minibatch = rollout.minibatches[number]
            tokens = sum(int(micro.batch.mask.sum()) for micro in minibatch)
            learner.optimizer.zero_grad(set_to_none=True)
            here = _Sums()
            for micro in minibatch:
                place, width = micro.episodes, micro.batch.mask.shape[1]
                logprob, _ = modeling.response_logprobs(
                    actors.policy, micro.batch, config.temperature
                )
                policy = rewards.policy_loss(
                    logprob,
                    rollout.old[place, :width],
                    advantages[place, :width],
                    micro.batch.mask,
                    config.clip,
                )
                value = rewards.value_loss(
                    values_of(learner, rollout.features[place, :width]),
                    old_values[place, :width],
                    returns[place, :width],
                    micro.batch.mask,
                    config.value_clip,
                )
                ((policy.loss + config.vf_coef * value) / tokens).backward()
                here.add(policy, value, tokens=int(micro.batch.mask.sum()))
                boundary.leave_if_asked()
            refuse_nan(here, step)
            if not done:
                first_ratio = here.mean("ratio")
            seen.gradients.append(clip_gradients(learner, config.grad_clip))
            learner.optimizer.step()
            seen.join(here)
            done += 1
            context.progress(step_share(step, config, 0.4 + 0.6 * done / count))
            if config.target_kl and here.mean("approx_kl") > config.target_kl:
                return finish_update(learner, rollout, returns, old_values, seen, first_ratio, done)
    return finish_update(learner, rollout, returns, old_values, seen, first_ratio, done)


def step_share(step: int, config: PPOConfig, within: float) -> float:
    """How much of the stage is done, the last measurement included."""
    return min((step + within) / (config.steps + 0.4), 0.99)


def final_score(rollout: Rollout, config: PPOConfig) -> Tensor:
    """(E,) normalised score as the reward uses it: bounded, less for an answer without its end."""
    count = rollout.mask.shape[0]
    score = rollout.score[:count]
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

    def add(self, policy: rewards.PolicyLoss, value: Tensor, tokens: int) -> None:
        self.tokens += tokens
        for name, number in zip(self.sums, (*policy, value), strict=True):
            self.sums[name] += float(number.detach())

    def join(self, other: _Sums) -> None:
        self.tokens += other.tokens
        for name, number in other.sums.items():
            self.sums[name] += number

    def mean(self, name: str) -> float:
        """Per token."""
        return self.sums[name] / max(self.tokens, 1)


def refuse_nan(sums: _Sums, step: int) -> None:
    """A loss that is no number would spoil every weight."""
    if not all(map(math.isfinite, sums.sums.values())):
        raise no_number("The loss is", step)


def clip_gradients(learner: Learner, most: float) -> float:
    """Norm of the adapter's gradient before clipping; adapter and critic are clipped apart."""
    limit = most or math.inf
    nn.utils.clip_grad_norm_(learner.critic.parameters(), limit)
    return float(nn.utils.clip_grad_norm_(list(learner.adapter.values()), limit))


def finish_update(
    learner: Learner,
    rollout: Rollout,
    returns: Tensor,
    old_values: Tensor,
    seen: _Sums,
    first_ratio: float,
    done: int,
) -> dict[str, float]:
    """What the update did, as metrics."""
    return {
        "policy_loss": seen.mean("loss"),
        "value_loss": seen.mean("value"),
        "clip_fraction": seen.mean("clipped"),
        "ratio_mean": seen.mean("ratio"),
        "ratio_first": first_ratio,
        "approx_kl": seen.mean("approx_kl"),
        "grad_norm": sum(seen.gradients) / max(len(seen.gradients), 1),
        "updates": done,
        "value_mean": float(rewards.masked_mean(old_values, rollout.mask)),
        "explained_variance": rewards.explained_variance(old_values, returns, rollout.mask),
    }


# --- telling ------------------------------------------------------------------------------------


def measure(rollout: Rollout, learner: Learner, config: PPOConfig) -> dict[str, float]:
    """What the answers of a rollout say about the policy that wrote them; all means are over real
    tokens.
    """
    mask, count = rollout.mask, rollout.mask.shape[0]
    kl = rewards.kl_k1(rollout.old, rollout.reference, mask)
    per_reply = kl.sum(-1)
    score = rollout.score[:count]
    own = rollout.answers[:count]
    return {
        "reward": float(score.mean()),
        "reward_std": float(score.std(correction=0)),
        "objective": float((final_score(rollout, config) - learner.kl_coef * per_reply).mean()),
        "kl": float(per_reply.mean()),
        "kl_k3": float(rewards.kl_k3(rollout.old, rollout.reference, mask).sum(-1).mean()),
        "kl_coef": learner.kl_coef,
        "entropy": float(rewards.masked_mean(rollout.entropy, mask)),
        "eos_rate": sum(answer.finished for answer in own) / count,
        "length": float(mask.sum(-1).float().mean()),
        "distinct_2": rewards.distinct([answer.ids for answer in own]),
        "sampler_gap": rollout.sampler_gap,
        "episodes": count,
    }


def over_budget(kl: float, config: PPOConfig) -> str:
    """A sentence when the policy has gone too far from its reference, else nothing."""
    if not config.kl_budget or kl <= config.kl_budget:
        return ""
    return (
        f"The KL reached {kl:.1f} nats a reply, over the budget of {config.kl_budget:g}: "
        "training stopped, and the weights of the last step within it are kept."
    )


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
    for code, message in alarms(learner.history):
        if code not in learner.alerts:
            learner.alerts.append(code)
            context.emit("alert", step, code=code, message=message)


def alarms(history: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Signs that the policy pleases the reward model in ways nobody meant."""
    first, now = history[0], history[-1]
    found = []
    if abs(now["length"] - first["length"]) > 0.5 * first["length"]:
        found.append(
            (
                "length_drift",
                f"Answers went from {first['length']:.0f} to {now['length']:.0f} tokens.",
            )
        )
    if now["entropy"] < 0.5 * first["entropy"]:
        found.append(
            (
                "entropy_collapse",
                f"Entropy fell from {first['entropy']:.2f} to {now['entropy']:.2f} nats a token.",
            )
        )
    if now["distinct_2"] < 0.5 * first["distinct_2"]:
        found.append(
            (
                "distinct_collapse",
                f"Different pairs of tokens fell from {first['distinct_2']:.0%} "
                f"to {now['distinct_2']:.0%}.",
            )
        )
    if first["eos_rate"] >= 0.8 > now["eos_rate"]:
        found.append(("missing_ends", f"Only {now['eos_rate']:.0%} of the answers still end."))
    return found


def tell_samples(
    context: RunContext,
    actors: Actors,
    prompts: Sequence[Prompt],
    rollout: Rollout,
    config: PPOConfig,
    step: int,
) -> None:
    """Show the answers to the fixed prompts; the same random numbers are drawn for them at every
    step.
    """
    count = rollout.mask.shape[0]
    samples = [
        {
            "prompt_id": prompt.id,
            "prompt": list(prompt.messages),
            "text": actors.tokenizer.decode(answer.ids, skip_special_tokens=True).strip(),
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
    """Take the last adapter whose KL was within the budget."""
    for name, value in learner.adapter.items():
        value.copy_(learner.kept[name])


def make_report(
    config: PPOConfig, learner: Learner, final: Mapping[str, float] | None, stopped_early: str
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
        "stopped_early": stopped_early or None,
        "alerts": learner.alerts,
        "final": dict(last),
        "history": history,
    }


def publish(context: RunContext, actors: Actors, report: Mapping[str, Any]) -> None:
    """Write out/: the merged policy with tokenizer, card, report, and the adapter alone."""

    def write(folder: Path) -> None:
        modeling.save_merged(actors.policy, actors.tokenizer, folder)
        base = context.spec.inputs["policy"]
        name = base if isinstance(base, str) else base["path"]
        modeling.save_adapter(actors.policy, folder / "adapter", name)
        (folder / "report.json").write_text(json.dumps(report, indent=1) + "\n", "utf-8")
        (folder / "README.md").write_text(card(context, report, name), "utf-8")

    checkpoints.publish(context.out, write)


def card(context: RunContext, report: Mapping[str, Any], base: str) -> str:
    """The model card."""
    reward = context.spec.inputs["reward"]
    judge_name = reward if isinstance(reward, str) else reward["path"]
    stopped = f"\n{report['stopped_early']}\n" if report["stopped_early"] else ""
    return (
        f"# Policy\n\nTrained by PPO from `{base}` against the reward model `{judge_name}`: "
        f"{report['steps']} steps, {report['episodes']} answers, seed {context.spec.seed}.\n"
        f"{stopped}\n"
        f"- reward-model score {report['score_before']:.3f} before, {report['score_after']:.3f} "
        "after (in standard deviations of the reference's answers)\n"
        f"- KL from the reference {report['kl']:.2f} nats an answer\n\n"
        "These numbers are on training prompts, from the reward model that was trained against: "
        "they show that training worked, not that people like the answers better.\n\n"
        "The weights are merged and load with `AutoModelForCausalLM.from_pretrained`; `adapter/` "
        "holds the low-rank adapter alone, for peft. `report.json` holds every step.\n"
    )
