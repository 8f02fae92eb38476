"""Stages as pages and programs show them: what each reads and makes, and its settings as a schema.

All of it comes from the trainer's own settings (through the launcher); what is added here is what
this house knows: which model versions may play a role, and which settings people look for first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from labelhub.registry.models import ModelVersion
from labelhub.runs import launcher, rules
from labelhub.runs.launcher import Knob, StageFacts
from labelhub.runs.models import Corpus, Run, Snapshot

__all__ = [
    "FIRST", "Knob", "Reading", "StageFacts", "Thing", "Use", "facts", "fits", "makes", "reading",
    "schema", "settings_schema", "uses_of",
]  # fmt: skip

# What a run can read besides rows of prompts and answers.
Thing = ModelVersion | Snapshot | Corpus | Run

# The few settings that most decide what comes out; the others have defaults that fit most runs.
FIRST: Final[dict[str, tuple[str, ...]]] = {
    "pretrain": ("objective", "size", "epochs", "vocabulary", "max_length"),
    "sft": ("method", "epochs", "lr"),
    "generate": ("answers", "max_new_tokens", "temperature"),
    "reward": ("epochs", "loss", "ensemble"),
    "ppo": ("steps", "episodes_per_step", "max_new_tokens", "kl_coef", "kl_budget"),
    "prefer": ("method", "epochs", "steps", "beta"),
    "bestofn": ("answers", "epochs", "max_new_tokens"),
    "evaluate": ("answers", "max_new_tokens"),
    "score": (),
}
_JSON_TYPES: Final = {"int": "integer", "float": "number", "bool": "boolean", "str": "string"}


def facts(stage: str) -> StageFacts:
    """What the trainer says about a stage."""
    return launcher.stage_facts(stage)


# --- what can play which role


def fits(kind: str, thing: Thing) -> bool:
    """Whether a thing can play a role of this kind."""
    if isinstance(thing, ModelVersion):
        return thing.kind in rules.VERSION_KINDS.get(kind, ())
    if isinstance(thing, Snapshot):
        return thing.holds == kind
    if isinstance(thing, Corpus):
        return kind == "text"
    read = {"report": rules.REPORTING_STAGES, "answers": rules.WRITING_STAGES}
    return thing.state == Run.State.FINISHED and thing.stage in read.get(kind, ())


@dataclass(frozen=True)
class Reading:
    """One way to run a stage: all that it needs to read, and the settings that this takes."""

    roles: tuple[str, ...]
    settings: dict[str, Any]


def reading(stage: str, given: Iterable[str] = ()) -> Reading | None:
    """The first way to run a stage in which these roles are read; None when there is none."""
    return next(_readings(facts(stage), set(given)), None)


def _readings(told: StageFacts, given: set[str]) -> Iterator[Reading]:
    for names in told.needs:
        config = launcher.settings_for(told.stage, {*names, *given})
        if config is not None:
            yield Reading(names, config)


@dataclass(frozen=True)
class Use:
    """A stage that a thing can be given to, and the role that it would play there."""

    stage: Run.Stage
    role: str


def uses_of(thing: Thing) -> list[Use]:
    """The stages that can read a thing: each once, in the role that it cannot do without."""
    found = []
    for stage in Run.Stage:
        told = facts(stage.value)
        roles = (role for role, kind in told.kinds.items() if fits(kind, thing))
        role = next((one for one in roles if reading(stage.value, {one})), None)
        found += [Use(stage, role)] if role else []
    return found


# --- for programs


def makes(stage: str) -> list[str]:
    """The kinds of model version that a stage may leave, by its settings."""
    turned: tuple[dict[str, str], ...] = ({}, {"objective": "masked"}, {"method": "prompt"})
    kinds = [rules.output_kind(stage, config) for config in turned]
    return list(dict.fromkeys(kind for kind in kinds if kind))


def schema(stage: str) -> dict[str, Any]:
    """One stage for programs."""
    told = facts(stage)
    return {
        "stage": stage,
        "title": str(Run.Stage(stage).label),
        "about": told.about,
        "needs": [list(names) for names in told.needs],
        "may_use": list(told.may_use),
        "inputs": {role: _input_schema(kind) for role, kind in told.kinds.items()},
        "config": settings_schema(told),
        "makes": makes(stage),
    }


def _input_schema(kind: str) -> dict[str, Any]:
    """How the value of one input looks in the body that starts a run."""
    if kind in rules.VERSION_KINDS:
        wanted = [one for one in ModelVersion.Kind.values if one in rules.VERSION_KINDS[kind]]
        return {"type": "string", "description": f"A model version: {', '.join(wanted)}."}
    if kind in rules.SNAPSHOT_KINDS:
        return {"type": "integer", "description": f"Number of a snapshot of {kind}."}
    if kind == "text":
        return {"type": "string", "description": "Name of a text, see /api/v1/corpora/."}
    if kind == "report":
        return {"type": "integer", "description": "Number of a finished PPO run."}
    choice: dict[str, Any] = {"number": {"type": "integer", "minimum": 1}}
    if kind == "prompts":
        choice |= {"held_out": {"type": "boolean"}, "language": {"type": "string"}}
    else:
        choice |= {"version": {"type": "string"}, "run": {"type": "integer", "minimum": 1}}
    return {
        "description": f"Numbers of {kind}, or a choice among the project's.",
        "oneOf": [
            {"type": "array", "items": {"type": "integer"}},
            {"type": "object", "properties": choice, "additionalProperties": False},
        ],
    }


def settings_schema(told: StageFacts) -> dict[str, Any]:
    """The settings of a stage as JSON Schema."""
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {knob.name: _knob_schema(knob) for knob in told.knobs},
    }


def _knob_schema(knob: Knob) -> dict[str, Any]:
    found: dict[str, Any] = {
        "type": _JSON_TYPES[knob.kind],
        "default": knob.default,
        "description": knob.about,
    }
    if knob.choices:
        found["enum"] = list(knob.choices)
    if knob.low is not None:
        found["minimum"] = knob.low
    if knob.high is not None:
        found["maximum"] = knob.high
    return found
