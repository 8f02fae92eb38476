"""Small forms about oneself."""

from __future__ import annotations

from django import forms
from django.conf import settings

from labelhub.accounts.models import User

# Empty in the database, a word in the form: there an absent field changes nothing.
SYSTEM = "system"


class PreferencesForm(forms.Form):
    """Language and theme; each may stand alone."""

    language = forms.ChoiceField(choices=settings.LANGUAGES, required=False)
    theme = forms.ChoiceField(
        choices=[(theme or SYSTEM, label) for theme, label in User.Theme.choices], required=False
    )

    def clean_theme(self) -> str | None:
        """Return the value that the database keeps, None when the field was not sent."""
        theme: str = self.cleaned_data["theme"]
        if not theme:
            return None
        return "" if theme == SYSTEM else theme
