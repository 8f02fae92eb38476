"""Figures of a reward model, worked by hand on a handful of rankings."""

from __future__ import annotations

import pytest

from trainer.data import Ranking
from trainer.reports import annotator_agreement, reward_report
from trainer.scoring import Normalisation


def ranking(
    ranks: tuple[int, ...], prompt: str = "?", annotator: str = "ann", texts: tuple[str, ...] = ()
) -> Ranking:
    return Ranking(
        messages=({"role": "user", "content": prompt},),
        answer_ids=tuple("abcd"[: len(ranks)]),
        texts=texts or ("",) * len(ranks),
        ranks=ranks,
        gaps=(0.0,) * (max(ranks) - 1),
        annotator=annotator,
    )


# Two prompts. First: a before b before c, scores 3 1 2: right, right, wrong.
# Second, by ben: a before b = c, scores 0 0 5: half right (equal), wrong, a tie.
RANKINGS = [
    ranking((1, 2, 3), "one", "ann", ("long answer", "longer answer", "short")),
    ranking((1, 2, 2), "two", "ben", ("aa", "b", "cc")),
]
RAW = [[3.0, 1.0, 2.0], [0.0, 0.0, 5.0]]


def test_pairs_are_counted_by_hand() -> None:
    report = reward_report(RANKINGS, RAW, Normalisation())
    # a>b right, a>c right, b>c wrong; a=b half, a<c wrong: 2.5 of 5
    assert (report["pair_accuracy"], report["pairs"], report["tied_pairs"]) == (0.5, 5, 1)
    assert (report["rankings"], report["prompts"]) == (2, 2)
    by_gap = {gap: (x["pair_accuracy"], x["pairs"]) for gap, x in report["by_gap"].items()}
    assert by_gap == {"1": (pytest.approx(1.5 / 4), 4), "2": (1.0, 1)}
    by_annotator = {name: x["pair_accuracy"] for name, x in report["by_annotator"].items()}
    assert by_annotator == {"ann": pytest.approx(2 / 3), "ben": 0.25}


def test_the_length_baseline_prefers_the_longer_answer() -> None:
    # one: a (11) < b (13) wrong, a > c (5) right, b > c right; two: a (2) > b (1) right, a = c half
    report = reward_report(RANKINGS, RAW, Normalisation())
    assert report["length_baseline"] == pytest.approx(3.5 / 5)


def test_tau_is_the_mean_over_rankings() -> None:
    # one: two of three pairs agree: (2 − 1) / 3. Two: a–b tied in scores, a–c wrong, b–c tied in
    # ranks: −1 / √(2 · 2)
    report = reward_report(RANKINGS, RAW, Normalisation())
    assert report["kendall_tau_b"] == pytest.approx((1 / 3 - 1 / 2) / 2)


def test_scores_are_normalised_but_calibration_is_not() -> None:
    plain = reward_report(RANKINGS, RAW, Normalisation())
    scaled = reward_report(RANKINGS, RAW, Normalisation(mean=1.0, std=2.0))
    assert plain["score_mean"] == pytest.approx(11 / 6)
    assert scaled["score_mean"] == pytest.approx((11 / 6 - 1) / 2)
    assert scaled["score_std"] == pytest.approx(plain["score_std"] / 2)
    assert scaled["ece"] == plain["ece"]


def test_nothing_to_count_is_none_and_not_zero() -> None:
    report = reward_report([ranking((1, 1))], [[0.0, 1.0]], Normalisation())
    assert (report["pair_accuracy"], report["ci95"], report["pairs"]) == (None, None, 0)
    assert (report["kendall_tau_b"], report["ece"], report["length_baseline"]) == (None,) * 3
    assert (report["by_gap"], report["reliability"]) == ({}, [])


def test_without_rankings_there_is_still_a_report() -> None:
    report = reward_report([], [], Normalisation())
    assert (report["pair_accuracy"], report["rankings"]) == (None, 0)


# agreement


def test_annotators_agree_on_the_pairs_that_both_order() -> None:
    """ann a b c, ben a c b: alike but for b–c. cat ties b and c: alike with both on a–b and a–c."""
    together = [
        ranking((1, 2, 3), annotator="ann"),
        ranking((1, 3, 2), annotator="ben"),
        ranking((1, 2, 2), annotator="cat"),
    ]
    found = annotator_agreement(together)
    assert found is not None
    assert (found["agreement"], found["pairs"]) == (pytest.approx(6 / 7), 7)


def test_one_annotator_agrees_with_nobody() -> None:
    twice = [ranking((1, 2)), ranking((2, 1))]
    assert annotator_agreement(twice) is None
    apart = [ranking((1, 2), "one", "ann"), ranking((1, 2), "two", "ben")]
    assert annotator_agreement(apart) is None
