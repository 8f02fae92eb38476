"""Where a reward model's head begins: fitted to the rankings while the network still stands still.

A head that starts at random has to be found together with the adapter, by few noisy steps. On
frozen states it is a small convex problem with one answer, so it is solved first; the adapter then
learns from a head that already knows something (linear probing, then fine-tuning: Kumar et al.
2022, who find it the better way on data of another kind).

    minimise over w:  Σ_pairs c_p (−t_p log σ(d_p) − (1 − t_p) log σ(−d_p)) + ½ λ |w|²,  d = X w

X (p, k) are differences of states, better − worse, brought to unit mean square and to their k
largest principal directions; t is 1, or ½ for a tie; c is a pair's share of its ranking's weight.

Choices
- λ is chosen by five folds over prompts: each candidate orders pairs that it did not see, and the
  one whose order is worth most at its best temperature wins (calibration.py). So the choice is
  about order alone, and the same temperature brings the head to honest log-odds.
- Everything is float64 and free of chance.
Not here: networks; losses other than that of pairs, from which every one starts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from trainer.calibration import fit_temperature
from trainer.data import Pairs, Ranking, pairs_of, prompt_hash

#: candidates of λ, times the sum of all c
PENALTIES = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
DIRECTIONS = 256
FOLDS = 5
NEWTON = 8
#: standard deviation that a head's scores may start with
NARROWEST, WIDEST = 0.3, 2.0


@dataclass(frozen=True, slots=True)
class Examples:
    """Differences of states with what people said of them; p pairs, k directions."""

    x: Tensor  # (p, k)
    target: Tensor  # (p,)
    count: Tensor  # (p,)
    fold: Tensor  # (p,)


def start_heads(states: Sequence[Tensor], rankings: Sequence[Ranking], shares: Tensor) -> Tensor:
    """Weights of M heads, (M, d), from the states (K, d) of each ranking's answers.

    `shares` (g, M) is what each ranking counts for each member beside its own weight.
    """
    pairs = pairs_of(rankings)
    flat = torch.cat(list(states)).double().cpu()
    back, examples = make_examples(flat, rankings, pairs)
    _, penalty, temperature = choose_penalty(examples)
    own = examples.count[:, None] * shares.double()[pairs.ranking]  # (p, M)
    found = [penalised_fit(examples, column, penalty) for column in own.unbind(1)]
    heads = torch.stack(found) @ back.T / temperature
    answers = torch.tensor([len(some) for some in states])
    spread = deviation(flat @ heads.T, pairs.weight.double().repeat_interleave(answers))
    return heads * (spread.clamp(NARROWEST, WIDEST) / spread)[:, None]


def unseen_loss(states: Sequence[Tensor], rankings: Sequence[Ranking]) -> float:
    """Nats a pair that a head on these states loses on untied pairs of prompts it did not see."""
    flat = torch.cat(list(states)).double().cpu()
    _, examples = make_examples(flat, rankings, pairs_of(rankings))
    loss, _, _ = choose_penalty(examples)
    return loss / max(float(examples.count[examples.target == 1.0].sum()), 1e-12)


def make_examples(
    flat: Tensor, rankings: Sequence[Ranking], pairs: Pairs
) -> tuple[Tensor, Examples]:
    """(d, k) that brings directions back to states (n, d), and all pairs along them."""
    numbers = torch.bincount(pairs.ranking, minlength=len(rankings)).clamp(min=1)
    count = (pairs.weight / numbers).double()[pairs.ranking]
    back, x = principal(flat[pairs.better] - flat[pairs.worse], count)
    target = torch.where(pairs.tied, 0.5, 1.0).double()
    folds = torch.tensor([int(prompt_hash(one.messages)[:8], 16) % FOLDS for one in rankings])
    return back, Examples(x, target, count, folds[pairs.ranking])


def principal(difference: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    """(d, k) that brings directions back to states, and the differences along them, (p, k)."""
    scale = (count @ difference.square() / count.sum()).sqrt().clamp(min=1e-12)
    unit = difference / scale
    _, vectors = torch.linalg.eigh(unit.T @ (unit * count[:, None]))
    kept = vectors[:, -min(DIRECTIONS, vectors.shape[1]) :]
    return kept / scale[:, None], unit @ kept


def penalised_fit(examples: Examples, count: Tensor, penalty: float) -> Tensor:
    """The w (k,) of least penalised loss with pairs that count so much (p,), by Newton's method."""
    x = examples.x
    strength = penalty * float(count.sum()) + 1e-9
    w = x.new_zeros(x.shape[1])
    unit = torch.eye(len(w), dtype=x.dtype)
    for _ in range(NEWTON):
        p = torch.sigmoid(x @ w)
        slope = x.T @ (count * (p - examples.target)) + strength * w
        bend = x.T @ (x * (count * p * (1 - p))[:, None]) + strength * unit
        w = w - torch.linalg.solve(bend, slope)
    return w


def choose_penalty(examples: Examples) -> tuple[float, float, float]:
    """(loss, penalty, temperature) of the candidate whose order of unseen untied pairs is worth
    most: it loses so many nats in all, at the temperature that it wants.
    """
    untied = examples.target == 1.0
    tried = []
    for penalty in PENALTIES:
        d = torch.zeros_like(examples.target)
        for fold in examples.fold.unique():
            inside = examples.fold == fold
            w = penalised_fit(examples, examples.count * ~inside, penalty)
            d[inside] = examples.x[inside] @ w
        count = examples.count[untied]
        temperature = fit_temperature(d[untied].numpy(), count.numpy(), smooth=False)
        loss = -logsigmoid(d[untied] / temperature) @ count
        tried.append((float(loss), penalty, temperature))
    return min(tried)


def deviation(scores: Tensor, weight: Tensor) -> Tensor:
    """Weighted standard deviation of each column of (n, M), never 0: (M,)."""
    share = (weight / weight.sum())[:, None]
    mean = (scores * share).sum(0)
    return ((scores - mean).square() * share).sum(0).sqrt().clamp(min=1e-12)
