"""Numbers carry the digits that they deserve."""

from __future__ import annotations

import math

import pytest

from labelhub.lib import figures

NBSP, THIN = "\u00a0", "\u202f"


@pytest.mark.parametrize(
    ("half", "places"),
    # 0.04 → 2 places; 0.012 begins with 1, so two digits: 3 places; 0.0996 is printed as 0.10:
    # 2 places; 3 → none; 14 → none; 1.4 → one
    [(0.04, 2), (0.012, 3), (0.0996, 2), (3.0, 0), (14.0, 0), (1.4, 1), (0.0, 2), (math.nan, 2)],
)
def test_the_error_decides_the_decimals(half: float, places: int) -> None:
    assert figures.decimals_for(half) == places


def test_a_figure_is_rounded_to_its_error() -> None:
    assert figures.with_error(0.6321, (0.59, 0.67)) == f"0.63 ±{NBSP}0.04"
    assert figures.with_error(5.93, (5.03, 6.83)) == f"5.9 ±{NBSP}0.9"


def test_per_cents_and_signs() -> None:
    assert figures.with_error(0.684, (0.658, 0.71), percent=True) == f"68{THIN}% ±{NBSP}3"
    assert figures.with_error(0.2, (0.118, 0.289), sign=True) == f"+0.20 ±{NBSP}0.09"
    assert figures.with_error(-0.2, (-0.289, -0.118), sign=True) == f"−0.20 ±{NBSP}0.09"


def test_a_skewed_interval_is_written_out() -> None:
    assert figures.with_error(0.95, (0.84, 0.98)) == "0.95 (0.84 to 0.98)"


def test_what_is_missing_is_too_few_and_never_nan() -> None:
    assert figures.with_error(None, None) == "too few"
    assert figures.with_error(math.nan, (0, 1)) == "too few"
    assert figures.plain(math.inf) == "–"
    assert figures.plain(None) == "–"


def test_plain_numbers() -> None:
    written = [figures.plain(value) for value in (0, 0.01234, 1.5, 480, 12_400, -0.5, 0.99999)]
    assert written == ["0", "0.0123", "1.5", "480", f"12{THIN}400", "−0.5", "1"]
    assert figures.plain(0.0000556) == f"5.56{THIN}×{THIN}10⁻⁵"
    assert figures.plain(1e30) == f"1{THIN}×{THIN}10³⁰"
    assert figures.plain(-0.00002) == f"−2{THIN}×{THIN}10⁻⁵"
    assert figures.count(134_515_008) == f"134{THIN}515{THIN}008"


def test_a_rounded_zero_has_no_sign() -> None:
    assert figures.fixed(-0.001, 2) == "0.00"
    assert figures.fixed(-0.001, 2, sign=True) == "0.00"
    assert figures.fixed(0.5, 2, sign=True) == "+0.50"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (2, "about 5 s left"),
        (42, "about 40 s left"),
        (372, "about 6 min left"),
        (9_000, "about 2 h 30 min left"),
        (None, ""),
        (math.inf, ""),
    ],
)
def test_time_left_is_as_coarse_as_it_is_long(seconds: float | None, words: str) -> None:
    assert figures.time_left(seconds) == words


def test_durations() -> None:
    assert figures.duration(89) == "89 s"
    assert figures.duration(600) == "10 min"
    assert figures.duration(7_800) == "2 h 10 min"
    assert figures.duration(4 * 86_400) == "4 days"
