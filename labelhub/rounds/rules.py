"""A round's settings and the order of its states. Pure."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from typing import Any, ClassVar, Final

# The one way through a round; `decide` ends in one of two.
ORDER: Final = ("planned", "generate", "rank", "reward", "ppo", "evaluate", "decide")
NEXT: Final[dict[str, tuple[str, ...]]] = {
    **{state: (after,) for state, after in pairwise(ORDER)},
    "decide": ("promoted", "rejected"),
    "promoted": (),
    "rejected": (),
}
# States in which the trainer works, and the stage that it runs.
STAGES: Final = ("generate", "reward", "ppo", "evaluate")
ENDED: Final = ("promoted", "rejected")


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

    BOUNDS: ClassVar[dict[str, tuple[float, float]]] = {
        "prompts": (2, 100_000), "answers": (2, 9), "overlap": (1, 20), "max_new_tokens": (1, 4096),
        "temperature": (0.1, 2.0), "steps": (1, 100_000), "episodes": (2, 65_536),
        "kl_budget": (0.1, 1000.0), "heldout_prompts": (1, 10_000), "heldout_answers": (1, 64),
        "reward_epochs": (1, 20),
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
        return {"epochs": config.reward_epochs}
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
