"""The whole loop with nothing faked: broker, workers, trainer and a small real model.

The tiny model is made once by the project's own code (about a minute) and kept under var/models.
"""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from labelhub.autopilot.setup import ensure_project
from labelhub.lib.errors import Refused
from labelhub.projects.models import Project
from tests import factories

ROOT = Path(__file__).resolve().parent.parent.parent.parent
pytestmark = pytest.mark.slow


def autopilot(var: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a person would, with state in a folder of the test's own."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("DATABASE_")},
        "LABELHUB_VAR": str(var),
        "LABELHUB_MODELS": os.environ.get("LABELHUB_MODELS") or str(ROOT / "var" / "models"),
    }
    return subprocess.run(
        [sys.executable, "manage.py", "autopilot", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )


@pytest.fixture(scope="module")
def turned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], str]:
    """One round of the tiny model: the var/ folder, the round's figures, and what was printed."""
    var = tmp_path_factory.mktemp("loop")
    figures = var / "figures.json"
    done = autopilot(
        var, "--project", "try-me", "--model", "tiny", "--seed", "11", "--json", str(figures)
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return var, json.loads(figures.read_text())["rounds"][0], done.stdout


@pytest.mark.timeout(700)
def test_one_round_makes_the_policy_better_on_prompts_that_nothing_trained_on(
    turned: tuple[Path, dict[str, Any], str],
) -> None:
    _, entry, _ = turned
    assert entry["hidden"]["prompts"] >= 64
    assert entry["hidden"]["ci95_of_gain"][0] > 0
    assert entry["hidden"]["after"] > entry["hidden"]["before"]
    assert 0 < entry["policy"]["kl"] <= 12


@pytest.mark.timeout(700)
def test_the_figures_have_every_key_of_the_contract(
    turned: tuple[Path, dict[str, Any], str],
) -> None:
    _, entry, _ = turned
    wanted = {
        "reward": {"heldout_accuracy", "ci95", "pairs", "agreement_with_hidden"},
        "policy": {"steps", "episodes", "kl", "score_before", "score_after"},
        "hidden": {"before", "after", "ci95_of_gain", "prompts"},
        "versions": {"policy_in", "reward", "policy_out"},
        "seconds": {"generate", "rank", "reward", "ppo", "evaluate"},
    }
    assert {"round", "prompts", "rankings"} <= set(entry)
    for part, keys in wanted.items():
        assert keys <= set(entry[part]), part


@pytest.mark.timeout(700)
def test_the_versions_have_their_lineage_and_the_rankings_are_marked(
    turned: tuple[Path, dict[str, Any], str],
) -> None:
    var, entry, _ = turned
    with sqlite3.connect(var / "db.sqlite3") as database:
        parents = database.execute(
            "SELECT child.name, link.role, parent.name FROM registry_parent link"
            " JOIN registry_modelversion child ON child.id = link.child_id"
            " JOIN registry_modelversion parent ON parent.id = link.parent_id"
        ).fetchall()
        marked = database.execute("SELECT DISTINCT is_simulated FROM rankings_ranking").fetchall()
    names = entry["versions"]
    assert (names["policy_out"], "policy", names["policy_in"]) in parents
    assert (names["policy_out"], "reward", names["reward"]) in parents
    assert marked == [(1,)]


@pytest.mark.timeout(700)
def test_the_hidden_preference_is_in_nothing_that_the_trainer_reads(
    turned: tuple[Path, dict[str, Any], str],
) -> None:
    var, _, _ = turned
    specs = list(var.glob("runs/*/spec.json"))
    assert len(specs) == 4
    for spec in specs:
        for file in [spec, *spec.parent.glob("data/*.jsonl")]:
            text = file.read_text()
            assert "positive" not in json.loads(spec.read_text())["config"]
            assert "preference" not in text
            assert "vader" not in text.lower()


@pytest.mark.timeout(700)
def test_the_training_is_watched_on_held_out_prompts_and_the_evaluation_draws_it(
    turned: tuple[Path, dict[str, Any], str],
) -> None:
    var, _, _ = turned
    found = [json.loads(path.read_text()) for path in var.glob("runs/*/out/report.json")]
    reports = {report.get("stage"): report for report in found}
    looks = [step for step in reports["ppo"]["history"] if "heldout_reward" in step]
    drawn = reports["evaluate"]["history"]["heldout_reward"]["points"]
    assert looks[0]["step"] == 0
    assert [(one["step"], one["score"]) for one in drawn] == [
        (look["step"], look["heldout_reward"]) for look in looks
    ]


@pytest.mark.timeout(700)
def test_nothing_that_the_command_started_is_left(
    turned: tuple[Path, dict[str, Any], str],
) -> None:
    var, _, printed = turned
    assert "Started for this command: valkey, cpu, gpu" in printed
    left = subprocess.run(
        ["pgrep", "-f", str(var)], capture_output=True, text=True, check=False
    ).stdout.split()
    assert [pid for pid in left if int(pid) != os.getpid()] == []


def test_a_project_of_people_is_refused(project: Project) -> None:
    with pytest.raises(Refused, match="belongs to people"):
        ensure_project(project.slug, factories.make_version(), answers=4)


def test_a_name_that_cannot_be_a_project_is_refused(db: None) -> None:
    with pytest.raises(Refused, match="cannot name a project"):
        ensure_project("…", factories.make_version(), answers=4)


def test_an_unknown_model_is_one_sentence(tmp_path: Path) -> None:
    done = autopilot(tmp_path, "--project", "x", "--model", "no-such-model")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "no-such-model" in done.stderr
