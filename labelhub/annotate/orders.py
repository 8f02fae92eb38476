"""An order of cards in letters: “C › A = D › B”, as every page writes it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from django.utils.translation import gettext as _

from labelhub.annotate.board import FIRST_LETTER
from labelhub.rankings.models import RankingItem
from labelhub.rankings.rules import tiers

BETTER, TIED = " › ", " = "


@dataclass(frozen=True)
class Order:
    """An order as it is seen and as it is heard."""

    shown: str

    @property
    def said(self) -> str:
        """The same for who listens: “best first: C, A = D, B”."""
        return _("best first: %(order)s") % {"order": self.shown.replace(BETTER, ", ")}


def order_of(ranks: Mapping[int, int], letters: Mapping[int, str]) -> Order:
    """The order of these ranks; within a tie by letter."""
    named = {letters[pk]: rank for pk, rank in sorted(ranks.items(), key=lambda x: letters[x[0]])}
    return Order(BETTER.join(TIED.join(tier) for tier in tiers(named)))


def letters_seen(items: Iterable[RankingItem]) -> dict[int, str]:
    """The letter that each answer's card had on its annotator's page, from its position there."""
    return {item.answer_id: chr(FIRST_LETTER + item.position) for item in items}
