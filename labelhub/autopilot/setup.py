"""The autopilot's project: made once, with shipped prompts, held apart from people's work."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from django.conf import settings
from django.utils.text import slugify

from labelhub.lib.errors import Refused
from labelhub.projects.actions import create_project, publish_guidelines
from labelhub.projects.models import Project
from labelhub.prompts.actions import hold_out, import_prompts
from labelhub.registry.actions import promote
from labelhub.registry.models import LivePolicy, ModelVersion
from labelhub.runs.actions import add_base

FIXTURES = Path(settings.BASE_DIR) / "labelhub" / "prompts" / "fixtures"
HELD_OUT = 64


def demo_prompts(language: str) -> list[dict[str, Any]]:
    """The prompts that ship with LabelHub: `en` or `zh`."""
    lines = (FIXTURES / f"demo_prompts.{language}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def model_prompts(version: ModelVersion) -> list[dict[str, Any]]:
    """A model with a small vocabulary of its own brings prompts that it can read."""
    own = Path(version.folder) / "prompts.jsonl"
    if own.is_file():
        return [json.loads(line) for line in own.read_text(encoding="utf-8").splitlines()]
    return demo_prompts("en")


def ensure_base(name: str) -> ModelVersion:
    """The registered model of this name; what is not registered yet is made and registered."""
    return ModelVersion.objects.filter(name=name).first() or add_base(source=name, by=None)


def ensure_project(name: str, base: ModelVersion, *, answers: int) -> Project:
    """The simulated project of this name, made with prompts and held-out prompts if it is new."""
    slug = slugify(name)
    if not slug:
        raise Refused(f"“{name}” cannot name a project: use letters, digits and dashes.")
    project = Project.objects.filter(slug=slug).first()
    if project is None:
        project = create_project(
            name=name, slug=slug, by=None, is_simulated=True, answers_per_prompt=answers,
            max_new_tokens=32, shared_share=0, newcomer_sets=0, gold_share=0, repeat_share=0,
        )  # fmt: skip
        publish_guidelines(
            project=project, text="Simulated annotators follow a hidden preference.", by=None
        )
        import_prompts(project=project, lines=model_prompts(base), by=None)
        hold_out(project=project, fraction_or_count=HELD_OUT, seed=0)
        promote(project=project, version=base, by=None)
    if not project.is_simulated:
        raise Refused(
            f"The project {slug} belongs to people: simulated rankings never mix with theirs. "
            "Choose another --project."
        )
    live = LivePolicy.objects.select_related("version").get(project=project).version
    if live != base and live.project_id != project.pk:
        raise Refused(
            f"The project {slug} began with {live}: name that model, or choose another --project."
        )
    return project
