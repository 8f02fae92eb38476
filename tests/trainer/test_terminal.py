"""At a terminal a run tells how it goes; its events stay what they are."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from trainer import terminal
from trainer.events import read_events


def test_a_run_by_hand_tells_its_steps_and_where_the_result_is(tmp_path: Path) -> None:
    stream = io.StringIO()
    events = terminal.Spoken(tmp_path, stream)
    events.emit(
        "started", stage="ppo", attempt=2, pid=1, threads=2, dtype="float32", device="cpu",
        needs_mib=900, resumed_from=4,
    )  # fmt: skip
    events.emit("metric", 5, total=6, reward=0.25, kl=1.5, seconds=3.0)
    events.emit("heartbeat", stage_progress=0.9, eta_s=1.0)
    events.emit("alert", 6, code="kl_budget", message="The KL budget is spent.")
    events.emit("finished", report={}, seconds=12.5, spec={})
    assert stream.getvalue().splitlines() == [
        "ppo: cpu, float32, 2 threads, about 900 MiB, from step 4",
        "step 5 of 6 · reward 0.25 · kl 1.5",
        "The KL budget is spent.",
        f"Finished in 12.5 s: {tmp_path / 'out'}",
    ]
    assert len(list(read_events(tmp_path))) == 5


def test_quick_steps_are_told_now_and_then_and_the_last_one_always(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([10.0, 10.5, 11.1, 11.2])
    monkeypatch.setattr(terminal.time, "monotonic", lambda: next(clock))
    stream = io.StringIO()
    events = terminal.Spoken(tmp_path, stream)
    for step in range(1, 5):
        events.emit("metric", step, total=4, loss=1.0 / step)
    told = [line.split(" of ")[0] for line in stream.getvalue().splitlines()]
    assert told == ["step 1", "step 3", "step 4"]
