"""All that somebody said of an answer set, ready to be shown: the order and what stands beside it.

It is made from facts as `rankings.queries.facts_of` writes them, so that a ranking that stands, an
older version of it, and an opinion before a reviewer are shown in one way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from django.utils.translation import gettext as _

from labelhub.annotate.orders import TIED, Order, order_of
from labelhub.projects.models import Project
from labelhub.projects.queries import attributes_of
from labelhub.rankings.models import RankingItem
from labelhub.rankings.rules import tiers


@dataclass(frozen=True)
class SaidOfCard:
    """What was said of one answer."""

    letter: str
    answer_id: int
    rank: int
    likert: int | None
    attributes: tuple[str, ...]  # labels of the questions that were answered yes
    critique: str
    spans: tuple[Mapping[str, Any], ...]

    @property
    def is_empty(self) -> bool:
        """Whether nothing was said but its place."""
        return not (self.likert or self.attributes or self.critique or self.spans)


@dataclass(frozen=True)
class Said:
    """What was said of the whole set."""

    order: Order
    cards: tuple[SaidOfCard, ...]  # best first
    steps: tuple[str, ...]  # how much better one place is than the next, as sentences
    all_bad: bool
    refusal_right: bool
    ideal_answer: str
    guidelines_id: int | None

    @property
    def remarks(self) -> list[SaidOfCard]:
        """The cards of which more than their place was said."""
        return [card for card in self.cards if not card.is_empty]

    @property
    def only_order(self) -> bool:
        """Whether there is nothing but the order."""
        beside = (self.steps, self.remarks, self.all_bad, self.refusal_right, self.ideal_answer)
        return not any(beside)


def said(facts: Mapping[str, Any], letters: Mapping[int, str], project: Project) -> Said:
    """Read the facts of a ranking, with the answers called by these letters."""
    items = {item["answer_id"]: item for item in facts["items"]}
    ranks = {pk: item["rank"] for pk, item in items.items()}
    labels = {one.key: one.label for one in attributes_of(project)}
    order = sorted(items, key=lambda pk: (ranks[pk], letters[pk]))
    return Said(
        order=order_of(ranks, letters),
        cards=tuple(_card(items[pk], letters[pk], labels) for pk in order),
        steps=tuple(_steps(list(items.values()), letters)),
        all_bad=facts["all_bad"],
        refusal_right=facts["refusal_right"],
        ideal_answer=facts["ideal_answer"],
        guidelines_id=facts["guidelines_id"],
    )


def _card(item: Mapping[str, Any], letter: str, labels: Mapping[str, str]) -> SaidOfCard:
    return SaidOfCard(
        letter=letter,
        answer_id=item["answer_id"],
        rank=item["rank"],
        likert=item["likert"],
        # A question that the project has dropped since is shown by its key.
        attributes=tuple(labels.get(key, key) for key in item["attributes"]),
        critique=item["critique"],
        spans=tuple(item["spans"]),
    )


def _steps(items: Sequence[Mapping[str, Any]], letters: Mapping[int, str]) -> list[str]:
    """“C is clearly better than A = D” for each step of which that was said."""
    gaps = {item["rank"]: item["gap"] for item in items if item["gap"]}
    by_rank = tiers({item["answer_id"]: item["rank"] for item in items})
    names = [TIED.join(sorted(letters[pk] for pk in tier)) for tier in by_rank]
    return [
        _step(gaps[rank]) % {"better": better, "worse": worse}
        for rank, (better, worse) in enumerate(pairwise(names), start=1)
        if rank in gaps
    ]


def _step(gap: int) -> str:
    return {
        RankingItem.Gap.SLIGHTLY: _("%(better)s is slightly better than %(worse)s"),
        RankingItem.Gap.CLEARLY: _("%(better)s is clearly better than %(worse)s"),
        RankingItem.Gap.MUCH: _("%(better)s is much better than %(worse)s"),
    }[RankingItem.Gap(gap)]
