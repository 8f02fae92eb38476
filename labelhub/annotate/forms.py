"""The two forms of the board, as they come in: a ranking, or a skip with its reason.

Every refusal is one sentence that names the cards by the letters which the person sees.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django import forms
from django.utils.text import get_text_list
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from labelhub.rankings.models import Skip
from labelhub.rankings.rules import dense, field_name

DAY_MS = 24 * 60 * 60 * 1000
_BROKEN = gettext_lazy("The form came in damaged: reload the page and send it again.")


class RankingForm(forms.Form):
    """One place for each answer, the keys of the page, and the time it took.

    `letters` maps answer ids to the letters of their cards.
    """

    token = forms.CharField(max_length=64, error_messages={"required": _BROKEN})
    key = forms.UUIDField(error_messages={"required": _BROKEN, "invalid": _BROKEN})
    opened = forms.IntegerField(min_value=0, required=False)
    duration_ms = forms.IntegerField(min_value=0, required=False)
    active_ms = forms.IntegerField(min_value=0, required=False)

    def __init__(self, data: Mapping[str, Any], *, letters: Mapping[int, str]) -> None:
        super().__init__(data)
        self.letters = letters
        for pk in letters:
            self.fields[field_name(pk)] = forms.IntegerField(
                min_value=1, max_value=len(letters), required=False
            )
            self.fields[f"sha-{pk}"] = forms.CharField(max_length=64, required=False)

    def clean(self) -> dict[str, Any]:
        """Refuse a ranking in which a card has no place."""
        cleaned = super().clean() or {}
        missing = [letter for pk, letter in self.letters.items() if not cleaned.get(field_name(pk))]
        if missing:
            raise forms.ValidationError(
                ngettext(
                    "Card %(cards)s has no place yet: give it one, then submit again.",
                    "Cards %(cards)s have no place yet: give them one, then submit again.",
                    len(missing),
                )
                % {"cards": get_text_list(missing, _("and"))}
            )
        return cleaned

    @property
    def refusal(self) -> str:
        """The first thing that is wrong, as one sentence."""
        missing = self.non_field_errors()
        return str(missing[0] if missing else next(iter(self.errors.values()))[0])

    @property
    def ranks(self) -> dict[int, int]:
        """Dense ranks by answer id: whoever gives places 1, 3 and 3 means 1, 2 and 2."""
        return dense({pk: self.cleaned_data[field_name(pk)] for pk in self.letters})

    @property
    def hashes(self) -> dict[int, str] | None:
        """What was judged, by its hash; None when the form carries no hashes."""
        sent = {pk: self.cleaned_data[f"sha-{pk}"] for pk in self.letters}
        return sent if all(sent.values()) else None

    def times(self, now_ms: int) -> tuple[int, int]:
        """Duration and active time in ms; without script nobody saw pauses, so both are equal."""
        opened = self.cleaned_data.get("opened") or now_ms
        duration = self.cleaned_data.get("duration_ms") or now_ms - opened
        duration = min(max(0, duration), DAY_MS)
        active = self.cleaned_data.get("active_ms") or duration
        return duration, min(active, duration)


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
        max_length=500,
        required=False,
        error_messages={"max_length": gettext_lazy("The note is too long: 500 characters fit.")},
    )

    @property
    def refusal(self) -> str:
        """The first thing that is wrong, as one sentence."""
        return str(next(iter(self.errors.values()))[0])
