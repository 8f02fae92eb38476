"""Figures about rankings as people read them: words, charts and advice, for both doors.

The dashboard and an annotator's own page say the same figure in the same words; the doors may not
import each other, so what they share stands here, under them. Nothing here reads the database.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from labelhub.lib.charts import (
    Chart,
    DotPlot,
    Estimate,
    Mark,
    Point,
    Series,
    dot_plot,
    line_chart,
)
from labelhub.lib.figures import fixed, plain, with_error
from labelhub.rankings.agreement import PUBLISHED
from labelhub.rankings.estimates import Figure
from labelhub.rankings.quality import HASTY_SECONDS, Figures, Person, Week

Words = str | Promise
PEOPLE_DRAWN = 20
NBSP = "\u202f"


@dataclass(frozen=True)
class Measure:
    """What a figure is called, what it says, and what its units are."""

    title: Words
    says: Words
    units: str  # sets, known, repeats or rankings
    form: str = "number"  # number, percent or seconds


MEASURES: dict[str, Measure] = {
    "agreement": Measure(
        gettext_lazy("Pairwise agreement"),
        gettext_lazy("pairs of answers that two people order alike; published: 72.6 ± 1.5 %"),
        "sets",
        "percent",
    ),
    "tau_b": Measure(
        gettext_lazy("Kendall’s τ-b"),
        gettext_lazy("rank correlation of two people; 0 is chance, 1 the same order"),
        "sets",
    ),
    "kendall_w": Measure(
        gettext_lazy("Kendall’s W"),
        gettext_lazy("concordance of all who ranked a set, from 0 to 1"),
        "sets",
    ),
    "alpha": Measure(
        gettext_lazy("Krippendorff’s α"),
        gettext_lazy("reliability of the places, ordinal; 0 is chance"),
        "sets",
    ),
    "gold_pairs": Measure(
        gettext_lazy("Right on known rankings"),
        gettext_lazy("pairs in the known order; a tie counts half"),
        "known",
        "percent",
    ),
    "gold_tau": Measure(
        gettext_lazy("τ-b with known rankings"),
        gettext_lazy("rank correlation with the known order; the goal is 0.6"),
        "known",
    ),
    "repeat_pairs": Measure(
        gettext_lazy("Consistency"),
        gettext_lazy("pairs ordered as the first time when a set came again; the goal is 80 %"),
        "repeats",
        "percent",
    ),
    "repeat_tau": Measure(
        gettext_lazy("τ-b with oneself"),
        gettext_lazy("rank correlation of the first and the second time"),
        "repeats",
    ),
    "seconds": Measure(
        gettext_lazy("Time for a set"),
        gettext_lazy("median of the active time, pauses cut out"),
        "rankings",
        "seconds",
    ),
    "hasty": Measure(
        gettext_lazy("Under 8 seconds"),
        gettext_lazy("share of rankings; too quick to have read the answers"),
        "rankings",
        "percent",
    ),
    "ties": Measure(
        gettext_lazy("Tied pairs"),
        gettext_lazy("share of all pairs of answers"),
        "rankings",
        "percent",
    ),
}


def count_words(units: str, n: int) -> str:
    """`120 shared sets`, in the units of a measure."""
    if units == "sets":
        words = ngettext("%(n)d shared set", "%(n)d shared sets", n)
    elif units == "known":
        words = ngettext("%(n)d known ranking", "%(n)d known rankings", n)
    elif units == "repeats":
        words = ngettext("%(n)d repeat", "%(n)d repeats", n)
    else:
        words = ngettext("%(n)d ranking", "%(n)d rankings", n)
    return words % {"n": n}


def missing_words(units: str, n: int) -> str:
    """What it takes until there are enough."""
    if units == "sets":
        words = ngettext("needs %(n)d more shared set", "needs %(n)d more shared sets", n)
    elif units == "known":
        words = ngettext("needs %(n)d more known ranking", "needs %(n)d more known rankings", n)
    elif units == "repeats":
        words = ngettext("needs %(n)d more repeat", "needs %(n)d more repeats", n)
    else:
        words = ngettext("needs %(n)d more ranking", "needs %(n)d more rankings", n)
    return words % {"n": n}


def value_words(figure: Figure, form: str = "number") -> str:
    """The figure with its interval: `72 % ± 3`, `31 s ± 2`, or `too few`."""
    if not figure.enough or figure.value is None:
        return _("too few")
    if form == "seconds":
        # A median has whole seconds at most: its interval is that of two sorted values.
        return _("%(seconds)s s") % {"seconds": with_error(figure.value, figure.bounds)}
    return with_error(figure.value, figure.bounds, percent=form == "percent")


@dataclass(frozen=True)
class Tile:
    """One figure as a page shows it."""

    key: str
    title: str
    value: str
    made_from: str
    # The same in a table, whose column says what is counted.
    n: str
    says: str
    enough: bool


def tile(name: str, figure: Figure, *, title: str = "", count: bool = True) -> Tile:
    """A figure in words; `count` says what it was made from."""
    measure = MEASURES[name]
    if figure.enough:
        made_from = (
            _("n = %(count)s") % {"count": count_words(measure.units, figure.n)} if count else ""
        )
    elif figure.missing:
        made_from = missing_words(measure.units, figure.missing) if count else ""
    else:
        made_from = _("no pair that both tell apart")
    return Tile(
        key=name,
        title=title or str(measure.title),
        value=value_words(figure, measure.form),
        made_from=made_from,
        n=_("n = %(count)s") % {"count": figure.n},
        says=str(measure.says),
        enough=figure.enough,
    )


# --- charts


def agreement_picture(key: str, weeks: Sequence[Week], *, of_me: bool = False) -> Chart | None:
    """Pairwise agreement, week by week, against what is published."""
    return _over_weeks(
        key,
        weeks,
        [("agreement", _("agreement"))],
        title=_("Do you agree with others?") if of_me else _("Do people agree?"),
        unit=_("% of pairs that two people order alike, by week"),
        scale=100,
        marks=[Mark(100 * PUBLISHED, _("published 72.6 %"), "c"), Mark(50, _("chance"), "quiet")],
        within=(0, 100),
    )


def correlation_picture(key: str, weeks: Sequence[Week]) -> Chart | None:
    """The three coefficients, week by week."""
    return _over_weeks(
        key,
        weeks,
        [("tau_b", "τ-b"), ("kendall_w", "W"), ("alpha", "α")],
        title=_("How strongly do the orders go together?"),
        unit=_("rank correlation, concordance and reliability, by week"),
        marks=[],
        within=(-1, 1),
        zero=True,
    )


def _over_weeks(
    key: str,
    weeks: Sequence[Week],
    names: Sequence[tuple[str, str]],
    *,
    title: str,
    unit: str,
    marks: Sequence[Mark],
    within: tuple[float, float],
    scale: float = 1,
    zero: bool = False,
) -> Chart | None:
    if not weeks:
        return None
    first = weeks[0].monday
    lines = []
    for (name, words), tone in zip(names, "abc", strict=False):
        points = [
            Point(
                (week.monday - first).days // 7,
                scale * (figure.value or 0.0),
                *(scale * edge for edge in figure.bounds or ()),
            )
            for week in weeks
            if (figure := week.figures.get(name)) is not None and figure.enough
        ]
        lines.append(Series(words, points, tone))
    return line_chart(
        key,
        lines,
        title=title,
        unit=unit,
        x_name=_("week from"),
        marks=marks,
        zero=zero,
        within=within,
        x_words=lambda x: (first + timedelta(weeks=x)).strftime("%m-%d"),
        note=_("Bands are 95 % intervals; weeks with fewer than 10 shared sets are left out."),
    )


def positions_picture(
    key: str, positions: Sequence[Figure], *, of_me: bool = False
) -> DotPlot | None:
    """How often the best card stood at each place of the page, against chance."""
    if not positions or not positions[0].enough:
        return None
    chance = 1 / len(positions)
    rows = [
        Estimate(
            _("Place %(n)d on the page") % {"n": n},
            figure.value or 0.0,
            value_words(figure, "percent"),
            figure.bounds,
            "b" if _is_off(figure, chance) else "a",
        )
        for n, figure in enumerate(positions, start=1)
    ]
    return dot_plot(
        key,
        rows,
        title=(
            _("Where did the card stand that you ranked best?")
            if of_me
            else _("Where did the card stand that was ranked best?")
        ),
        unit=_("share of rankings; cards stand in a random order"),
        marks=[Mark(chance, _("expected %(n)s %%") % {"n": plain(100 * chance)}, "quiet")],
        within=(0, 1),
        zero=True,
        percent=True,
        note=_("Whiskers are 95 %% intervals; %(count)s.")
        % {"count": _("n = %(count)s") % {"count": count_words("rankings", positions[0].n)}},
    )


def _is_off(figure: Figure, chance: float) -> bool:
    """Whether the whole interval lies on one side of chance."""
    return figure.bounds is not None and not figure.bounds[0] <= chance <= figure.bounds[1]


def people_picture(key: str, people: Sequence[tuple[str, Figure]]) -> DotPlot | None:
    """Each annotator's agreement with the others, lowest first; names are for admins alone.

    Only so many have room: who agrees least is looked for first.
    """
    rows = [
        Estimate(name, figure.value, value_words(figure, "percent"), figure.bounds)
        for name, figure in people
        if figure.enough and figure.value is not None
    ]
    return dot_plot(
        key,
        sorted(rows, key=lambda row: row.value)[:PEOPLE_DRAWN],
        title=_("Who agrees with the others?"),
        unit=_("share of pairs that two people order alike"),
        marks=[Mark(PUBLISHED, _("published 72.6 %"), "c")],
        within=(0, 1),
        percent=True,
        note=(
            _("Whiskers are 95 % intervals; people with too few shared sets are in the table.")
            if len(rows) <= PEOPLE_DRAWN
            else _("Whiskers are 95 % intervals; those who agree most are in the table only.")
        ),
    )


# --- advice

GOAL_TAU, GOAL_CONSISTENCY, LOW_AGREEMENT = 0.6, 0.8, 0.6
MANY_TIES, HASTY_SHARE, NEVER_TIES_AFTER = 0.5, 0.1, 50


def advice(own: Person) -> list[str]:
    """What this person could do otherwise, in kind and concrete words; empty: nothing stands out.

    Only what lies outside its interval is said: nobody is to chase chance. Nothing here speaks of
    anybody else.
    """
    return [
        *_on_positions(own.positions),
        *_on_habits(own.figures),
        *_on_checks(own.own_checks),
        *_on_agreement(own.figures["agreement"]),
    ]


def _on_positions(positions: Sequence[Figure]) -> list[str]:
    chance = 1 / len(positions) if positions else 0.0
    high = [
        (n, figure)
        for n, figure in enumerate(positions, start=1)
        if figure.enough and figure.low is not None and figure.low > chance
    ]
    if not high:
        return []
    n, figure = max(high, key=lambda one: one[1].value or 0.0)
    words = {
        "n": n,
        "share": value_words(figure, "percent"),
        "chance": f"{fixed(100 * chance, 0)}{NBSP}%",
    }
    if n == 1:
        return [
            _(
                "The first card on the page is your best one in %(share)s of your sets; since the "
                "order is random, it would be %(chance)s by chance. Try reading from the last card "
                "to the first now and then."
            )
            % words
        ]
    return [
        _(
            "The card in place %(n)d of the page is your best one in %(share)s of your sets; since "
            "the order is random, it would be %(chance)s by chance. Before you submit, compare "
            "your best card once more with the others."
        )
        % words
    ]


def _on_habits(figures: Figures) -> list[str]:
    said = []
    hasty, ties = figures["hasty"], figures["ties"]
    if hasty.enough and (hasty.low or 0.0) > HASTY_SHARE:
        said.append(
            _(
                "%(share)s of your rankings took less than %(seconds)d seconds. Answers that look "
                "alike often differ near their end: read each of them to the end first."
            )
            % {"share": value_words(hasty, "percent"), "seconds": HASTY_SECONDS}
        )
    if ties.enough and (ties.low or 0.0) > MANY_TIES:
        said.append(
            _(
                "You tie %(share)s of all pairs. Where two answers differ in anything that the "
                "guidelines name, even slightly, put the better one before the other: ties teach "
                "the model little."
            )
            % {"share": value_words(ties, "percent")}
        )
    elif ties.value == 0 and ties.n >= NEVER_TIES_AFTER:
        said.append(
            _(
                "You have never tied two answers. Where you would have to toss a coin, a tie is "
                "the honest answer, and it is quicker, too."
            )
        )
    return said


def _on_checks(checks: Figures) -> list[str]:
    said = []
    known, again = checks["gold_tau"], checks["repeat_pairs"]
    if known.enough and known.high is not None and known.high < GOAL_TAU:
        said.append(
            _(
                "On sets whose order is known, yours often differs. Read the examples in the "
                "guidelines once more; if you think that they are wrong, tell an admin."
            )
        )
    if again.enough and again.high is not None and again.high < GOAL_CONSISTENCY:
        said.append(
            _(
                "When a set came back to you, your order was often another one. It helps to settle "
                "what counts most before you look at the answers, and to rest between long spells."
            )
        )
    return said


def _on_agreement(figure: Figure) -> list[str]:
    if not figure.enough or figure.high is None or figure.high >= LOW_AGREEMENT:
        return []
    return [
        _(
            "You and others often order the same answers differently. That does not make you "
            "wrong, but it may show that you read the guidelines differently: ask where they are "
            "unclear."
        )
    ]
