"""Reads about comparisons: how far one is, and what people and the reward model say in it.

While people are asked every opinion counts. When a comparison is closed its rankings are frozen,
and only those count from then on: what comes late is kept, but a decision was made without it.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from django.db.models import Count, Prefetch, Q, QuerySet
from django.http import Http404
from django.utils.translation import gettext as _

from labelhub.assignments.models import Slot
from labelhub.projects.models import Project
from labelhub.prompts.models import Answer, AnswerSet
from labelhub.rankings.models import Ranking, RankingItem
from labelhub.rounds.estimates import WinRate, majority, parted, win_rate
from labelhub.rounds.models import Comparison, Round
from labelhub.rounds.queries import Compared, compared_in, score_of

State = Comparison.State


@dataclass(frozen=True)
class Verdict:
    """What came of a comparison so far; both rates are over the same pairs."""

    comparison: Comparison
    people: WinRate
    reward: WinRate
    pairs: int
    same: int  # pairs whose two answers are the same text: ties that nobody is asked about
    wanted: int  # opinions
    done: int
    held: int
    alike: int  # of the pairs on which neither is undecided, those that both judge alike
    both: int

    @property
    def left(self) -> int:
        """How many opinions are still to come."""
        return self.wanted - self.done

    @property
    def parted(self) -> bool:
        """Whether the reward model likes the newer version better and people do not."""
        return parted(self.people, self.reward)


def comparisons_of(project: Project) -> QuerySet[Comparison]:
    """The project's comparisons, newest first."""
    named = ("project", "before", "after", "run", "round", "created_by")
    return Comparison.objects.filter(project=project).select_related(*named).order_by("-pk")


def get_comparison_or_404(project: Project, comparison_id: int) -> Comparison:
    """One comparison of the project."""
    found = comparisons_of(project).filter(pk=comparison_id).first()
    if found is None:
        raise Http404(_("There is no such comparison in this project."))
    return found


def comparison_of(turn: Round) -> Comparison | None:
    """The blind comparison that a round made before its decision, if it wanted one."""
    return comparisons_of(turn.project).filter(round=turn).first()


def verdict_of(comparison: Comparison) -> Verdict:
    """Count what people and the reward model say of a comparison's pairs."""
    pairs = _pairs(comparison.answer_sets.all())
    same = {pk for pk, (old, new) in pairs.items() if old.sha256 == new.sha256}
    said = {pk: majority(opinions) for pk, opinions in _said_by_people(comparison).items()}
    people = said | dict.fromkeys(same, 0)
    reward = {pk: 0 if pk in same else _by_score(*pair) for pk, pair in pairs.items()}
    scored = {pk: outcome for pk, outcome in reward.items() if outcome is not None}
    firm = [pk for pk, outcome in people.items() if outcome and scored.get(pk)]
    return Verdict(
        comparison=comparison,
        people=win_rate(people.values()),
        reward=win_rate(scored.values()),
        pairs=len(pairs),
        same=len(same),
        alike=sum(people[pk] == scored[pk] for pk in firm),
        both=len(firm),
        **_opinions(comparison),
    )


def _pairs(sets: QuerySet[AnswerSet]) -> dict[int, tuple[Answer, Answer]]:
    """By set, the answer of the version before and that of the one after."""
    answers = Prefetch("answers", Answer.objects.order_by("n"))
    found = ((one.pk, tuple(one.answers.all())) for one in sets.prefetch_related(answers))
    return {pk: (pair[0], pair[1]) for pk, pair in found if len(pair) == 2}


def _by_score(old: Answer, new: Answer) -> int | None:
    before, after = score_of(old), score_of(new)
    if before is None or after is None:
        return None
    return 0 if old.sha256 == new.sha256 else (after > before) - (after < before)


def counted_rankings(comparison: Comparison) -> QuerySet[Ranking]:
    """The opinions that count: all while people are asked, the frozen ones afterwards."""
    rankings = Ranking.objects.filter(
        answer_set__comparisons=comparison,
        adjudicates=False,
        is_simulated=comparison.project.is_simulated,
    )
    return rankings.filter(frozen_at__isnull=False) if _is_closed(comparison) else rankings


def _is_closed(comparison: Comparison) -> bool:
    return bool(comparison.state == State.CLOSED)


def _said_by_people(comparison: Comparison) -> dict[int, list[int]]:
    """By set, what each opinion says: above 0 where it prefers the version after, 0 for a tie."""
    rows = RankingItem.objects.filter(ranking__in=counted_rankings(comparison)).values_list(
        "ranking__answer_set", "ranking", "answer__n", "rank"
    )
    ranks: dict[tuple[int, int], dict[int, int]] = defaultdict(dict)
    for answer_set, ranking, n, rank in rows:
        ranks[answer_set, ranking][n] = rank
    said: dict[int, list[int]] = defaultdict(list)
    for (answer_set, _ranking), places in ranks.items():
        said[answer_set].append(places[0] - places[1])
    return said


def _opinions(comparison: Comparison) -> dict[str, int]:
    open_, held = Q(state=Slot.State.OPEN), Q(state=Slot.State.HELD)
    slots = Slot.objects.filter(answer_set__comparisons=comparison, kind=Slot.Kind.OPINION)
    return slots.exclude(open_ & Q(answer_set__prompt__retired=True)).aggregate(
        wanted=Count("id", filter=open_ | held | Q(state=Slot.State.DONE)),
        done=Count("id", filter=Q(state=Slot.State.DONE)),
        held=Count("id", filter=held),
    )


def open_opinions(comparison: Comparison) -> int:
    """How many opinions are still wanted and can still be given."""
    counted = _opinions(comparison)
    return counted["wanted"] - counted["done"]


@dataclass(frozen=True)
class Judged:
    """One pair with what people said of it."""

    pair: Compared
    same: bool  # word for word: nobody was asked
    said: WinRate

    @property
    def outcome(self) -> int | None:
        """1 where most prefer the version after, −1 the one before; None where nobody said."""
        if self.same:
            return 0
        return majority([self.said.wins - self.said.losses]) if self.said.n else None


def judged(comparison: Comparison) -> list[Judged]:
    """The pairs side by side. Ask only once it is closed: it tells who wrote what."""
    said = _said_by_people(comparison)
    return [
        Judged(
            pair=pair,
            same=pair.before.sha256 == pair.after.sha256,
            said=win_rate(said.get(pair.before.answer_set_id, ())),
        )
        for pair in compared_in(comparison.answer_sets.all())
    ]
