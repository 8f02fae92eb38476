"""The forms of the board, as they come in: a ranking, a skip with its reason, a flag with its note.

Every refusal is one sentence that names the cards by the letters which the person sees.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Self

from django import forms
from django.utils.text import get_text_list
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from labelhub.accounts.models import User
from labelhub.annotate import fields as names
from labelhub.annotate.board import Mode, letters, shown_answers
from labelhub.assignments.models import Slot
from labelhub.projects.models import Project
from labelhub.rankings.models import Ranking, RankingItem, Skip
from labelhub.rankings.rules import (
    LIKERT,
    MAX_CRITIQUE,
    MAX_IDEAL,
    MAX_NOTE,
    Feedback,
    ItemFeedback,
    Span,
    dense,
)

DAY_MS = 24 * 60 * 60 * 1000
_BROKEN = gettext_lazy("The form came in damaged: reload the page and send it again.")


class Prose(forms.CharField):
    """Text of several lines; a browser sends each line's end as two characters, we keep one."""

    def to_python(self, value: Any) -> str:
        """The text with plain line ends."""
        return str(super().to_python(str(value or "").replace("\r\n", "\n")))


class Spans(forms.Field):
    """Marked places, as the JSON that the page's script wrote."""

    def to_python(self, value: Any) -> tuple[Span, ...]:
        """The places; anything else is a form that came in damaged."""
        try:
            return read_spans(str(value or ""))
        except (ValueError, RecursionError) as damage:
            raise forms.ValidationError(str(_BROKEN)) from damage


class RankingForm(forms.Form):
    """A place for each answer, what is said beside it, the keys of the page, and the time it took.

    `letters` maps answer ids to the letters of their cards, in the order of the cards.
    """

    token = forms.CharField(max_length=64, error_messages={"required": _BROKEN})
    key = forms.UUIDField(error_messages={"required": _BROKEN, "invalid": _BROKEN})
    revision = forms.IntegerField(min_value=0, required=False)
    opened = forms.IntegerField(min_value=0, required=False)
    duration_ms = forms.IntegerField(min_value=0, required=False)
    active_ms = forms.IntegerField(min_value=0, required=False)
    strength = forms.CharField(required=False)
    all_bad = forms.BooleanField(required=False)
    refusal_right = forms.BooleanField(required=False)

    def __init__(
        self,
        data: Mapping[str, Any],
        *,
        letters: Mapping[int, str],
        project: Project,
        mode: Mode = "rank",
    ) -> None:
        super().__init__(data)
        self.letters = letters
        self.project = project
        # A ranking that stands is corrected by who it belongs to, not by a lease.
        self.fields["token"].required = mode != "correct"
        for pk, letter in letters.items():
            self._add_card(pk, letter)
        if project.ask_gaps:
            for place in range(1, len(letters)):
                self.fields[names.gap(place)] = _whole(
                    _("How much better place %(place)s is: choose a size from the list.")
                    % {"place": place},
                    highest=max(RankingItem.Gap.values),
                )
        if project.ask_ideal:
            self.fields["ideal_answer"] = _prose(
                MAX_IDEAL, _("The ideal answer is too long: %(limit)s characters fit.")
            )

    @classmethod
    def of(
        cls,
        slot: Slot,
        user: User,
        data: Mapping[str, Any],
        *,
        mode: Mode = "rank",
        given: Ranking | None = None,
    ) -> Self:
        """The form of the board that `make_board` draws for this slot, person and ranking."""
        shown = letters(shown_answers(slot, user, given))
        return cls(data, letters=shown, project=slot.project, mode=mode)

    def _add_card(self, pk: int, letter: str) -> None:
        card = {"card": letter, "last": len(self.letters)}
        self.fields[names.rank(pk)] = _whole(
            _("Card %(card)s: its place must be a whole number from 1 to %(last)s.") % card,
            highest=len(self.letters),
        )
        self.fields[f"sha-{pk}"] = forms.CharField(max_length=64, required=False)
        if self.project.ask_likert:
            self.fields[names.likert(pk)] = _whole(
                _("Card %(card)s: choose its grade from 1 to 7.") % card, highest=LIKERT[1]
            )
        if self.project.attributes:
            self.fields[names.attributes(pk)] = forms.MultipleChoiceField(
                choices=[(one["key"], one["label"]) for one in self.project.attributes],
                required=False,
                error_messages={"invalid_choice": _BROKEN},
            )
        if self.project.ask_critique:
            self.fields[names.critique(pk)] = _prose(
                MAX_CRITIQUE,
                _("What you wrote about card %(card)s is too long: %(limit)s characters fit."),
                **card,
            )
        if self.project.ask_spans:
            self.fields[names.spans(pk)] = Spans(required=False)

    def clean(self) -> dict[str, Any]:
        """Refuse a ranking in which a card has no place."""
        cleaned = super().clean() or {}
        if self._compared(cleaned):
            return cleaned
        missing = [
            letter
            for pk, letter in self.letters.items()
            if not cleaned.get(names.rank(pk)) and names.rank(pk) not in self.errors
        ]
        if missing:
            raise forms.ValidationError(self._say_missing(missing))
        return cleaned

    def _compared(self, cleaned: Mapping[str, Any]) -> bool:
        """Two cards alone are ordered by one choice; the form without script has only that."""
        choice = cleaned.get("strength")
        chosen = names.read_strength(choice) if choice and len(self.letters) == 2 else None
        if chosen is None:
            return False
        ranks, size = chosen
        for pk, rank in zip(self.letters, ranks, strict=True):
            self.cleaned_data[names.rank(pk)] = rank
            self.errors.pop(names.rank(pk), None)
        self.cleaned_data[names.gap(1)] = size or None
        return True

    def _say_missing(self, missing: list[str]) -> str:
        if len(self.letters) == 2:
            return _("Say which of the two answers is better, or that they tie; then submit again.")
        return ngettext(
            "Card %(cards)s has no place yet: give it one, then submit again.",
            "Cards %(cards)s have no place yet: give them one, then submit again.",
            len(missing),
        ) % {"cards": get_text_list(missing, _("and"))}

    @property
    def refusal(self) -> str:
        """The first thing that is wrong, as one sentence."""
        missing = self.non_field_errors()
        return str(missing[0] if missing else next(iter(self.errors.values()))[0])

    @property
    def ranks(self) -> dict[int, int]:
        """Dense ranks by answer id: whoever gives places 1, 3 and 3 means 1, 2 and 2."""
        return dense(self._places)

    @property
    def _places(self) -> dict[int, int]:
        return {pk: self.cleaned_data[names.rank(pk)] for pk in self.letters}

    @property
    def gaps(self) -> list[int | None] | None:
        """One gap for each step from a tier to the next, best first; None when none is asked for.

        Where places were left out, as in 1, 3 and 3, the step from 1 to 3 is asked at place 1 and
        at place 2: what was said at the first of them counts.
        """
        if not self.project.ask_gaps:
            return None
        given = sorted(set(self._places.values()))
        return [self._gap_between(place, following) for place, following in pairwise(given)]

    def _gap_between(self, place: int, following: int) -> int | None:
        said = (self.cleaned_data.get(names.gap(n)) for n in range(place, following))
        return next(filter(None, said), None)

    @property
    def feedback(self) -> Feedback:
        """What was said beside the order."""
        return Feedback(
            all_bad=self.cleaned_data["all_bad"],
            refusal_right=self.cleaned_data["refusal_right"],
            ideal_answer=self.cleaned_data.get("ideal_answer", ""),
            items={pk: self._said_of(pk) for pk in self.letters},
        )

    def _said_of(self, pk: int) -> ItemFeedback:
        said = self.cleaned_data
        return ItemFeedback(
            likert=said.get(names.likert(pk)),
            attributes=tuple(said.get(names.attributes(pk), ())),
            critique=said.get(names.critique(pk), ""),
            spans=said.get(names.spans(pk), ()),
        )

    @property
    def hashes(self) -> dict[int, str] | None:
        """What was judged, by its hash; None when the form carries no hashes."""
        sent = {pk: self.cleaned_data[f"sha-{pk}"] for pk in self.letters}
        return sent if all(sent.values()) else None

    def said(self) -> dict[str, Any]:
        """All that the form says, by the names that submitting and correcting give it."""
        duration_ms, active_ms = self.times(time.time_ns() // 1_000_000)
        return {
            "ranks": self.ranks,
            "gaps": self.gaps,
            "feedback": self.feedback,
            "idempotency_key": self.cleaned_data["key"],
            "duration_ms": duration_ms,
            "active_ms": active_ms,
            "sha256": self.hashes,
        }

    def times(self, now_ms: int) -> tuple[int, int]:
        """Duration and active time in ms; without script nobody saw pauses, so both are equal."""
        opened = self.cleaned_data.get("opened") or now_ms
        duration = self.cleaned_data.get("duration_ms") or now_ms - opened
        duration = min(max(0, duration), DAY_MS)
        active = self.cleaned_data.get("active_ms") or duration
        return duration, min(active, duration)


def _whole(refusal: str, *, highest: int) -> forms.IntegerField:
    """A whole number from 1 that may be left out; one sentence refuses all else."""
    return forms.IntegerField(
        min_value=1,
        max_value=highest,
        required=False,
        error_messages=dict.fromkeys(("invalid", "min_value", "max_value"), refusal),
    )


def _prose(limit: int, refusal: str, **words: object) -> Prose:
    said = refusal % {"limit": limit, **words}
    return Prose(max_length=limit, required=False, error_messages={"max_length": said})


def read_spans(text: str) -> tuple[Span, ...]:
    """Marked places out of their JSON; anything else than a list of them is a ValueError."""
    spans = json.loads(text or "[]")
    if not isinstance(spans, list):
        raise ValueError("Marked places are a list.")
    return tuple(_span(one) for one in spans)


def _span(one: object) -> Span:
    kinds = {"start": int, "end": int, "quote": str, "tag": str, "note": str}
    if not isinstance(one, dict):
        raise ValueError("A marked place is an object.")
    values = {"note": "", **one}
    if set(values) != set(kinds) or any(type(values[key]) is not kinds[key] for key in kinds):
        raise ValueError("A marked place has start, end, quote, tag and note.")
    return Span(**values)


class SkipForm(forms.Form):
    """Why this set is passed on."""

    token = forms.CharField(max_length=64, error_messages={"required": _BROKEN})
    reason = forms.ChoiceField(
        choices=Skip.Reason.choices,
        error_messages={
            "required": gettext_lazy("Choose a reason for skipping, then press “Skip” again."),
            "invalid_choice": gettext_lazy("There is no such reason: choose one from the list."),
        },
    )
    note = forms.CharField(
        max_length=MAX_NOTE,
        required=False,
        error_messages={"max_length": gettext_lazy("The note is too long: 500 characters fit.")},
    )

    @property
    def refusal(self) -> str:
        """The first thing that is wrong, as one sentence."""
        return str(next(iter(self.errors.values()))[0])


class FlagForm(forms.Form):
    """Which answer the admins should look at, and why. Its fields stand among those of the board.

    `letters` maps answer ids to the letters of their cards.
    """

    def __init__(self, data: Mapping[str, Any], *, letters: Mapping[int, str]) -> None:
        super().__init__(data)
        self.letters = letters
        choose = _("Choose the answer that you want to flag.")
        self.fields["flag_answer"] = forms.TypedChoiceField(
            choices=list(letters.items()),
            coerce=int,
            error_messages={"required": choose, "invalid_choice": choose},
        )
        self.fields["flag_note"] = _prose(
            MAX_NOTE, _("The note is too long: %(limit)s characters fit.")
        )

    @property
    def letter(self) -> str:
        """The letter of the flagged card."""
        return self.letters[self.cleaned_data["flag_answer"]]

    @property
    def refusal(self) -> str:
        """The first thing that is wrong, as one sentence."""
        return str(next(iter(self.errors.values()))[0])
