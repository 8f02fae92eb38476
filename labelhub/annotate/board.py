"""What the ranking board shows, and nothing more: no model, no seed, no probability gets this far.

The page is a plain form. Cards stand in the annotator's own shuffled order and are named A, B, C …
by it; the form speaks of answers by their ids, so the order of the cards cannot be mistaken for the
ranking.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from django.utils import timezone
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

from labelhub.accounts.models import User
from labelhub.assignments.models import Slot
from labelhub.assignments.queries import QueueCounts, queue_counts
from labelhub.assignments.rules import display_order
from labelhub.lib.markdown import render
from labelhub.projects.models import Guidelines
from labelhub.projects.queries import current_guidelines
from labelhub.prompts.models import Answer
from labelhub.rankings.models import Skip

FIRST_LETTER = ord("A")


@dataclass(frozen=True)
class Turn:
    """One message of the conversation."""

    role: str
    html: SafeString

    @property
    def who(self) -> str:
        """Who speaks, in words."""
        names = {"user": _("Person"), "assistant": _("Assistant"), "system": _("Instruction")}
        return names.get(self.role, self.role)


@dataclass(frozen=True)
class Card:
    """One answer as it stands on the page."""

    letter: str
    answer_id: int
    html: SafeString
    sha256: str
    rank: int | None = None  # as sent by a form that was refused


@dataclass(frozen=True)
class Board:
    """The context of annotate/board.html."""

    slot: Slot
    turns: list[Turn]
    cards: list[Card]
    counts: QueueCounts
    guidelines: Guidelines | None
    token: str
    key: str  # idempotency key: one page, one ranking, however often it is sent
    opened: int  # ms since 1970, by the server's clock
    duration_ms: int
    active_ms: int
    lease_until: datetime | None
    refusal: str = ""
    reasons: tuple[tuple[str, str], ...] = ()
    skip_reason: str = ""
    skip_note: str = ""

    @property
    def language(self) -> str:
        """The language of the conversation, for fonts, hyphens and voices."""
        return self.slot.answer_set.prompt.language

    @property
    def places(self) -> range:
        """The ranks that can be given."""
        return range(1, len(self.cards) + 1)

    @property
    def last_letter(self) -> str:
        """The last card's letter, for "A–D"."""
        return self.cards[-1].letter

    @property
    def seconds_left(self) -> int:
        """What is left of the lease; 0 when it has run out or gone to somebody else."""
        if self.lease_until is None:
            return 0
        return max(0, int((self.lease_until - timezone.now()).total_seconds()))

    @property
    def minutes_left(self) -> int:
        """The same in whole minutes, for pages without script: a clock time may not be theirs."""
        return -(-self.seconds_left // 60)

    @property
    def earlier(self) -> list[Turn]:
        """All of the conversation but its last turn."""
        return self.turns[:-1]

    @property
    def question(self) -> Turn:
        """The turn that the answers answer."""
        return self.turns[-1]

    @property
    def wanted(self) -> int:
        """How many sets this person's progress is counted against."""
        return self.counts.mine_total + self.counts.left_for_me

    @property
    def guidelines_html(self) -> SafeString:
        """The guidelines as they are read."""
        return render(self.guidelines.text if self.guidelines else "")


def shown_answers(slot: Slot, user: User) -> list[Answer]:
    """The answers in the order in which this person sees them."""
    answers = {answer.pk: answer for answer in slot.answer_set.answers.all()}
    return [answers[pk] for pk in display_order(slot.pk, user.pk, answers)]


def letters(answers: list[Answer]) -> dict[int, str]:
    """The card's letter for each answer id."""
    return {answer.pk: chr(FIRST_LETTER + i) for i, answer in enumerate(answers)}


def make_board(
    slot: Slot,
    user: User,
    *,
    sent: Mapping[str, str] | None = None,
    refusal: str = "",
) -> Board:
    """Draw the board; `sent` is a form that was refused, so that nothing in it is lost."""
    sent = sent or {}
    answers = shown_answers(slot, user)
    held = slot.state == Slot.State.HELD and slot.holder_id == user.pk
    return Board(
        slot=slot,
        turns=[Turn(m["role"], render(m["content"])) for m in slot.answer_set.prompt.messages],
        cards=[
            Card(letter, pk, render(text), sha256, _rank(sent.get(f"rank-{pk}"), len(answers)))
            for (pk, letter), text, sha256 in zip(
                letters(answers).items(),
                (answer.text for answer in answers),
                (answer.sha256 for answer in answers),
                strict=True,
            )
        ],
        counts=queue_counts(slot.project, user),
        guidelines=current_guidelines(slot.project),
        token=sent.get("token") or str(slot.lease_token or ""),
        key=sent.get("key") or str(uuid.uuid4()),
        opened=_whole(sent.get("opened")) or time.time_ns() // 1_000_000,
        duration_ms=_whole(sent.get("duration_ms")),
        active_ms=_whole(sent.get("active_ms")),
        lease_until=slot.lease_until if held else None,
        refusal=refusal,
        reasons=tuple((value, str(label)) for value, label in Skip.Reason.choices),
        skip_reason=sent.get("reason", ""),
        skip_note=sent.get("note", ""),
    )


def _rank(value: str | None, highest: int) -> int | None:
    rank = _whole(value)
    return rank if 1 <= rank <= highest else None


def _whole(value: str | None) -> int:
    """A whole number of at most 15 digits out of a form field, 0 for anything else."""
    return int(value) if value and value.isascii() and value.isdigit() and len(value) < 16 else 0
