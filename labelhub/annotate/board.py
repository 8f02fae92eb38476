"""What the ranking board shows, and nothing more: no model, no seed, no probability gets this far.

The page is a plain form. Cards stand in the annotator's own shuffled order and are named A, B, C …
by it; the form speaks of answers by their ids, so the order of the cards cannot be mistaken for the
ranking. Whatever the form is filled in with — one that was refused, a ranking that stands — comes
by the names of its fields, so that there is one way to fill it in.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from django.urls import reverse
from django.utils import timezone
from django.utils.datastructures import MultiValueDict
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

from labelhub.accounts.models import User
from labelhub.annotate import fields
from labelhub.assignments.models import Slot
from labelhub.assignments.queries import QueueCounts, queue_counts
from labelhub.assignments.rules import display_order
from labelhub.lib.markdown import render
from labelhub.projects.models import Guidelines, Project
from labelhub.projects.queries import attributes_of, current_guidelines
from labelhub.prompts.models import Answer
from labelhub.rankings.models import Ranking, RankingItem, Skip
from labelhub.rankings.rules import FIELD

FIRST_LETTER = ord("A")
MOST_FOR_LETTER_F = 5  # with a sixth card, F is its letter

# rank: an opinion from the queue. tutorial: to learn by, on a known ranking. review: to decide
# where opinions differ. correct: an own ranking of today, reopened.
Mode = Literal["rank", "tutorial", "review", "correct"]


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
class Question:
    """One yes-or-no question about an answer, and whether it is answered yes."""

    key: str
    label: str
    checked: bool


@dataclass(frozen=True)
class Card:
    """One answer as it stands on the page, with what was said of it."""

    letter: str
    answer_id: int
    html: SafeString
    text: str  # as it was written, to start an ideal answer from
    sha256: str
    rank: int | None = None
    likert: int | None = None
    attributes: tuple[Question, ...] = ()
    critique: str = ""
    spans: str = "[]"  # JSON, as the form carries it

    @property
    def has_notes(self) -> bool:
        """Whether its notes stand open, since there is something in them."""
        return bool(self.critique) or any(one.checked for one in self.attributes)


@dataclass(frozen=True)
class Gap:
    """How much better one place is than the next, as the plain form asks it."""

    place: int
    chosen: int | None

    @property
    def name(self) -> str:
        """The name of its field."""
        return fields.gap(self.place)


@dataclass(frozen=True)
class Step:
    """One choice on the scale between two answers."""

    value: str
    words: str  # short, as there is little room
    sentence: str


@dataclass(frozen=True)
class Board:
    """The context of annotate/board.html."""

    slot: Slot
    mode: Mode
    action: str  # where the form is sent
    turns: list[Turn]
    cards: list[Card]
    gaps: list[Gap]
    counts: QueueCounts
    guidelines: Guidelines | None
    token: str
    key: str  # idempotency key: one page, one ranking, however often it is sent
    opened: int  # ms since 1970, by the server's clock
    duration_ms: int
    active_ms: int
    lease_until: datetime | None
    filled_by: str = ""  # "sent" (a form that was refused), "given" (a ranking), "" (nothing yet)
    revision: int = 0  # of the ranking that is corrected
    strength: str = ""
    all_bad: bool = False
    refusal_right: bool = False
    ideal_answer: str = ""
    refusal: str = ""
    note: str = ""  # what was done, beside what is still to do
    reasons: tuple[tuple[str, str], ...] = ()
    skip_reason: str = ""
    skip_note: str = ""
    flag_answer: int = 0
    flag_note: str = ""
    opinions: Sequence[Any] = field(default=())  # for reviewers, drawn by _opinions.html

    @property
    def project(self) -> Project:
        """Whose settings say what is asked beside the order."""
        return self.slot.project

    @property
    def language(self) -> str:
        """The language of the conversation, for fonts, hyphens and voices."""
        return self.slot.answer_set.prompt.language

    @property
    def has_lease(self) -> bool:
        """Whether the set is lent for a while, so that a countdown makes sense."""
        return self.mode in ("rank", "review")

    @property
    def can_pass(self) -> bool:
        """Whether the set can be skipped, and an answer of it be shown to the admins."""
        return self.mode == "rank"

    @property
    def back(self) -> str:
        """The page that this one lies under, for who wants to leave."""
        return self.action.rstrip("/").rpartition("/")[0] + "/"

    @property
    def is_pair(self) -> bool:
        """Two answers are compared on one scale, not ordered in tiers."""
        return len(self.cards) == 2

    @property
    def places(self) -> range:
        """The ranks that can be given."""
        return range(1, len(self.cards) + 1)

    @property
    def steps(self) -> list[tuple[int, str]]:
        """The three sizes of a gap, in words."""
        return [(value, str(label)) for value, label in RankingItem.Gap.choices]

    @property
    def scale(self) -> list[Step]:
        """Which of two answers is better, and by how much: from the one end over the tie."""
        sizes = [3, 2, 1] if self.project.ask_gaps else [fields.UNSAID]
        first = [_step(0, self.cards[0].letter, size) for size in sizes]
        second = [_step(1, self.cards[1].letter, size) for size in reversed(sizes)]
        return [*first, Step(fields.TIE, _("tie"), _("They tie")), *second]

    @property
    def likert_steps(self) -> range:
        """From 1 = worst to 7 = best."""
        return range(1, 8)

    @property
    def last_letter(self) -> str:
        """The last card's letter, for "A–D"."""
        return self.cards[-1].letter

    @property
    def f_is_a_card(self) -> bool:
        """With six cards and more F is a letter of one of them; Shift and F flags always."""
        return len(self.cards) > MOST_FOR_LETTER_F

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


def _step(card: int, letter: str, size: int) -> Step:
    sentences = {
        1: _("%(card)s is slightly better"),
        2: _("%(card)s is clearly better"),
        3: _("%(card)s is much better"),
    }
    sentence = sentences.get(size, _("%(card)s is better")) % {"card": letter}
    words = str(RankingItem.Gap(size).label) if size else sentence
    return Step(fields.strength(card, size), words, sentence)


def shown_answers(slot: Slot, user: User, given: Ranking | None = None) -> list[Answer]:
    """The answers in the order in which this person sees them.

    A ranking that stands says itself how they stood: late work is counted on another slot than
    the page was drawn for.
    """
    answers = {answer.pk: answer for answer in slot.answer_set.answers.all()}
    if given is not None:
        stood = sorted(given.items.all(), key=lambda item: item.position)
        return [answers[item.answer_id] for item in stood]
    return [answers[pk] for pk in display_order(slot.pk, user.pk, answers)]


def letters(answers: list[Answer]) -> dict[int, str]:
    """The card's letter for each answer id."""
    return {answer.pk: chr(FIRST_LETTER + i) for i, answer in enumerate(answers)}


def make_board(
    slot: Slot,
    user: User,
    *,
    mode: Mode = "rank",
    action: str | None = None,
    given: Ranking | None = None,
    opinions: Sequence[Any] | None = None,
    sent: MultiValueDict[str, str] | None = None,
    refusal: str = "",
    note: str = "",
) -> Board:
    """Draw the board.

    `action` is where its form is sent (a slot's own page unless said), `given` a ranking that it
    starts from, `opinions` what reviewers see beside it, `sent` a form that was refused: nothing
    in it is lost.
    """
    answers = shown_answers(slot, user, given)
    filled = sent if sent is not None else fields.of_ranking(given, [one.pk for one in answers])
    held = slot.state == Slot.State.HELD and slot.holder_id == user.pk
    return Board(
        slot=slot,
        mode=mode,
        action=action or reverse("annotate:board", args=[slot.project.slug, slot.pk]),
        turns=[Turn(m["role"], render(m["content"])) for m in slot.answer_set.prompt.messages],
        cards=[
            _card(answer, letter, filled, slot.project, len(answers))
            for answer, letter in zip(answers, letters(answers).values(), strict=True)
        ],
        gaps=[
            Gap(place, _within(filled.get(fields.gap(place)), 3))
            for place in range(1, len(answers))
        ],
        counts=queue_counts(slot.project, user),
        guidelines=current_guidelines(slot.project),
        token=filled.get("token") or str(slot.lease_token or ""),
        key=filled.get("key") or str(uuid.uuid4()),
        opened=_whole(filled.get("opened")) or time.time_ns() // 1_000_000,
        duration_ms=_whole(filled.get("duration_ms")),
        active_ms=_whole(filled.get("active_ms")),
        lease_until=slot.lease_until if held else None,
        filled_by=_filled_by(sent, given),
        revision=_whole(filled.get("revision")),
        strength=filled.get("strength", ""),
        all_bad=bool(filled.get("all_bad")),
        refusal_right=bool(filled.get("refusal_right")),
        ideal_answer=filled.get("ideal_answer", ""),
        refusal=refusal,
        note=note,
        reasons=tuple((value, str(label)) for value, label in Skip.Reason.choices),
        skip_reason=filled.get("reason", ""),
        skip_note=filled.get("note", ""),
        flag_answer=_whole(filled.get("flag_answer")),
        flag_note=filled.get("flag_note", ""),
        opinions=opinions or (),
    )


def _filled_by(sent: MultiValueDict[str, str] | None, given: Ranking | None) -> str:
    """Who filled in the ranking: a refused skip sends nothing of it."""
    if sent and any(name == "key" or name.startswith(FIELD) for name in sent):
        return "sent"
    return "given" if given else ""


def _card(
    answer: Answer,
    letter: str,
    filled: MultiValueDict[str, str],
    project: Project,
    highest: int,
) -> Card:
    checked = filled.getlist(fields.attributes(answer.pk))
    return Card(
        letter=letter,
        answer_id=answer.pk,
        html=render(answer.text),
        text=answer.text,
        sha256=answer.sha256,
        rank=_within(filled.get(fields.rank(answer.pk)), highest),
        likert=_within(filled.get(fields.likert(answer.pk)), 7),
        attributes=tuple(
            Question(one.key, one.label, one.key in checked) for one in attributes_of(project)
        ),
        critique=filled.get(fields.critique(answer.pk), ""),
        spans=filled.get(fields.spans(answer.pk)) or "[]",
    )


def _within(value: str | None, highest: int) -> int | None:
    number = _whole(value)
    return number if 1 <= number <= highest else None


def _whole(value: str | None) -> int:
    """A whole number of at most 15 digits out of a form field, 0 for anything else."""
    return int(value) if value and value.isascii() and value.isdigit() and len(value) < 16 else 0
