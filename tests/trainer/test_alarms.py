"""When an alarm is raised, and when not."""

from __future__ import annotations

from typing import Any

from trainer.alarms import alarms, over_budget

CALM = {
    "step": 0, "length": 20.0, "entropy": 2.0, "distinct_2": 0.9, "eos_rate": 0.9, "reward": 0.0,
}  # fmt: skip


def codes(*steps: dict[str, Any]) -> list[str]:
    """Of a run whose steps differ from a calm one in these numbers."""
    return [code for code, _ in alarms([CALM | {"step": n} | one for n, one in enumerate(steps)])]


def test_a_calm_run_raises_none() -> None:
    assert codes({}, {}) == []


def test_the_shape_of_the_answers_is_compared_with_the_first_step() -> None:
    now = {"length": 31.0, "entropy": 0.9, "distinct_2": 0.4, "eos_rate": 0.7}
    wanted = ["length_drift", "entropy_collapse", "distinct_collapse", "missing_ends"]
    assert codes({}, now) == wanted
    # exactly at the border nothing is said
    assert codes({}, {"length": 30.0, "entropy": 1.0, "distinct_2": 0.45, "eos_rate": 0.8}) == []
    assert codes({}, {"length": 9.0}) == ["length_drift"]
    # answers that never ended are no news
    assert codes({"eos_rate": 0.1}, {"eos_rate": 0.0}) == []


def test_a_spread_that_doubles() -> None:
    assert codes({"member_spread": 0.2}, {"member_spread": 0.4}) == []
    found = alarms([CALM | {"member_spread": 0.2}, CALM | {"member_spread": 0.5}])
    assert [code for code, _ in found] == ["spread_doubled"]
    assert "2.5 times as much as at first (0.20 to 0.50)" in found[0].message
    # with held-out prompts theirs is looked at, not that of the prompts that are trained on
    held = {"heldout_reward": 0.0, "heldout_min": 0.0, "heldout_min_se": 0.1}
    assert (
        codes(
            held | {"member_spread": 0.2, "heldout_spread": 0.2},
            held | {"member_spread": 0.9, "heldout_spread": 0.3},
        )
        == []
    )


def second(score: float, heldout: float) -> dict[str, Any]:
    return {"second_reward": score, "second_reward_se": 0.03, "heldout_reward": heldout}


def test_proxy_and_second_reward_model_part() -> None:
    """Standard errors of 0.03 each: the difference has √2 · 0.03 = 0.0424, twice that is 0.0849."""
    rise, fallen, less = second(0.4, 0.5), second(0.31, 0.7), second(0.32, 0.7)
    assert codes(second(0.0, 0.0), rise, fallen) == ["second_parts"]
    assert codes(second(0.0, 0.0), rise, less) == []  # within two standard errors
    assert codes(second(0.0, 0.0), rise, second(0.31, 0.4)) == []  # the proxy fell, too
    assert codes(second(0.0, 0.0), rise, fallen, {}) == ["second_parts"]  # a step without a look
    (found,) = alarms([CALM | {"step": 4} | rise, CALM | {"step": 6} | fallen])
    assert found.message == (
        "On held-out prompts the second reward model fell from 0.40 to 0.31 since step 4, while "
        "the score that is trained on rose from 0.50 to 0.70: stop there, or raise config.kl_coef."
    )


def test_proxy_and_lowest_member_part() -> None:
    best = {"member_min": 0.5, "member_min_se": 0.05, "reward": 1.0}
    now = {"member_min": 0.3, "member_min_se": 0.05, "reward": 1.2}
    assert codes(best, now) == ["ensemble_parts"]
    assert codes(best, now | {"member_min_se": 0.1}) == []


def test_the_kl_budget() -> None:
    assert over_budget(12.0, 12.0) == ""
    assert over_budget(99.0, 0.0) == ""
    assert over_budget(12.34, 12.0) == (
        "The KL reached 12.3 nats a reply, over the budget of 12: "
        "training stopped, and the weights of the last step within it are kept."
    )
