"""What admins fill in about people: who is invited, what a member may do, what waits for whom."""

from __future__ import annotations

from typing import Any, cast

from django import forms
from django.core.exceptions import ValidationError
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from labelhub.accounts.models import User
from labelhub.projects import rules
from labelhub.projects.actions import sentence
from labelhub.projects.models import Membership, Project
from labelhub.prompts.queries import languages_of, skills_of, topics_of

MOST_ASSIGNED = 500
LIFETIMES = [
    (1, _("for one day")),
    (7, _("for a week")),
    (30, _("for 30 days")),
    (90, _("for 90 days")),
]


class InvitationForm(forms.Form):
    """A link for so many people and so many days."""

    role = forms.ChoiceField(
        label=_("Role"), choices=Membership.Role.choices, initial=Membership.Role.ANNOTATOR
    )
    days = forms.TypedChoiceField(
        label=_("It holds"), choices=LIFETIMES, coerce=int, empty_value=None, initial=7
    )
    seats = forms.IntegerField(
        label=_("For how many people"), min_value=1, max_value=rules.MOST_SEATS, initial=1
    )
    note = forms.CharField(
        label=_("Note"),
        help_text=_("Only admins see it, such as whom it is for."),
        max_length=120,
        required=False,
    )

    def clean(self) -> dict[str, Any]:
        """Refuse at the field what the action would refuse."""
        data: dict[str, Any] = super().clean() or {}
        if data.get("role") == Membership.Role.ADMIN and data.get("seats", 1) != 1:
            self.add_error(
                "seats", _("A link that makes people admins is for one person: make one for each.")
            )
        return data


class MemberForm(forms.Form):
    """Seat somebody who has an account."""

    username = forms.CharField(label=_("Name of the account"), max_length=150)
    role = forms.ChoiceField(
        label=_("Role"), choices=Membership.Role.choices, initial=Membership.Role.ANNOTATOR
    )

    def clean_username(self) -> User:
        """The person of that name; simulated annotators are never seated by hand."""
        user = User.objects.filter(username=self.cleaned_data["username"], is_active=True).first()
        if user is None:
            raise ValidationError(
                _("There is no account of that name: invite the person by a link instead.")
            )
        if user.is_simulated:
            raise ValidationError(_("This is a simulated annotator: it joins no people's project."))
        return user


class SeatForm(forms.Form):
    """What one member may do and is offered."""

    role = forms.ChoiceField(label=_("Role"), choices=Membership.Role.choices)
    languages = forms.CharField(
        label=_("Languages that this person reads"),
        help_text=_("Codes with commas between them, such as en, zh. Left empty: all."),
        max_length=300,
        required=False,
    )
    skills = forms.CharField(
        label=_("Skills"),
        max_length=1000,
        required=False,
    )
    qualified = forms.BooleanField(
        label=_("Has passed the tutorial"),
        help_text=_("Untick it to ask for the tutorial again; tick it to let the person through."),
        required=False,
    )

    def __init__(self, *args: Any, project: Project, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        known = skills_of(project)
        self.fields["skills"].help_text = (
            gettext("Names with commas between them. Prompts of this project ask for: %(skills)s.")
            % {"skills": ", ".join(known)}
            if known
            else gettext("Names with commas between them, such as medicine, law.")
        )

    def clean_languages(self) -> list[str]:
        """Codes, each once."""
        return _checked(rules.checked_languages, self.cleaned_data["languages"])

    def clean_skills(self) -> list[str]:
        """Names, each once."""
        return _checked(rules.checked_skills, self.cleaned_data["skills"])


def first_values(membership: Membership) -> dict[str, Any]:
    """What the form shows of a member."""
    return {
        "role": membership.role,
        "languages": ", ".join(membership.languages),
        "skills": ", ".join(membership.skills),
        "qualified": membership.qualified_at is not None,
    }


def _checked(check: Any, text: str) -> list[str]:
    try:
        names: list[str] = check(rules.parse_names(text))
    except rules.BadList as bad:
        raise ValidationError(sentence(bad)) from None
    return names


class AssignForm(forms.Form):
    """How many sets are to wait for one person, and of which kind."""

    count = forms.IntegerField(
        label=_("Sets of answers"),
        help_text=_("Oldest first; nobody else is offered them."),
        min_value=1,
        max_value=MOST_ASSIGNED,
        initial=10,
    )
    language = forms.ChoiceField(label=_("Language"), required=False)
    topic = forms.ChoiceField(label=_("Topic"), required=False)

    def __init__(self, *args: Any, project: Project, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name, values in (("language", languages_of(project)), ("topic", topics_of(project))):
            field = cast(forms.ChoiceField, self.fields[name])
            field.choices = [("", gettext("any")), *((value, value) for value in values)]


class ForgetForm(forms.Form):
    """The person's name, typed once more, since nothing brings the data back."""

    name = forms.CharField(label=_("Name of the person"), max_length=150)

    def __init__(self, *args: Any, person: User, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.person = person

    def clean_name(self) -> str:
        """Exactly the name of the account."""
        name: str = self.cleaned_data["name"]
        if name != self.person.username:
            raise ValidationError(
                _("That is not the name: type %(name)s to delete."),
                params={"name": self.person.username},
            )
        return name
