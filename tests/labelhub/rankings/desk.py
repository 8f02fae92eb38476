"""What a person does at the board, as the page sends it; for the tests of this room."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from django.dispatch import Signal

from labelhub.accounts.models import User
from labelhub.assignments.models import Slot
from labelhub.projects.models import Membership, Project
from labelhub.prompts.models import AnswerSet
from labelhub.rankings.actions import correct_ranking, skip, submit_ranking
from labelhub.rankings.models import Ranking, Skip
from labelhub.rankings.rules import Feedback, ItemFeedback
from tests.factories import hold, make_slot, make_user

BEST_FIRST, WORST_FIRST = (1, 2, 3, 4), (4, 3, 2, 1)


def answer_ids(answer_set: AnswerSet) -> list[int]:
    """The ids of the answers by their number in the set."""
    return list(answer_set.answers.order_by("n").values_list("pk", flat=True))


def ranks_of(answer_set: AnswerSet, places: Sequence[int]) -> dict[int, int]:
    """`places` belong to the answers by their number."""
    return dict(zip(answer_ids(answer_set), places, strict=True))


def places_in(ranking: Ranking) -> tuple[int, ...]:
    """The stored ranks, by the answers' numbers."""
    return tuple(ranking.items.order_by("answer__n").values_list("rank", flat=True))


def take(answer_set: AnswerSet, by: User, **fields: Any) -> Slot:
    """Put a slot of the set into this person's hand: an open one of that kind, or a new one."""
    kind = fields.get("kind", Slot.Kind.OPINION)
    waiting = answer_set.slots.filter(state=Slot.State.OPEN, kind=kind).first()
    return hold(waiting or make_slot(answer_set, **fields), by)


def submit(slot: Slot, by: User, places: Sequence[int] = BEST_FIRST, **said: Any) -> Ranking:
    """Submit as the page does."""
    said.setdefault("ranks", ranks_of(slot.answer_set, places))
    said.setdefault("token", str(slot.lease_token))
    said.setdefault("idempotency_key", str(uuid.uuid4()))
    said.setdefault("duration_ms", 42_000)
    said.setdefault("active_ms", 40_000)
    return submit_ranking(slot_id=slot.pk, by=by, **said)


def rank(
    answer_set: AnswerSet, by: User, places: Sequence[int] = BEST_FIRST, **said: Any
) -> Ranking:
    """Take a slot of the set and submit."""
    kind = said.pop("kind", Slot.Kind.OPINION)
    return submit(take(answer_set, by, kind=kind), by, places, **said)


def correct(ranking: Ranking, by: User, places: Sequence[int], **said: Any) -> Ranking:
    """Correct as the page does."""
    said.setdefault("revision", ranking.revision)
    said.setdefault("ranks", ranks_of(ranking.answer_set, places))
    said.setdefault("idempotency_key", str(uuid.uuid4()))
    said.setdefault("duration_ms", 10_000)
    said.setdefault("active_ms", 5_000)
    return correct_ranking(ranking_id=ranking.pk, by=by, **said)


def pass_on(answer_set: AnswerSet, by: User, reason: str = "unclear", note: str = "") -> Skip:
    """Take a slot of the set and skip it."""
    slot = take(answer_set, by)
    return skip(slot_id=slot.pk, token=slot.lease_token, reason=reason, note=note, by=by)


def about(answer_id: int, **said: Any) -> Feedback:
    """Feedback on one answer."""
    return Feedback(items={answer_id: ItemFeedback(**said)})


def seat(project: Project, name: str, role: str = "annotator", **fields: Any) -> User:
    """One more member of the project."""
    person = make_user(name)
    Membership.objects.create(project=project, user=person, role=role, **fields)
    return person


def only(project: Project, *people: User) -> None:
    """Nobody else is a member of the project any more."""
    project.memberships.exclude(user__in=people).delete()


def states(answer_set: AnswerSet, kind: str = Slot.Kind.OPINION) -> list[str]:
    """The states of the set's slots, in the order in which they were made."""
    slots = answer_set.slots.filter(kind=kind)
    return list(slots.order_by("n").values_list("state", flat=True))


def skills_of(answer_set: AnswerSet) -> set[str]:
    """The skills that the set's open slots ask for."""
    return set(answer_set.slots.filter(state="open").values_list("pool__skill", flat=True))


@contextmanager
def heard(signal: Signal) -> Iterator[list[dict[str, Any]]]:
    """What the signal said meanwhile."""
    found: list[dict[str, Any]] = []

    def listen(sender: object, **said: Any) -> None:
        found.append({name: value for name, value in said.items() if name != "signal"})

    signal.connect(listen)
    try:
        yield found
    finally:
        signal.disconnect(listen)
