"""The harness of the speed comparisons, on sides whose figures are known."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks import speed
from benchmarks.speed import Comparison, Failed, Target, Turn

SIDE = """
import json, sys
place = sys.argv.index
print("some chatter")
print(json.dumps({"units": 12, "seconds": float(sys.argv[place("--takes") + 1]),
                  "cpu_seconds": 1, "peak_mb": 30, "seed": sys.argv[place("--seed") + 1]}))
"""
RATE = Target("work", "ours", "theirs", "rate", 2, 4)


def turn(seconds: float, peak: float = 1.0) -> Turn:
    return Turn(units=6, seconds=seconds, cpu_seconds=2 * seconds, peak_mb=peak, foreign=0)


def sides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str = SIDE) -> Comparison:
    (tmp_path / "side.py").write_text(script)
    monkeypatch.setattr(speed, "HERE", str(tmp_path))
    monkeypatch.setattr(speed, "FIGURES", tmp_path / "figures" / "speed.json")
    commands = {"ours": ("side.py", "--takes", "2"), "theirs": ("side.py", "--takes", "6")}
    return Comparison("work", commands, (RATE,))


def test_sides_run_in_turns_and_the_order_turns_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    comparison = sides(tmp_path, monkeypatch)
    result = speed.measure(comparison, 2, threads=1)
    said = [line.split()[2].strip(":") for line in capsys.readouterr().err.splitlines()]
    assert said == ["ours", "theirs", "theirs", "ours"]
    assert [one["seed"] for one in result["sides"]["ours"]] == ["0", "1"]
    monkeypatch.setattr(speed, "COMPARISONS", (comparison,))
    speed.keep("work", result)
    kept = json.loads((tmp_path / "figures" / "speed.json").read_text())
    assert kept["work"]["ratios"] == [
        {"what": "work", "median": 3, "low": 3, "high": 3, "geometric_mean": 3, "turns": 2}
    ]
    line = next(line for line in speed.table(kept) if line.startswith("| work"))
    assert line.endswith("| 3.00 (3.00 to 3.00) | 1.00 (1.00 to 1.00) | 2 | 4 | reached |")


def test_a_side_that_fails_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    comparison = sides(tmp_path, monkeypatch, "import sys; sys.exit('no such model')")
    with pytest.raises(Failed, match=r"side\.py --takes 2 ended with 1: no such model"):
        speed.measure(comparison, 1, threads=1)
    comparison = sides(tmp_path, monkeypatch, "print('nothing')")
    with pytest.raises(Failed, match="not the JSON"):
        speed.measure(comparison, 1, threads=1)


def test_ratios_are_taken_turn_by_turn() -> None:
    turns = {"ours": [turn(1), turn(2)], "theirs": [turn(3), turn(8)]}
    assert speed.ratios(RATE, turns) == [3, 4]
    start = Target("start", "ours", "theirs", "seconds")
    assert speed.ratios(start, turns) == [1 / 3, 1 / 4]
    assert speed.summary([2, 8, 4])["geometric_mean"] == 4


def test_less_is_better_where_seconds_and_memory_are_counted() -> None:
    memory = Target("memory", "ours", "theirs", "peak_mb", 1 / 3, 1 / 5)
    found = [speed.verdict(memory, value) for value in (0.19, 0.3, 0.4)]
    assert found == ["aim reached", "reached", "missed"]
    assert [speed.verdict(RATE, value) for value in (4, 2, 1.9)] == [
        "aim reached",
        "reached",
        "missed",
    ]
    assert speed.verdict(Target("x", "a", "b", "rate", None, 1), 0.8) == "stated"


def test_what_was_not_measured_says_so_in_the_table() -> None:
    rows = list(speed.table({}))
    wanted = sum(len(one.targets) for one in speed.COMPARISONS)
    assert sum("not measured" in row for row in rows) == wanted
    assert [speed.bound(x) for x in (None, 3.5, 1 / 3, 0.5)] == ["stated", "3.5", "1/3", "0.5"]


def test_processor_time_of_others_is_counted() -> None:
    load = speed.Load()
    for _ in range(200_000):
        pass
    assert 0 <= load.foreign() <= 64
    about = speed.machine(2)
    assert about["threads"] == 2
    assert about["memory_gb"] > 0
    assert about["python"] == ".".join(map(str, sys.version_info[:3]))
