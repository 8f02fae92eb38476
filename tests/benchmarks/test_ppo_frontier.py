"""The figures of the frontier benchmark, on cases that are worked by hand."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from benchmarks import ppo_frontier
from benchmarks._figures import stored


def test_best_of_n_reads_the_untrained_model_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of three answers two are drawn: the best is in 2 of 3 pairs, else the middle one wins."""
    texts = {"five words are too many": 0.0, "one two three": 1.0, "one": 2.0}
    lines = [
        {"model": "reference", "prompt_id": "a", "text": text, "score": score}
        for text, score in texts.items()
    ]
    lines.append({"model": "policy", "prompt_id": "a", "text": "terrible", "score": 99.0})
    monkeypatch.setattr(ppo_frontier, "BEST_OF", (2,))
    found = ppo_frontier.frontier(ppo_frontier.own_answers(lines, "brevity"))["2"]
    assert found["kl"] == pytest.approx(math.log(2) - 0.5)
    assert found["score"] == pytest.approx(5 / 3 - 1)
    assert found["hidden"] == pytest.approx(0.4 / 3)  # 5/3 words instead of 3, in tens


def test_the_optimum_is_the_reference_weighted_with_its_scores() -> None:
    """Scores 0 and log 3 at β = 1: shares ¼ and ¾, KL ¼ log ½ + ¾ log 3/2."""
    sets = [[(0.0, 2.0), (math.log(3), 6.0)]]
    kl = math.log(0.5) / 4 + 3 * math.log(1.5) / 4
    assert ppo_frontier.tilted(sets, 1.0) == pytest.approx((kl, 0.75 * math.log(3), 5.0))
    found = ppo_frontier.optimum(sets, kl)
    assert found == pytest.approx({"kl": kl, "beta": 1.0, "score": math.log(3) / 4, "hidden": 1.0})


def test_the_optimum_has_one_beta_for_all_prompts() -> None:
    """A prompt whose answers score alike costs nothing, so the other may cost twice as much."""
    sets = [[(0.0, 2.0), (math.log(3), 6.0)], [(1.0, 0.0), (1.0, 0.0)]]
    kl = math.log(0.5) / 4 + 3 * math.log(1.5) / 4
    found = ppo_frontier.optimum(sets, kl / 2)
    assert found["beta"] == pytest.approx(1.0)
    assert found["hidden"] == pytest.approx(0.5)


def test_a_methods_gain_is_set_beside_that_of_best_of_n() -> None:
    seed = {
        "best_of": {"2": {"kl": 0.25, "hidden": 0.3}},
        "optimum": {"2": {"kl": 0.25, "hidden": 0.35}},
        "points": {"one": {"method": "ppo", "kl": 1.0, "hidden": 0.4}},
    }
    assert ppo_frontier.beside(seed, "ppo", "2", "hidden") == pytest.approx(-0.1)
    assert ppo_frontier.beside(seed, "optimum", "2", "hidden") == pytest.approx(0.05)
    assert ppo_frontier.beside(seed, "dpo", "2", "hidden") is None


def test_figures_of_other_policies_and_other_reward_models_go(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def found(accuracy: float, **kl: float) -> dict[str, object]:
        return {"pair_accuracy": accuracy, "points": {name: {"kl": kl[name]} for name in kl}}

    monkeypatch.setattr(ppo_frontier, "FIGURES", tmp_path / "figures.json")
    monkeypatch.setattr(ppo_frontier, "POLICIES", {"old": ("ppo", "ppo", {}), "kept": ("", "", {})})
    ppo_frontier.keep("tiny", 0, found(0.8, old=1.0, kept=2.0))
    monkeypatch.setattr(ppo_frontier, "POLICIES", {"new": ("ppo", "ppo", {}), "kept": ("", "", {})})
    ppo_frontier.keep("tiny", 0, found(0.8, new=3.0))
    points = {"kept": {"kl": 2.0}, "new": {"kl": 3.0}}
    assert stored(ppo_frontier.FIGURES)["tiny"]["0"]["points"] == points
    ppo_frontier.keep("tiny", 0, found(0.7, new=4.0))
    assert stored(ppo_frontier.FIGURES)["tiny"]["0"]["points"] == {"new": {"kl": 4.0}}


def test_a_gain_is_told_as_a_share_of_the_optimums_at_its_kl() -> None:
    """One seed: .3 of .4 and .2 of .4."""
    point = {"score": 0.3, "hidden": 0.2, "optimum": {"score": 0.4, "hidden": 0.4}}
    cells = ppo_frontier._cells([point])
    assert [cell.split()[0] for cell in cells.split(" | ")] == ["0.30", "0.20", "0.75", "0.50"]


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
