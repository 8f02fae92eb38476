"""Chart geometry; expected numbers are worked by hand on the plate: 420 wide, y0 188, y1 16."""

from __future__ import annotations

import pytest

from labelhub.lib.charts import (
    Estimate,
    Kin,
    Mark,
    Plate,
    Point,
    Series,
    dot_plot,
    line_chart,
    lineage,
    nice_step,
    spread_labels,
    thin,
    tick_labels,
    ticks,
    whole_ticks,
)


@pytest.mark.parametrize(
    ("span", "most", "step"),
    # 1/4 = 0.25 → 0.5; 12/4 = 3 → 5; 0.7/4 = 0.175 → 0.2; 400/4 = 100 → 100; nothing → 1
    [(1, 4, 0.5), (12, 4, 5), (0.7, 4, 0.2), (400, 4, 100), (0, 4, 1)],
)
def test_a_step_is_one_two_or_five_times_a_power_of_ten(
    span: float, most: int, step: float
) -> None:
    assert nice_step(span, most) == pytest.approx(step)


def test_ticks_cover_the_values() -> None:
    assert ticks(0, 12) == [0, 5, 10, 15]
    assert ticks(-0.2, 0.3) == [-0.2, 0, 0.2, 0.4]
    assert ticks(3, 3) == [3, 4]


def test_steps_are_counted_in_whole_numbers() -> None:
    assert whole_ticks(1, 14) == [5, 10]
    assert whole_ticks(0, 3) == [0, 1, 2, 3]


def test_tick_labels_have_the_decimals_of_their_distance() -> None:
    assert tick_labels([0, 0.5, 1]) == ["0", "0.5", "1.0"]
    assert tick_labels([-10, 0, 10]) == ["−10", "0", "10"]
    assert tick_labels([0.5, 0.75], percent=True) == ["50\u202f%", "75\u202f%"]


def test_a_line_runs_from_corner_to_corner() -> None:
    # The label “4” needs 22 + 7 units, so the plot ends at 420 - 29 = 391; it begins at 46.
    # Values 0 to 4 take the ticks 0, 1, 2, 3, 4; a unit is (188 - 16) / 4 = 43 high.
    # The point (2, 1) lies in the middle, (46 + 391) / 2 = 218.5, one unit up: 188 - 43 = 145.
    chart = line_chart("k", [Series("a", [Point(1, 0), Point(2, 1), Point(3, 4)])], title="t")
    assert chart is not None
    assert chart.series[0].path == "M46 188L218.5 145L391 16"
    assert [tick.label for tick in chart.y_ticks] == ["0", "1", "2", "3", "4"]
    assert chart.zero == 188
    assert [(tick.at, tick.label) for tick in chart.x_ticks] == [
        (46, "1"),
        (218.5, "2"),
        (391, "3"),
    ]


def test_an_interval_becomes_a_closed_band() -> None:
    # Ticks 0 to 4 again: 1 is at 145, 3 is at 59. Out along the upper edge, back along the lower.
    points = [Point(1, 2, 1, 3), Point(3, 4, 3, 4)]
    chart = line_chart("k", [Series("a", points)], title="t")
    assert chart is not None
    assert chart.series[0].band == "M46 59L391 16L391 59L46 145Z"


def test_an_interval_of_a_single_point_has_a_width() -> None:
    chart = line_chart("k", [Series("a", [Point(1, 2, 0, 4)])], title="t")
    assert chart is not None
    # One point stands in the middle, 218.5; its band is 6 units wide and as high as 0 to 4.
    assert chart.series[0].band == "M215.5 16L221.5 16L221.5 188L215.5 188Z"


def test_zero_is_on_the_axis_even_if_no_value_is_near_it() -> None:
    chart = line_chart("k", [Series("a", [Point(1, 90), Point(2, 100)])], title="t")
    assert chart is not None
    assert chart.y_ticks[0].label == "0"


def test_an_axis_without_meaning_at_zero_stays_near_its_values() -> None:
    points = [Point(1, 0.63), Point(2, 0.71)]
    chart = line_chart("k", [Series("a", points)], title="t", zero=False, within=(0, 1))
    assert chart is not None
    assert chart.zero is None
    assert [tick.label for tick in chart.y_ticks] == [
        "0.62",
        "0.64",
        "0.66",
        "0.68",
        "0.70",
        "0.72",
    ]


def test_a_share_has_no_axis_beyond_one() -> None:
    points = [Point(1, 0.5), Point(2, 0.9, 0.7, 1.1)]
    chart = line_chart("k", [Series("a", points)], title="t", within=(0, 1))
    assert chart is not None
    assert chart.y_ticks[-1].label == "1.0"


def test_a_budget_is_drawn_across_and_belongs_to_the_axis() -> None:
    # The longest label, “budget”, has 6 letters: 420 - (22 + 42) = 356. Values 0 to 10 take the
    # ticks 0, 5, 10: the budget 10 lies at the upper edge, 16.
    chart = line_chart(
        "k", [Series("KL", [Point(1, 0), Point(2, 4)])], title="t", marks=[Mark(10, "budget")]
    )
    assert chart is not None
    assert chart.plate.x1 == 356
    assert chart.marks[0].y == 16


def test_room_is_left_for_the_steps_to_come() -> None:
    points = [Point(1, 1), Point(2, 1)]
    chart = line_chart("k", [Series("a", points)], title="t", x_span=(1, 5))
    assert chart is not None
    # Step 2 of 1 to 5 is a quarter of the way from 46 to 391: 46 + 345/4 = 132.25.
    assert chart.series[0].end == (132.25, 16)
    assert chart.series[0].label_x == 132.25


def test_scattered_points_are_not_joined_and_a_computed_curve_is_not_tabled() -> None:
    points = [Point(0, 1), Point(0.5, 2), Point(1, 3)]
    chart = line_chart(
        "k",
        [
            Series("steps", points, scattered=True),
            Series("", [Point(0, 1), Point(0.25, 1.5), Point(1, 3)], "b", tabled=False),
        ],
        title="t",
        x_counts=False,
    )
    assert chart is not None
    steps, fit = chart.series
    assert steps.path == ""
    assert len(steps.dots) == 3
    assert fit.path.startswith("M")
    assert [tick.label for tick in chart.x_ticks] == ["0", "0.2", "0.4", "0.6", "0.8", "1.0"]
    assert chart.head == ["", "steps"]
    assert chart.says == "t. steps: 1 → 3."
    assert [row[0] for row in chart.rows] == ["0", "0.5", "1"]


def test_nothing_to_draw_is_no_chart() -> None:
    assert line_chart("k", [Series("a", [])], title="t") is None
    assert dot_plot("k", [], title="t") is None


def test_the_table_behind_has_a_row_for_every_x_of_any_line() -> None:
    chart = line_chart(
        "k",
        [
            Series("a", [Point(1, 0.5, 0.4, 0.6), Point(2, 0.7, 0.6, 0.8)]),
            Series("b", [Point(2, 3)]),
        ],
        title="t",
        x_name="step",
    )
    assert chart is not None
    assert chart.head == ["step", "a", "a, interval", "b"]
    assert chart.rows == [["1", "0.5", "0.4 to 0.6", "–"], ["2", "0.7", "0.6 to 0.8", "3"]]


def test_an_end_of_an_interval_that_is_0_but_for_rounding_is_0() -> None:
    chart = line_chart("k", [Series("a", [Point(0.123456, 0.1, 5.55e-17, 0.2)])], title="t",
                       x_counts=False)  # fmt: skip
    assert chart is not None
    assert chart.rows == [["0.123", "0.1", "0 to 0.2"]]


def test_long_numbers_at_the_axis_get_their_room() -> None:
    long = line_chart("k", [Series("a", [Point(1, 0.0), Point(2, 0.0002)])], title="t")
    short = line_chart("k", [Series("a", [Point(1, 0.0), Point(2, 1.0)])], title="t")
    assert long is not None
    assert short is not None
    # "0.00020" has seven letters of 7.5 units, and 10 units lie between them and the axis.
    assert max(len(tick.label) for tick in long.y_ticks) == 7
    assert long.plate.left == 62.5
    assert short.plate.left == Plate.left


def test_a_last_value_that_tells_nothing_is_not_told() -> None:
    chart = line_chart(
        "k",
        [Series("model", [Point(1, 1)], valued=False), Series("other", [Point(1, 3)])],
        title="t",
    )
    assert chart is not None
    assert [(one.last, one.name) for one in chart.series] == [("", "model"), ("3", "other")]


def test_labels_that_are_apart_stay_where_they_are() -> None:
    assert spread_labels([10, 60], 0, 100, 15) == [10, 60]


def test_labels_that_meet_are_parted_around_their_middle() -> None:
    # Their middle is 11; 15 apart around it: 3.5 and 18.5. The order of the lines is kept.
    assert spread_labels([12, 10], 0, 100, 15) == [18.5, 3.5]


def test_labels_at_the_edge_are_pushed_inside() -> None:
    # The middle 98.5 would put them at 91 and 106; the lower one may not pass 100.
    assert spread_labels([98, 99], 0, 100, 15) == [85, 100]


def test_a_parted_pair_may_push_the_next_label() -> None:
    # 10 and 12 would take 3.5 and 18.5, which meets 20: all three stand around (10+12+20)/3 = 14,
    # that is at -1, 14, 29; the first may not pass 0, so the block begins there.
    assert spread_labels([10, 12, 20], 0, 100, 15) == [0, 15, 30]


def test_a_long_line_is_thinned_to_means_and_keeps_its_end() -> None:
    points = [Point(n, n, n - 1, n + 1) for n in range(5)]
    # At most 3: the last one, and the 4 before it in runs of 2 with their widest intervals.
    assert thin(points, most=3) == [
        Point(1, 0.5, -1, 2),
        Point(3, 2.5, 1, 4),
        Point(4, 4, 3, 5),
    ]


def test_a_dot_plot_puts_one_row_below_the_other() -> None:
    chart = dot_plot(
        "k",
        [
            Estimate("model", 0.7, "70 %", (0.6, 0.8)),
            Estimate("length", 0.5, "50 %"),
        ],
        title="t",
        marks=[Mark(0.5, "chance")],
        within=(0, 1),
    )
    assert chart is not None
    # The axis goes from 0.5 to 0.8 in steps of 0.1 over 14 … 406, so 0.1 is 392/3 = 130.67 wide.
    model, length = chart.dots
    assert (model.low, model.x, model.high) == (144.67, 275.33, 406)
    assert (length.x, length.low) == (14, None)
    assert length.y - model.y == 44
    assert chart.marks[0].y == 14
    assert chart.rows == [["model", "0.7", "0.6 to 0.8"], ["length", "0.5", "–"]]


def test_lineage_runs_down_the_parents_lane() -> None:
    # Rows are 72 high, their middles at 36, 108, 180; lanes at 26 · 0.6 = 15.6, 41.6 and 67.6.
    tree = lineage([Kin(3, 0, [2, 1]), Kin(2, 1, [1]), Kin(1, 2, [])])
    assert [(knot.x, knot.y) for knot in tree.knots] == [(15.6, 36), (41.6, 108), (67.6, 180)]
    assert [thread.path for thread in tree.threads] == [
        "M15.6 36C15.6 72 41.6 72 41.6 108",
        "M15.6 36C15.6 72 67.6 72 67.6 108V180",
        "M41.6 108C41.6 144 67.6 144 67.6 180",
    ]
    assert tree.height == 216


def test_lineage_in_one_lane_is_a_straight_line() -> None:
    tree = lineage([Kin(2, 0, [1]), Kin(1, 0, [])])
    assert tree.threads[0].path == "M15.6 36V108"


def test_a_parent_that_is_not_shown_has_no_line() -> None:
    assert lineage([Kin(2, 0, [1])]).threads == []
