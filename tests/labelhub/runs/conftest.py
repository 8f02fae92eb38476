"""A stand-in for the trainer process, so that the watcher is tested in a second.

It speaks the run folder's contract (events.jsonl, out/, exit codes, SIGTERM); that the real trainer
does so too is tested in tests/trainer and by the whole round in tests/labelhub/autopilot.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from labelhub.projects.models import Project
from labelhub.registry.models import ModelVersion
from labelhub.runs import launcher
from labelhub.runs.models import Run, RunInput
from tests import factories

PRELUDE = """
import hashlib, json, os, signal, sys, time
from pathlib import Path
folder = Path(sys.argv[1])
def emit(kind, **data):
    with open(folder / "events.jsonl", "a") as out:
        out.write(json.dumps({"t": time.time(), "kind": kind, **data}) + "\\n")
def finish(report):
    out = folder / "out"
    out.mkdir(exist_ok=True)
    (out / "report.json").write_text(json.dumps(report))
    (out / "README.md").write_text("A card.")
    (out / "manifest.json").write_text(json.dumps({"files": {}, "run": folder.name}))
"""


@pytest.fixture
def trainer_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, var: Path) -> Callable[[str], None]:
    """`trainer_is(script)` makes the launcher start this script in the trainer's place."""

    def use(script: str) -> None:
        file = tmp_path / "stand_in.py"
        file.write_text(PRELUDE + script)
        monkeypatch.setattr(
            launcher, "trainer_command", lambda folder: [sys.executable, str(file), str(folder)]
        )

    return use


@pytest.fixture
def run(project: Project) -> Run:
    """A queued PPO run with its inputs."""
    base = factories.make_version("tiny-base")
    reward = factories.make_version(
        "everyday/reward-v1", kind=ModelVersion.Kind.REWARD, project=project, number=1
    )
    prompt = factories.make_prompt(project)
    run = Run.objects.create(
        project=project, stage="ppo", config={"steps": 3}, data={"prompts": [prompt.pk]}
    )
    RunInput.objects.create(run=run, role="policy", version=base)
    RunInput.objects.create(run=run, role="reward", version=reward)
    return run
