"""Each picture that can be drawn of a report: from what a stage found out to a laid-out chart.

Choices: a picture says in its title what question it answers; what a report does not tell is not
drawn; every figure carries its interval. Pure: a report goes in, a chart comes out. Which pictures
a page shows is in pictures.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

from django.utils.translation import gettext as _

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
from labelhub.lib.figures import plain, with_error
from labelhub.rounds.queries import Gain
from labelhub.runs.queries import interval, number

Report = dict[str, Any]

#: annotators that the picture shows at most: those with the most pairs
MOST_ANNOTATORS = 12
#: points of a computed curve
CURVE = 40


# --- a reward model


def accuracy_picture(report: Report, *, of_policy: bool = False) -> DotPlot | None:
    """The reward model on pairs it never saw, against what length alone and chance would do; or a
    policy, whose likelihoods are a reward, too (DPO).
    """
    value, length = number(report, "pair_accuracy"), number(report, "length_baseline")
    if value is None:
        return None
    bounds, pairs = interval(report, "ci95"), number(report, "pairs")
    name = _("Policy (implicit reward)") if of_policy else _("Reward model")
    rows = [
        Estimate(name, value, with_error(value, bounds, percent=True), bounds),
    ]
    if length is not None:
        around = interval(report, "length_baseline_ci95")
        words = with_error(length, around, percent=True)
        rows.append(Estimate(_("Length alone"), length, words, around, "b"))
    rows += _agreement(report)
    n = _("n = %(n)d held-out pairs") % {"n": int(pairs)} if pairs is not None else ""
    return dot_plot(
        "accuracy",
        rows,
        title=_("Does the policy know what people prefer?")
        if of_policy
        else _("Does the reward model know what people prefer?"),
        unit=_("share of held-out pairs in the right order"),
        marks=[Mark(0.5, _("chance"), "quiet")],
        within=(0, 1),
        percent=True,
        note=_("Whiskers are 95 %% intervals; %(n)s.") % {"n": n} if n else "",
    )


def _agreement(report: Report) -> list[Estimate]:
    """How far annotators agree with each other: no model can be expected to agree more."""
    told = report.get("annotator_agreement")
    value = number(report, "annotator_agreement", "agreement")
    if not isinstance(told, dict) or value is None:
        return []
    bounds = interval(told, "ci95")
    words = with_error(value, bounds, percent=True)
    return [Estimate(_("Annotators among themselves"), value, words, bounds, "c")]


def gap_picture(report: Report) -> DotPlot | None:
    """Accuracy by how many ranks lie between the two answers: far apart should be easy."""
    parts = _parts(report, "by_gap")
    named = {
        key: _("1 rank apart") if key == "1" else _("%(n)s ranks apart") % {"n": key}
        for key in parts
    }
    return _share_rows(
        "by-gap",
        [(named[key], parts[key]) for key in sorted(parts, key=_rank_of)],
        title=_("Does it know the clear cases better?"),
    )


def annotator_picture(report: Report) -> DotPlot | None:
    """Accuracy by annotator: whom the model understands, and whom not."""
    parts = _parts(report, "by_annotator")
    if len(parts) < 2:
        return None
    most = sorted(parts, key=lambda key: -(number(parts[key], "pairs") or 0))[:MOST_ANNOTATORS]
    left = len(parts) - len(most)
    note = _("%(n)d more with fewer pairs are not shown.") % {"n": left} if left else ""
    return _share_rows(
        "by-annotator",
        [(key, parts[key]) for key in sorted(most)],
        title=_("Whose rankings does it foretell?"),
        note=note,
    )


def members_picture(report: Report) -> DotPlot | None:
    """Whether an ensemble knows when it is unsure."""
    told = report.get("ensemble")
    split = told.get("by_disagreement") if isinstance(told, dict) else None
    if not isinstance(split, dict):
        return None
    names = {"less": _("Members agree more"), "more": _("Members agree less")}
    rows = [
        (names.get(str(key), str(key)), part)
        for key, part in split.items()
        if isinstance(part, dict)
    ]
    return _share_rows("by-disagreement", rows, title=_("Does it know when it is unsure?"))


def _parts(report: Report, name: str) -> dict[str, Report]:
    """The accuracies of a report's parts that have pairs at all."""
    told = report.get(name)
    if not isinstance(told, dict):
        return {}
    return {
        str(key): part
        for key, part in told.items()
        if isinstance(part, dict) and number(part, "pair_accuracy") is not None
    }


def _rank_of(key: str) -> tuple[float, str]:
    return (float(key) if key.replace(".", "", 1).isdigit() else math.inf, key)


def _share_rows(
    key: str, rows: Iterable[tuple[str, Report]], *, title: str, note: str = ""
) -> DotPlot | None:
    """Accuracies with their intervals and numbers of pairs."""
    estimates = []
    for name, part in rows:
        value, bounds = number(part, "pair_accuracy"), interval(part, "ci95")
        if value is None:
            continue
        words = with_error(value, bounds, percent=True)
        pairs = number(part, "pairs")
        if pairs is not None:
            words = _("%(value)s, n = %(n)d") % {"value": words, "n": int(pairs)}
        estimates.append(Estimate(name, value, words, bounds))
    return dot_plot(
        key,
        estimates,
        title=title,
        unit=_("share of held-out pairs in the right order"),
        marks=[Mark(0.5, _("chance"), "quiet")],
        within=(0, 1),
        percent=True,
        note=" ".join(part for part in (_("Whiskers are 95 % intervals."), note) if part),
    )


def reliability_picture(report: Report) -> Chart | None:
    """How often the model is right where it is so sure."""
    told = report.get("reliability")
    bins = [one for one in told if isinstance(one, dict)] if isinstance(told, list) else []
    points = []
    for one in bins:
        sure, right = number(one, "confidence"), number(one, "accuracy")
        if sure is not None and right is not None:
            points.append(Point(sure, right, *(interval(one, "ci95") or (None, None))))
    if not points:
        return None
    return line_chart(
        "reliability",
        [
            Series(_("model"), points, valued=False),
            Series(
                _("ideal"),
                [Point(0.5, 0.5), Point(1, 1)],
                "b",
                dashed=True,
                tabled=False,
                valued=False,
            ),
        ],
        title=_("Is it as sure as it may be?"),
        unit=_("share of pairs in the right order"),
        x_name=_("how sure the model is"),
        x_span=(0.5, 1.0),
        x_counts=False,
        zero=False,
        within=(0, 1),
        note=_calibration_words(report),
    )


def _calibration_words(report: Report) -> str:
    """How far the model's confidence is off, and what its temperature makes of that."""
    error, mended = number(report, "ece"), number(report, "ece_calibrated")
    if error is None:
        return ""
    said = _("Below the dashed line it is too sure of itself; off by %(error)s on average.") % {
        "error": plain(error, 2)
    }
    if mended is None:
        return said
    return said + " " + _("With its temperature: %(error)s.") % {"error": plain(mended, 2)}


# --- a policy


def gain_picture(gain: Gain | None) -> DotPlot | None:
    """The gain with its interval against 0."""
    if gain is None:
        return None
    rows = [
        Estimate(name, value, with_error(value, None), None, tone)
        for name, value, tone in (
            (_("Old policy"), gain.before, "b"),
            (_("New policy"), gain.after, "c"),
        )
        if value is not None
    ]
    words = with_error(gain.value, gain.bounds, sign=True)
    rows.append(Estimate(_("Gain"), gain.value, words, gain.bounds))
    n = gain.prompts
    return dot_plot(
        "gain",
        rows,
        title=_("Does it really get better?"),
        unit=_("mean score of the reward model on held-out prompts"),
        zero=True,
        note=(
            _("Same prompts and seeds for both, n = %(n)d; the whisker is a 95 %% interval.")
            % {"n": n}
            if n
            else ""
        ),
    )


def win_picture(report: Report) -> DotPlot | None:
    """How often the policy's answer beats the reference's."""
    second = report.get("second")
    judges = [(_("Reward model"), report, "a")]
    if isinstance(second, dict):
        judges.append((_("Second reward model"), second, "c"))
    rows = []
    for name, told, tone in judges:
        value, bounds = number(told, "win_rate"), interval(told, "win_rate_ci95")
        if value is not None:
            words = with_error(value, bounds, percent=True)
            rows.append(Estimate(name, value, words, bounds, tone))
    counts = [number(report, name) for name in ("wins", "ties", "losses")]
    note = _("Whiskers are 95 % intervals.")
    if all(one is not None for one in counts):
        won, tied, lost = (int(one or 0) for one in counts)
        note = _(
            "%(won)d pairs won, %(tied)d tied, %(lost)d lost; a tie counts half. The whisker is a "
            "95 %% interval that counts prompts."
        ) % {"won": won, "tied": tied, "lost": lost}
    return dot_plot(
        "wins",
        rows,
        title=_("How often is the new answer better?"),
        unit=_("share of pairs of answers to the same prompt"),
        marks=[Mark(0.5, _("as often as not"), "quiet")],
        within=(0, 1),
        percent=True,
        note=note,
    )


def lengths_picture(report: Report) -> Chart | None:
    """The distribution of the answers' lengths, side by side."""
    series = []
    for name, side, tone in _sides(report):
        deciles = side.get("length_deciles")
        values = deciles if isinstance(deciles, list) else []
        if len(values) == 11 and all(isinstance(one, int | float) for one in values):
            points = [Point(10.0 * place, float(one)) for place, one in enumerate(values)]
            series.append(Series(name, points, tone))
    return line_chart(
        "lengths",
        series,
        title=_("How long are the answers?"),
        unit=_("tokens: so long at most"),
        x_name=_("share of the answers, %"),
    )


def variety_picture(report: Report) -> DotPlot | None:
    """Distinct-n of both models."""
    words = {
        "distinct_1": _("words"),
        "distinct_2": _("word pairs"),
        "distinct_3": _("word triples"),
    }
    rows = []
    for key, what in words.items():
        for name, side, tone in _sides(report):
            value = number(side, key)
            if value is not None:
                label = _("%(who)s: %(what)s") % {"who": name, "what": what}
                shown = with_error(value, None, percent=True)
                rows.append(Estimate(label, value, shown, None, tone))
    return dot_plot(
        "variety",
        rows,
        title=_("Do the answers still vary?"),
        unit=_("different ones, share of all (distinct-n)"),
        within=(0, 1),
        zero=True,
        percent=True,
        note=_("Longer answers repeat more by nature: see their lengths beside."),
    )


def ending_picture(report: Report) -> DotPlot | None:
    """How many answers come to their end."""
    rows = []
    for name, side, tone in _sides(report):
        value, bounds = number(side, "eos_rate"), interval(side, "eos_rate_ci95")
        if value is not None:
            shown = with_error(value, bounds, percent=True)
            rows.append(Estimate(name, value, shown, bounds, tone))
    return dot_plot(
        "ending",
        rows,
        title=_("Do the answers come to their end?"),
        unit=_("share of answers"),
        within=(0, 1),
        zero=True,
        percent=True,
    )


def entropy_picture(report: Report) -> DotPlot | None:
    """How open the choice of the next token still is."""
    rows = []
    for name, side, tone in _sides(report):
        value, bounds = number(side, "entropy"), interval(side, "entropy_ci95")
        if value is not None:
            rows.append(Estimate(name, value, with_error(value, bounds), bounds, tone))
    return dot_plot(
        "entropy",
        rows,
        title=_("How freely does it choose its words?"),
        unit=_("entropy in nats a token"),
        zero=True,
    )


def _sides(report: Report) -> list[tuple[str, Report, str]]:
    """(name, figures, tone) of the two models of an evaluation."""
    named = ((_("Old policy"), "reference", "b"), (_("New policy"), "policy", "c"))
    return [
        (name, report[key], tone) for name, key, tone in named if isinstance(report.get(key), dict)
    ]


# --- score against the distance from the reference


def frontier_picture(report: Report) -> Chart | None:
    """What the policy's KL bought, beside what choosing the best of n would have bought."""
    told = report.get("frontier")
    series = best_of_series(told) if isinstance(told, dict) else []
    fits = _frontier_fits(told) if isinstance(told, dict) else []
    history = report.get("history")
    if isinstance(history, dict):
        series += kl_series(history)
        fits += [(name, curve.get("fit")) for name, curve in _curves(history)]
    series += _own_point(report)
    return _against_kl("frontier", series, fits)


def curve_picture(report: Report) -> Chart | None:
    """The steps of a PPO run by their distance from the reference."""
    told = report.get("curve")
    if not isinstance(told, dict):
        return None
    fits = [(name, curve.get("fit")) for name, curve in _curves(told)]
    return _against_kl("kl-curve", kl_series(told), fits)


def _frontier_fits(told: Report) -> list[tuple[str, Any]]:
    return [(_("best of n"), told.get("score_fit")), (_("second"), told.get("second_fit"))]


def _against_kl(key: str, series: list[Series], fits: list[tuple[str, Any]]) -> Chart | None:
    if sum(len(one.points) for one in series) < 2:
        return None
    notes = [note for name, fit in fits if (note := turning_words(name, fit))]
    dashed = any(one.dashed for one in series)
    return line_chart(
        key,
        series,
        title=_("What does distance from the reference buy?"),
        unit=_("score of the reward model"),
        x_name=_("√KL (KL in nats a reply)"),
        x_counts=False,
        x_span=(0, 0),
        note=" ".join([*notes, _("Dashed: Gao's curves.")] if dashed else notes),
    )


def best_of_series(frontier: Report) -> list[Series]:
    """The frontier of the best of n, with Gao's curve through it."""
    points = frontier.get("points")
    found = []
    names = {"score": ("ci95", _("best of n"), "b"), "second": ("second_ci95", _("second"), "d")}
    for key, (edges, name, tone) in names.items():
        drawn = [
            Point(math.sqrt(kl), value, *(interval(one, edges) or (None, None)))
            for one in (points if isinstance(points, list) else [])
            if isinstance(one, dict)
            and (kl := number(one, "kl")) is not None
            and kl >= 0
            and (value := number(one, key)) is not None
        ]
        if drawn:
            found.append(Series(name, drawn, tone))
            fitted = _fitted(frontier.get(f"{key}_fit"), drawn[-1].x)
            found += [Series("", fitted, tone, dashed=True, tabled=False)] if fitted else []
    return found


def _curves(told: Report) -> list[tuple[str, Report]]:
    names = {
        "reward": _("training"),
        "heldout_reward": _("held out"),
        "second_reward": _("second"),
    }
    return [(names[key], told[key]) for key in names if isinstance(told.get(key), dict)]


def kl_series(told: Report) -> list[Series]:
    """The steps of a training as points, each figure with Gao's curve through it."""
    found = []
    for (name, curve), tone in zip(_curves(told), "aed", strict=False):
        rows = curve.get("points")
        points = sorted(
            (
                Point(math.sqrt(kl), value)
                for one in (rows if isinstance(rows, list) else [])
                if isinstance(one, dict)
                and (kl := number(one, "kl")) is not None
                and kl >= 0
                and (value := number(one, "score")) is not None
            ),
            key=lambda point: point.x,
        )
        if not points:
            continue
        found.append(Series(name, points, tone, scattered=True))
        fitted = _fitted(curve.get("fit"), points[-1].x)
        if fitted:
            found.append(Series("", fitted, tone, dashed=True, tabled=False))
    return found


def _fitted(fit: Any, until: float) -> list[Point]:
    """Points of Gao's curve from the reference to `until`."""
    at = gao(fit)
    if at is None or until <= 0:
        return []
    places = (until * place / CURVE for place in range(CURVE + 1))
    return [Point(d, at(d)) for d in places]


def gao(fit: Any) -> Callable[[float], float] | None:
    """The curve that a report tells: start + d(α − βd), or start + d(α − β log d) for "rl"."""
    if not isinstance(fit, dict):
        return None
    start, alpha, beta = (number(fit, name) for name in ("start", "alpha", "beta"))
    if start is None or alpha is None or beta is None:
        return None
    bent: Callable[[float], float] = (
        (lambda d: d) if fit.get("kind") == "bon" else (lambda d: math.log(d) if d > 0 else 0.0)
    )
    return lambda d: start + d * (alpha - beta * bent(d))


def turning_words(name: str, fit: Any) -> str:
    """Where a fitted curve is highest, in a sentence; nothing where it does not turn."""
    best = number(fit, "best_kl") if isinstance(fit, dict) else None
    if best is None:
        return ""
    if fit.get("beyond_data"):
        return _(
            "By its curve “%(name)s” would turn at KL %(kl)s, further than anything measured."
        ) % {
            "name": name,
            "kl": plain(best, 2),
        }
    return _("By its curve “%(name)s” is highest at KL %(kl)s.") % {
        "name": name,
        "kl": plain(best, 2),
    }


def _own_point(report: Report) -> list[Series]:
    """Where the tested policy itself stands."""
    kl, score = number(report, "kl"), number(report, "score_after")
    if kl is None or score is None:
        return []
    side = report.get("policy")
    edges = (
        interval(side, "score_ci95")
        if isinstance(side, dict)
        else interval(report, "score_after_ci95")
    )
    point = Point(math.sqrt(max(0.0, kl)), score, *(edges or (None, None)))
    return [Series(_("this policy"), [point], "c")]


def best_of_picture(report: Report) -> DotPlot | None:
    """What choosing the best of n answers gained."""
    names = (("mean_score", _("All answers"), "b"), ("best_score", _("The winners"), "a"))
    rows = [
        Estimate(name, value, with_error(value, None), None, tone)
        for key, name, tone in names
        if (value := number(report, key)) is not None
    ]
    bound = number(report, "kl_bound")
    return dot_plot(
        "best-of-n",
        rows,
        title=_("What did choosing gain?"),
        unit=_("mean score of the reward model"),
        zero=True,
        note=(
            _("Choosing moves the policy by at most %(kl)s nats a reply.") % {"kl": plain(bound)}
            if bound is not None
            else ""
        ),
    )


# --- a language model


def perplexity_picture(report: Report) -> DotPlot | None:
    """How well it foretells held-out text."""
    named = (
        ("perplexity_before", _("Before"), "b"),
        ("perplexity", _("After training"), "a"),
    )
    rows = [
        Estimate(name, value, with_error(value, bounds), bounds, tone)
        for key, name, tone in named
        if (value := number(report, key)) is not None
        for bounds in (interval(report, f"{key}_ci95"),)
    ]
    return dot_plot(
        "perplexity",
        rows,
        title=_("How well does it foretell what it never saw?"),
        unit=_("perplexity a token: lower is better"),
        zero=True,
    )
