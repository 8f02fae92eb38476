"""Checkpoints and events survive crashes, damage and full disks."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import forked
from trainer import checkpoints, manifests
from trainer.__main__ import explain
from trainer.config import parse_spec
from trainer.events import EventWriter, Heartbeat, RunError, read_events
from trainer.manifests import MANIFEST, verify_manifest, write_manifest
from trainer.types import RunContext


def save(folder: Path, step: int, **state: Any) -> Path:
    return checkpoints.save(folder, step, {"x": torch.arange(3) + step}, state)


def context(folder: Path, **changes: Any) -> RunContext:
    inputs = {"policy": "a", "prompts": "b"}
    spec = parse_spec({"stage": "generate", "inputs": inputs, "config": {}} | changes)
    events = EventWriter(folder)
    return RunContext(folder, spec, events, Heartbeat(events))


def test_a_checkpoint_comes_back_as_it_was(tmp_path: Path) -> None:
    path = save(tmp_path, 4, beta=0.1)
    assert path == tmp_path / "checkpoints" / "step_4"
    assert checkpoints.latest_good(tmp_path) == path
    found = checkpoints.load(path)
    assert (found.step, found.state) == (4, {"beta": 0.1})
    assert torch.equal(found.tensors["x"], torch.tensor([4, 5, 6]))
    assert sorted(file.name for file in path.iterdir()) == [
        "manifest.json", "state.json", "state.safetensors"
    ]  # fmt: skip


def steps(folder: Path) -> list[int]:
    return [step for step, _ in checkpoints.steps_of(folder)]


def test_the_last_two_are_kept(tmp_path: Path) -> None:
    for step in (1, 2, 10):
        save(tmp_path, step)
    assert steps(tmp_path) == [10, 2]


def test_the_last_n_are_kept_and_the_best_besides(tmp_path: Path) -> None:
    for step, score in ((1, 0.2), (2, 0.9), (3, 0.1), (4, 0.4), (5, 0.3)):
        checkpoints.save(tmp_path, step, {}, {}, keep=1, scores={step: score})
    assert steps(tmp_path) == [5, 2]
    # what is known of it lies on the disk: the next attempt goes by it, too
    checkpoints.save(tmp_path, 6, {}, {}, keep=2, scores={6: 0.8})
    assert steps(tmp_path) == [6, 5, 2]
    checkpoints.save(tmp_path, 7, {}, {}, keep=2, scores={7: 0.9})  # as good: the newer stays
    assert steps(tmp_path) == [7, 6]


def test_a_score_may_become_known_later(tmp_path: Path) -> None:
    """A policy is measured by the answers that the next step learns from."""
    checkpoints.save(tmp_path, 1, {}, {}, keep=1)
    assert checkpoints.best_step(tmp_path) is None
    checkpoints.save(tmp_path, 2, {}, {}, keep=2, scores={1: 0.5})
    checkpoints.save(tmp_path, 3, {}, {}, keep=1, scores={1: 0.5, 2: 0.4})
    assert steps(tmp_path) == [3, 1]
    checkpoints.save(tmp_path, 4, {}, {}, keep=1, scores={1: 0.5, 2: 0.4, 3: 0.6})
    assert steps(tmp_path) == [4, 3]


def test_a_score_that_is_no_number_is_none(tmp_path: Path) -> None:
    checkpoints.save(tmp_path, 1, {}, {}, keep=1, scores={1: float("nan")})
    assert checkpoints.best_step(tmp_path) is None


def test_how_many_are_kept_is_a_setting_that_changes_no_result(tmp_path: Path) -> None:
    here = context(tmp_path, config={"keep_checkpoints": 3})
    for step in range(6):
        checkpoints.record(here, step, {}, {"lines": []}, {step: -abs(step - 1.0)})
    assert steps(tmp_path) == [5, 4, 3, 1]
    told = [event for event in read_events(tmp_path) if event["kind"] == "checkpoint"]
    assert [event["best"] for event in told] == [0, 1, 1, 1, 1, 1]
    assert told[-1]["path"] == "checkpoints/step_5"
    assert checkpoints.resume(context(tmp_path, config={"keep_checkpoints": 1})) is not None


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_no_number_is_not_saved(tmp_path: Path, value: float) -> None:
    save(tmp_path, 1)
    broken = {"whole": torch.arange(3), "x": torch.tensor([1.0, value])}
    with pytest.raises(RunError, match="The weights are no number any more at step 2: take a low"):
        checkpoints.save(tmp_path, 2, broken, {})
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step_1"]


def test_a_damaged_checkpoint_is_named_and_passed_over(tmp_path: Path) -> None:
    save(tmp_path, 1)
    (save(tmp_path, 2) / "state.safetensors").write_bytes(b"rubbish")
    said: list[str] = []
    assert checkpoints.latest_good(tmp_path, said.append) == tmp_path / "checkpoints" / "step_1"
    assert len(said) == 1
    assert said[0].startswith("The checkpoint step_2 is damaged (state.safetensors has 7 bytes")


def test_one_flipped_bit_is_damage(tmp_path: Path) -> None:
    file = save(tmp_path, 1) / "state.safetensors"
    body = bytearray(file.read_bytes())
    body[-1] ^= 1
    file.write_bytes(body)
    said: list[str] = []
    assert checkpoints.latest_good(tmp_path, said.append) is None
    assert "does not have the sha256" in said[0]


def test_an_unfinished_draft_is_no_checkpoint(tmp_path: Path) -> None:
    save(tmp_path, 1)
    (tmp_path / "checkpoints" / ".step_2.draft").mkdir()
    (tmp_path / "checkpoints" / "step_3").mkdir()  # its manifest was never written
    assert checkpoints.latest_good(tmp_path) == tmp_path / "checkpoints" / "step_1"


def test_a_full_disk_keeps_the_checkpoint_before_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, 1)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "save_file", full)
        with pytest.raises(OSError, match="No space left") as refusal:
            save(tmp_path, 2)
    code, sentence = explain(refusal.value)
    assert code == "disk"
    assert sentence.startswith("The disk is full, so nothing could be saved; earlier checkpoints")
    assert sentence.count(". ") == 0
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step_1"]
    assert checkpoints.latest_good(tmp_path) == tmp_path / "checkpoints" / "step_1"


def test_publishing_again_replaces_the_whole_folder(tmp_path: Path) -> None:
    target = tmp_path / "out"
    checkpoints.publish(target, lambda draft: (draft / "a").touch())
    checkpoints.publish(target, lambda draft: (draft / "b").touch())
    assert sorted(path.name for path in target.iterdir()) == ["b", MANIFEST]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


#: where a process can be killed while it replaces a folder, and which content is there afterwards
MOMENTS = {
    "in the middle of writing": ("write", "old"),
    "before the manifest": ("write_manifest", "old"),
    "before the old one steps aside": ("first rename", "old"),
    "between the two": ("second rename", "old"),
    "before the old one is removed": ("flush", "new"),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_process_killed_while_it_replaces_a_folder_loses_nothing(
    moment: str, tmp_path: Path
) -> None:
    """Killed with SIGKILL at every point; the next start finds the old folder or the new one."""
    point, wanted = MOMENTS[moment]
    target = tmp_path / "out"
    checkpoints.publish(target, lambda draft: (draft / "old").touch())

    def die(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def publish() -> None:
        renames = iter(["first rename", "second rename"])
        rename = Path.rename

        def dying(self: Path, target: Path) -> Path:
            return die() if next(renames) == point else rename(self, target)  # type: ignore[return-value]

        def write(draft: Path) -> None:
            (draft / "new").touch()
            if point == "write":
                die()

        Path.rename = dying  # type: ignore[assignment, method-assign]
        if point == "write_manifest":
            manifests.write_manifest = die  # type: ignore[assignment]
        if point == "flush":
            flush = manifests.flush
            manifests.flush = lambda path: die() if path == tmp_path else flush(path)
        checkpoints.publish(target, write)

    ended = forked.run(publish, tmp_path / "output")
    assert ended.code == -signal.SIGKILL, ended.output
    manifests.recover(*tmp_path.glob(".out.*"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "output"]
    assert sorted(path.name for path in target.iterdir()) == sorted([MANIFEST, wanted])
    assert verify_manifest(target) == []


def test_a_process_killed_while_it_removes_a_checkpoint_leaves_no_half_of_one(
    tmp_path: Path,
) -> None:
    for step in (1, 2):
        save(tmp_path, step)

    def prune() -> None:
        def die(path: Path, **_: object) -> None:
            if path.exists():
                (path / "state.json").unlink()
                os.kill(os.getpid(), signal.SIGKILL)

        manifests.shutil.rmtree = die  # type: ignore[assignment, attr-defined]
        checkpoints.prune(tmp_path, keep=1)

    ended = forked.run(prune, tmp_path / "output")
    assert ended.code == -signal.SIGKILL, ended.output
    assert steps(tmp_path) == [2]
    manifests.recover(*(tmp_path / "checkpoints").glob(".*"))
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step_2"]


def test_a_manifest_knows_missing_and_changed_files(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for name in ("a", "b", "sub/c"):
        (tmp_path / name).write_text(name)
    write_manifest(tmp_path)
    assert verify_manifest(tmp_path) == []
    (tmp_path / "a").unlink()
    (tmp_path / "b").write_text("bb")
    (tmp_path / "sub" / "c").write_text("sub/d")
    assert verify_manifest(tmp_path) == [
        "a is missing",
        "b has 2 bytes instead of 1",
        "sub/c does not have the sha256 that was recorded",
    ]


def test_an_optimiser_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    def three(weight: torch.nn.Parameter, optimizer: torch.optim.Optimizer) -> None:
        for n in range(3):
            weight.grad = torch.tensor([0.3 * n, -1.0])
            optimizer.step()

    def fresh() -> tuple[torch.nn.Parameter, torch.optim.Adam]:
        weight = torch.nn.Parameter(torch.zeros(2))
        return weight, torch.optim.Adam([weight], lr=0.1)

    straight, optimizer = fresh()
    three(straight, optimizer)
    three(straight, optimizer)
    weight, optimizer = fresh()
    three(weight, optimizer)
    tensors = checkpoints.optimizer_state(optimizer) | {"weight": weight}
    path = checkpoints.save(tmp_path, 3, tensors, {})
    resumed, optimizer = fresh()
    found = checkpoints.load(path).tensors
    with torch.no_grad():
        resumed.copy_(found["weight"])
    checkpoints.load_optimizer(optimizer, found)
    three(resumed, optimizer)
    assert torch.equal(resumed, straight)


def test_a_checkpoint_of_another_spec_is_refused(tmp_path: Path) -> None:
    here = context(tmp_path)
    save(tmp_path, 2, spec=here.spec.identity())
    found = checkpoints.resume(here)
    assert found is not None
    assert found.step == 2
    with pytest.raises(RunError, match=r"by another spec.json \(seed was 0 and is 5\): go on"):
        checkpoints.resume(context(tmp_path, seed=5))


def test_a_checkpoint_from_before_a_setting_was_added_is_gone_on_from(tmp_path: Path) -> None:
    before = context(tmp_path).spec.identity()
    del before["config.min_p"]
    save(tmp_path, 2, spec=before)
    assert checkpoints.resume(context(tmp_path)) is not None
    with pytest.raises(RunError, match=r"\(config.min_p was 0.0 and is 0.5\)"):
        checkpoints.resume(context(tmp_path, config={"min_p": 0.5}))


def test_a_checkpoint_that_does_not_say_of_which_run_it_is_is_refused(tmp_path: Path) -> None:
    save(tmp_path, 2, fingerprint="as it was done before")
    with pytest.raises(RunError, match="does not say of which spec"):
        checkpoints.resume(context(tmp_path))


def test_resuming_tells_of_a_damaged_checkpoint(tmp_path: Path) -> None:
    here = context(tmp_path)
    (save(tmp_path, 2, spec=here.spec.identity()) / "state.json").unlink()
    assert checkpoints.resume(here) is None
    alerts = [event for event in read_events(tmp_path) if event["kind"] == "alert"]
    assert "step_2 is damaged (state.json is missing)" in alerts[0]["message"]


def test_a_line_cut_by_a_crash_is_removed(tmp_path: Path) -> None:
    events = EventWriter(tmp_path)
    events.emit("metric", 1, reward=0.5)
    with events.path.open("a") as stream:
        stream.write('{"t": 1, "kind": "met')
    assert [event["step"] for event in read_events(tmp_path)] == [1]
    EventWriter(tmp_path).emit("metric", 2, reward=0.6)
    lines = events.path.read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2]


def test_a_line_that_finds_no_room_leaves_no_half_of_it(tmp_path: Path) -> None:
    """The largest size of a file stands for the full disk: the second line would end beyond it."""
    EventWriter(tmp_path).emit("metric", 1, reward=0.5)
    size = (tmp_path / "events.jsonl").stat().st_size

    def speak() -> int:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, size + 20))
        events = EventWriter(tmp_path)
        with pytest.raises(OSError, match="File too large"):
            events.emit("metric", 2, reward=0.6)
        with Heartbeat(events, every=0.01):  # its thread goes on, and says nothing
            time.sleep(0.05)
        return 7

    ended = forked.run(speak, tmp_path / "output")
    assert (ended.code, ended.output) == (7, "")
    EventWriter(tmp_path).emit("metric", 2, reward=0.7)
    assert [event["reward"] for event in read_events(tmp_path)] == [0.5, 0.7]


def test_numbers_that_json_has_not_become_null(tmp_path: Path) -> None:
    EventWriter(tmp_path).emit("metric", 0, loss=float("nan"), more={"x": [float("inf"), 1.0]})
    (event,) = read_events(tmp_path)
    assert event["loss"] is None
    assert event["more"] == {"x": [None, 1.0]}


def test_an_unknown_kind_of_event_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown event kind"):
        EventWriter(tmp_path).emit("gossip")


def test_the_heartbeat_tells_progress_and_time_left(tmp_path: Path) -> None:
    events = EventWriter(tmp_path)
    with Heartbeat(events, every=0.02) as heartbeat:
        heartbeat.progress(0.2)
        assert heartbeat.eta() is None
        heartbeat.progress(0.6)
        while not any(event["kind"] == "heartbeat" for event in read_events(tmp_path)):
            pass
    beat = next(read_events(tmp_path))
    assert beat["stage_progress"] in (0.2, 0.6)
    assert heartbeat.eta() is not None
