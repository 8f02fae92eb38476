"""The geometry of charts: from figures to SVG paths, ticks and labels. Pure but for translation.

Choices: a chart is drawn on a plate of fixed units (`Plate`) that CSS scales; y counts downward as
in SVG; the value axis holds 0 unless the caller says that 0 means nothing there; an interval is a
band; each line carries its last value at its end, pushed apart from its neighbours. Behind every
chart stands its table (`Chart.head`, `Chart.rows`).
Non-goals: no animation, no zoom, no second value axis.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from django.utils.translation import gettext as _

from labelhub.lib.figures import fixed, plain

# More points than the plate has units cannot be seen: longer series are thinned to this many.
MOST_POINTS = 240
LABEL_HEIGHT = 15.0


@dataclass(frozen=True)
class Plate:
    """The drawing area: outer size and the room left free around the plot, in SVG units."""

    width: float = 420
    height: float = 230
    left: float = 46
    right: float = 92
    top: float = 16
    bottom: float = 42

    @property
    def x0(self) -> float:
        return self.left

    @property
    def x1(self) -> float:
        return self.width - self.right

    @property
    def y0(self) -> float:
        """The plot's lower edge."""
        return self.height - self.bottom

    @property
    def y1(self) -> float:
        """The plot's upper edge."""
        return self.top

    @property
    def below(self) -> float:
        """Where the small strokes under the axis end."""
        return self.y0 + 4

    @property
    def above(self) -> float:
        """Where the lines of a dot plot begin, a little over its rows."""
        return self.top - 8


@dataclass(frozen=True)
class Point:
    """One figure, with its interval where it has one."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Series:
    """A named line. `tone` is a colour class of charts.css: a to e.

    `scattered` points have no order, so no line joins them; a curve that was computed from figures
    that stand there already needs no column of the table (`tabled`). Without a name it has no label
    at its end either; one whose last value tells nothing has its name alone there (`valued`).
    """

    name: str
    points: Sequence[Point]
    tone: str = "a"
    dashed: bool = False
    scattered: bool = False
    tabled: bool = True
    valued: bool = True


@dataclass(frozen=True)
class Mark:
    """A level across the whole chart, such as a budget or chance."""

    value: float
    name: str
    tone: str = "limit"


@dataclass(frozen=True)
class Tick:
    at: float
    label: str


@dataclass(frozen=True)
class Drawn:
    """A series in SVG units."""

    name: str
    tone: str
    dashed: bool
    path: str
    band: str
    dots: list[tuple[float, float]]
    end: tuple[float, float]
    label_x: float
    label_y: float
    last: str


@dataclass(frozen=True)
class DrawnMark:
    name: str
    tone: str
    y: float
    label_y: float


@dataclass(frozen=True)
class Chart:
    """All that a template needs to write the SVG and the table behind it."""

    key: str
    title: str
    unit: str
    x_name: str
    plate: Plate
    series: list[Drawn]
    marks: list[DrawnMark]
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    zero: float | None
    head: list[str]
    rows: list[list[str]]
    note: str
    says: str


def nice_step(span: float, most: int) -> float:
    """The smallest of 1, 2, 5 × 10ⁿ that parts `span` into at most `most` pieces."""
    if span <= 0:
        return 1.0
    rough = span / most
    size: float = 10.0 ** math.floor(math.log10(rough))
    for factor in (1, 2, 5, 10):
        if factor * size >= rough * (1 - 1e-9):
            return factor * size
    return 10 * size


def ticks(low: float, high: float, most: int = 4) -> list[float]:
    """Round values that cover [low, high]: the first not above `low`, the last not below `high`."""
    step = nice_step(high - low, most)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(n * step, 12) + 0.0 for n in range(first, max(last, first + 1) + 1)]


def whole_ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round whole numbers inside [low, high], for axes that count."""
    step = max(1.0, nice_step(max(high - low, 1.0), most))
    return [n * step for n in range(math.ceil(low / step), math.floor(high / step) + 1)]


def tick_labels(values: Sequence[float], *, percent: bool = False) -> list[str]:
    """The values with as many decimals as their distance needs, all alike."""
    if percent:
        return [f"{label}\u202f%" for label in tick_labels([100 * value for value in values])]
    step = min((b - a for a, b in pairwise(values)), default=1.0)
    if max(abs(value) for value in values) >= 10_000:
        return [plain(value, 4) for value in values]
    places = max(0, math.ceil(-math.log10(step) - 1e-9))
    return [fixed(value, places) if value else "0" for value in values]


def thin(points: Sequence[Point], most: int = MOST_POINTS) -> list[Point]:
    """At most `most` points: means of equal runs of neighbours, the last point kept as it is.

    A mean of k points has no interval of its own here, so a thinned run keeps the widest of its k.
    """
    if len(points) <= most:
        return list(points)
    size = math.ceil((len(points) - 1) / (most - 1))
    body = points[:-1]
    return [*(_mean(body[at : at + size]) for at in range(0, len(body), size)), points[-1]]


def _mean(run: Sequence[Point]) -> Point:
    lows = [point.low for point in run if point.low is not None]
    highs = [point.high for point in run if point.high is not None]
    return Point(
        run[len(run) // 2].x,
        sum(point.y for point in run) / len(run),
        min(lows) if lows else None,
        max(highs) if highs else None,
    )


def spread_labels(wanted: Sequence[float], low: float, high: float, gap: float) -> list[float]:
    """Heights near the `wanted` ones, at least `gap` apart and within [low, high] if they all fit.

    Neighbours that are too close are gathered into a block that stands around its members' mean.
    """
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    blocks: list[list[int]] = []
    for index in order:
        blocks.append([index])
        while len(blocks) > 1 and _top(blocks[-1], wanted, low, high, gap) < (
            _top(blocks[-2], wanted, low, high, gap) + gap * len(blocks[-2])
        ):
            last = blocks.pop()
            blocks[-1].extend(last)
    placed = [0.0] * len(wanted)
    for block in blocks:
        top = _top(block, wanted, low, high, gap)
        for n, index in enumerate(block):
            placed[index] = top + n * gap
    return placed


def _top(block: list[int], wanted: Sequence[float], low: float, high: float, gap: float) -> float:
    middle = sum(wanted[index] for index in block) / len(block)
    length = gap * (len(block) - 1)
    return max(low, min(middle - length / 2, high - length))


@dataclass(frozen=True)
class _Scale:
    """A straight map from values to units."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low) if self.high > self.low else 0.5
        return round(self.start + share * (self.end - self.start), 2)


def line_chart(
    key: str,
    series: Sequence[Series],
    *,
    title: str,
    unit: str = "",
    x_name: str = "",
    marks: Sequence[Mark] = (),
    zero: bool = True,
    within: tuple[float, float] | None = None,
    x_span: tuple[float, float] | None = None,
    x_words: Callable[[float], str] | None = None,
    x_counts: bool = True,
    note: str = "",
) -> Chart | None:
    """Lay out lines over a common axis; None when there is not a single point to draw.

    `within` limits the value axis (an accuracy ends at 1), `x_span` makes room for steps to come,
    `x_words` says what an x is where it is no number, such as a week; `x_counts` is False where x
    is a measure and no count.
    """
    kept = [one for one in series if one.points]
    drawn = [replace(one, points=_inside(thin(one.points), within)) for one in kept]
    if not drawn:
        return None
    y_values = _y_ticks(drawn, marks, zero=zero)
    y_labels = tick_labels(y_values)
    plate = Plate(left=_tick_room(y_labels), right=_label_room(drawn, marks))
    x_scale = _x_scale(drawn, x_span, plate)
    y_scale = _Scale(y_values[0], y_values[-1], plate.y0, plate.y1)
    heights = [y_scale(one.points[-1].y) for one in drawn if one.name]
    levels = [y_scale(mark.value) for mark in marks]
    placed = spread_labels([*heights, *levels], plate.y1 + 4, plate.y0, LABEL_HEIGHT)
    places = iter(placed)
    right = max(x_scale(one.points[-1].x) for one in drawn)
    x_values = _x_ticks(x_scale, counts=x_counts, most=3 if x_words else 5)
    x_labels = [x_words(x) for x in x_values] if x_words else _x_labels(x_values, counts=x_counts)
    return Chart(
        key=key,
        title=title,
        unit=unit,
        x_name=x_name,
        plate=plate,
        series=[
            _draw(one, x_scale, y_scale, right, next(places) if one.name else 0.0) for one in drawn
        ],
        marks=[
            DrawnMark(mark.name, mark.tone, y, label_y)
            for mark, y, label_y in zip(marks, levels, placed[len(heights) :], strict=True)
        ],
        x_ticks=[Tick(x_scale(x), label) for x, label in zip(x_values, x_labels, strict=True)],
        y_ticks=[
            Tick(y_scale(value), label) for value, label in zip(y_values, y_labels, strict=True)
        ],
        zero=y_scale(0.0) if y_values[0] <= 0 <= y_values[-1] else None,
        head=_head(_tabled(kept), x_name),
        rows=_rows(_tabled(kept), x_words or (lambda x: plain(x, 6 if x_counts else 3))),
        note=note,
        says=_says(title, unit, drawn),
    )


def _tabled(series: Sequence[Series]) -> list[Series]:
    return [one for one in series if one.tabled]


def _x_ticks(scale: _Scale, *, counts: bool, most: int) -> list[float]:
    """Round values inside the axis: whole ones where it counts."""
    if counts:
        return whole_ticks(scale.low, scale.high, most)
    slack = 1e-9 * (scale.high - scale.low)
    low, high = scale.low - slack, scale.high + slack
    return [value for value in ticks(scale.low, scale.high, most) if low <= value <= high]


def _x_labels(values: Sequence[float], *, counts: bool) -> list[str]:
    if not values:
        return []
    return [plain(x, 4) for x in values] if counts else tick_labels(values)


def _inside(points: Sequence[Point], within: tuple[float, float] | None) -> list[Point]:
    """The points with their intervals cut off where a value cannot be: a share is never over 1."""
    if within is None:
        return list(points)
    low, high = within
    return [
        Point(
            point.x,
            min(max(point.y, low), high),
            None if point.low is None else max(point.low, low),
            None if point.high is None else min(point.high, high),
        )
        for point in points
    ]


def _tick_room(labels: Sequence[str]) -> float:
    """Room for the longest label beside the value axis, in units: about 7.5 a letter."""
    return max(Plate.left, 10 + 7.5 * max(map(len, labels)))


def _label_room(series: Sequence[Series], marks: Sequence[Mark]) -> float:
    """Room for the longest label at a line's end, in units: about 7 a letter, 13 an ideograph."""
    names = [mark.name for mark in marks]
    for one in (line for line in series if line.name):
        names.append(" ".join(_end_words(one, alone=len(series) == 1)))
    widths = (sum(13 if ord(letter) > 0x2E7F else 7 for letter in name) for name in names)
    return min(150.0, 22 + max(widths))


def _x_scale(series: Sequence[Series], span: tuple[float, float] | None, plate: Plate) -> _Scale:
    xs = [point.x for one in series for point in one.points]
    low, high = min(xs), max(xs)
    if span is not None:
        low, high = min(low, span[0]), max(high, span[1])
    if low == high:
        low, high = low - 1, high + 1
    return _Scale(low, high, plate.x0, plate.x1)


def _y_ticks(
    series: Sequence[Series],
    marks: Sequence[Mark],
    *,
    zero: bool,
) -> list[float]:
    """The value axis covers every point, band and mark, and 0 when `zero`."""
    points = [point for one in series for point in one.points]
    values = [point.y for point in points]
    values += [edge for point in points for edge in (point.low, point.high) if edge is not None]
    values += [mark.value for mark in marks]
    if zero:
        values.append(0.0)
    low, high = min(values), max(values)
    if low == high:
        low, high = low - (0.5 if not zero else 0.0), high + (0.5 if high >= 0 else 0.0)
        low = low if low < high else high - 0.5
    return ticks(low, high)


def _draw(one: Series, x_scale: _Scale, y_scale: _Scale, label_x: float, label_y: float) -> Drawn:
    places = [(x_scale(point.x), y_scale(point.y)) for point in one.points]
    last = one.points[-1]
    return Drawn(
        name=one.name,
        tone=one.tone,
        dashed=one.dashed,
        path="" if one.scattered else polyline(places),
        band=_band(one.points, x_scale, y_scale),
        dots=places if one.scattered or len(places) <= 20 else [],
        end=places[-1],
        label_x=label_x,
        label_y=round(label_y, 2),
        last=plain(last.y) if one.valued else "",
    )


def _end_words(one: Series, *, alone: bool) -> list[str]:
    """What stands at a line's end: its last value, and its name where there are several."""
    value = [plain(one.points[-1].y)] if one.valued else []
    return value if alone else [*value, one.name]


def polyline(places: Sequence[tuple[float, float]]) -> str:
    """`M x y L x y …` through the places."""
    return "M" + "L".join(f"{x:g} {y:g}" for x, y in places)


def _band(points: Sequence[Point], x_scale: _Scale, y_scale: _Scale) -> str:
    """The closed outline of the intervals: along the upper edges, back along the lower ones."""
    edges = [point for point in points if point.low is not None and point.high is not None]
    if not edges:
        return ""
    # A single interval would have no area: it gets the width of a stroke.
    if len(edges) == 1:
        x = x_scale(edges[0].x)
        high, low = y_scale(edges[0].high or 0.0), y_scale(edges[0].low or 0.0)
        return polyline([(x - 3, high), (x + 3, high), (x + 3, low), (x - 3, low)]) + "Z"
    upper = [(x_scale(point.x), y_scale(point.high or 0.0)) for point in edges]
    lower = [(x_scale(point.x), y_scale(point.low or 0.0)) for point in reversed(edges)]
    return polyline([*upper, *lower]) + "Z"


def _head(series: Sequence[Series], x_name: str) -> list[str]:
    head = [x_name]
    for one in series:
        head.append(one.name)
        if _has_band(one):
            head.append(_("%(name)s, interval") % {"name": one.name})
    return head


def _has_band(one: Series) -> bool:
    return any(point.low is not None for point in one.points)


def _rows(series: Sequence[Series], x_words: Callable[[float], str]) -> list[list[str]]:
    """One row an x value that any series has; what a series lacks there is a dash."""
    by_x = [{point.x: point for point in one.points} for one in series]
    rows = []
    for x in sorted({x for points in by_x for x in points}):
        row = [x_words(x)]
        for one, points in zip(series, by_x, strict=True):
            point = points.get(x)
            row.append(plain(point.y, 4) if point else "–")
            if _has_band(one):
                row.append(_edges(point))
        rows.append(row)
    return rows


def _edges(point: Point | None) -> str:
    if point is None or point.low is None or point.high is None:
        return "–"
    # An end that is 0 comes out of the computation as 0.00000000000000006.
    low, high = (plain(round(edge, 12)) for edge in (point.low, point.high))
    return _("%(low)s to %(high)s") % {"low": low, "high": high}


def _says(title: str, unit: str, series: Sequence[Series]) -> str:
    """The chart in one line for those who hear it instead of seeing it."""
    parts = [
        f"{one.name}: {plain(one.points[0].y)} → {plain(one.points[-1].y)}"
        for one in series
        if one.name
    ]
    return f"{title}{f' ({unit})' if unit else ''}. {'; '.join(parts)}."


@dataclass(frozen=True)
class Estimate:
    """One row of a dot plot: a figure, its interval where it has one, and both as words."""

    name: str
    value: float
    words: str
    bounds: tuple[float, float] | None = None
    tone: str = "a"


@dataclass(frozen=True)
class Dot:
    """An estimate in SVG units: the dot and the ends of its whisker."""

    name: str
    tone: str
    y: float
    x: float
    low: float | None
    high: float | None
    words: str


@dataclass(frozen=True)
class DotPlot:
    """Figures with their intervals, one below the other over a common axis."""

    key: str
    title: str
    unit: str
    plate: Plate
    dots: list[Dot]
    marks: list[DrawnMark]
    x_ticks: list[Tick]
    zero: float | None
    head: list[str]
    rows: list[list[str]]
    note: str
    says: str


ROW_HEIGHT = 44.0


def dot_plot(
    key: str,
    estimates: Sequence[Estimate],
    *,
    title: str,
    unit: str = "",
    marks: Sequence[Mark] = (),
    within: tuple[float, float] | None = None,
    zero: bool = False,
    percent: bool = False,
    note: str = "",
) -> DotPlot | None:
    """Lay out estimates as dots with whiskers; None without any. A mark's `y` is its x here."""
    if not estimates:
        return None
    rows = ROW_HEIGHT * len(estimates)
    plate = Plate(height=34 + rows + 30, left=14, right=14, top=34, bottom=26)
    lines = [Point(0, one.value, *(one.bounds or (None, None))) for one in estimates]
    lines = _inside(lines, within)
    axis = _y_ticks([Series("", lines)], marks, zero=zero)
    scale = _Scale(axis[0], axis[-1], plate.x0, plate.x1)
    return DotPlot(
        key=key,
        title=title,
        unit=unit,
        plate=plate,
        dots=[
            Dot(
                name=one.name,
                tone=one.tone,
                y=plate.top + ROW_HEIGHT * (n + 0.5) + 6,
                x=scale(line.y),
                low=None if line.low is None else scale(line.low),
                high=None if line.high is None else scale(line.high),
                words=one.words,
            )
            for n, (one, line) in enumerate(zip(estimates, lines, strict=True))
        ],
        marks=[DrawnMark(mark.name, mark.tone, scale(mark.value), 0) for mark in marks],
        x_ticks=[
            Tick(scale(value), label)
            for value, label in zip(axis, tick_labels(axis, percent=percent), strict=True)
        ],
        zero=scale(0.0) if axis[0] <= 0 <= axis[-1] else None,
        head=[_("Figure"), _("Value"), _("95 % interval")],
        rows=[
            [one.name, plain(one.value, 4), _edges(point)]
            for one, point in zip(estimates, lines, strict=True)
        ],
        note=note,
        says=f"{title}. " + "; ".join(f"{one.name}: {one.words}" for one in estimates) + ".",
    )


@dataclass(frozen=True)
class Kin:
    """A model version as the lineage drawing needs it."""

    key: int
    lane: int
    parents: Sequence[int]


@dataclass(frozen=True)
class Knot:
    key: int
    lane: int
    x: float
    y: float


@dataclass(frozen=True)
class Thread:
    """A line from a version up to what was made from it; `lane` is the parent's."""

    lane: int
    path: str


@dataclass(frozen=True)
class Lineage:
    width: float
    height: float
    row: float
    knots: list[Knot]
    threads: list[Thread]


LANE, LINE_ROW = 26.0, 72.0


def lineage(kin: Sequence[Kin]) -> Lineage:
    """Draw who was made from whom, one row a version, in the order given (newest first).

    Each lane is a column; a line leaves the child towards its parent's column within one row and
    then runs straight down to the parent. Parents that are not in the list are left out.
    """
    knots = {
        one.key: Knot(one.key, one.lane, round(LANE * (one.lane + 0.6), 2), LINE_ROW * (n + 0.5))
        for n, one in enumerate(kin)
    }
    threads = [
        Thread(knots[parent].lane, _thread(knots[one.key], knots[parent]))
        for one in kin
        for parent in one.parents
        if parent in knots and knots[parent].y > knots[one.key].y
    ]
    lanes = max((one.lane for one in kin), default=0) + 1
    return Lineage(
        width=round(LANE * (lanes + 0.2), 2),
        height=LINE_ROW * len(kin),
        row=LINE_ROW,
        knots=list(knots.values()),
        threads=threads,
    )


def _thread(child: Knot, parent: Knot) -> str:
    if child.x == parent.x:
        return f"M{child.x:g} {child.y:g}V{parent.y:g}"
    turn = child.y + LINE_ROW
    middle = child.y + LINE_ROW / 2
    curve = (
        f"M{child.x:g} {child.y:g}C{child.x:g} {middle:g} "
        f"{parent.x:g} {middle:g} {parent.x:g} {turn:g}"
    )
    return curve if turn >= parent.y else f"{curve}V{parent.y:g}"
