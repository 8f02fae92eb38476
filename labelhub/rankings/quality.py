"""How good a project's rankings are: reads them, and makes figures of each kind (a worker does).

For the project, for each annotator and for each week: agreement between people (agreement.py),
accuracy on known rankings, consistency with oneself on repeats, pace, and whether the best-ranked
card stands more often in one place than in another.

Choices.
- Sets that were given out by priority are the ones that are hard to order, so agreement on them is
  too low a guess for all. `uniform` holds the same figures of opinions drawn without priority.
- What is said to annotators themselves about known rankings and repeats moves in steps of
  `CHECKS_A_STEP`: otherwise the figure's next move would tell which set had been one.

Not here: words for people (the doors say them), and consequences. No figure changes what anybody is
given to do, but `reliability` may weigh rankings in training where the project asks for it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from labelhub.accounts.models import User
from labelhub.projects.models import Project
from labelhub.rankings import agreement, consensus, estimates
from labelhub.rankings.estimates import Figure
from labelhub.rankings.facts import Check, Facts, Given, read_facts
from labelhub.rankings.models import QualityReport, Ranking
from labelhub.rankings.rules import kendall_tau_b, pairs

Figures = dict[str, Figure]

HASTY_SECONDS = 8
NEEDED_RANKINGS = 20
NEEDED_CHECKS = 10
NEEDED_IN_A_WEEK = 10
CHECKS_A_STEP = 10
# A known ranking was made with care: what an annotator who almost never errs would be believed.
KNOWN_RELIABILITY = 0.98


# --- figures


def figures_from(facts: Facts, *, of: int | None = None, needed: int | None = None) -> Figures:
    """All figures of a part of the facts; `of` compares one person with the others."""
    sets = [one.opinions for one in facts.shared]
    for_sets = agreement.NEEDED_SETS if needed is None else needed
    return {
        "agreement": agreement.pairwise_agreement(sets, of=of, needed=for_sets),
        "tau_b": agreement.mean_tau_b(sets, of=of, needed=for_sets),
        "kendall_w": agreement.mean_w(sets, needed=for_sets),
        "alpha": agreement.krippendorff_alpha(sets, needed=for_sets),
        **check_figures(facts.gold, "gold"),
        **check_figures(facts.repeats, "repeat"),
        **habit_figures(facts.given, NEEDED_RANKINGS if needed is None else needed),
    }


def check_figures(checks: Iterable[Check], name: str) -> Figures:
    """Pairs in the wanted order, and τ-b with it, over checks.

    Of the pairs that the wanted order tells apart, one that was tied instead counts half; whoever
    ties all has told nothing, so the correlation is 0.
    """
    kept = list(checks)
    taus = [(kendall_tau_b(one.wanted, one.order) or 0.0, 1) for one in kept]
    return {
        f"{name}_pairs": estimates.ratio([_right(one) for one in kept], needed=NEEDED_CHECKS),
        f"{name}_tau": estimates.ratio(taus, needed=NEEDED_CHECKS, span=(-1, 1)),
    }


def _right(check: Check) -> tuple[float, int]:
    """(pairs in the wanted order, pairs that have one)."""
    wanted = pairs(check.wanted).better_worse
    order = check.order
    right = sum(
        1.0 if order[better] < order[worse] else 0.5 * (order[better] == order[worse])
        for better, worse in wanted
    )
    return right, len(wanted)


def habit_figures(given: Sequence[Given], needed: int) -> Figures:
    """The median active time, how many took less than HASTY_SECONDS, and the share of tied pairs.

    A browser without script tells no times; what it sends counts as unknown, not as quick.
    """
    times = [one.seconds for one in given if one.seconds > 0]
    tied = [
        (len(found.ties), len(found.ties) + len(found.better_worse))
        for found in (pairs(one.order) for one in given)
    ]
    hasty = sum(seconds < HASTY_SECONDS for seconds in times)
    return {
        "seconds": estimates.median(times, needed=needed),
        "hasty": estimates.share(hasty, len(times), needed=needed),
        "ties": estimates.ratio(tied, needed=needed),
    }


def position_figures(given: Iterable[Given]) -> list[Figure]:
    """How often the best-ranked card stood at each position, for the most usual number of cards."""
    by_size: dict[int, list[tuple[float, ...]]] = defaultdict(list)
    for one in given:
        by_size[len(one.best)].append(one.best)
    by_size.pop(0, None)
    if not by_size:
        return []
    rows = max(by_size.values(), key=len)
    return [
        estimates.ratio([(row[n], 1) for row in rows], needed=NEEDED_RANKINGS)
        for n in range(len(rows[0]))
    ]


def fit(facts: Facts) -> dict[int, float]:
    """The reliability of each annotator, from 0 to 1, by shared sets and known rankings."""
    orders: dict[int, list[dict[Any, int]]] = {one.annotator: [] for one in facts.given}
    known: dict[int, dict[Any, int]] = {}
    for one in facts.shared:
        for annotator, order in one.opinions.items():
            orders[annotator].append({(one.pk, n): rank for n, rank in order.items()})
    for check in facts.gold:
        named = {(check.answer_set, n): rank for n, rank in check.order.items()}
        orders[check.annotator].append(named)
        known[check.answer_set] = {(check.answer_set, n): r for n, r in check.wanted.items()}
    voices: dict[int | None, list[dict[Any, int]]] = {who: orders[who] for who in orders}
    voices[None] = list(known.values())
    held: dict[int | None, float] = {None: KNOWN_RELIABILITY}
    found = consensus.reliabilities(voices, held=held)
    return {who: value for who, value in found.items() if who is not None}


# --- the report that a worker stores


def build_report(project: Project) -> dict[str, Any]:
    """Every figure of a project, as JSON: what `Quality.of` reads again."""
    facts = read_facts(project)
    reliable = fit(facts)
    counts = Counter(one.annotator for one in facts.given)
    weights = consensus.weights_of(reliable, counts)
    return {
        "rankings": len(facts.given),
        "project": {
            **_measured(facts),
            "weeks": [
                _week(monday, figures_from(part, needed=NEEDED_IN_A_WEEK), part)
                for monday, part in facts.by_week().items()
            ],
        },
        "uniform": _stored(figures_from(facts.drawn_uniformly())),
        "people": [
            _person(who, part, reliable[who], weights[who])
            for who, part in facts.by_annotator().items()
        ],
    }


def _person(who: int, part: Facts, reliable: float, weight: float) -> dict[str, Any]:
    return {
        "user": who,
        "rankings": len(part.given),
        "reliability": reliable,
        "weight": weight,
        **_measured(part, of=who),
        "own_checks": _stored(
            check_figures(_whole_steps(part.gold), "gold")
            | check_figures(_whole_steps(part.repeats), "repeat")
        ),
        "weeks": [
            _week(monday, _own_week(week, who), week) for monday, week in part.by_week().items()
        ],
    }


def _own_week(part: Facts, who: int) -> Figures:
    sets = [one.opinions for one in part.shared]
    return {
        "agreement": agreement.pairwise_agreement(sets, of=who, needed=NEEDED_IN_A_WEEK),
        "tau_b": agreement.mean_tau_b(sets, of=who, needed=NEEDED_IN_A_WEEK),
        **habit_figures(part.given, NEEDED_IN_A_WEEK),
    }


def _whole_steps(checks: list[Check]) -> list[Check]:
    """The oldest checks, as many as make whole steps."""
    kept = len(checks) - len(checks) % CHECKS_A_STEP
    return sorted(checks, key=lambda one: one.pk)[:kept]


def _measured(part: Facts, of: int | None = None) -> dict[str, Any]:
    return {
        "figures": _stored(figures_from(part, of=of)),
        "positions": [figure.to_json() for figure in position_figures(part.given)],
    }


def _week(monday: date, figures: Figures, part: Facts) -> dict[str, Any]:
    return {
        "monday": monday.isoformat(),
        "rankings": len(part.given),
        "figures": _stored(figures),
    }


def _stored(figures: Figures) -> dict[str, Any]:
    return {name: figure.to_json() for name, figure in figures.items()}


# --- reading it again


@dataclass(frozen=True)
class Week:
    """One week's figures."""

    monday: date
    rankings: int
    figures: Figures


@dataclass(frozen=True)
class Measured:
    """Figures of the project, or of one person in it."""

    rankings: int
    figures: Figures
    positions: list[Figure]  # of the page, from the first one
    weeks: list[Week]  # oldest first


@dataclass(frozen=True)
class Person(Measured):
    """One annotator's figures, each comparing this person with the others."""

    user_id: int
    reliability: float
    weight: float
    # The figures of known rankings and repeats that this person may see.
    own_checks: Figures
    made: datetime


@dataclass(frozen=True)
class Quality:
    """A stored report, ready to be shown."""

    pk: int
    made: datetime
    project: Measured
    uniform: Figures
    people: list[Person]

    @classmethod
    def of(cls, report: QualityReport) -> Quality:
        """Read a report's JSON."""
        told = report.figures
        return cls(
            pk=report.pk,
            made=report.created,
            project=Measured(**_parts({"rankings": told["rankings"], **told["project"]})),
            uniform=_loaded(told["uniform"]),
            people=[
                Person(
                    **_parts(one),
                    user_id=one["user"],
                    reliability=one["reliability"],
                    weight=one["weight"],
                    own_checks=_loaded(one["own_checks"]),
                    made=report.created,
                )
                for one in told["people"]
            ],
        )


def _parts(told: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "rankings": told["rankings"],
        "figures": _loaded(told["figures"]),
        "positions": [Figure.from_json(one) for one in told["positions"]],
        "weeks": [
            Week(date.fromisoformat(one["monday"]), one["rankings"], _loaded(one["figures"]))
            for one in told["weeks"]
        ],
    }


def _loaded(told: Mapping[str, Any]) -> Figures:
    return {name: Figure.from_json(one) for name, one in told.items()}


def newest_report(project: Project) -> QualityReport | None:
    """The report that was stored last."""
    return QualityReport.objects.filter(project=project).order_by("-pk").first()


def latest(project: Project) -> Quality | None:
    """The newest figures of a project; None before the first."""
    report = newest_report(project)
    return Quality.of(report) if report else None


def figures_of(project: Project, user: User) -> Person | None:
    """One person's figures in the newest report, and nobody else's; None if it has none."""
    found = latest(project)
    return next((one for one in found.people if one.user_id == user.pk), None) if found else None


def rankings_in(project: Project) -> int:
    """How many rankings the project holds: by this a report's age is judged."""
    return Ranking.objects.filter(project=project, is_simulated=project.is_simulated).count()


def is_outdated(project: Project, report: QualityReport | None) -> bool:
    """Whether there is enough that a report does not know of: a twentieth, but 20 at least."""
    count = rankings_in(project)
    if report is None:
        return count > 0
    return abs(count - report.rankings) >= max(NEEDED_RANKINGS, report.rankings / 20)


def reliability(project: Project) -> dict[int, float]:
    """What each annotator's rankings count in training, by user id; their mean is 1.

    The mean is over the rankings, so that a snapshot weighs as much as without. Taken from the
    newest report where that still holds, else computed from the rankings of now.
    """
    report = newest_report(project)
    if report is not None and not is_outdated(project, report):
        return {one.user_id: one.weight for one in Quality.of(report).people}
    facts = read_facts(project)
    return consensus.weights_of(fit(facts), Counter(one.annotator for one in facts.given))
