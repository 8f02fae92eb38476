"""A round's settings, the order of its states, and what an ensemble disagrees about. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from itertools import combinations, pairwise
from typing import Any, ClassVar, Final

# The one way through a round; `decide` ends in one of two.
ORDER: Final = ("planned", "generate", "rank", "reward", "ppo", "evaluate", "compare", "decide")
NEXT: Final[dict[str, tuple[str, ...]]] = {
    **{state: (after,) for state, after in pairwise(ORDER)},
    "evaluate": ("compare", "decide"),  # nobody compares where no comparison is wanted
    "decide": ("promoted", "rejected"),
    "promoted": (),
    "rejected": (),
}
# States in which the trainer works, and the stage that it runs.
STAGES: Final = ("generate", "reward", "ppo", "evaluate")
ENDED: Final = ("promoted", "rejected")
# Beside the ranking, not one of the states: the reward ensemble reads what is open.
SCORE: Final = "score"

# Held-out prompts on which PPO is watched. A look costs an answer to each; of so many answers the
# alarm hears when the lowest member of the ensemble falls by half a standard deviation.
WATCHED_PROMPTS: Final = 32


class ConfigError(ValueError):
    """A round's setting that cannot be: one sentence with its name and the remedy."""


@dataclass(frozen=True)
class RoundConfig:
    """What one turn of the loop is asked to do."""

    prompts: int = 160  # prompts that get K answers each
    answers: int = 4  # K
    overlap: int = 1  # opinions wanted on each answer set
    max_new_tokens: int = 32  # longest answer, in tokens
    temperature: float = 1.0
    languages: tuple[str, ...] = ("en",)
    steps: int = 12  # PPO steps
    episodes: int = 64  # answers that the policy writes in one PPO step
    kl_budget: float = 10.0  # nats a reply; training stops before it is spent
    heldout_prompts: int = 64  # prompts that nothing trains on, to measure the gain
    heldout_answers: int = 4  # answers of each policy to each of them
    reward_epochs: int = 2
    reward_ensemble: int = 4  # heads of the reward model; from 2 on they say what to rank first
    compare_prompts: int = 0  # held-out prompts on which people compare both policies, blind
    compare_opinions: int = 1  # opinions wanted on each of these pairs

    BOUNDS: ClassVar[dict[str, tuple[float, float]]] = {
        "prompts": (2, 100_000), "answers": (2, 9), "overlap": (1, 20), "max_new_tokens": (1, 4096),
        "temperature": (0.1, 2.0), "steps": (1, 100_000), "episodes": (2, 65_536),
        "kl_budget": (0.1, 1000.0), "heldout_prompts": (1, 10_000), "heldout_answers": (1, 64),
        "reward_epochs": (1, 20), "reward_ensemble": (1, 64),
        "compare_prompts": (0, 10_000), "compare_opinions": (1, 20),
    }  # fmt: skip

    def __post_init__(self) -> None:
        for name, (low, high) in self.BOUNDS.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise ConfigError(f"{name} is {value}; choose a value from {low} to {high}.")
        if not self.languages:
            raise ConfigError("languages is empty; name at least one, such as en.")

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> RoundConfig:
        """Read settings; an unknown one is refused by name."""
        kinds = {field.name: field for field in fields(cls)}
        for name in values:
            if name not in kinds:
                raise ConfigError(f"{name} is no setting of a round; known: {', '.join(kinds)}.")
        try:
            return cls(**{name: _as(name, kinds[name].default, v) for name, v in values.items()})
        except (TypeError, ValueError) as error:
            raise ConfigError(str(error)) from None

    def to_json(self) -> dict[str, Any]:
        """The settings as the database keeps them."""
        return asdict(self) | {"languages": list(self.languages)}


def _as(name: str, default: object, value: Any) -> Any:
    if isinstance(default, tuple):
        return tuple(str(part) for part in value)
    kind: Any = type(default)
    try:
        number = kind(value)
    except (TypeError, ValueError):
        raise ConfigError(f"{name} is {value!r}; give a number.") from None
    if kind is int and float(value) != number:
        raise ConfigError(f"{name} is {value!r}; give a whole number.")
    return number


def stage_config(stage: str, config: RoundConfig) -> dict[str, Any]:
    """The trainer's settings for one stage of a round; its defaults stand for the rest."""
    sampling = {"max_new_tokens": config.max_new_tokens, "temperature": config.temperature}
    if stage == "generate":
        return {"answers": config.answers, **sampling}
    if stage == "reward":
        return {"epochs": config.reward_epochs, "ensemble": config.reward_ensemble}
    if stage == "ppo":
        return {
            "steps": config.steps,
            "episodes_per_step": config.episodes,
            "kl_budget": config.kl_budget,
            **sampling,
        }
    if stage == "evaluate":
        return {"answers": config.heldout_answers, **sampling}
    raise ConfigError(f"A round has no stage {stage}.")


def stage_seed(round_seed: int, stage: str) -> int:
    """Stages of one round draw from different streams, the same every time."""
    return round_seed * 1000 + STAGES.index(stage)


def disagreement(scores: Sequence[Sequence[float]]) -> float:
    """How far the members of an ensemble disagree about the order of answers: 0 to log 2 nats.

    scores[k][m] is member m's score of answer k, in log-odds. What an annotator's choice between
    two answers would tell about which member is right is the mutual information

        H(mean over m of p_m) − mean over m of H(p_m),   p_m = σ(score_im − score_jm),

    of which this is the mean over the pairs (Houlsby et al. 2011, “Bayesian Active Learning for
    Classification and Preference Learning”). Members that all call a pair even agree: it is a
    matter of taste, and asking people more would teach them nothing. So the spread of scores would
    be the wrong measure, and it would not be bounded either.
    """
    pairs = list(combinations(scores, 2))
    if not pairs:
        return 0.0
    return sum(_information([a - b for a, b in zip(*pair, strict=True)]) for pair in pairs) / len(
        pairs
    )


def _information(odds: Sequence[float]) -> float:
    """Mutual information between a yes or no and the member that says it with these log-odds."""
    if not odds:
        return 0.0
    yes = sum(_sigmoid(x) for x in odds) / len(odds)
    no = sum(_sigmoid(-x) for x in odds) / len(odds)
    whole = -sum(p * math.log(p) for p in (yes, no) if p > 0)
    # H(σ(x)) = log(1 + e^-|x|) + |x| σ(-|x|), which keeps its digits where σ(x) rounds to 1
    own = sum(math.log1p(math.exp(-abs(x))) + abs(x) * _sigmoid(-abs(x)) for x in odds) / len(odds)
    return max(0.0, whole - own)


def _sigmoid(x: float) -> float:
    small = math.exp(-abs(x))
    return 1 / (1 + small) if x >= 0 else small / (1 + small)
