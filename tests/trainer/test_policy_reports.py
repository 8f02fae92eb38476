"""The report of a policy, with figures worked by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from trainer.policy_reports import (
    Side,
    figures,
    frontier,
    kl_curves,
    policy_report,
    steps_to,
    win_rate,
)
from trainer.types import Sampled


def sampled(prompt: int, n: int, ids: list[int], logprobs: list[float], ended: bool) -> Sampled:
    return Sampled(prompt, n, seed=0, ids=ids, logprobs=logprobs, finished=ended)


def two_prompts(scores: list[list[float]], second: list[list[float]] | None = None) -> Side:
    """Two prompts with as many answers as there are scores, of 1, 2, 3 … tokens."""
    many = len(scores[0])
    written = [
        sampled(p, n, list(range(n + 1)), [-0.5] * (n + 1), n == 0)
        for p in range(2)
        for n in range(many)
    ]
    return Side(written, np.array(scores), None if second is None else np.array(second))


# winning


def test_each_answer_meets_each_of_the_others() -> None:
    """First prompt: 2 > 1, 2 > 0, 1 = 1, 1 > 0: 3½ of 4. Second: 0 against 1, 1, twice: 0 of 4."""
    found = win_rate(np.array([[2.0, 1.0], [0.0, 0.0]]), np.array([[1.0, 0.0], [1.0, 1.0]]))
    assert found["win_rate"] == pytest.approx(3.5 / 8)
    assert (found["wins"], found["ties"], found["losses"]) == (3, 1, 4)
    low, high = found["win_rate_ci95"]
    assert low < 0.1  # two prompts that say opposite things tell next to nothing
    assert high > 0.9


def test_a_policy_against_itself_wins_half() -> None:
    scores = np.array([[0.3, 0.9], [0.1, -0.4], [2.0, 0.0]])
    assert win_rate(scores, scores)["win_rate"] == pytest.approx(0.5)
    assert win_rate(scores, scores)["ties"] == 6


def test_winning_everywhere_is_not_certain() -> None:
    found = win_rate(np.ones((20, 1)), np.zeros((20, 1)))
    assert found["win_rate"] == 1.0
    assert 0.75 < found["win_rate_ci95"][0] < 0.9


# what the answers are like


def test_the_figures_of_one_side_by_hand() -> None:
    """Lengths 1, 2, 1, 2; half of the answers end; every token has −log p = ½."""
    found = figures(two_prompts([[1.0, 3.0], [2.0, 4.0]]))
    assert found["score"] == 2.5
    assert found["length"] == 1.5
    assert found["length_deciles"][0] == 1.0
    assert found["length_deciles"][10] == 2.0
    assert found["length_deciles"][5] == 1.5
    assert found["eos_rate"] == 0.5
    assert found["entropy"] == pytest.approx(0.5)
    assert found["entropy_ci95"] == pytest.approx([0.5, 0.5])
    assert found["distinct_1"] == pytest.approx(2 / 6)  # 0, 0 1, 0, 0 1
    assert found["distinct_2"] == pytest.approx(1 / 2)
    assert found["distinct_3"] is None


def test_the_comparison_takes_the_first_answers_and_the_frontier_all() -> None:
    policy = two_prompts([[5.0], [7.0]])
    reference = two_prompts([[1.0, 9.0], [3.0, 5.0]])
    report = policy_report(policy, reference, np.array([[2.0], [4.0]]))
    assert (report["score_before"], report["score_after"], report["gain"]) == (2.0, 6.0, 4.0)
    assert report["kl"] == 3.0
    assert report["reference"]["length"] == 1.0  # of the first answers alone
    assert report["frontier"]["answers"] == 2
    assert report["frontier"]["points"][1]["score"] == 7.0  # (9 + 5) / 2
    assert "second" not in report


def test_a_second_reward_model_is_asked_and_chooses_nothing() -> None:
    """The best of two by the first are 9 and 5; the second gives those −1 and 0."""
    policy = two_prompts([[5.0], [7.0]], [[1.0], [0.0]])
    reference = two_prompts([[1.0, 9.0], [3.0, 5.0]], [[2.0, -1.0], [1.0, 0.0]])
    report = policy_report(policy, reference, np.array([[2.0], [4.0]]))
    assert report["second"]["gain"] == pytest.approx(0.5 - 1.5)
    first, last = report["frontier"]["points"]
    assert (first["second"], last["second"]) == (0.5, -0.5)
    assert (first["kl"], last["kl"]) == pytest.approx((0.0, math.log(2) - 0.5))


# curves


@pytest.mark.parametrize(
    ("most", "steps"), [(1, [1]), (2, [1, 2]), (6, [1, 2, 4, 6]), (8, [1, 2, 4, 8])]
)
def test_the_frontier_doubles_its_steps(most: int, steps: list[int]) -> None:
    assert steps_to(most) == steps


def test_one_answer_has_a_frontier_of_one_point() -> None:
    found = frontier(np.array([[1.0], [3.0]]))
    assert [point["score"] for point in found["points"]] == [2.0]
    assert found["score_fit"] is None


def test_the_curve_of_a_training_finds_where_it_turned() -> None:
    """1 + d(2 − log d) is highest at KL e² = 7.39, which lies among these steps."""
    history: list[dict[str, Any]] = [
        {"step": step, "kl": d * d, "reward": 1 + d * (2 - math.log(d))}
        for step, d in enumerate((0.5, 1.0, 2.0, 3.0, 4.0), start=1)
    ]
    history.append({"step": 6, "kl": 20.0, "reward": None})
    found = kl_curves(history)
    assert list(found) == ["reward"]
    assert len(found["reward"]["points"]) == 5
    fit = found["reward"]["fit"]
    assert fit["best_kl"] == pytest.approx(math.e**2)
    assert fit["best_score"] == pytest.approx(1 + math.e)
    assert fit["beyond_data"] is False


def test_a_peak_that_no_step_reached_is_called_so() -> None:
    history = [
        {"step": step, "kl": d * d, "heldout_reward": d * (3 - math.log(d))}
        for step, d in enumerate((0.5, 1.0, 2.0, 3.0), start=1)
    ]
    fit = kl_curves(history)["heldout_reward"]["fit"]
    assert fit["best_kl"] == pytest.approx(math.exp(4))
    assert fit["beyond_data"] is True


def test_held_out_scores_stand_at_their_own_kl() -> None:
    history = [
        {"step": 1, "kl": 1.0, "reward": 0.5},
        {"step": 2, "kl": 2.0, "reward": 0.6, "heldout_kl": 3.0, "heldout_reward": 0.4},
    ]
    found = kl_curves(history)
    assert [point["kl"] for point in found["reward"]["points"]] == [1.0, 2.0]
    assert [point["kl"] for point in found["heldout_reward"]["points"]] == [3.0]
    assert found["heldout_reward"]["fit"] is None
