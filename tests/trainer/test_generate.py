"""The stage that writes answers: what a line tells, and what an answer depends on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.tiny import make_tiny, write_prompts
from tests.trainer.judging import StopAt, make_run, read_lines, run_here
from trainer.config import SpecError, load_spec
from trainer.events import Stopped

SETTINGS: dict[str, Any] = {
    "temperature": 0.9, "top_k": 20, "top_p": 0.9, "min_p": 0.02, "repetition_penalty": 1.2,
    "max_new_tokens": 6,
}  # fmt: skip


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, Any]:
    write_prompts(tmp_path / "prompts.jsonl")
    return {"policy": str(make_tiny(tmp_path)), "prompts": str(tmp_path / "prompts.jsonl")}


def write(folder: Path, inputs: dict[str, Any], **config: Any) -> list[dict[str, Any]]:
    defaults = {"answers": 3, "max_new_tokens": 6, "threads": 1}
    run_here(make_run(folder, "generate", inputs, **(defaults | config)))
    return read_lines(folder / "out" / "answers.jsonl")


def test_a_line_tells_how_the_answer_was_drawn(tmp_path: Path, inputs: dict[str, Any]) -> None:
    lines = write(tmp_path / "run", inputs, **SETTINGS)
    assert [line["id"] for line in lines[:4]] == ["p0-0", "p0-1", "p0-2", "p1-0"]
    for line in lines:
        assert {name: line[name] for name in SETTINGS} == SETTINGS
        assert line["logprob"] < 0
        assert 1 <= line["tokens"] <= 6
        assert line["finished"] or line["tokens"] == 6
    assert len({line["seed"] for line in lines}) == len(lines) == 24


def test_an_answer_depends_on_its_prompt_and_number_alone(
    tmp_path: Path, inputs: dict[str, Any]
) -> None:
    """In float32, with every setting: neither the batch nor the other prompts matter."""
    whole = {line["id"]: line for line in write(tmp_path / "whole", inputs, **SETTINGS)}
    lines = (tmp_path / "prompts.jsonl").read_text().splitlines()
    (tmp_path / "some.jsonl").write_text("\n".join([lines[5], lines[2]]) + "\n")
    some = inputs | {"prompts": str(tmp_path / "some.jsonl")}
    for size in (1, 2, 64):
        for line in write(tmp_path / f"some{size}", some, batch_size=size, **SETTINGS):
            other = whole[line["id"]]
            assert {k: v for k, v in line.items() if k != "logprob"} == {
                k: v for k, v in other.items() if k != "logprob"
            }
            assert line["logprob"] == pytest.approx(other["logprob"], abs=1e-4)


def test_a_stopped_run_goes_on_where_it_was(tmp_path: Path, inputs: dict[str, Any]) -> None:
    wanted = write(tmp_path / "straight", inputs, batch_size=3)
    folder = make_run(
        tmp_path / "run", "generate", inputs, answers=3, max_new_tokens=6, threads=1, batch_size=3
    )
    with pytest.raises(Stopped):
        run_here(folder, StopAt(5))
    assert list((folder / "checkpoints").iterdir())
    run_here(folder)
    assert read_lines(folder / "out" / "answers.jsonl") == wanted


@pytest.mark.parametrize(
    ("name", "value"), [("min_p", 1.5), ("min_p", -0.1), ("repetition_penalty", 0.0)]
)
def test_a_setting_out_of_bounds_is_named(
    tmp_path: Path, inputs: dict[str, Any], name: str, value: float
) -> None:
    folder = make_run(tmp_path / "run", "generate", inputs, **{name: value})
    with pytest.raises(SpecError, match=rf"config\.{name} of stage “generate” is {value}"):
        load_spec(folder)
