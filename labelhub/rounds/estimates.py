"""How often one of two policies wins, and how well that is known. Pure.

Choices
- The unit is a prompt: the answers of both policies to it are a win, a tie or a loss of the new
  one, by the majority of the opinions on them. Several opinions on one pair say little about other
  prompts, so they make a pair's outcome surer and never the sample larger.
- A tie counts half a win to each side: the rate is (wins + ties / 2) / n, and ½ means that neither
  is preferred. Leaving ties out would call a policy that changed one answer in forty a winner.
- The interval is Wilson's at that rate and that n. An outcome of 0, ½ or 1 with mean p varies by at
  most p(1 − p), as much as one of 0 or 1, so ties make the interval too wide and never too narrow.
Not here: whose opinions these are, and which of them count.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

Z95: Final = 1.959964  # the normal quantile of a 95 % interval
Advice = Literal["", "promote", "unclear", "reject"]


def wilson(successes: float, n: int, z: float = Z95) -> tuple[float, float]:
    """Score interval of a share (Wilson 1927, JASA 22, “Probable Inference”); of nothing: 0 to 1.

    Unlike value ± 1.96 errors it never leaves [0, 1] and does not shrink to a point at 0 or 1.
    """
    if n <= 0:
        return 0.0, 1.0
    share, weight = successes / n, z * z / n
    middle = (share + weight / 2) / (1 + weight)
    half = z / (1 + weight) * math.sqrt(share * (1 - share) / n + weight / (4 * n))
    return max(0.0, middle - half), min(1.0, middle + half)


@dataclass(frozen=True, slots=True)
class WinRate:
    """Outcomes of the newer policy against the older one, one for each prompt."""

    wins: int = 0
    ties: int = 0
    losses: int = 0

    @property
    def n(self) -> int:
        """How many prompts are judged."""
        return self.wins + self.ties + self.losses

    @property
    def value(self) -> float | None:
        """The share of wins, ties as halves; None before anything is judged."""
        return (self.wins + self.ties / 2) / self.n if self.n else None

    @property
    def bounds(self) -> tuple[float, float] | None:
        """The 95 % interval of the rate; None before anything is judged."""
        return wilson(self.wins + self.ties / 2, self.n) if self.n else None

    @property
    def advice(self) -> Advice:
        """What the interval says against ½; it advises, and a person decides."""
        if self.bounds is None:
            return ""
        low, high = self.bounds
        return "promote" if low > 0.5 else "reject" if high < 0.5 else "unclear"


def win_rate(outcomes: Iterable[int]) -> WinRate:
    """Count outcomes: above 0 a win, 0 a tie, below 0 a loss."""
    signs = [(one > 0) - (one < 0) for one in outcomes]
    return WinRate(wins=signs.count(1), ties=signs.count(0), losses=signs.count(-1))


def majority(opinions: Sequence[int]) -> int:
    """What most of the opinions on a pair say: 1, 0 or −1; as many for as against is a tie."""
    balance = sum((one > 0) - (one < 0) for one in opinions)
    return (balance > 0) - (balance < 0)


def parted(people: WinRate, reward: WinRate) -> bool:
    """Whether the reward model prefers the new policy and people do not (yet).

    It is what over-optimisation looks like: the policy has learned to please the reward model.
    """
    return reward.advice == "promote" and people.advice in {"unclear", "reject"}
