"""The critic of PPO: what it expects an answer's score to be, before each of its tokens.

Choices
- `head`: a linear layer on the frozen reward model's states, which one pass gives with the scores.
- `policy`: a linear layer on the policy's states as they were when it wrote the answers. Its loss
  does not move the policy. It also stands in for `head` where the reward model reads texts.
- `adapter`: the reward model with a low-rank adapter and a head of its own, a whole network that
  learns, though the memory of one base serves both: scores are read with the adapter off.
- On the reward model it begins as the reward model's own head after normalisation, on the policy as
  nothing; `calibrate` then brings it onto the scores of the first answers.
Not here: the loss (rewards.py), the loop (stages/ppo.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from trainer import adapters, distributed, modeling, rewards
from trainer.config import PPOConfig
from trainer.episodes import Actors, MicroBatch, Rollout
from trainer.judging import Scorer
from trainer.types import adapted_depth


@dataclass
class Critic:
    """A linear layer in float32, and the network under it where that learns, too."""

    head: nn.Linear
    model: PreTrainedModel | None = None
    adapter: dict[str, nn.Parameter] = field(default_factory=dict)

    def parameters(self) -> dict[str, nn.Parameter]:
        """What learns, by name in a fixed order."""
        return {**self.adapter, **dict(self.head.named_parameters())}

    def values(self, rollout: Rollout, micro: MicroBatch) -> Tensor:
        """The value before each token of a micro-batch, (n, w), 0 on padding."""
        place, batch, judged = micro
        if self.model is None:
            states = rollout.features[place, : batch.mask.shape[1]]
            own: Tensor = self.head(states.float())[..., 0] * batch.mask
            return own
        states = modeling.pick(modeling.hidden_states(self.model, judged), judged)
        found: Tensor = self.head(states.float())[:, 0]
        return found.new_zeros(batch.mask.shape).masked_scatter(batch.mask, found)

    @torch.no_grad()
    def all_values(self, rollout: Rollout) -> Tensor:
        """The values of a whole step, (E, w), by the micro-batches that are trained."""
        values = torch.zeros(rollout.mask.shape, device=rollout.mask.device)
        for micro in rollout.parts:
            found = self.values(rollout, micro)
            values[micro.episodes, : found.shape[1]] = found
        distributed.total(values)
        return values


def new_critic(actors: Actors, config: PPOConfig, seed: int) -> Critic:
    """The critic that the settings ask for, in its first state."""
    if actors.critic == "policy":
        head = nn.Linear(int(actors.policy.config.hidden_size), 1, device=actors.policy.device)
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
        return Critic(head)
    head = head_of(actors.scorer)
    if actors.critic == "head":
        return Critic(head)
    return Critic(head, actors.scorer.model, adapt(actors.scorer, config, seed))


@torch.no_grad()
def head_of(scorer: Scorer) -> nn.Linear:
    """A reward model's own head, in float32, that gives normalised scores."""
    score, scale = scorer.head, scorer.judge.normalisation
    head = nn.Linear(score.in_features, 1, device=score.weight.device)
    head.weight.copy_(score.weight.float() / scale.std)
    offset = 0.0 if score.bias is None else float(score.bias)
    head.bias.fill_((offset - scale.mean) / scale.std)
    return head


def adapt(scorer: Scorer, config: PPOConfig, seed: int) -> dict[str, nn.Parameter]:
    """Put an adapter into the reward model; with it off the model scores as before."""
    depth = adapted_depth(scorer.model.config.num_hidden_layers, config.lora_layers)
    targets = adapters.linear_names(scorer.model, depth)
    adapters.add_lora(scorer.model, config.lora_r, config.lora_alpha, seed, targets)
    return adapters.adapter_parameters(scorer.model)


@torch.no_grad()
def calibrate(critic: Critic, rollout: Rollout) -> None:
    """Bring the critic's first values onto the scores of the first answers: V ← a V + b.

    The reward model's head was fitted at the ends of answers, and says something else in their
    middle. Two numbers by least squares over all tokens cannot learn the answers by heart.
    """
    mask = rollout.mask
    values = critic.all_values(rollout)
    scores = rollout.score[: len(mask), None].expand_as(values)
    mean, target = rewards.masked_mean(values, mask), rewards.masked_mean(scores, mask)
    spread = rewards.masked_mean((values - mean).square(), mask)
    common = rewards.masked_mean((values - mean) * (scores - target), mask)
    slope = torch.where(spread > 0, common / spread.clamp(min=1e-12), torch.zeros_like(spread))
    critic.head.weight.mul_(slope)
    critic.head.bias.mul_(slope).add_(target - slope * mean)
