"""From a report to its pictures: what is drawn where, worked by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest

from labelhub.dashboard import report_pictures
from labelhub.dashboard.pictures import REPORTS, pictures_of
from labelhub.lib.charts import Chart, DotPlot
from trainer.config import CONFIGS

SIDE: dict[str, Any] = {
    "score": 0.4,
    "score_ci95": [0.3, 0.5],
    "length_deciles": [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 20],
    "eos_rate": 0.9,
    "eos_rate_ci95": [0.8, 0.95],
    "entropy": 1.5,
    "entropy_ci95": [1.4, 1.6],
    "distinct_1": 0.3,
    "distinct_2": 0.6,
    "distinct_3": 0.8,
}
POLICY: dict[str, Any] = {
    "score_before": 0.1,
    "score_after": 0.4,
    "gain": 0.3,
    "ci95_of_gain": [0.1, 0.5],
    "prompts": 40,
    "kl": 4.0,
    "win_rate": 0.6,
    "win_rate_ci95": [0.45, 0.73],
    "wins": 22,
    "ties": 4,
    "losses": 14,
    "policy": SIDE,
    "reference": SIDE | {"entropy": 2.5},
    "frontier": {
        "answers": 2,
        "points": [
            {"n": 1, "kl": 0.0, "score": 0.1, "ci95": [0.0, 0.2]},
            {"n": 2, "kl": 0.1931, "score": 0.3, "ci95": [0.2, 0.4]},
        ],
        "score_fit": None,
    },
}
REWARD: dict[str, Any] = {
    "pair_accuracy": 0.66,
    "ci95": [0.6, 0.72],
    "pairs": 240,
    "length_baseline": 0.55,
    "ece": 0.04,
    "reliability": [
        {"confidence": 0.55, "accuracy": 0.5, "pairs": 90, "ci95": [0.4, 0.6]},
        {"confidence": 0.85, "accuracy": 0.9, "pairs": 150, "ci95": [0.8, 0.95]},
    ],
    "by_gap": {
        "10": {"pair_accuracy": 0.8, "ci95": [0.7, 0.9], "pairs": 20},
        "1": {"pair_accuracy": 0.6, "ci95": [0.5, 0.7], "pairs": 200},
        "2": {"pair_accuracy": None, "ci95": None, "pairs": 0},
    },
    "by_annotator": {
        "ann": {"pair_accuracy": 0.7, "ci95": [0.6, 0.8], "pairs": 120},
        "ben": {"pair_accuracy": 0.6, "ci95": [0.5, 0.7], "pairs": 120},
    },
}


def keys_of(pictures: list[Chart | DotPlot]) -> list[str]:
    return [picture.key for picture in pictures]


def test_every_stage_that_reports_figures_has_its_pictures() -> None:
    assert set(REPORTS) == set(CONFIGS) - {"generate", "score"}


@pytest.mark.parametrize("stage", sorted(CONFIGS))
def test_a_report_that_tells_nothing_gives_no_picture(stage: str) -> None:
    assert pictures_of({}, stage) == []
    odd = dict.fromkeys((*POLICY, *REWARD, "curve", "history", "perplexity"), "?")
    assert pictures_of(odd, stage) == []


def test_an_evaluation_of_a_policy_is_drawn_whole() -> None:
    keys = keys_of(pictures_of(POLICY, "evaluate"))
    assert keys == ["gain", "wins", "frontier", "lengths", "variety", "ending", "entropy"]


def test_an_evaluation_of_a_reward_model_is_drawn_whole() -> None:
    keys = keys_of(pictures_of(REWARD, "evaluate"))
    assert keys == ["accuracy", "by-gap", "reliability", "by-annotator"]
    assert keys == keys_of(pictures_of(REWARD, "reward"))


def test_a_policy_that_learned_from_rankings_is_called_a_policy() -> None:
    """DPO's accuracy is that of its likelihoods: no reward model is there."""
    (picture, *_) = pictures_of(REWARD, "prefer")
    assert isinstance(picture, DotPlot)
    assert picture.title == "Does the policy know what people prefer?"
    assert [row[0] for row in picture.rows][:2] == ["Policy (implicit reward)", "Length alone"]


def test_gaps_stand_in_the_order_of_numbers_and_tell_how_many_pairs() -> None:
    chart = report_pictures.gap_picture(REWARD)
    assert chart is not None
    assert [dot.name for dot in chart.dots] == ["1 rank apart", "10 ranks apart"]
    assert "n = 200" in chart.dots[0].words


def test_one_annotator_alone_needs_no_picture() -> None:
    alone = {"by_annotator": {"ann": REWARD["by_annotator"]["ann"]}}
    assert report_pictures.annotator_picture(alone) is None


def test_the_calibration_stands_between_half_and_whole() -> None:
    chart = report_pictures.reliability_picture(REWARD)
    assert chart is not None
    model, ideal = chart.series
    assert model.band
    assert ideal.dashed
    assert [tick.label for tick in chart.x_ticks] == ["0.5", "0.6", "0.7", "0.8", "0.9", "1.0"]
    assert len(chart.rows) == 2  # the ideal line is no figure
    assert "0.04" in chart.note
    mended = report_pictures.reliability_picture(REWARD | {"ece_calibrated": 0.021})
    assert mended is not None
    assert mended.note.endswith("With its temperature: 0.021.")


def test_a_win_rate_stands_against_one_half() -> None:
    chart = report_pictures.win_picture(POLICY)
    assert chart is not None
    assert [mark.name for mark in chart.marks] == ["as often as not"]
    assert "22 pairs won, 4 tied, 14 lost" in chart.note
    both = report_pictures.win_picture(
        POLICY | {"second": {"win_rate": 0.4, "win_rate_ci95": [0.3, 0.5]}}
    )
    assert both is not None
    assert [dot.name for dot in both.dots] == ["Reward model", "Second reward model"]


def test_the_policy_stands_at_the_root_of_its_kl() -> None:
    """The frontier ends at √.1931 = .4394, the policy stands at √4 = 2."""
    chart = report_pictures.frontier_picture(POLICY)
    assert chart is not None
    frontier, own = chart.series
    assert own.end[0] == chart.plate.x1
    span = chart.plate.x1 - chart.plate.x0
    assert frontier.end[0] == pytest.approx(chart.plate.x0 + span * 0.4394 / 2, abs=0.1)


def test_steps_are_points_and_gaos_curve_a_dashed_line() -> None:
    """The curve 0 + d(2 − log d) is 2 at d = 1, where the last point stands."""
    curve = {
        "points": [
            {"step": 1, "kl": 1.0, "score": 1.9},
            {"step": 2, "kl": 0.25, "score": 1.4},
        ],
        "fit": {"kind": "rl", "start": 0.0, "alpha": 2.0, "beta": 1.0, "best_kl": math.e**2,
                "beyond_data": True},
    }  # fmt: skip
    chart = report_pictures.curve_picture({"curve": {"reward": curve}})
    assert chart is not None
    steps, fitted = chart.series
    assert steps.path == ""
    assert len(steps.dots) == 2
    assert fitted.dashed
    assert fitted.last == "2"
    assert "KL 7.4, further than anything measured" in chart.note
    assert [row[0] for row in chart.rows] == ["0.5", "1"]


def test_the_curve_of_the_best_of_n_bends_with_the_distance() -> None:
    bent = report_pictures.gao({"kind": "bon", "start": 1.0, "alpha": 2.0, "beta": 0.5})
    assert bent is not None
    assert bent(2.0) == 1 + 2 * (2 - 0.5 * 2)
    assert report_pictures.gao({"start": 1.0}) is None


def test_perplexity_before_and_after() -> None:
    chart = report_pictures.perplexity_picture({"perplexity_before": 30.0, "perplexity": 12.0})
    assert chart is not None
    assert [dot.name for dot in chart.dots] == ["Before", "After training"]
