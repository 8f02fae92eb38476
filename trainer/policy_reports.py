"""What is known about a policy, as figures: read by people and drawn by the dashboard.

Choices
- Every figure of a policy stands beside that of its reference on the same prompts; intervals count
  prompts, since the answers to one prompt are not independent.
- A policy wins over its reference where its answer to a prompt scores higher, each of its answers
  against each of the other's; a tie is half a win. The interval is Wilson's at the number of
  observations that the prompts are worth (statistics.clustered_share).
- The best-of-n frontier is what choosing among the reference's own answers buys at what KL: a
  policy that was trained should not lie below it.
Not here: writing and scoring the answers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from trainer.statistics import (
    Estimate,
    GaoCurve,
    best_of,
    best_of_kl,
    bootstrap_mean,
    clustered_ratio,
    clustered_share,
    distinct,
    fit_gao,
    pair_outcomes,
    paired_bootstrap,
)
from trainer.types import Sampled

Floats = NDArray[np.float64]

#: figures of a PPO step that are drawn against the KL
WATCHED = ("reward", "heldout_reward", "second_reward")


@dataclass(frozen=True)
class Side:
    """One model's answers; `sampled` runs over p prompts and then over the m answers of each."""

    sampled: Sequence[Sampled]
    scores: Floats  # (p, m) normalised, of the reward model
    second: Floats | None = None  # the same of another reward model

    def by_prompt(self, values: Sequence[float]) -> Floats:
        """Any figure of the answers as (p, m)."""
        return np.asarray(values, dtype=np.float64).reshape(self.scores.shape)

    def first(self, count: int) -> Side:
        """The first `count` answers to each prompt."""
        many = self.scores.shape[1]
        kept = [one for place, one in enumerate(self.sampled) if place % many < count]
        second = None if self.second is None else self.second[:, :count]
        return Side(kept, self.scores[:, :count], second)


def policy_report(policy: Side, reference: Side, kl: Floats) -> dict[str, Any]:
    """Both models side by side; `kl` (p, k) in nats is of each of the policy's k answers.

    The reference may have written more answers than the policy: the others are for the frontier.
    """
    answers = policy.scores.shape[1]
    beside = reference.first(answers)
    report = {
        "stage": "evaluate",
        "prompts": len(policy.scores),
        "answers": policy.scores.size,
        **_gain(beside.scores, policy.scores),
        "kl": float(kl.mean()),
        "kl_ci95": _edges(bootstrap_mean(kl.mean(1))),
        **win_rate(policy.scores, beside.scores),
        "reference": figures(beside),
        "policy": figures(policy),
        "frontier": frontier(reference.scores, reference.second),
    }
    if policy.second is not None and beside.second is not None:
        report["second"] = {
            **_gain(beside.second, policy.second),
            **win_rate(policy.second, beside.second),
        }
    return report


def _gain(before: Floats, after: Floats) -> dict[str, Any]:
    """Mean scores and their difference, paired by prompt."""
    gain = paired_bootstrap(before.mean(1), after.mean(1))
    return {
        "score_before": float(before.mean()),
        "score_after": float(after.mean()),
        "gain": float(after.mean() - before.mean()),
        "ci95_of_gain": _edges(gain),
    }


def win_rate(policy: Floats, reference: Floats) -> dict[str, Any]:
    """How often the first (p, k) scores above the second (p, k) on the same prompt; a tie is ½."""
    outcomes = pair_outcomes(policy[:, :, None] - reference[:, None, :])  # (p, k, k)
    each = outcomes[0].size
    clusters = np.repeat(np.arange(len(outcomes)), each).tolist()
    share = clustered_share(outcomes.reshape(-1), clusters)
    return {
        "win_rate": share.value if share else None,
        "win_rate_ci95": _edges(share),
        "wins": int((outcomes == 1).sum()),
        "ties": int((outcomes == 0.5).sum()),
        "losses": int((outcomes == 0).sum()),
    }


def figures(side: Side) -> dict[str, Any]:
    """What can be said of one model's answers."""
    length = side.by_prompt([len(one.ids) for one in side.sampled])
    ended = side.by_prompt([one.finished for one in side.sampled])
    surprise = side.by_prompt([-one.logprob for one in side.sampled])
    ids = [one.ids for one in side.sampled]
    share = clustered_share(
        ended.reshape(-1), np.repeat(range(len(ended)), ended.shape[1]).tolist()
    )
    entropy = clustered_ratio(surprise.sum(1), length.sum(1))
    return {
        "score": float(side.scores.mean()),
        "score_ci95": _edges(bootstrap_mean(side.scores.mean(1))),
        "score_std": float(side.scores.std()),
        "length": float(length.mean()),
        "length_ci95": _edges(bootstrap_mean(length.mean(1))),
        "length_deciles": np.quantile(length, np.linspace(0, 1, 11)).tolist(),
        "eos_rate": float(ended.mean()),
        "eos_rate_ci95": _edges(share),
        "entropy": entropy.value if entropy else None,
        "entropy_ci95": _edges(entropy) if len(length) > 1 else None,
        **{f"distinct_{n}": distinct(ids, n) for n in (1, 2, 3)},
    }


# best of n ----------------------------------------------------------------------------------------


def frontier(scores: Floats, second: Floats | None = None) -> dict[str, Any]:
    """What the best of n answers scores, and the KL that choosing it costs; scores (p, m).

    With a second reward model the first still chooses: where its curve rises and the second's
    falls, the first is being fooled.
    """
    many = scores.shape[1]
    every = [_frontier_point(scores, second, n) for n in range(1, many + 1)]
    kl = [point["kl"] for point in every]
    shown = steps_to(many)
    found: dict[str, Any] = {
        "answers": many,
        "points": [point for point in every if point["n"] in shown],
    }
    for name in ("score", "second"):
        if name in every[0]:
            values = [point[name] for point in every]
            found[f"{name}_fit"] = fit_words(fit_gao(kl[1:], values[1:], "bon", values[0]), kl)
    return found


def steps_to(most: int) -> list[int]:
    """1, 2, 4, … and `most` itself."""
    powers = [2**power for power in range(most.bit_length())]
    return sorted({*powers, most})


def _frontier_point(scores: Floats, second: Floats | None, n: int) -> dict[str, Any]:
    found = best_of(scores, n)
    point = {
        "n": n,
        "kl": best_of_kl(n),
        "score": float(found.mean()),
        "ci95": _edges(bootstrap_mean(found)),
    }
    if second is not None:
        other = best_of(scores, n, second)
        point |= {"second": float(other.mean()), "second_ci95": _edges(bootstrap_mean(other))}
    return point


# training against the KL --------------------------------------------------------------------------


def kl_curves(history: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The scores of a PPO run against its KL, each with Gao's curve for reinforcement learning.

    {figure: {"points": [{"step", "kl", "score"}], "fit"}}; a step that has no such figure is passed
    over, and what no step has is left out.
    """
    found = {}
    for name in WATCHED:
        points: list[dict[str, float]] = []
        for step in history:
            # What was written to held-out prompts has a KL of its own.
            apart = name != "reward" and "heldout_kl" in step
            kl, score = step.get("heldout_kl" if apart else "kl"), step.get(name)
            if _is_number(kl) and _is_number(score):
                points.append({"step": step["step"], "kl": max(0.0, kl), "score": score})
        if points:
            all_kl = [point["kl"] for point in points]
            fit = fit_gao(all_kl, [point["score"] for point in points], "rl")
            found[name] = {"points": points, "fit": fit_words(fit, all_kl)}
    return found


def fit_words(fit: GaoCurve | None, kl: Sequence[float]) -> dict[str, Any] | None:
    """A fitted curve for a report, with where it is highest and whether that was ever reached."""
    if fit is None:
        return None
    best = fit.best_kl
    return {
        **asdict(fit),
        "best_kl": best,
        "best_score": None if best is None else fit.at(math.sqrt(best)),
        "beyond_data": None if best is None else best > max(kl),
    }


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _edges(estimate: Estimate | None) -> list[float] | None:
    return None if estimate is None else estimate.ci95
