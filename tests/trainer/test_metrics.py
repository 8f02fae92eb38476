"""Every figure that a stage tells while it runs has its words in the documents."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import pytest

from tests.trainer import every_stage
from tests.trainer.judging import events_of, make_run, run_here, write_lines
from trainer.config import CONFIGS

ROOT = Path(__file__).resolve().parent.parent.parent
#: of every event
ENVELOPE = {"t", "kind", "step", "total"}


def documented() -> dict[str, set[str]]:
    """The figures of each stage in the table of metrics."""
    page = (ROOT / "docs" / "training.md").read_text("utf-8")
    table = page.split("| metric | stage | meaning |\n|---|---|---|\n")[1].split("\n\n")[0]
    found: dict[str, set[str]] = {stage: set() for stage in CONFIGS}
    for row in table.splitlines():
        names, stages = row.split("|")[1:3]
        for stage in stages.strip().split(", "):
            found[stage] |= set(re.findall(r"`(\w+)`", names))
    return found


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """The figures that each stage tells; PPO has all that it can be watched by."""
    folder = tmp_path_factory.mktemp("runs")
    things = every_stage.make_things(folder / "things")
    asked = {"id": "h", "prompt": [{"role": "user", "content": "see the red sun and sea"}]}
    other = write_lines(folder / "heldout.jsonl", [asked])
    found: dict[str, set[str]] = {stage: set() for stage in CONFIGS}
    for name, (stage, inputs, settings) in every_stage.RUNS.items():
        given = {one: things[one] for one in inputs}
        if name == "ppo":
            given |= {"second": things["another reward"], "heldout": other}
            given["pairs"], settings = things["pairs"], settings | {"ptx_coef": 0.1, "steps": 2}
        run = make_run(folder / name, stage, given, **settings)
        with warnings.catch_warnings():
            # TRL and peft ask transformers by names that are going away.
            warnings.simplefilter("ignore", FutureWarning)
            run_here(run)
        found[stage] |= {figure for event in events_of(run, "metric") for figure in event}
        if name == "reward":  # an ensemble, which judges from now on
            things |= {"another reward": things["reward"], "reward": run / "out"}
    return {stage: figures - ENVELOPE for stage, figures in found.items()}


@pytest.mark.parametrize("stage", CONFIGS)
def test_the_documents_have_every_figure_that_a_stage_tells_and_no_other(
    stage: str, told: dict[str, set[str]]
) -> None:
    assert documented()[stage] == told[stage]
