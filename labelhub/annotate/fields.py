"""The names of the board's form fields, and a ranking written down in them.

rank-<id>  likert-<id>  attr-<id> (several)  critique-<id>  spans-<id> (JSON)    of an answer
gap-<n>                   how much better place n is than the next one
strength                  of two answers alone: which is better, and by how much
all_bad  refusal_right  ideal_answer                                        of the whole set
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from django.utils.datastructures import MultiValueDict

from labelhub.rankings.models import Ranking, RankingItem
from labelhub.rankings.rules import field_name as rank

__all__ = ["rank"]

SPANS = "spans-"
TIE = "tie"
UNSAID = 0  # better, and not asked by how much


def likert(answer_id: int) -> str:
    """The answer's own grade from 1 to 7."""
    return f"likert-{answer_id}"


def attributes(answer_id: int) -> str:
    """The keys of the questions that are answered with yes."""
    return f"attr-{answer_id}"


def critique(answer_id: int) -> str:
    """What is good or bad about the answer, in words."""
    return f"critique-{answer_id}"


def spans(answer_id: int) -> str:
    """Places that are marked in the answer's text."""
    return f"{SPANS}{answer_id}"


def gap(place: int) -> str:
    """How much better this place is than the next."""
    return f"gap-{place}"


def strength(card: int, size: int) -> str:
    """The choice that card 0 or 1 is better by a gap of this size."""
    return f"{card}-{size}"


def read_strength(value: str) -> tuple[tuple[int, int], int] | None:
    """The ranks of the two cards and the gap between them (0 = not said); None for no such choice.

    The reverse of `strength`: "1-3" is ((2, 1), 3), the second card being much better.
    """
    if value == TIE:
        return (1, 1), UNSAID
    for card in (0, 1):
        for size in (UNSAID, *RankingItem.Gap.values):
            if value == strength(card, size):
                return ((2, 1) if card else (1, 2)), size
    return None


def of_ranking(ranking: Ranking | None, shown: Sequence[int]) -> MultiValueDict[str, str]:
    """The fields as they would be sent to make this ranking again; `shown` are its answers."""
    filled: MultiValueDict[str, str] = MultiValueDict()
    if ranking is None:
        return filled
    items = {item.answer_id: item for item in ranking.items.all()}
    for item in items.values():
        _write_item(filled, item)
    filled["revision"] = str(ranking.revision)
    filled["ideal_answer"] = ranking.ideal_answer
    filled["all_bad"] = "on" if ranking.all_bad else ""
    filled["refusal_right"] = "on" if ranking.refusal_right else ""
    if len(shown) == 2:
        filled["strength"] = _strength_of([items[pk] for pk in shown])
    return filled


def _write_item(filled: MultiValueDict[str, str], item: RankingItem) -> None:
    filled[rank(item.answer_id)] = str(item.rank)
    filled[likert(item.answer_id)] = str(item.likert or "")
    filled.setlist(attributes(item.answer_id), list(item.attributes))
    filled[critique(item.answer_id)] = item.critique
    filled[spans(item.answer_id)] = json.dumps(item.spans)
    if item.gap:
        filled[gap(item.rank)] = str(item.gap)


def _strength_of(pair: list[RankingItem]) -> str:
    first, second = pair
    if first.rank == second.rank:
        return TIE
    best = 0 if first.rank < second.rank else 1
    return strength(best, pair[best].gap or UNSAID)
