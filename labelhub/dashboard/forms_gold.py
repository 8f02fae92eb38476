"""What admins fill in about known rankings: the places of the answers, or lines to import."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from django import forms
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from labelhub.dashboard.forms import LinesForm
from labelhub.prompts.models import Answer
from labelhub.rankings.rules import MAX_CRITIQUE, field_name


class GoldForm(forms.Form):
    """The known place of each answer, why it is so, and whether newcomers learn from it."""

    explanation = forms.CharField(
        label=_("Why it is so"),
        help_text=_("Newcomers read it after they ranked a set of the tutorial."),
        widget=forms.Textarea(attrs={"rows": 3}),
        max_length=MAX_CRITIQUE,
        required=False,
    )
    tutorial = forms.BooleanField(
        label=_("A set of the tutorial"),
        help_text=_("Shown to newcomers with its explanation. Otherwise it is mixed in as gold."),
        required=False,
    )

    def __init__(
        self,
        data: Mapping[str, Any] | None = None,
        *,
        answers: Sequence[Answer],
        proposed: Mapping[int, int],
    ) -> None:
        super().__init__(data)
        self.answers = answers
        places = [(place, str(place)) for place in range(1, len(answers) + 1)]
        for answer in answers:
            self.fields[field_name(answer.pk)] = forms.TypedChoiceField(
                label=gettext("Place"),
                choices=places,
                coerce=int,
                initial=proposed.get(answer.pk, len(answers)),
            )

    def cards(self) -> list[tuple[Answer, forms.BoundField]]:
        """Each answer with the field of its place."""
        return [(answer, self[field_name(answer.pk)]) for answer in self.answers]

    def said(self) -> list[forms.BoundField]:
        """The other fields."""
        return [self["explanation"], self["tutorial"]]

    @property
    def ranks(self) -> dict[int, int]:
        """The places by answer id."""
        return {one.pk: self.cleaned_data[field_name(one.pk)] for one in self.answers}


class ImportGoldForm(LinesForm):
    """Known rankings as JSON lines, pasted or as a file."""

    nothing = _("Nothing to import: paste lines or choose a file.")

    text = forms.CharField(
        label=_("Known rankings"),
        help_text=_(
            'One a line: {"prompt": "…", "answers": ["…", "…"], "ranks": [1, 2]}, 1 = best, equal'
            ' numbers are a tie. "explanation" and "tutorial": true may stand in it, too.'
        ),
        widget=forms.Textarea(attrs={"rows": 8, "spellcheck": "false"}),
        required=False,
    )
    file = forms.FileField(label=_("Or a file (.jsonl)"), required=False)
