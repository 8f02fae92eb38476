"""What goes wrong outside: no memory, no disk, no numbers, no more time. Each for real.

A run that meets it ends with exit code 1 and one sentence, leaves nothing half-done, and goes on to
the very bytes of an undisturbed run once the fault is gone.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import importlib
import json
import os
import resource
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from benchmarks import kill
from tests import forked
from tests.trainer import every_stage
from trainer import checkpoints
from trainer.__main__ import FAILED, FINISHED, main
from trainer.events import EventWriter, read_events
from trainer.manifests import folder_hash, verify_manifest

LEARNING = ("reward", "ppo", "pretrain", "sft", "dpo", "rloo", "bestofn")


@pytest.fixture(scope="module")
def things(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return every_stage.make_things(tmp_path_factory.mktemp("things"))


def run(folder: Path, before: Callable[[], None] = lambda: None) -> forked.Ended:
    """The command in a child, after what spoils its surroundings."""
    importlib.import_module(f"trainer.stages.{every_stage.spec_of(folder)['stage']}")

    def work() -> int:
        before()
        return main(["run", str(folder)])

    output = folder.with_name(folder.name + ".log")
    output.unlink(missing_ok=True)
    return forked.run(work, output)


def last(folder: Path) -> dict[str, Any]:
    return list(read_events(folder))[-1]


def assert_nothing_half_done(folder: Path) -> None:
    assert not (folder / "out").exists()
    assert not list(folder.glob(".*"))
    for path in folder.glob("checkpoints/*"):
        assert path.name.startswith("step_")
        assert verify_manifest(path) == []


# memory -------------------------------------------------------------------------------------------


def little_memory(spare: int) -> Callable[[], None]:
    """No more address space than this process has now and so many bytes."""

    def limit() -> None:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + spare
        resource.setrlimit(resource.RLIMIT_AS, (most, most))

    return limit


def test_a_run_that_finds_no_memory_says_so(things: dict[str, Path], tmp_path: Path) -> None:
    """The answers' cache wants some 400 MB at once, 40 there are."""
    config = {"answers": 4000, "batch_size": 50000, "max_new_tokens": 100}
    folder = every_stage.make(tmp_path / "run", things, "generate", **config)
    ended = run(folder, little_memory(40 << 20))
    assert ended.code == FAILED, ended.output
    assert last(folder)["kind"] == "failed"
    assert last(folder)["message"].startswith("The machine ran out of memory; free some and run")
    assert_nothing_half_done(folder)
    assert not list(folder.glob("checkpoints/*"))


def no_memory_in_step(number: int) -> Callable[[], None]:
    """In that optimiser step torch's allocator is asked for more than any machine has."""
    steps = count(1)

    def ask(*_: Any) -> None:
        if next(steps) == number:
            torch.empty(1 << 50, dtype=torch.uint8)

    def begin() -> None:
        register_optimizer_step_pre_hook(ask)

    return begin


@pytest.mark.parametrize("name", LEARNING)
def test_memory_that_ends_in_a_step_ends_the_run_and_more_of_it_lets_it_go_on(
    name: str, things: dict[str, Path], tmp_path: Path
) -> None:
    # the third optimiser step of a PPO that makes one in each step
    more = {"epochs": 1, "minibatches": 1} if name == "ppo" else {}
    calm = every_stage.make(tmp_path / "calm", things, name, checkpoint_every=1, **more)
    assert run(calm).code == FINISHED
    folder = every_stage.make(tmp_path / "run", things, name, checkpoint_every=1, **more)
    ended = run(folder, no_memory_in_step(3))
    assert ended.code == FAILED, ended.output
    assert last(folder)["kind"] == "failed"
    assert last(folder)["message"].startswith("The machine ran out of memory; free some and run")
    assert_nothing_half_done(folder)
    assert list(folder.glob("checkpoints/step_*"))
    assert run(folder).code == FINISHED
    starts = [event for event in read_events(folder) if event["kind"] == "started"]
    assert starts[-1]["resumed_from"] > 0
    assert folder_hash(folder / "out") == folder_hash(calm / "out")


# disk ---------------------------------------------------------------------------------------------


CLONE_NEWNS, CLONE_NEWUSER, MS_REC, MS_PRIVATE = 0x20000, 0x10000000, 1 << 14, 1 << 18


def mount_small_disk(place: Path, kilobytes: int) -> bool:
    """A disk of that size for this process alone; False where the system does not let it."""
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.getuid(), os.getgid()
    if libc.unshare(CLONE_NEWNS | (0 if user == 0 else CLONE_NEWUSER)):
        return False
    if user:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    if libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None):
        return False
    size = f"size={kilobytes}k".encode()
    return libc.mount(b"tmpfs", str(place).encode(), b"tmpfs", 0, size) == 0


@pytest.mark.parametrize("name", LEARNING)
def test_a_disk_that_is_full_whenever_a_run_writes_ends_it_and_room_lets_it_go_on(
    name: str, things: dict[str, Path], tmp_path: Path
) -> None:
    calm = every_stage.make(tmp_path / "calm", things, name)
    assert run(calm).code == FINISHED
    saved = [event["step"] for event in read_events(calm) if event["kind"] == "checkpoint"]
    disk = tmp_path / "disk"
    disk.mkdir()

    def work() -> int:
        if not mount_small_disk(disk, 65536):
            return 99
        folder = every_stage.make(disk / "run", things, name)
        fill(disk, 0)  # not even for an event
        assert main(["run", str(folder)]) == FAILED
        assert list(read_events(folder)) == []
        fill(disk, 12)  # not for a checkpoint, be it the smallest
        assert_the_disk_ends(folder, go_on_from=None)
        (disk / "ballast").unlink()
        with behind_checkpoint(saved[0], lambda: fill(disk, 12)):  # not for another one
            assert_the_disk_ends(folder, go_on_from=saved[0])
        (disk / "ballast").unlink()
        with behind_checkpoint(saved[-1], lambda: fill(disk, 12)):  # not for the result
            assert_the_disk_ends(folder, go_on_from=saved[-1])
        (disk / "ballast").unlink()
        assert main(["run", str(folder)]) == FINISHED
        assert folder_hash(folder / "out") == folder_hash(calm / "out")
        starts = [event for event in read_events(folder) if event["kind"] == "started"]
        resumed = [event["resumed_from"] for event in starts]
        assert resumed == [None, None, saved[0], saved[-1]]
        return 0

    ended = forked.run(work, tmp_path / "output")
    if ended.code == 99:
        pytest.skip("this system lets nobody mount a small disk")
    assert ended.code == 0, ended.output
    assert ended.output.count("The disk is full, so nothing could be saved; earlier") == 4


def assert_the_disk_ends(folder: Path, go_on_from: int | None) -> None:
    """The run ends in a sentence, and that checkpoint is the newest that it leaves."""
    assert main(["run", str(folder)]) == FAILED
    assert_nothing_half_done(folder)
    assert last(folder)["kind"] == "failed"
    assert last(folder)["message"].startswith("The disk is full, so nothing could be saved")
    newest = checkpoints.latest_good(folder)
    assert (newest and newest.name) == (None if go_on_from is None else f"step_{go_on_from}")


@contextmanager
def behind_checkpoint(step: int, do: Callable[[], None]) -> Iterator[None]:
    """Within, something happens as soon as that checkpoint was told."""
    emit = EventWriter.emit

    def tell(self: EventWriter, kind: str, at: int | None = None, **data: Any) -> None:
        emit(self, kind, at, **data)
        if (kind, at) == ("checkpoint", step):
            do()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EventWriter, "emit", tell)
        yield


def fill(disk: Path, kilobytes: int) -> None:
    """Leave only so much room on it."""
    (disk / "ballast").unlink(missing_ok=True)
    with (disk / "ballast").open("wb", buffering=0) as stream:
        stream.write(bytes(shutil.disk_usage(disk).free - (kilobytes << 10)))


# numbers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LEARNING)
def test_a_rate_out_of_all_bounds_ends_in_a_sentence(
    name: str, things: dict[str, Path], tmp_path: Path
) -> None:
    """The weights become so large that the next loss is no number."""
    folder = every_stage.make(tmp_path / "run", things, name, lr=1e30, checkpoint_every=1)
    ended = run(folder)
    assert ended.code == FAILED, ended.output
    assert last(folder)["kind"] == "failed"
    assert "no number any more" in last(folder)["message"], ended.output
    assert_nothing_half_done(folder)
    for path in folder.glob("checkpoints/step_*"):
        tensors = checkpoints.load(path).tensors.values()
        assert all(bool(torch.isfinite(one).all()) for one in tensors)


# signals ------------------------------------------------------------------------------------------


def test_killed_at_random_moments_every_run_ends_in_the_same_bytes(tmp_path: Path) -> None:
    """A small part of `./run bench kill`, with other moments each time it is changed."""
    for stage in ("generate", "reward", "ppo"):
        importlib.import_module(f"trainer.stages.{stage}")
    runs = kill.kill_runs(tmp_path, ["generate", "reward-deep", "ppo"], kills=5, seed=11)
    assert [fault for run in runs for fault in run.faults] == []
    assert {run.end for run in runs} == {"same hash"}
    told = json.dumps([run.kills for run in runs])
    assert sum(len(run.kills) for run in runs) == 5, told


def test_what_a_killed_run_leaves_is_found(
    things: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In its folder, where temporary files go, and beside what was compiled."""
    folder = every_stage.make(tmp_path / "run", things, "score")
    for name in ("scratch", "compiled"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(kill, "compiler_cache", lambda: tmp_path / "compiled")
    (tmp_path / "compiled" / "attend.nbi.tmp.0").touch()  # by another process, before
    before = kill.half_compiled()
    (tmp_path / "compiled" / "attend.nbc").touch()
    assert kill.litter(folder, tmp_path / "scratch", before) == []
    (folder / ".out.draft").mkdir()
    (tmp_path / "scratch" / "tmp0").touch()
    (tmp_path / "compiled" / "attend.nbc.tmp.1").touch()
    left = kill.litter(folder, tmp_path / "scratch", before)
    assert left == [".out.draft", "tmp0", "attend.nbc.tmp.1"]


# two at once --------------------------------------------------------------------------------------


def begun_elsewhere(folder: Path) -> int:
    """The run in a child of which the first event is there; returns the child's id."""
    pid = forked.start(lambda: main(["run", str(folder)]), folder.with_name("first.log"))
    while not list(read_events(folder)):
        time.sleep(0.01)
    return pid


def test_a_folder_that_is_being_run_is_refused_to_a_second_process(
    things: dict[str, Path], tmp_path: Path
) -> None:
    calm = every_stage.make(tmp_path / "calm", things, "ppo")
    assert run(calm).code == FINISHED
    folder = every_stage.make(tmp_path / "run", things, "ppo")
    first = begun_elsewhere(folder)
    os.kill(first, signal.SIGSTOP)  # however quick it is, it is still there
    second = run(folder)
    os.kill(first, signal.SIGCONT)
    assert second.code == FAILED, second.output
    assert second.output == (
        f"{folder} is being run by another process; wait for its end or stop it, or take a folder "
        "of its own for this run.\n"
    )
    assert forked.wait(first) == FINISHED
    assert [event["kind"] for event in read_events(folder)].count("started") == 1
    assert folder_hash(folder / "out") == folder_hash(calm / "out")
    assert {path.name for path in folder.iterdir()} == {
        "spec.json", "events.jsonl", "checkpoints", "out"
    }  # fmt: skip


def test_a_process_that_was_killed_leaves_its_folder_to_the_next(
    things: dict[str, Path], tmp_path: Path
) -> None:
    folder = every_stage.make(tmp_path / "run", things, "ppo")
    first = begun_elsewhere(folder)
    os.kill(first, signal.SIGKILL)
    ended = run(folder)  # while the dead one may still be letting go
    assert ended.code == FINISHED, ended.output
    assert forked.wait(first) == -signal.SIGKILL


def test_a_disk_without_locks_keeps_nobody_from_running(
    things: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", unknown)
    folder = every_stage.make(tmp_path / "run", things, "score")
    ended = run(folder)
    assert ended.code == FINISHED, ended.output
