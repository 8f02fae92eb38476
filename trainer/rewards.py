"""The arithmetic of PPO on padded answers: KL-shaped rewards, advantages, whitening, clipped
losses.

Choices: the KL estimator in the reward is k1 (log π − log π_ref at the sampled token) by default.
Its expectation is the KL, as that of k3, which is never negative; k2's is not, but it varies least
(Schulman 2020). Whitening moves the mean to 0 and the variance to 1 over real tokens. Every
function takes a mask and gives 0 on padding, so that no statistic can be diluted by it. Sources:
Schulman et al. 2016 (GAE), 2017 (PPO); Ziegler et al. 2019 (KL control). Pure tensor functions, no
state.

Notation: n answers, w tokens in the longest; mask (n, w) is True on answer tokens, which stand at
the left.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Mean of x over True positions; 0 when there is none."""
    return (x * mask).sum() / mask.sum().clamp(min=1)


def masked_variance(x: Tensor, mask: Tensor) -> Tensor:
    """Population variance of x over True positions."""
    return masked_mean((x - masked_mean(x, mask)).square(), mask)


def whiten(x: Tensor, mask: Tensor) -> Tensor:
    """x with mean 0 and variance 1 over the mask, 0 elsewhere."""
    spread = (masked_variance(x, mask) + 1e-8).rsqrt()
    return (x - masked_mean(x, mask)) * spread * mask


def kl_k1(logprob: Tensor, reference: Tensor, mask: Tensor) -> Tensor:
    """log π − log π_ref at each sampled token (n, w): unbiased, may be negative."""
    return (logprob - reference) * mask


def kl_k3(logprob: Tensor, reference: Tensor, mask: Tensor) -> Tensor:
    """r − 1 − log r with r = π_ref / π (n, w): unbiased and never negative."""
    log_ratio = (reference - logprob) * mask
    return log_ratio.exp() - 1 - log_ratio


def kl_k2(logprob: Tensor, reference: Tensor, mask: Tensor) -> Tensor:
    """½ (log π − log π_ref)² (n, w): never negative, biased, but little where the two are near."""
    return kl_k1(logprob, reference, mask).square() / 2


#: what `config.kl_estimator` names
KL_ESTIMATORS = {"k1": kl_k1, "k2": kl_k2, "k3": kl_k3}


def ensemble_score(members: Tensor, how: str, pessimism: float) -> Tensor:
    """(n,) one score of the members' (n, M): their mean less `pessimism` times their standard
    deviation, or the lowest (Coste et al. 2023, who take the variance).
    """
    if how == "minimum":
        return members.amin(-1)
    return members.mean(-1) - pessimism * members.std(-1, correction=0)


def last_token(mask: Tensor) -> Tensor:
    """(n,) index of the last real token of each answer."""
    return mask.sum(-1).long() - 1


def shaped_rewards(kl: Tensor, score: Tensor, mask: Tensor, kl_coef: float) -> Tensor:
    """−β·KL at every token, and the answer's score (n,) on its last real token besides; (n, w)."""
    rewards = -kl_coef * kl * mask
    place = last_token(mask)[:, None]
    return rewards.scatter_add(1, place, score[:, None].to(rewards.dtype))


def gae(
    rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimates and returns, both (n, w).

    δ_t = r_t + γ V_{t+1} − V_t and A_t = δ_t + γλ A_{t+1}, with V = A = 0 behind the last token;
    returns are A + V.
    """
    advantages = torch.zeros_like(rewards)
    values = values * mask
    after = torch.zeros_like(rewards[:, 0])  # A_{t+1}
    next_value = torch.zeros_like(after)  # V_{t+1}
    for t in reversed(range(rewards.shape[1])):
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        after = (delta + gamma * lam * after) * mask[:, t]
        advantages[:, t] = after
        next_value = values[:, t]
    return advantages, (advantages + values) * mask


class PolicyLoss(NamedTuple):
    """Sums over the tokens of a micro-batch: divide by the tokens of the whole minibatch."""

    loss: Tensor  # the clipped objective, to be minimised
    clipped: Tensor  # tokens at which clipping took the gradient away
    ratio: Tensor  # probability ratios
    approx_kl: Tensor  # k3 estimate of KL(old ‖ new)


def policy_loss(
    logprob: Tensor, old: Tensor, advantages: Tensor, mask: Tensor, clip: float
) -> PolicyLoss:
    """−min(ρA, clip(ρ, 1−ε, 1+ε)A) with ρ = π/π_old, all (n, w)."""
    log_ratio = (logprob - old) * mask
    ratio = log_ratio.exp()
    plain = -advantages * ratio
    limited = -advantages * ratio.clamp(1 - clip, 1 + clip)
    with torch.no_grad():
        clipped = ((limited > plain) & mask).sum()
        approx_kl = ((ratio - 1 - log_ratio) * mask).sum()
        ratio_sum = (ratio * mask).sum()
    return PolicyLoss((torch.maximum(plain, limited) * mask).sum(), clipped, ratio_sum, approx_kl)


def value_loss(value: Tensor, old: Tensor, returns: Tensor, mask: Tensor, clip: float) -> Tensor:
    """½ max((V − R)², (V_clipped − R)²), summed over real tokens; V may move by `clip` from its old
    value.
    """
    limited = old + (value - old).clamp(-clip, clip)
    worst = torch.maximum((value - returns).square(), (limited - returns).square())
    return 0.5 * (worst * mask).sum()


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> float:
    """1 − Var(R − V) / Var(R): 1 for a perfect critic, 0 for one that knows only the mean."""
    spread = masked_variance(returns, mask)
    if float(spread) == 0.0:
        return 0.0
    return float(1 - masked_variance(returns - values, mask) / spread)


def adapt_kl_coef(kl_coef: float, kl: float, target: float, episodes: int, horizon: int) -> float:
    """Ziegler's controller: β (1 + clip(KL/target − 1, ±0.2) · episodes/horizon)."""
    error = min(max(kl / target - 1.0, -0.2), 0.2)
    return kl_coef * (1.0 + error * episodes / horizon)
