"""Signs that a policy pleases its reward model in ways nobody meant. Needs no torch.

Choices
- Everything is read from the numbers that steps tell, compared with the first of them or with the
  best; each alarm has its sentence and is raised once.
- Proxy against judge: a second reward model fitted on other rankings, or the lowest member of an
  ensemble, is what nothing is trained against. When it has fallen from its best by more than two
  standard errors of the difference while the proxy has risen since then, the two have parted (Gao
  et al. 2023 draw both against √KL).
Not here: stopping. Only the KL budget ends a run: whether an alarm is one, people must judge.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

#: share of the answers that must end by themselves, where at first as many did
ENDS = 0.8
#: standard errors that a judge must fall before anything is said
ERRORS = 2.0

Step = Mapping[str, Any]


class Alarm(NamedTuple):
    """What is wrong, in a word and in a sentence."""

    code: str
    message: str


def alarms(history: Sequence[Step]) -> list[Alarm]:
    """Everything that is wrong at the last step of a run."""
    first, now = history[0], history[-1]
    apart = any("heldout_reward" in step for step in history)
    proxy, member = ("heldout_reward", "heldout") if apart else ("reward", "member")
    found = [*_shape(first, now), *_spread(history, f"{member}_spread")]
    second = _parted(history, "second_reward", proxy, "the second reward model")
    lowest = _parted(history, f"{member}_min", proxy, "the lowest member of the ensemble")
    found += [Alarm("second_parts", second)] if second else []
    found += [Alarm("ensemble_parts", lowest)] if lowest else []
    return found


def _shape(first: Step, now: Step) -> list[Alarm]:
    """What the answers look like."""
    found = []
    if abs(now["length"] - first["length"]) > 0.5 * first["length"]:
        lengths = f"from {first['length']:.0f} to {now['length']:.0f} tokens"
        found.append(Alarm("length_drift", f"Answers went {lengths}."))
    if now["entropy"] < 0.5 * first["entropy"]:
        nats = f"from {first['entropy']:.2f} to {now['entropy']:.2f} nats a token"
        found.append(Alarm("entropy_collapse", f"Entropy fell {nats}."))
    if now["distinct_2"] < 0.5 * first["distinct_2"]:
        shares = f"from {first['distinct_2']:.0%} to {now['distinct_2']:.0%}"
        found.append(Alarm("distinct_collapse", f"Different pairs of tokens fell {shares}."))
    if first["eos_rate"] >= ENDS > now["eos_rate"]:
        message = f"Only {now['eos_rate']:.0%} of the answers still end."
        found.append(Alarm("missing_ends", message))
    return found


def _spread(history: Sequence[Step], name: str) -> list[Alarm]:
    """An ensemble that knows less and less about what it is shown."""
    spreads = [step[name] for step in history if name in step]
    if not spreads or not spreads[-1] > 2 * spreads[0] > 0:
        return []
    message = (
        f"The ensemble's members disagree {spreads[-1] / spreads[0]:.1f} times as much as at first "
        f"({spreads[0]:.2f} to {spreads[-1]:.2f}): its scores say less about these answers."
    )
    return [Alarm("spread_doubled", message)]


def _parted(history: Sequence[Step], name: str, proxy: str, judge: str) -> str:
    """A sentence when what nothing is trained against falls while the proxy rises."""
    looks = [step for step in history if name in step]
    if not looks:
        return ""
    best, now = max(looks, key=lambda step: step[name]), looks[-1]
    fall = best[name] - now[name]
    error = math.hypot(best[f"{name}_se"], now[f"{name}_se"])
    if fall <= ERRORS * error or now[proxy] <= best[proxy]:
        return ""
    where = "held-out prompts" if proxy == "heldout_reward" else "its own prompts"
    return (
        f"On {where} {judge} fell from {best[name]:.2f} to {now[name]:.2f} since step "
        f"{best['step']}, while the score that is trained on rose from {best[proxy]:.2f} to "
        f"{now[proxy]:.2f}: stop there, or raise config.kl_coef."
    )


def over_budget(kl: float, budget: float) -> str:
    """A sentence when the policy has gone too far from its reference, else nothing."""
    if not budget or kl <= budget:
        return ""
    return (
        f"The KL reached {kl:.1f} nats a reply, over the budget of {budget:g}: "
        "training stopped, and the weights of the last step within it are kept."
    )
