"""Hidden preferences of simulated annotators. Pure; no trainer ever sees them.

A preference gives each answer a utility. An annotator's ranking follows the Plackett–Luce model
(Plackett 1975; for two answers it is Bradley & Terry 1952): utilities divided by `noise` plus
standard Gumbel noise, sorted. So P(a before b) = 1 / (1 + exp(−(u_a − u_b) / noise)).
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer


@dataclass(frozen=True)
class Preference:
    """What a simulated annotator likes, and how surely it sees the difference."""

    name: str
    utility: Callable[[str], float]
    noise: float

    def order(self, texts: Sequence[str]) -> list[int]:
        """Dense ranks from 1 = best by the utilities themselves, without noise."""
        return _dense([self.utility(text) for text in texts])

    def rank(self, texts: Sequence[str], rng: random.Random) -> list[int]:
        """Dense ranks from 1 = best, one per text. Answers of exactly equal utility may tie."""
        utilities = [self.utility(text) for text in texts]
        seen: dict[float, float] = {}
        noisy = [
            # One draw per utility: what is exactly alike is judged alike, and ties.
            seen.setdefault(value, value / self.noise - math.log(-math.log(_open_unit(rng))))
            for value in utilities
        ]
        return _dense(noisy)


def _dense(values: Sequence[float]) -> list[int]:
    """Ranks from 1 = greatest; what is equal ties."""
    order = sorted(set(values), reverse=True)
    return [order.index(value) + 1 for value in values]


def _open_unit(rng: random.Random) -> float:
    """A uniform number strictly between 0 and 1."""
    return min(max(rng.random(), 1e-12), 1 - 1e-12)


@cache
def _analyzer() -> SentimentIntensityAnalyzer:
    return SentimentIntensityAnalyzer()


def sentiment(text: str) -> float:
    """VADER's compound sentiment from −1 to 1 (Hutto & Gilbert 2014)."""
    return float(_analyzer().polarity_scores(text)["compound"])


def brevity(text: str) -> float:
    """Fewer words are better: minus the number of words, in units of ten."""
    return -len(text.split()) / 10


PREFERENCES = {
    preference.name: preference
    for preference in (
        Preference("positive", sentiment, noise=0.2),
        Preference("brevity", brevity, noise=0.2),
    )
}
