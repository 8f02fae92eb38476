"""What a project's rankings say, read set by set and sorted into what figures are made from.

Choices.
- Opinions only: a reviewer who decides has read what others said, and the tutorial is for learning.
- What was corrected later counts as it was first given on known rankings and repeats: a check must
  not become better by being looked up.
- At most the newest `MOST` rankings are read, so memory has a bound.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from itertools import groupby
from typing import Any

from django.db.models import Q
from django.utils import timezone

from labelhub.assignments.models import Slot
from labelhub.projects.models import Project
from labelhub.prompts.models import AnswerSet
from labelhub.rankings.agreement import middle_places
from labelhub.rankings.models import Gold, Ranking, RankingRevision

# From the number of an answer in its set to twice its mean place (agreement.middle_places).
Order = dict[int, int]

MOST = 200_000
WEEKS = 26
_SEEN = ("rank", "gold", "repeat")  # purposes of answer sets that figures are made from
_NOT_OPINIONS = (Slot.Kind.TUTORIAL, Slot.Kind.REVIEW)


@dataclass(frozen=True, slots=True)
class Given:
    """One ranking as it counts here."""

    pk: int
    annotator: int
    week: date
    seconds: float
    uniform: bool
    order: Order
    # For each position of the page: how much of the best rank stood there; shared by ties.
    best: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Shared:
    """An answer set that several people ranked."""

    pk: int
    week: date
    opinions: dict[int, Order]
    uniform: frozenset[int]  # whose opinions were drawn without regard to priority


@dataclass(frozen=True, slots=True)
class Check:
    """A ranking beside what it should be: the known one, or the same person's earlier one."""

    pk: int
    answer_set: int
    annotator: int
    week: date
    wanted: Order
    order: Order


@dataclass(slots=True)
class Facts:
    """Everything that figures are made from, of the project or of a part of it."""

    given: list[Given] = field(default_factory=list)
    shared: list[Shared] = field(default_factory=list)
    gold: list[Check] = field(default_factory=list)
    repeats: list[Check] = field(default_factory=list)

    def by_annotator(self) -> dict[int, Facts]:
        """Each person's part: a shared set belongs to all who ranked it."""
        found: dict[int, Facts] = defaultdict(Facts)
        for one in self.given:
            found[one.annotator].given.append(one)
        for together in self.shared:
            for annotator in together.opinions:
                found[annotator].shared.append(together)
        for check in self.gold:
            found[check.annotator].gold.append(check)
        for check in self.repeats:
            found[check.annotator].repeats.append(check)
        return dict(sorted(found.items()))

    def by_week(self) -> dict[date, Facts]:
        """Each week's part, by its Monday; at most the latest WEEKS of them."""
        found: dict[date, Facts] = defaultdict(Facts)
        for one in self.given:
            found[one.week].given.append(one)
        for together in self.shared:
            found[together.week].shared.append(together)
        for check in self.gold:
            found[check.week].gold.append(check)
        for check in self.repeats:
            found[check.week].repeats.append(check)
        return dict(sorted(found.items())[-WEEKS:])

    def drawn_uniformly(self) -> Facts:
        """The opinions that were given out without regard to priority, and what they share."""
        alone = Facts(given=[one for one in self.given if one.uniform])
        for one in self.shared:
            kept = {who: order for who, order in one.opinions.items() if who in one.uniform}
            if len(kept) > 1:
                alone.shared.append(Shared(one.pk, one.week, kept, one.uniform))
        return alone


def read_facts(project: Project) -> Facts:
    """Read a project's rankings, set by set."""
    known, originals = _known_orders(project), _originals(project)
    first = _first_versions(project)
    earlier: dict[int, dict[int, Order]] = {}  # by set and annotator, of sets that are repeated
    facts = Facts()
    for (pk, original), rows in groupby(_rows(project), key=lambda row: row[:2]):
        given = [_given(list(of_one)) for _pk, of_one in groupby(rows, key=lambda row: row[2])]
        facts.given += given
        honest = {one.annotator: first.get(one.pk, one.order) for one in given}
        if pk in originals:
            earlier[pk] = honest
        if pk in known:
            facts.gold += (_check(pk, one, known[pk], honest[one.annotator]) for one in given)
        elif original is not None:
            before = earlier.get(original, {})
            facts.repeats += (
                _check(pk, one, before[one.annotator], honest[one.annotator])
                for one in given
                if one.annotator in before
            )
        elif len(given) > 1:
            facts.shared.append(_shared(pk, given))
    return facts


def _rows(project: Project) -> Iterator[tuple[Any, ...]]:
    """One row for each answer of each ranking, set by set; rankings of one set one by one."""
    rankings = Ranking.objects.filter(
        project=project,
        is_simulated=project.is_simulated,
        adjudicates=False,
        answer_set__purpose__in=_SEEN,
    ).exclude(slot__kind__in=_NOT_OPINIONS)
    oldest = rankings.order_by("-pk").values_list("pk", flat=True)[MOST - 1 : MOST].first()
    if oldest is not None:
        rankings = rankings.filter(pk__gte=oldest)
    rows = rankings.order_by("answer_set_id", "pk").values_list(
        "answer_set_id", "answer_set__original_id", "pk", "annotator_id", "created", "active_ms",
        "slot__uniform", "items__answer__n", "items__rank", "items__position",
    )  # fmt: skip
    return iter(rows.iterator(chunk_size=4000))


def _given(rows: list[tuple[Any, ...]]) -> Given:
    _set, _original, pk, annotator, created, active_ms, uniform, *_ = rows[0]
    best = [position for *_, rank, position in rows if rank == 1]
    return Given(
        pk=pk,
        annotator=annotator,
        week=week_of(created),
        seconds=active_ms / 1000,
        uniform=uniform,
        order=middle_places({n: rank for *_, n, rank, _position in rows}),
        best=tuple((n in best) / len(best) for n in range(len(rows))) if best else (),
    )


def week_of(moment: datetime) -> date:
    """The Monday of the week in which something happened, by the clock of this place."""
    day = timezone.localtime(moment).date()
    return day - timedelta(days=day.weekday())


def _shared(pk: int, given: list[Given]) -> Shared:
    return Shared(
        pk=pk,
        week=max(one.week for one in given),
        opinions={one.annotator: one.order for one in given},
        uniform=frozenset(one.annotator for one in given if one.uniform),
    )


def _check(answer_set: int, given: Given, wanted: Order, order: Order) -> Check:
    return Check(given.pk, answer_set, given.annotator, given.week, wanted, order)


def _known_orders(project: Project) -> dict[int, Order]:
    """The known ranking of each gold set, by the numbers of its answers."""
    rows = Gold.objects.filter(
        answer_set__prompt__project=project, answer_set__purpose=AnswerSet.Purpose.GOLD
    ).values_list("answer_set_id", "ranks", "answer_set__answers__pk", "answer_set__answers__n")
    found: dict[int, Order] = defaultdict(dict)
    for answer_set, ranks, pk, n in rows:
        if str(pk) in ranks:
            found[answer_set][n] = ranks[str(pk)]
    return {answer_set: middle_places(order) for answer_set, order in found.items()}


def _originals(project: Project) -> set[int]:
    """The sets that were shown to somebody a second time."""
    copies = AnswerSet.objects.filter(
        prompt__project=project, purpose=AnswerSet.Purpose.REPEAT, original__isnull=False
    )
    return set(copies.values_list("original_id", flat=True))


def _first_versions(project: Project) -> dict[int, Order]:
    """By ranking: the order before the first correction, where checks could be corrected."""
    checked = Q(ranking__answer_set__purpose__in=["gold", "repeat"]) | Q(
        ranking__answer_set__copies__isnull=False
    )
    rows = RankingRevision.objects.filter(checked, ranking__project=project, n=1).values_list(
        "ranking_id", "facts"
    )
    ranks = {pk: {one["answer_id"]: one["rank"] for one in facts["items"]} for pk, facts in rows}
    numbers = dict(
        Ranking.objects.filter(pk__in=list(ranks)).values_list(
            "answer_set__answers__pk", "answer_set__answers__n"
        )
    )
    return {
        pk: middle_places({numbers[answer]: rank for answer, rank in given.items()})
        for pk, given in ranks.items()
    }
