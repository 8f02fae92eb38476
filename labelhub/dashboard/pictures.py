"""Which charts a page shows: from a run's figures and reports to laid-out charts.

`METRICS` is the whole list of figures that have a name and a unit for people; a figure that is not
in it is drawn all the same, under its own name.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from labelhub.lib.charts import (
    Chart,
    DotPlot,
    Estimate,
    Kin,
    Lineage,
    Mark,
    Point,
    Series,
    dot_plot,
    line_chart,
    lineage,
)
from labelhub.lib.figures import plain, with_error
from labelhub.registry.models import ModelVersion
from labelhub.rounds.queries import Gain
from labelhub.runs.models import Run
from labelhub.runs.queries import Series as Figures
from labelhub.runs.queries import interval, number

Words = str | Promise


@dataclass(frozen=True)
class Metric:
    """How one figure of the trainer is shown."""

    title: Words
    unit: Words = ""
    zero: bool = True
    within: tuple[float, float] | None = None
    # A second figure that is the half width of a band around this one.
    spread: str = ""
    # Another figure to draw in the same chart, with its name there.
    beside: str = ""
    own_name: Words = ""
    beside_name: Words = ""
    note: Words = ""


METRICS: dict[str, Metric] = {
    "reward": Metric(
        gettext_lazy("Reward"),
        gettext_lazy("score of the reward model"),
        spread="reward_std",
        note=gettext_lazy("The band is ± 1 standard deviation of the answers of a step."),
    ),
    "kl": Metric(
        gettext_lazy("Distance from the reference"),
        gettext_lazy("KL in nats a reply"),
        own_name="KL",
        beside="kl_k3",
        beside_name=gettext_lazy("k3 estimate"),
    ),
    "pair_accuracy": Metric(
        gettext_lazy("Pairs ordered as in the rankings"),
        gettext_lazy("share, training pairs"),
        zero=False,
        within=(0, 1),
    ),
    "loss": Metric(gettext_lazy("Loss"), gettext_lazy("nats a pair")),
    "entropy": Metric(gettext_lazy("Entropy"), gettext_lazy("nats a token")),
    "length": Metric(gettext_lazy("Length of an answer"), gettext_lazy("tokens")),
    "eos_rate": Metric(
        gettext_lazy("Answers that come to their end"), gettext_lazy("share"), within=(0, 1)
    ),
    "distinct_2": Metric(
        gettext_lazy("Different word pairs"), gettext_lazy("share of all"), within=(0, 1)
    ),
    "policy_loss": Metric(gettext_lazy("Policy loss")),
    "value_loss": Metric(gettext_lazy("Value loss")),
    "explained_variance": Metric(
        gettext_lazy("What the critic explains"), gettext_lazy("share of the variance")
    ),
    "clip_fraction": Metric(
        gettext_lazy("Clipped updates"), gettext_lazy("share of tokens"), within=(0, 1)
    ),
    "approx_kl": Metric(
        gettext_lazy("Move within a step"), gettext_lazy("approximate KL in nats a token")
    ),
    "ratio_mean": Metric(
        gettext_lazy("Probability ratio"), gettext_lazy("new over old, mean"), zero=False
    ),
    "kl_coef": Metric(gettext_lazy("Weight of the KL penalty")),
    "lr": Metric(gettext_lazy("Learning rate")),
    "grad_norm": Metric(gettext_lazy("Norm of the gradient")),
    "seconds": Metric(gettext_lazy("Time of a step"), gettext_lazy("seconds")),
    "objective": Metric(
        gettext_lazy("What PPO maximises"), gettext_lazy("reward less the KL penalty")
    ),
}
# Shown inside another chart, never on their own.
_ELSEWHERE = {metric.spread for metric in METRICS.values()} | {
    metric.beside for metric in METRICS.values()
}


def curves_of(run: Run, figures: Figures, names: Iterable[str] = tuple(METRICS)) -> list[Chart]:
    """A chart for each of these figures that the run measured, in this order."""
    charts = (metric_chart(run, figures, name) for name in names if name in figures)
    return [chart for chart in charts if chart is not None]


def other_curves_of(run: Run, figures: Figures) -> list[Chart]:
    """The figures that have no name for people, under the trainer's own names."""
    return curves_of(run, figures, sorted(set(figures) - set(METRICS) - _ELSEWHERE))


def metric_chart(run: Run, figures: Figures, name: str) -> Chart | None:
    """One figure over the steps of its run, with the steps still to come left free."""
    metric = METRICS.get(name, Metric(name, zero=False))
    own = str(metric.own_name or metric.title)
    series = [Series(own, _points(figures, name, metric.spread))]
    if metric.beside in figures:
        beside = str(metric.beside_name or metric.beside)
        series.append(Series(beside, _points(figures, metric.beside), "b", dashed=True))
    return line_chart(
        f"run-{run.pk}-{name}",
        series,
        title=str(metric.title),
        unit=str(metric.unit),
        x_name=_("step"),
        marks=_marks(run, name),
        zero=metric.zero,
        within=metric.within,
        x_span=(1, run.total) if run.total > 1 else None,
        note=str(metric.note),
    )


def _points(figures: Figures, name: str, spread: str = "") -> list[Point]:
    widths = dict(figures.get(spread, []))
    points = []
    for step, value in figures.get(name, []):
        half = widths.get(step)
        edges = (value - half, value + half) if half is not None else (None, None)
        points.append(Point(step, value, *edges))
    return points


def _marks(run: Run, name: str) -> list[Mark]:
    """The level that a figure is measured against."""
    if name == "kl":
        budget = number(run.config, "kl_budget")
        return [Mark(budget, _("budget %(nats)s") % {"nats": plain(budget)})] if budget else []
    if name == "pair_accuracy":
        return [Mark(0.5, _("chance"), "quiet")]
    return []


def accuracy_picture(report: dict[str, Any]) -> DotPlot | None:
    """The reward model on pairs it never saw, against what length alone and chance would do."""
    value, length = number(report, "pair_accuracy"), number(report, "length_baseline")
    if value is None:
        return None
    bounds, pairs = interval(report, "ci95"), number(report, "pairs")
    rows = [
        Estimate(_("Reward model"), value, with_error(value, bounds, percent=True), bounds),
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
        title=_("Does the reward model know what people prefer?"),
        unit=_("share of held-out pairs in the right order"),
        marks=[Mark(0.5, _("chance"), "quiet")],
        within=(0, 1),
        percent=True,
        note=_("Whiskers are 95 %% intervals; %(n)s.") % {"n": n} if n else "",
    )


def _agreement(report: dict[str, Any]) -> list[Estimate]:
    """How far annotators agree with each other: no model can be expected to agree more."""
    told = report.get("annotator_agreement")
    value = number(report, "annotator_agreement", "agreement")
    if not isinstance(told, dict) or value is None:
        return []
    bounds = interval(told, "ci95")
    words = with_error(value, bounds, percent=True)
    return [Estimate(_("Annotators among themselves"), value, words, bounds, "c")]


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


# Bases have the last column, so that what stems from them runs down beside the others.
LANES = {"policy": 0, "sft": 0, "reward": 1, "base": 2}


def family_tree(versions: list[ModelVersion]) -> Lineage:
    """The drawing beside the versions: policies, reward models and bases have a column each."""
    return lineage(
        [
            Kin(
                version.pk,
                LANES.get(version.kind, 0),
                [link.parent_id for link in version.parent_links.all()],
            )
            for version in versions
        ]
    )
