"""The command: its exit codes, its last event, and one sentence for whatever goes wrong."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.tiny import make_tiny, write_prompts
from trainer import manifests
from trainer.__main__ import FAILED, FINISHED, explain, main
from trainer.config import SpecError
from trainer.data import DataError
from trainer.events import FAILURES, RunError, no_number, read_events
from trainer.stages import generate

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def own_signals(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The command takes SIGTERM and Ctrl-C for itself and sets the environment: give them back."""
    before = {one: signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)}
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("MKL_NUM_THREADS", "1")
    yield
    for one, handler in before.items():
        signal.signal(one, handler)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    write_prompts(folder / "data" / "prompts.jsonl")
    inputs = {"policy": str(make_tiny(tmp_path)), "prompts": "data/prompts.jsonl"}
    config = {"answers": 2, "max_new_tokens": 4, "batch_size": 4, "threads": 1}
    spec = {"stage": "generate", "seed": 0, "config": config, "inputs": inputs}
    (folder / "spec.json").write_text(json.dumps(spec))
    return folder


#: products of so many other sizes each time; megabytes that the process grew by
OTHER_SIZES = """
import sys
from trainer.__main__ import set_environment
if sys.argv[1] == "as a run":
    set_environment(1)
import torch
weight, rows = (torch.randn(n, 512).bfloat16() for n in (512, 512))
def grown(sizes):
    for n in sizes:
        torch.nn.functional.linear(rows[:n], weight)
    with open("/proc/self/status") as status:  # the largest size ever would be the parent's
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) / 1024
before = grown(range(1, 300))
print(grown(range(300, 512)) - before)
"""


def last(folder: Path) -> dict[str, Any]:
    return list(read_events(folder))[-1]


def test_a_run_ends_with_its_report(run: Path) -> None:
    assert main(["run", str(run)]) == FINISHED
    event = last(run)
    assert event["kind"] == "finished"
    assert event["report"]["answers"] == 16
    assert json.loads((run / "out" / "report.json").read_text()) == event["report"]


def test_a_finished_run_is_left_alone(run: Path) -> None:
    main(["run", str(run)])
    before = (run / "events.jsonl").read_bytes()
    assert main(["run", str(run)]) == FINISHED
    assert (run / "events.jsonl").read_bytes() == before


def test_a_finished_run_that_was_damaged_is_done_again(run: Path) -> None:
    main(["run", str(run)])
    answers = (run / "out" / "answers.jsonl").read_bytes()
    (run / "out" / "answers.jsonl").write_bytes(answers[:100])
    assert main(["run", str(run)]) == FINISHED
    assert (run / "out" / "answers.jsonl").read_bytes() == answers


def test_a_mistake_is_told_in_one_sentence_and_traced_in_the_log(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A terminal gets a traceback only of what nobody foresaw."""
    spec = json.loads((run / "spec.json").read_text())
    (run / "spec.json").write_text(json.dumps(spec | {"config": {"answers": 0}}))
    assert main(["run", str(run)]) == FAILED
    told = capsys.readouterr().err
    assert told == last(run)["message"] + "\n"
    assert "Traceback" in (run / "trainer.log").read_text("utf-8")

    def fall(_context: Any) -> None:
        raise LookupError("no such thing")

    monkeypatch.setattr(generate, "run", fall)
    (run / "spec.json").write_text(json.dumps(spec))
    assert main(["run", str(run)]) == FAILED
    told = capsys.readouterr().err
    assert "Traceback" in told
    assert told.endswith(last(run)["message"] + "\n")


def test_a_finished_folder_takes_no_other_spec(run: Path) -> None:
    main(["run", str(run)])
    spec = json.loads((run / "spec.json").read_text())
    (run / "spec.json").write_text(json.dumps(spec | {"seed": 1}))
    assert main(["run", str(run)]) == FAILED
    assert "another spec.json (seed was 0 and is 1): use a new run" in last(run)["message"]


def test_a_finished_folder_of_an_earlier_version_is_not_taken_for_this_specs(run: Path) -> None:
    main(["run", str(run)])
    lines = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    earlier = [{key: value for key, value in line.items() if key != "spec"} for line in lines]
    (run / "events.jsonl").write_text("".join(json.dumps(line) + "\n" for line in earlier))
    assert main(["run", str(run)]) == FAILED
    assert "does not say of which spec.json it is, as those" in last(run)["message"]


def test_a_missing_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", str(tmp_path / "nowhere")]) == FAILED
    assert "There is no run folder" in capsys.readouterr().err


def test_a_broken_line_of_prompts_is_named(run: Path) -> None:
    with (run / "data" / "prompts.jsonl").open("a") as stream:
        stream.write("{rubbish\n")
    assert main(["run", str(run)]) == FAILED
    assert "prompts.jsonl:9: not valid JSON" in last(run)["message"]


def test_a_full_disk_fails_with_one_sentence_and_can_go_on(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(manifests, "write_manifest", full)
        assert main(["run", str(run)]) == FAILED
    assert (last(run)["kind"], last(run)["code"]) == ("failed", "disk")
    assert last(run)["message"].startswith("The disk is full, so nothing could be saved")
    assert not (run / "out").exists()
    assert "OSError" in (run / "trainer.log").read_text()
    assert main(["run", str(run)]) == FINISHED


def test_an_unforeseen_error_names_the_log(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def trip(*_: object) -> None:
        raise KeyError("heel")

    monkeypatch.setattr(generate, "load_policy", trip)
    assert main(["run", str(run)]) == FAILED
    assert last(run)["message"] == (
        "The stage failed unexpectedly (KeyError: 'heel'); see trainer.log."
    )


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (RunError("Do this."), "refused", "Do this."),
        (SpecError("Set that."), "spec", "Set that."),
        (DataError("Line 3."), "data", "Line 3."),
        (json.JSONDecodeError("Expecting value", "", 0), "data", "An input file is not valid JSON"),
        (no_number("The loss is", 3), "diverged", "The loss is no number any more at step 3"),
        (MemoryError(), "memory", "The machine ran out of memory; free some"),
        (RuntimeError("CUDA out of memory. Tried"), "memory", "The machine ran out of memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "memory", "The machine"),
        (ValueError("no slot is allocated"), "unexpected", "The stage failed unexpectedly (Value"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "memory", "The machine ran out"),
        (OSError(errno.EFBIG, "File too large"), "disk", "The disk is full"),
        (OSError(errno.EDQUOT, "quota"), "disk", "The disk is full"),
        (RuntimeError("I/O error: No space left on device"), "disk", "The disk is full"),
        (PermissionError(13, "denied", "/x/y"), "permission", "The trainer may not use /x/y"),
    ],
)
def test_errors_become_sentences_of_a_known_kind(
    error: Exception, code: str, sentence: str
) -> None:
    kind, said = explain(error)
    assert (kind, kind in FAILURES) == (code, True)
    assert said.startswith(sentence)


@pytest.mark.skipif(sys.platform != "linux", reason="sizes of processes are read from /proc")
def test_memory_does_not_grow_with_every_other_length_of_a_text() -> None:
    """oneDNN keeps what it prepared for a thousand shapes, where nobody tells it otherwise."""
    kept = ("LRU_CACHE_CAPACITY", "ONEDNN_PRIMITIVE_CACHE_CAPACITY")
    environ = {name: value for name, value in os.environ.items() if name not in kept}
    grown = {}
    for how in ("as it is", "as a run"):
        command = [sys.executable, "-c", OTHER_SIZES, how]
        told = subprocess.check_output(command, cwd=ROOT, env=environ, text=True, timeout=120)
        grown[how] = float(told)
    if grown["as it is"] < 30:
        pytest.skip("On this processor products in bfloat16 are not prepared by oneDNN.")
    assert grown["as a run"] < grown["as it is"] / 2
