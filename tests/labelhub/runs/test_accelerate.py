"""Runs in several processes: how they are started, and what became of them."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from django.conf import LazySettings
from django.core.exceptions import ImproperlyConfigured

from labelhub.lib.env import accelerate_config
from labelhub.runs import launcher
from labelhub.runs.models import Run

ROOT = Path(__file__).resolve().parent.parent.parent.parent
SHIPPED = ROOT / "trainer" / "accelerate_configs"


def test_a_configuration_is_a_name_or_a_file(tmp_path: Path) -> None:
    assert accelerate_config("", SHIPPED) is None
    assert accelerate_config("ddp", SHIPPED) == SHIPPED / "ddp.yaml"
    own = tmp_path / "own.yaml"
    own.write_text("num_processes: 4")
    assert accelerate_config(str(own), SHIPPED) == own


def test_a_configuration_that_is_not_there_is_refused_at_the_start() -> None:
    with pytest.raises(ImproperlyConfigured, match=r"'ddq' is no file: .* cpu, ddp, fsdp2, zero3"):
        accelerate_config("ddq", SHIPPED)


def test_one_process_is_started_plainly_and_several_by_accelerate(
    settings: LazySettings, tmp_path: Path
) -> None:
    settings.ACCELERATE_CONFIG = None
    plain = launcher.trainer_command(tmp_path)
    assert plain == [sys.executable, "-m", "trainer", "run", str(tmp_path)]
    settings.ACCELERATE_CONFIG = SHIPPED / "ddp.yaml"
    several = launcher.trainer_command(tmp_path)
    assert several[1:5] == [
        "-m", "accelerate.commands.launch", "--config_file", str(SHIPPED / "ddp.yaml"),
    ]  # fmt: skip
    assert several[5:] == plain[1:]


def test_a_group_that_a_dead_watcher_left_is_known_by_its_folder(tmp_path: Path) -> None:
    words = ["-m", "trainer", "run", str(tmp_path)]
    with subprocess.Popen([sys.executable, "-c", "input()", *words], stdin=subprocess.PIPE) as left:
        until = time.monotonic() + 10
        while not launcher._is_trainer_of(left.pid, tmp_path):
            assert time.monotonic() < until, "it was not known"
        assert not launcher._is_trainer_of(left.pid, tmp_path / "other")
        left.communicate(b"\n")


@pytest.mark.django_db
def test_stopped_and_failed_are_told_apart_though_accelerate_says_1_for_both(
    run: Run, trainer_is: Callable[[str], None], settings: LazySettings
) -> None:
    settings.ACCELERATE_CONFIG = SHIPPED / "cpu.yaml"
    trainer_is('emit("started"); emit("stopped", message="Stopped after 1."); sys.exit(1)')
    assert launcher.watch(run.pk) == "queued"  # nobody asked the run itself: it goes on
    trainer_is('emit("started"); emit("failed", message="The disk is full."); sys.exit(1)')
    assert launcher.watch(run.pk) == "failed"
    run.refresh_from_db()
    assert run.error == "The disk is full."
