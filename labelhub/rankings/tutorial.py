"""Reads about the tutorial: how near a person came to each known ranking, and if that is enough.

From the second attempt on a person ranks copies of the tutorial's sets; their answers match those
of the known ranking by number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from labelhub.accounts.models import User
from labelhub.assignments.models import Slot
from labelhub.assignments.queries import attempt_of, tutorial_sets
from labelhub.projects.models import Project
from labelhub.rankings.models import Gold, Ranking
from labelhub.rankings.rules import kendall_tau_b

_ROUNDING = 1e-9  # 0.6 by way of thirds shall pass 0.6


@dataclass(frozen=True)
class Lesson:
    """One set of the tutorial as a person ranked it, beside its known ranking."""

    slot: Slot
    ranking: Ranking
    gold: Gold
    mine: Mapping[int, int]  # ranks by answer id of the set that was shown
    known: Mapping[int, int]  # of the same answers

    @property
    def tau(self) -> float:
        """Kendall's tau-b of the two; 0 for who ties all, since that says nothing."""
        return kendall_tau_b(self.mine, self.known) or 0.0


@dataclass(frozen=True)
class Standing:
    """How a person stands in the newest attempt at the tutorial."""

    lessons: tuple[Lesson, ...]
    sets: int  # that an attempt has
    mark: float  # mean tau-b from which on it is passed

    @property
    def complete(self) -> bool:
        """Whether every set of this attempt is done."""
        return 0 < self.sets <= len(self.lessons)

    @property
    def mean(self) -> float | None:
        """Mean tau-b over the sets that are done; None before the first."""
        taus = [lesson.tau for lesson in self.lessons]
        return sum(taus) / len(taus) if taus else None

    @property
    def passed(self) -> bool:
        """Whether the attempt is complete and near enough to the known rankings."""
        return self.complete and (self.mean or 0.0) >= self.mark - _ROUNDING


def has_tutorial(project: Project, user: User | None = None) -> bool:
    """Whether there is a tutorial; for one person, one in a language and skill of theirs."""
    return bool(tutorial_sets(project, user))


def standing_of(user: User, project: Project) -> Standing:
    """The newest attempt of this person."""
    return Standing(
        lessons=tuple(map(lesson_of, attempt_of(user, project))),
        sets=len(tutorial_sets(project, user)),
        mark=project.qualification_tau,
    )


def lesson_of(slot: Slot) -> Lesson:
    """The lesson of a tutorial slot that is done."""
    ranking = Ranking.objects.prefetch_related("items").get(slot=slot)
    gold = Gold.objects.get(answer_set=slot.answer_set.original_id or slot.answer_set_id)
    numbers = dict(slot.answer_set.answers.values_list("n", "pk"))
    known = {
        numbers[n]: gold.ranks[str(pk)] for n, pk in gold.answer_set.answers.values_list("n", "pk")
    }
    mine = {item.answer_id: item.rank for item in ranking.items.all()}
    return Lesson(slot=slot, ranking=ranking, gold=gold, mine=mine, known=known)
