"""Losses of the reward model, as pure functions on tensors.

Bradley & Terry (1952): P(i before j) = σ(r_i − r_j). Ouyang et al. (2022, InstructGPT, eq. 1): each
answer of a ranking is encoded once and all its C(K,2) pairs are ONE element of the batch,

    loss(ranking) = 1/|pairs| · Σ_(i better than j)  −log σ(r_i − r_j − margin · gap_ij)

Additions
- A tie is an observation with target ½: −½ log σ(d) − ½ log σ(−d), which is least at d = 0.
  `ties="drop"` leaves them out. Davidson (1970) gives them a parameter ν of their own, learned
  beside the scores: `log_nu`.
- gap: how much better people said an answer is; the margin of Llama 2 (Touvron et al. 2023, eq. 2).
  Ties have none.
- centring: mean of (r_i + r_j)² over the pairs (Eisenstein et al. 2023) keeps scores near 0, which
  pairs alone cannot.
- Plackett (1975), Luce (1959): the order as a whole, as repeated choice of the best of the rest.
- Annotator weights multiply a ranking's loss. They are not divided out within a batch: that would
  let a batch's company decide how much a ranking counts.
Not here: models, reduction over devices.
"""

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from trainer.data import Pairs

Ties = Literal["half", "drop"]


def ranking_losses(
    scores: Tensor,
    pairs: Pairs,
    *,
    ties: Ties = "half",
    margin: float = 0.0,
    centring: float = 0.0,
    log_nu: Tensor | None = None,
) -> Tensor:
    """Bradley–Terry loss of each ranking, or Davidson's with `log_nu`, unweighted: (g,).

    Notation: n answers, p pairs, g rankings; scores (n,), log_nu a scalar. A ranking without a pair
    that counts has loss 0.
    """
    better, worse = scores[pairs.better], scores[pairs.worse]  # (p,)
    if log_nu is None:
        loss = pair_losses(better - worse, pairs, margin=margin)
    else:
        loss = davidson_losses(better - worse, pairs, log_nu, margin=margin)
    if centring:
        loss = loss + centring * (better + worse) ** 2
    counts = torch.ones_like(loss) if ties == "half" else (~pairs.tied).to(loss.dtype)
    groups = len(pairs.weight)
    sums = loss.new_zeros(groups).index_add(0, pairs.ranking, loss * counts)
    numbers = loss.new_zeros(groups).index_add(0, pairs.ranking, counts)
    return sums / numbers.clamp(min=1)


def pair_losses(difference: Tensor, pairs: Pairs, *, margin: float = 0.0) -> Tensor:
    """−log-likelihood of each pair given r_better − r_worse: (p,) → (p,)."""
    untied = -logsigmoid(difference - margin * pairs.gap)
    tied = -0.5 * (logsigmoid(difference) + logsigmoid(-difference))
    return torch.where(pairs.tied, tied, untied)


def davidson_losses(
    difference: Tensor, pairs: Pairs, log_nu: Tensor, *, margin: float = 0.0
) -> Tensor:
    """−log-likelihood of each pair where a tie has a probability of its own: (p,) → (p,).

    Davidson (1970), π = e^r: P(i before j) = π_i / (π_i + π_j + ν√(π_i π_j)) and
    P(tie) = ν√(π_i π_j) / (the same). Both divided by √(π_i π_j), with d = r_i − r_j:
        e^{d/2} / (e^{d/2} + e^{−d/2} + ν)   and   ν / (e^{d/2} + e^{−d/2} + ν)
    As ν → 0 an untied pair has the loss of Bradley and Terry.
    """
    d = torch.where(pairs.tied, difference, difference - margin * pairs.gap)
    log_sum = torch.logaddexp(torch.logaddexp(d / 2, -d / 2), log_nu)
    return log_sum - torch.where(pairs.tied, log_nu, d / 2)


def first_log_nu(tied: int, pairs: int) -> float:
    """log ν from the share of ties s among pairs, as if all scores were equal: ν = 2s / (1 − s).

    Half a tie and half an untied pair are added, so that none of either is no infinity.
    """
    share = (tied + 0.5) / (pairs + 1)
    return math.log(2 * share / (1 - share))


def plackett_luce_loss(scores: Tensor, ranks: Tensor) -> Tensor:
    """−log-likelihood of one weak order, divided by its K − 1 choices: a scalar.

    scores (k,), ranks (k,) with 1 = best. Each rank takes its answers out of those not yet taken:
    P = e^{r_i} / Σ_{j left} e^{r_j}. m answers that share a rank were taken in an unknown order;
    Efron (1977, eq. for ties in Cox's partial likelihood, the same product) lets the l-th of them
    meet a rest from which l/m of the group is gone:
        Σ_{i in group} r_i − Σ_{l<m} log( Σ_left e^r − l/m · Σ_group e^r )
    For two untied answers this is the Bradley–Terry loss.
    """
    loss = scores.new_zeros(())
    for rank in torch.unique(ranks):
        group = scores[ranks == rank]
        left = scores[ranks >= rank]
        top = left.max().detach()
        rest, own = (left - top).exp().sum(), (group - top).exp().sum()
        taken = torch.arange(len(group), dtype=scores.dtype, device=scores.device) / len(group)
        loss = loss + (rest - taken * own).log().sum() + len(group) * top - group.sum()
    return loss / (len(scores) - 1)


def weighted_sum(losses: Tensor, weight: Tensor) -> Tensor:
    """Σ weight · loss over rankings; the caller divides by a step's number of rankings.

    A sum, so that a step of 8 rankings has the gradient of 2 × 4 accumulated ones.
    """
    return (losses * weight).sum()
