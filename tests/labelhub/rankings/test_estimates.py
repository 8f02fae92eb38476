"""Intervals: as wide as they should be, the same every time, and honest about nothing at all."""

from __future__ import annotations

import json

import numpy as np
import pytest

from labelhub.rankings import estimates
from labelhub.rankings.estimates import Figure, groups_of, median, ratio, share


def test_a_ratio_is_the_sum_of_the_first_over_the_sum_of_the_second() -> None:
    figure = ratio([(1, 2), (3, 3), (0, 0)], needed=2)
    assert figure.value == pytest.approx(4 / 5)
    assert (figure.n, figure.enough) == (2, True)  # what has no pairs does not count


def test_the_interval_of_a_mean_is_two_standard_errors_wide_each_way() -> None:
    # Half of 400 units are 1: the standard error is ½ / √400 = 0.025.
    figure = ratio([(n % 2, 1) for n in range(400)], needed=1)
    assert figure.low == pytest.approx(0.5 - 1.96 * 0.025, abs=0.005)
    assert figure.high == pytest.approx(0.5 + 1.96 * 0.025, abs=0.005)


def test_pairs_that_hang_together_make_the_interval_wider() -> None:
    apart = ratio([(n % 2, 1) for n in range(600)], needed=1)
    together = ratio([(6 * (n % 2), 6) for n in range(100)], needed=1)
    assert apart.value == together.value
    assert _width(together) > 2 * _width(apart)  # √6 = 2.4 times


def test_many_units_in_groups_give_the_interval_that_they_give_alone() -> None:
    units = [(float(value), 1.0) for value in np.random.default_rng(3).random(20_000)]
    grouped = ratio(units, needed=1)
    # The standard deviation of a uniform number is √(1/12); 20,000 of them: 0.00204.
    assert len(set(groups_of(len(units)))) == estimates.GROUPS
    assert _width(grouped) == pytest.approx(2 * 1.96 * 0.00204, rel=0.15)


def test_groups_differ_in_size_by_one_at_most() -> None:
    sizes = np.bincount(groups_of(1234))
    assert (sizes.min(), sizes.max(), sizes.sum()) == (2, 3, 1234)


def test_where_all_are_alike_three_in_n_may_still_differ() -> None:
    figure = ratio([(1, 1)] * 30, needed=20)
    assert (figure.value, figure.high) == (1, 1)
    assert figure.low == pytest.approx(1 - 3 / 30)


def test_a_single_unit_says_nothing_about_others() -> None:
    figure = ratio([(1, 1)], needed=20, span=(-1, 1))
    assert (figure.low, figure.high) == (-1, 1)
    assert (figure.enough, figure.missing) == (False, 19)


def test_the_same_units_give_the_same_interval() -> None:
    units = [(n % 3, 2) for n in range(50)]
    assert ratio(units, needed=1) == ratio(units, needed=1)


def test_nothing_gives_no_figure() -> None:
    for figure in (ratio([], needed=20), share(0, 0, needed=20), median([], needed=20)):
        assert figure == Figure(None, None, None, 0, False, 20)


def test_a_share_has_wilsons_interval() -> None:
    # Published example: 81 of 263 is 0.308 with (0.2553, 0.3662) (Newcombe 1998, table I).
    figure = share(81, 263, needed=20)
    assert (figure.low, figure.high) == (
        pytest.approx(0.2553, abs=5e-5),
        pytest.approx(0.3662, abs=5e-5),
    )
    assert share(0, 20, needed=20).low == 0


def test_a_median_has_the_interval_of_its_neighbours_in_order() -> None:
    # n = 100: 50 ± 9.8, so the 41st and the 60th of 1 … 100.
    figure = median(range(1, 101), needed=20)
    assert (figure.value, figure.low, figure.high) == (50.5, 41, 60)


def test_a_figure_survives_its_storage() -> None:
    figure = ratio([(1, 2), (1, 3)], needed=20)
    assert Figure.from_json(json.loads(json.dumps(figure.to_json()))) == figure
    assert Figure.from_json(None).value is None


def _width(figure: Figure) -> float:
    assert figure.bounds is not None
    return figure.bounds[1] - figure.bounds[0]
