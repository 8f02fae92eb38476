"""The figures of the frontier benchmark, on cases that are worked by hand."""

from __future__ import annotations

import math

import pytest

from benchmarks import ppo_frontier


def test_the_favourite_of_some_answers_in_expectation() -> None:
    """Of three answers two are drawn: the best is in 2 of 3 pairs, else the middle one wins."""
    ordered = [(0.0, 5.0), (1.0, 2.0), (2.0, -1.0)]
    assert ppo_frontier.favourite(ordered, 2) == pytest.approx((5 / 3, 0.0))
    assert ppo_frontier.favourite(ordered, 1) == pytest.approx((1.0, 2.0))
    assert ppo_frontier.favourite(ordered, 3) == (2.0, -1.0)


def test_best_of_n_reads_the_untrained_model_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ppo_frontier, "FRONTIER", 2)
    lines = [
        {"model": "policy", "prompt_id": "a", "text": "terrible", "score": 99.0},
        {"model": "reference", "prompt_id": "a", "text": "one two three", "score": 0.0},
        {"model": "reference", "prompt_id": "a", "text": "one", "score": 1.0},
    ]
    monkeypatch.setattr(ppo_frontier, "favourite", lambda some, n: some[min(n, 2) - 1])
    found = ppo_frontier.best_of(lines, "brevity")
    assert found["1"] == {"kl": 0.0, "score": 0.0, "hidden": 0.0}
    assert found["2"]["kl"] == pytest.approx(math.log(2) - 0.5)
    assert found["2"]["score"] == 1.0
    assert found["2"]["hidden"] == pytest.approx(0.2)  # one word instead of three, in tens


def test_the_gain_at_a_kl_lies_between_a_methods_points() -> None:
    points = [{"kl": 4.0, "hidden": 0.6}, {"kl": 1.0, "hidden": 0.4}]
    assert ppo_frontier.at_kl(points, 0.25, "hidden") == pytest.approx(0.2)  # √.25 = half of √1
    assert ppo_frontier.at_kl(points, 2.25, "hidden") == pytest.approx(0.5)
    assert ppo_frontier.at_kl(points, 4.0, "hidden") == pytest.approx(0.6)
    assert ppo_frontier.at_kl(points, 4.1, "hidden") is None


def test_a_mean_over_seeds_has_its_interval() -> None:
    """1, 2, 3: standard deviation 1, t of two degrees of freedom 4.303, over √3: 2.48."""
    assert ppo_frontier.mean_of([1.0, 2.0, 3.0]) == "2.00 ± 2.48"
    assert ppo_frontier.mean_of([0.5]) == "0.50 (one seed)"
