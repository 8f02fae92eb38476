"""The watcher of trainer processes: leases, events, stops, and every way a process can end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from django.db import connection
from django.db.models import F

from labelhub.runs import launcher
from labelhub.runs.actions import resume_run, stop_run
from labelhub.runs.folder import run_folder
from labelhub.runs.models import Run
from labelhub.runs.progress import take_lease
from trainer.events import FAILURES

FINISHES = """
emit("started", total=2)
emit("metric", step=1, total=2, kl=0.1, eta_s=4.0)
emit("metric", step=2, total=2, kl=0.2)
finish({"steps": 2, "kl": 0.2})
emit("finished")
"""
WAITS_FOR_SIGTERM = """
def stop(*_):
    emit("stopped", step=1)
    sys.exit(75)
signal.signal(signal.SIGTERM, stop)
emit("started", total=9)
while True:
    time.sleep(0.05)
"""


def in_thread(work: Callable[[], object]) -> threading.Thread:
    """Run `work` beside the test, with a database connection of its own."""

    def body() -> None:
        try:
            work()
        finally:
            connection.close()

    thread = threading.Thread(target=body)
    thread.start()
    return thread


def wait_until(condition: Callable[[], bool], seconds: float = 20) -> None:
    """Fail if `condition` does not come true in time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


@pytest.mark.django_db
def test_a_run_that_finishes_leaves_events_a_report_and_a_version(
    run: Run, trainer_is: Callable[[str], None]
) -> None:
    trainer_is(FINISHES)
    assert launcher.watch(run.pk) == "finished"
    run.refresh_from_db()
    assert (run.state, run.step, run.total, run.attempt) == ("finished", 2, 2, 1)
    assert [event.kind for event in run.events.all()] == ["started", "metric", "metric", "finished"]
    assert run.report == {"steps": 2, "kl": 0.2}
    assert run.output is not None
    assert run.output.name == "everyday/policy-v1"
    assert {link.role: link.parent.name for link in run.output.parent_links.all()} == {
        "policy": "tiny-base",
        "reward": "everyday/reward-v1",
    }
    assert run.lease_until is None


@pytest.mark.django_db
def test_the_spec_in_the_folder_names_inputs_with_their_hashes(
    run: Run, trainer_is: Callable[[str], None]
) -> None:
    trainer_is(FINISHES)
    launcher.watch(run.pk)
    spec = json.loads((run_folder(run.pk) / "spec.json").read_text())
    policy = run.inputs.get(role="policy").version
    assert spec["stage"] == "ppo"
    assert spec["inputs"]["policy"] == {"path": policy.folder, "sha256": policy.sha256}
    lines = (run_folder(run.pk) / spec["inputs"]["prompts"]).read_text().splitlines()
    assert [json.loads(line)["prompt"][0]["role"] for line in lines] == ["user"]


@pytest.mark.django_db
def test_a_second_delivery_finds_a_living_lease_and_goes_away(run: Run) -> None:
    assert take_lease(run.pk) is not None
    assert launcher.watch(run.pk) is None
    run.refresh_from_db()
    assert run.attempt == 1


@pytest.mark.django_db
def test_a_failure_is_told_in_the_trainers_own_sentence(
    run: Run, trainer_is: Callable[[str], None]
) -> None:
    trainer_is('emit("failed", code="data", message="Line 3 is not JSON."); sys.exit(1)')
    assert launcher.watch(run.pk) == "failed"
    run.refresh_from_db()
    assert (run.error_code, run.error) == ("data", "Line 3 is not JSON.")
    assert run.output is None


@pytest.mark.django_db
def test_a_kind_of_failure_that_nobody_knows_is_unexpected(
    run: Run, trainer_is: Callable[[str], None]
) -> None:
    trainer_is('emit("failed", code="of tomorrow", message="Wait."); sys.exit(1)')
    assert launcher.watch(run.pk) == "failed"
    run.refresh_from_db()
    assert (run.error_code, run.error) == ("unexpected", "Wait.")


def test_every_kind_of_failure_of_the_trainer_has_its_words() -> None:
    told_here = {"not_started", "killed", "exited"}
    assert set(Run.Failure.values) == set(FAILURES) | told_here


@pytest.mark.django_db
def test_a_killed_trainer_is_tried_again_and_given_up_after_three_times(
    run: Run, trainer_is: Callable[[str], None]
) -> None:
    trainer_is('emit("started"); os.kill(os.getpid(), signal.SIGKILL)')
    assert [launcher.watch(run.pk) for _ in range(3)] == ["queued", "queued", "failed"]
    run.refresh_from_db()
    assert "signal 9" in run.error
    assert run.error_code == "killed"


@pytest.mark.django_db(transaction=True)
def test_a_stop_is_passed_on_and_the_run_can_be_resumed(
    run: Run, trainer_is: Callable[[str], None], ada: object
) -> None:
    trainer_is(WAITS_FOR_SIGTERM)
    watcher = in_thread(lambda: launcher.watch(run.pk))
    wait_until(lambda: Run.objects.get(pk=run.pk).events.filter(kind="started").exists())
    stop_run(run=run, by=None)
    watcher.join(20)
    run.refresh_from_db()
    assert run.state == "stopped"

    trainer_is(FINISHES)
    resume_run(run=run, by=None)  # the queue is eager here: the watcher runs at once
    run.refresh_from_db()
    assert (run.state, run.attempt) == ("finished", 2)


@pytest.mark.django_db
def test_a_run_that_waits_again_tells_of_no_failure(run: Run) -> None:
    Run.objects.filter(pk=run.pk).update(state="failed", error="Full.", error_code="disk")
    resume_run(run=run, by=None)
    run.refresh_from_db()
    assert (run.state, run.error, run.error_code) == ("queued", "", "")


@pytest.mark.django_db(transaction=True)
def test_who_lost_the_lease_ends_its_trainer_and_writes_nothing(
    run: Run, trainer_is: Callable[[str], None]
) -> None:
    trainer_is(WAITS_FOR_SIGTERM)
    watcher = in_thread(lambda: launcher.watch(run.pk))
    wait_until(lambda: Run.objects.get(pk=run.pk).process_group is not None)
    pid = Run.objects.get(pk=run.pk).process_group
    assert pid is not None
    Run.objects.filter(pk=run.pk).update(attempt=F("attempt") + 1)
    watcher.join(20)
    assert not Path(f"/proc/{pid}").exists()
    assert Run.objects.get(pk=run.pk).state == "running"  # the new watcher's to change


@pytest.mark.django_db
def test_what_a_dead_watcher_left_behind_is_ended_first(
    run: Run, trainer_is: Callable[[str], None]
) -> None:
    trainer_is(FINISHES)
    folder = run_folder(run.pk)
    sleeper = "import time; time.sleep(60)"
    leftover = subprocess.Popen([sys.executable, "-c", sleeper, str(folder)], process_group=0)
    Run.objects.filter(pk=run.pk).update(state="running", attempt=1, process_group=leftover.pid)
    reaper = threading.Thread(target=leftover.wait)
    reaper.start()
    assert launcher.watch(run.pk) == "finished"
    reaper.join(10)
    assert leftover.returncode is not None
    run.refresh_from_db()
    assert run.attempt == 2


@pytest.mark.django_db
def test_a_process_that_merely_has_the_old_number_is_left_alone(run: Run) -> None:
    run.process_group = os.getpid()
    launcher.end_leftover(run)  # would end this very test otherwise
    assert True


@pytest.mark.django_db
def test_a_stop_before_the_start_needs_no_trainer(run: Run) -> None:
    stop_run(run=run, by=None)
    run.refresh_from_db()
    assert run.state == "stopped"
    assert launcher.watch(run.pk) is None


@pytest.mark.django_db
def test_a_disk_that_is_full_gives_a_sentence(
    run: Run, trainer_is: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer_is(FINISHES)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(launcher, "write_lines", full)
    assert launcher.watch(run.pk) == "failed"
    run.refresh_from_db()
    assert run.error == "The run could not be started: [Errno 28] No space left on device."
    assert run.error_code == "not_started"


def test_the_trainer_gets_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABELHUB_SECRET_KEY", "hush")
    monkeypatch.setenv("DATABASE_URL", "postgresql://user:password@host/name")
    environment = launcher.trainer_environment(threads=1)
    assert "hush" not in environment.values()
    assert "DATABASE_URL" not in environment
    assert environment["OMP_NUM_THREADS"] == "1"
