"""Which charts a page shows: from a run's figures and reports to laid-out charts.

The pictures of reports themselves are in report_pictures.py.

`METRICS` is the whole list of figures that have a name and a unit for people; a figure that is not
in it is drawn all the same, under its own name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from labelhub.dashboard.report_pictures import (
    accuracy_picture,
    annotator_picture,
    best_of_picture,
    curve_picture,
    ending_picture,
    entropy_picture,
    frontier_picture,
    gain_picture,
    gap_picture,
    lengths_picture,
    members_picture,
    perplexity_picture,
    reliability_picture,
    variety_picture,
    win_picture,
)
from labelhub.lib.charts import (
    Chart,
    DotPlot,
    Kin,
    Lineage,
    Mark,
    Point,
    Series,
    line_chart,
    lineage,
)
from labelhub.lib.figures import plain
from labelhub.registry.models import ModelVersion
from labelhub.rounds.queries import gain_of
from labelhub.runs import rules
from labelhub.runs.models import Run
from labelhub.runs.queries import Series as Figures
from labelhub.runs.queries import number

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
    "loss": Metric(
        gettext_lazy("Loss"),
        gettext_lazy("nats a pair"),
        own_name=gettext_lazy("training"),
        beside="heldout_loss",
        beside_name=gettext_lazy("held out"),
    ),
    "perplexity": Metric(
        gettext_lazy("Perplexity"), gettext_lazy("of some held-out documents, a token")
    ),
    "bits_per_byte": Metric(
        gettext_lazy("Bits a byte"), gettext_lazy("of some held-out documents")
    ),
    "token_accuracy": Metric(
        gettext_lazy("Tokens foretold"), gettext_lazy("share of the answers' tokens"), within=(0, 1)
    ),
    "margin": Metric(
        gettext_lazy("Better against worse answer"),
        gettext_lazy("difference of implicit rewards"),
    ),
    "reward_better": Metric(
        gettext_lazy("Implicit reward"),
        gettext_lazy("log-odds"),
        own_name=gettext_lazy("better"),
        beside="reward_worse",
        beside_name=gettext_lazy("worse"),
    ),
    "best_score": Metric(
        gettext_lazy("Scores while choosing"),
        gettext_lazy("score of the reward model"),
        own_name=gettext_lazy("winners"),
        beside="mean_score",
        beside_name=gettext_lazy("all answers"),
    ),
    "heldout_reward": Metric(
        gettext_lazy("Score on held-out prompts"),
        gettext_lazy("score of the reward model"),
        own_name=gettext_lazy("trained on"),
        beside="second_reward",
        beside_name=gettext_lazy("second reward model"),
    ),
    "member_spread": Metric(
        gettext_lazy("Disagreement of the ensemble"),
        gettext_lazy("standard deviation over its members"),
        own_name=gettext_lazy("training"),
        beside="heldout_spread",
        beside_name=gettext_lazy("held out"),
    ),
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
#: stages whose loss counts tokens and not pairs of answers
_BY_TOKEN = ("pretrain", "sft", "bestofn")
# Shown inside another chart, never on their own.
_ELSEWHERE = {metric.spread for metric in METRICS.values()} | {
    metric.beside for metric in METRICS.values()
}


def curves_of(run: Run, figures: Figures, names: Iterable[str] = tuple(METRICS)) -> list[Chart]:
    """A chart for each of these figures that the run measured, in this order.

    What an ended run of several steps measured once is no curve; its report tells it.
    """
    least = 2 if run.state in rules.ENDED and run.total > 1 else 1
    charts = (
        metric_chart(run, figures, name) for name in names if len(figures.get(name, ())) >= least
    )
    return [chart for chart in charts if chart is not None]


def other_curves_of(run: Run, figures: Figures) -> list[Chart]:
    """The figures that have no name for people, under the trainer's own names."""
    others = set(figures) - set(METRICS) - _ELSEWHERE
    # Standard errors (…_se) tell nothing without their figure.
    return curves_of(run, figures, sorted(name for name in others if not name.endswith("_se")))


def metric_chart(run: Run, figures: Figures, name: str) -> Chart | None:
    """One figure over the steps of its run, with the steps still to come left free."""
    metric = METRICS.get(name, Metric(name, zero=False))
    own = str(metric.own_name or metric.title)
    series = [Series(own, _points(figures, name, metric.spread))]
    if metric.beside in figures:
        beside = str(metric.beside_name or metric.beside)
        series.append(Series(beside, _points(figures, metric.beside), "b", dashed=True))
    by_token = name == "loss" and run.stage in _BY_TOKEN
    return line_chart(
        f"run-{run.pk}-{name}",
        series,
        title=str(metric.title),
        unit=_("nats a token") if by_token else str(metric.unit),
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


Picture = Chart | DotPlot


def pictures_of(report: dict[str, Any], stage: str) -> list[Picture]:
    """Every picture that the report of a finished run of this stage gives, the chief one first.

    What a report does not tell gives no picture, so a report of any age can be shown.
    """
    drawn: list[Picture | None] = [draw(report) for draw in REPORTS.get(stage, ())]
    return [picture for picture in drawn if picture is not None]


def _gain(report: dict[str, Any]) -> DotPlot | None:
    return gain_picture(gain_of(report))


_REWARD: tuple[Callable[[dict[str, Any]], Picture | None], ...] = (
    accuracy_picture,
    gap_picture,
    reliability_picture,
    members_picture,
    annotator_picture,
)
#: stage → its pictures; an evaluation tests a reward model or a policy, and tells only one of them
REPORTS: dict[str, tuple[Callable[[dict[str, Any]], Picture | None], ...]] = {
    "pretrain": (perplexity_picture,),
    "sft": (perplexity_picture,),
    "reward": _REWARD,
    "ppo": (curve_picture,),
    "prefer": (_gain, partial(accuracy_picture, of_policy=True), gap_picture, reliability_picture),
    "bestofn": (best_of_picture, frontier_picture),
    "evaluate": (
        _gain,
        win_picture,
        frontier_picture,
        lengths_picture,
        variety_picture,
        ending_picture,
        entropy_picture,
        *_REWARD,
    ),
}


# Bases have the last column, so that what stems from them runs down beside the others.
LANES = {"policy": 0, "sft": 0, "reward": 1, "base": 2, "encoder": 2}


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
