"""Rounds whose trainer is played by hand: runs end as their watcher would have recorded it."""

from __future__ import annotations

from typing import Any

from labelhub.projects.models import Project
from labelhub.registry.actions import promote
from labelhub.rounds import progress
from labelhub.rounds.models import Round
from labelhub.runs.folder import run_folder, write_lines
from labelhub.runs.models import Run
from tests import factories

CONFIG = {
    "prompts": 2, "answers": 3, "steps": 2, "heldout_prompts": 2, "compare_prompts": 0
}  # fmt: skip


def furnish(project: Project, *, train: int = 3, held_out: int = 2) -> Project:
    """Give the project a policy, prompts to train on, and some that are held out."""
    promote(project=project, version=factories.make_version("tiny-base"), by=None)
    for n in range(train):
        factories.make_prompt(project, f"Train {n}?")
    for n in range(held_out):
        factories.make_prompt(project, f"Test {n}?", held_out=True)
    return project


def finish(turn: Round, *, output: str = "", lines: list[dict[str, Any]] | None = None) -> Run:
    """Let the round's present run end well."""
    run = progress.current_run(turn)
    assert run is not None
    return end(run, output=output, lines=lines)


def end(run: Run, *, output: str = "", lines: list[dict[str, Any]] | None = None) -> Run:
    """Let a run end well."""
    out = run_folder(run.pk) / "out"
    if lines is not None:
        write_lines(out / "answers.jsonl", lines)
    if output:
        run.output = factories.make_version(
            f"everyday/{output}-v1", kind=output, project=run.project, number=1
        )
    run.state = Run.State.FINISHED
    run.save()
    return run


def generated(turn: Round) -> list[dict[str, Any]]:
    """Three answers to each of the round's prompts."""
    return [
        {"id": f"{prompt.pk}-{n}", "prompt_id": str(prompt.pk), "text": f"Answer {n}", "seed": n,
         "logprob": -3.0, "tokens": 2, "finished": True, "temperature": 1.0}
        for prompt in turn.prompts.all()
        for n in range(3)
    ]  # fmt: skip


def compared(run: Run, *, same: int = 0, gain: float = 1.0) -> list[dict[str, Any]]:
    """Both models' answers to the evaluation's prompts; the first `same` of them are alike."""
    return [
        {"id": f"{pk}-0-{model}", "prompt_id": str(pk), "model": model, "seed": 7,
         "text": "alike" if n < same else f"{model} {n}",
         "score": 0.0 if model == "reference" or n < same else gain}
        for n, pk in enumerate(run.data["prompts"])
        for model in ("policy", "reference")
    ]  # fmt: skip
