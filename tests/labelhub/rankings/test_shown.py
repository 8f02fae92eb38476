"""Figures in words, charts against their lines, and advice that only says what is sure."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest

from labelhub.rankings.estimates import Figure
from labelhub.rankings.quality import Figures, Person, Week
from labelhub.rankings.shown import (
    MEASURES,
    advice,
    agreement_picture,
    correlation_picture,
    people_picture,
    positions_picture,
    tile,
)

NOTHING = Figure(None, None, None, 0, False, 20)


def figure(value: float, low: float, high: float, n: int = 60) -> Figure:
    """A figure of enough units."""
    return Figure(value, low, high, n, True)


def person(
    *, positions: list[Figure] | None = None, checks: Figures | None = None, **figures: Figure
) -> Person:
    """Somebody with these figures, and nothing known of the rest."""
    return Person(
        rankings=60,
        figures={name: figures.get(name, NOTHING) for name in MEASURES},
        positions=positions or [],
        weeks=[],
        user_id=1,
        reliability=0.9,
        weight=1.0,
        own_checks={"gold_tau": NOTHING, "repeat_pairs": NOTHING, **(checks or {})},
        made=datetime(2026, 11, 22, tzinfo=UTC),
    )


# --- tiles


def test_a_figure_comes_with_its_interval_and_its_number_of_sets() -> None:
    shown = tile("agreement", figure(0.72, 0.69, 0.75, n=120))
    assert (shown.value, shown.made_from) == ("72\u202f% ±\u00a03", "n = 120 shared sets")


def test_too_few_says_how_many_are_missing() -> None:
    shown = tile("agreement", Figure(0.9, 0.5, 1.0, 4, False, 16))
    assert (shown.value, shown.made_from) == ("too few", "needs 16 more shared sets")
    assert "90" not in shown.value
    assert tile("seconds", NOTHING).made_from == "needs 20 more rankings"
    assert tile("gold_tau", Figure(None, None, None, 9, False, 1)).made_from == (
        "needs 1 more known ranking"
    )


def test_sets_in_which_all_is_tied_are_no_lack_of_sets() -> None:
    shown = tile("tau_b", Figure(None, None, None, 30, False))
    assert (shown.value, shown.made_from) == ("too few", "no pair that both tell apart")


def test_a_time_is_in_seconds() -> None:
    assert tile("seconds", figure(31.5, 28.5, 34.5)).value == "32 ±\u00a03 s"


# --- charts


def weeks(*values: float | None) -> list[Week]:
    """A week for each agreement; None stands for one with too few sets."""
    return [
        Week(
            date(2026, 11, 2) + timedelta(weeks=n),
            30,
            {
                "agreement": NOTHING if value is None else figure(value, value - 0.1, value + 0.1),
                "tau_b": figure(0.3, 0.2, 0.4),
                "kendall_w": figure(0.6, 0.5, 0.7),
                "alpha": figure(0.4, 0.3, 0.5),
            },
        )
        for n, value in enumerate(values)
    ]


def test_agreement_is_drawn_beside_the_published_figure() -> None:
    chart = agreement_picture("key", weeks(0.6, 0.7))
    assert chart is not None
    assert [mark.name for mark in chart.marks] == ["published 72.6 %", "chance"]
    assert chart.rows == [["11-02", "60", "50 to 70"], ["11-09", "70", "60 to 80"]]
    assert chart.series[0].band


def test_a_week_with_too_few_sets_is_left_out_and_not_drawn_as_nothing() -> None:
    chart = agreement_picture("key", weeks(0.6, None, 0.7))
    assert chart is not None
    assert [row[0] for row in chart.rows] == ["11-02", "11-16"]


def test_without_a_week_there_is_no_chart() -> None:
    assert agreement_picture("key", []) is None
    assert agreement_picture("key", weeks(None, None)) is None


def test_the_three_coefficients_share_a_chart() -> None:
    chart = correlation_picture("key", weeks(0.6, 0.7))
    assert chart is not None
    assert [line.name for line in chart.series] == ["τ-b", "W", "α"]


def test_positions_stand_beside_chance_and_those_off_it_are_marked() -> None:
    plot = positions_picture("key", [figure(0.4, 0.3, 0.5)] + [figure(0.2, 0.1, 0.3)] * 3)
    assert plot is not None
    assert plot.marks[0].name == "expected 25 %"
    assert [dot.tone for dot in plot.dots] == ["b", "a", "a", "a"]


def test_positions_of_too_few_rankings_are_not_drawn() -> None:
    assert positions_picture("key", []) is None
    assert positions_picture("key", [Figure(1.0, 0.1, 1.0, 2, False, 18)] * 2) is None


def test_people_with_too_few_sets_are_not_drawn_beside_the_others() -> None:
    plot = people_picture(
        "key", [("ann", figure(0.7, 0.6, 0.8)), ("ben", NOTHING), ("cleo", figure(0.5, 0.4, 0.6))]
    )
    assert plot is not None
    assert [dot.name for dot in plot.dots] == ["cleo", "ann"]


# --- advice


def test_who_does_well_is_told_nothing() -> None:
    own = person(
        positions=[figure(0.25, 0.2, 0.3)] * 4,
        agreement=figure(0.75, 0.7, 0.8),
        hasty=figure(0.02, 0, 0.05),
        ties=figure(0.1, 0.05, 0.15),
        checks={"gold_tau": figure(0.8, 0.7, 0.9), "repeat_pairs": figure(0.9, 0.8, 1.0)},
    )
    assert advice(own) == []


def test_who_has_too_few_rankings_is_told_nothing() -> None:
    assert advice(person()) == []


def test_what_chance_could_do_is_not_held_against_anybody() -> None:
    own = person(
        positions=[figure(0.4, 0.24, 0.5)] + [figure(0.2, 0.1, 0.3)] * 3,
        agreement=figure(0.55, 0.4, 0.7),
        hasty=figure(0.2, 0.05, 0.4),
        ties=figure(0.6, 0.4, 0.7),
        checks={"gold_tau": figure(0.4, 0.1, 0.7), "repeat_pairs": figure(0.7, 0.5, 0.9)},
    )
    assert advice(own) == []


@pytest.mark.parametrize(
    ("own", "words"),
    [
        (
            person(positions=[figure(0.41, 0.36, 0.46)] + [figure(0.2, 0.15, 0.25)] * 3),
            "The first card on the page is your best one in 41\u202f% ±\u00a05",
        ),
        (
            person(positions=[figure(0.2, 0.15, 0.25)] * 3 + [figure(0.41, 0.36, 0.46)]),
            "The card in place 4 of the page is your best one in 41\u202f% ±\u00a05",
        ),
        (person(hasty=figure(0.3, 0.25, 0.35)), "30\u202f% ±\u00a05 of your rankings took less"),
        (person(ties=figure(0.7, 0.65, 0.75)), "You tie 70\u202f% ±\u00a05 of all pairs."),
        (person(ties=figure(0, 0, 0.03)), "You have never tied two answers."),
        (
            person(checks={"gold_tau": figure(0.3, 0.1, 0.5)}),
            "On sets whose order is known, yours often differs.",
        ),
        (
            person(checks={"repeat_pairs": figure(0.6, 0.5, 0.7)}),
            "When a set came back to you, your order was often another one.",
        ),
        (person(agreement=figure(0.5, 0.45, 0.55)), "That does not make you wrong"),
    ],
)
def test_what_is_sure_is_said_with_what_to_do(own: Person, words: str) -> None:
    said = advice(own)
    assert len(said) == 1
    assert words in said[0]
