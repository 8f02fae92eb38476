"""What a run of any stage can read: one of everything, and all the sets of it that there are."""

from __future__ import annotations

from typing import Any

from labelhub.accounts.models import User
from labelhub.projects.models import Project
from labelhub.registry.models import ModelVersion
from labelhub.runs import gathering, launcher
from labelhub.runs.actions import start_run, take_snapshot
from labelhub.runs.inputs import find_inputs
from labelhub.runs.models import Corpus, Run
from tests.factories import make_answer_set, make_prompt, make_ranking, make_version
from trainer.config import CONFIGS, input_kind


def make_things(project: Project, ann: User) -> dict[str, Any]:
    """One of everything that a stage can read, by its kind, as it is named from outside."""
    kinds = ModelVersion.Kind
    for kind in (kinds.REWARD, kinds.ENCODER, kinds.POLICY):
        make_version(f"everyday/{kind}-v1", kind=kind, project=project, number=1)
    make_version("tiny-base")
    ranking = make_ranking(make_answer_set(project), ann)
    rankings = take_snapshot(project=project, rankings=type(ranking).objects.all(), by=None)
    pairs = gathering.take_pairs(project=project, kind="best", by=None)
    Corpus.objects.create(project=project, name="tales", files=1, size=1, folder="f", sha256="0")
    report = {"history": [{"step": 1, "kl": 0.5}]}
    ppo = Run.objects.create(project=project, stage="ppo", state="finished", report=report)
    prompts, held_out = [ranking.answer_set.prompt_id], [make_prompt(project, held_out=True).pk]
    return {
        "writer": "tiny-base", "backbone": "everyday/encoder-v1", "reward": "everyday/reward-v1",
        "tokenizer": "tiny-base", "rankings": rankings.pk, "pairs": pairs.pk, "text": "tales",
        "report": ppo.pk, "prompts": prompts, "answers": {},
        "held-out prompts": held_out,
    }  # fmt: skip


def kind_of(stage: str, role: str) -> str:
    """What can play a role: the stage's kind of input, held-out prompts set apart."""
    kind = input_kind(stage, role)
    return "held-out prompts" if (role, kind) == ("heldout", "prompts") else kind


def asked_of(things: dict[str, Any], stage: str, roles: tuple[str, ...]) -> dict[str, Any]:
    """These inputs of a stage, each named by what can play its role."""
    return {role: things[kind_of(stage, role)] for role in roles}


def start(project: Project, stage: str, asked: dict[str, Any], **config: Any) -> Run:
    """A run of the stage that reads what was asked for by name."""
    found = find_inputs(project, stage, asked, 0)
    return start_run(
        project=project, stage=stage, config=config, inputs=found.things, seed=0, by=None,
        data=found.rows,
    )  # fmt: skip


def sets_of_inputs() -> list[tuple[str, tuple[str, ...], dict[str, Any]]]:
    """Every stage with every set of inputs that it can run on, all that it may use with that, and
    the settings that this takes.
    """
    found: list[tuple[str, tuple[str, ...], dict[str, Any]]] = [
        ("ppo", ("policy", "reward", "prompts", "pairs"), {"ptx_coef": 1.0})
    ]
    for stage, config in CONFIGS.items():
        for needs in config.needs:
            more = [
                one
                for one in config.may_use
                if launcher.settings_for(stage, (*needs, one)) is not None
            ]
            roles = (*needs, *more)
            found.append((stage, roles, launcher.settings_for(stage, roles) or {}))
    return found
