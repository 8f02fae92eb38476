"""States of runs, exit codes, and reading an event file that is still being written."""

from __future__ import annotations

import pytest

from labelhub.runs import rules
from labelhub.runs.models import Run
from labelhub.runs.progress import parse_lines


def test_every_state_has_its_moves() -> None:
    assert set(rules.ALLOWED) == set(Run.State.values)
    assert all(target in rules.ALLOWED for moves in rules.ALLOWED.values() for target in moves)


def test_a_finished_run_stays_finished() -> None:
    assert not any(rules.may_move("finished", state) for state in rules.ALLOWED)


@pytest.mark.parametrize(
    ("code", "stop_asked", "attempts_left", "state"),
    [
        (0, False, True, "finished"),
        (0, True, True, "finished"),  # it was faster than the stop
        (75, True, True, "stopped"),
        (75, False, True, "queued"),  # the worker was ended, not the run
        (1, False, True, "failed"),
        (1, True, True, "stopped"),
        (-9, False, True, "queued"),
        (-9, False, False, "failed"),
    ],
)
def test_the_exit_code_decides_the_state(
    code: int, stop_asked: bool, attempts_left: bool, state: str
) -> None:
    decided = rules.state_after_exit(code, stop_asked=stop_asked, attempts_left=attempts_left)
    assert decided == state


def test_a_line_that_is_still_being_written_waits() -> None:
    first, second = b'{"kind": "metric", "step": 1}\n', b'{"kind": "met'
    lines, offset = parse_lines(first + second, start=100)
    assert [(line.offset, line.event["step"]) for line in lines] == [(100, 1)]
    assert offset == 100 + len(first)


def test_a_damaged_line_is_kept_as_such_and_stops_nothing() -> None:
    lines, offset = parse_lines(b'oops\n{"kind": "metric"}\n', start=0)
    assert [line.event["kind"] for line in lines] == ["damaged", "metric"]
    assert offset == 5 + 19
