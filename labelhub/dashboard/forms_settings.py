"""The settings of a project: groups of fields with hints. Shares are typed in per cent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from labelhub.projects import rules
from labelhub.projects.actions import sentence
from labelhub.projects.models import MAX_ANSWERS, MIN_ANSWERS, Project
from labelhub.projects.queries import ready_attributes
from labelhub.rounds.rules import RoundConfig

SHARES = ("shared_share", "gold_share", "repeat_share", "uniform_share")
MOST_OPINIONS = 20


@dataclass(frozen=True)
class Group:
    """Fields that belong together."""

    key: str
    title: Promise | str
    about: Promise | str
    names: tuple[str, ...]


@dataclass(frozen=True)
class Shown:
    """A group with the fields of one form."""

    group: Group
    fields: list[forms.BoundField]


GROUPS = (
    Group("about", _("The project"), "", ("name", "language", "description")),
    Group(
        "opinions",
        _("Answers and opinions"),
        _("They hold for what is opened from now on: sets in the queue keep their slots."),
        ("answers_per_prompt", "overlap", "shared_share", "shared_overlap", "newcomer_sets"),
    ),
    Group(
        "mixed",
        _("What an annotator is given"),
        _("Unannounced, so that the figures about quality mean something."),
        ("gold_share", "repeat_share", "uniform_share"),
    ),
    Group(
        "comparisons",
        _("Blind comparisons"),
        _("What the form of a new round begins with. They decide whether a new policy is better."),
        ("compare_prompts", "compare_opinions"),
    ),
    Group(
        "asked",
        _("What is asked beside the order"),
        _("Whatever is asked costs time with each set. All of it is optional for the annotator."),
        ("ask_gaps", "ask_likert", "ask_critique", "ask_spans", "ask_ideal", "ready", "own"),
    ),
    Group(
        "quality",
        _("Quality"),
        "",
        ("review_below", "qualification_tau", "hold_back_leaks", "weigh_annotators"),
    ),
    Group(
        "writing",
        _("How answers are written"),
        _("What the form of a new round begins with."),
        ("max_new_tokens", "temperature"),
    ),
)


def _count(label: Any, hint: Any, low: int, high: int) -> forms.IntegerField:
    return forms.IntegerField(label=label, help_text=hint, min_value=low, max_value=high)


def _percent(label: Any, hint: Any) -> forms.FloatField:
    return forms.FloatField(label=label, help_text=hint, min_value=0, max_value=100)


def _tick(label: Any, hint: Any = "") -> forms.BooleanField:
    return forms.BooleanField(label=label, help_text=hint, required=False)


class SettingsForm(forms.Form):
    """What a project wants. The names of its fields are those of the project."""

    name = forms.CharField(label=_("Name"), max_length=120)
    description = forms.CharField(
        label=_("Description"),
        help_text=_("Annotators and people who are invited read it."),
        widget=forms.Textarea(attrs={"rows": 2}),
        max_length=2000,
        required=False,
    )
    language = forms.CharField(
        label=_("Language"), help_text=_("Of prompts that name none: en, zh, …"), max_length=10
    )

    answers_per_prompt = _count(
        _("Answers to each prompt"),
        _("Shown together and ranked, 2 to 9."),
        MIN_ANSWERS,
        MAX_ANSWERS,
    )
    overlap = _count(
        _("Opinions on each set"), _("How many people rank the same answers."), 1, MOST_OPINIONS
    )
    shared_share = _percent(
        _("Sets with more opinions, in %"),
        _("Agreement between people is measured on them. 20 is a good beginning."),
    )
    shared_overlap = _count(
        _("Opinions on each of those"), _("Never more than there are people."), 1, MOST_OPINIONS
    )
    newcomer_sets = _count(
        _("A newcomer's first sets"),
        _("So many of each newcomer's first sets are ranked by others, too. 0 for none."),
        0,
        1000,
    )

    gold_share = _percent(
        _("Known rankings, in %"),
        _("Sets whose ranking is known show how well a person ranks. They need the page “Gold”."),
    )
    repeat_share = _percent(
        _("Repeats, in %"), _("Own sets again, to see whether a person agrees with themselves.")
    )
    uniform_share = _percent(
        _("Drawn without priority, in %"),
        _("Sets that were not chosen for their doubt keep the figures unbiased."),
    )

    compare_prompts = _count(
        _("Prompts on which people compare"),
        _("The old and the new policy's answers, at the end of each round. 0: none."),
        *map(int, RoundConfig.BOUNDS["compare_prompts"]),
    )
    compare_opinions = _count(
        _("Opinions on each comparison"),
        _("More make each outcome surer; more prompts tell more."),
        *map(int, RoundConfig.BOUNDS["compare_opinions"]),
    )

    ask_gaps = _tick(_("How much better"), _("Slightly, clearly or much, from tier to tier."))
    ask_likert = _tick(_("A rating from 1 to 7 for each answer"))
    ask_critique = _tick(_("Notes on each answer"))
    ask_spans = _tick(_("Marks in the text"), _("Good and bad places of an answer."))
    ask_ideal = _tick(
        _("The ideal answer"),
        _("It becomes an example for fine-tuning, never part of the reward."),
    )
    ready = forms.MultipleChoiceField(
        label=_("Yes-or-no questions about each answer"),
        help_text=_("The eleven of InstructGPT. Tick those that matter here."),
        widget=forms.CheckboxSelectMultiple,
        required=False,
    )
    own = forms.CharField(
        label=_("Questions of your own"),
        help_text=_(
            "One a line. Once saved, each has a key before it, as in “tone: Unfriendly tone”:"
            " reword what stands after the colon, and earlier rankings still belong to it."
        ),
        widget=forms.Textarea(attrs={"rows": 4}),
        max_length=5000,
        required=False,
    )

    review_below = forms.FloatField(
        label=_("A reviewer decides below this agreement"),
        help_text=_(
            "Mean Kendall τ-b between the opinions on a set, from −1 to 1. Left empty: never."
        ),
        min_value=-1,
        max_value=1,
        required=False,
    )
    qualification_tau = forms.FloatField(
        label=_("Pass mark of the tutorial"),
        help_text=_("Mean Kendall τ-b with its known rankings, from −1 to 1."),
        min_value=-1,
        max_value=1,
    )
    hold_back_leaks = _tick(
        _("Hold back answers that name a model"),
        _("Such a set waits for you on the page “Reports” instead of being ranked."),
    )
    weigh_annotators = _tick(
        _("Weigh rankings by reliability"),
        _("In training, those of more reliable annotators count more."),
    )

    max_new_tokens = _count(
        _("Longest answer, in tokens"), "", *map(int, RoundConfig.BOUNDS["max_new_tokens"])
    )
    temperature = forms.FloatField(label=_("Sampling temperature"), min_value=0.1, max_value=2.0)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name in SHARES:
            self.fields[name].widget.attrs["step"] = "any"
        choices = [(one.key, one.label) for one in ready_attributes()]
        self.fields["ready"].choices = choices  # type: ignore[attr-defined]

    def groups(self) -> list[Shown]:
        """The fields as the page shows them."""
        return [Shown(group, [self[name] for name in group.names]) for group in GROUPS]

    def clean_language(self) -> str:
        """One language code."""
        try:
            return rules.checked_languages([self.cleaned_data["language"].strip()])[0]
        except rules.BadList as bad:
            raise ValidationError(sentence(bad)) from None

    def clean_own(self) -> list[dict[str, str]]:
        """The project's own questions; what is wrong names its line."""
        try:
            return rules.parse_attributes(self.cleaned_data["own"])
        except rules.BadList as bad:
            raise ValidationError(sentence(bad)) from None

    def clean(self) -> dict[str, Any]:
        """No question may stand among the ready ones and the own ones."""
        data: dict[str, Any] = super().clean() or {}
        ready = rules.ready_attributes(data.get("ready", ()))
        try:
            data["attributes"] = rules.checked_attributes([*ready, *data.get("own", ())])
        except rules.BadList as bad:
            self.add_error("own", sentence(bad))
        return data

    def values(self) -> dict[str, Any]:
        """What `change_settings` takes: shares from 0 to 1, the questions as one list."""
        values = {k: v for k, v in self.cleaned_data.items() if k not in ("ready", "own")}
        return values | {name: round(values[name] / 100, 6) for name in SHARES}


def first_values(project: Project) -> dict[str, Any]:
    """What the form shows of a project."""
    values = {name: getattr(project, name, None) for name in SettingsForm.base_fields}
    values |= {name: _short(100 * getattr(project, name)) for name in SHARES}
    is_ready = [rules.READY_LABELS.get(one["key"]) == one["label"] for one in project.attributes]
    pairs = list(zip(project.attributes, is_ready, strict=True))
    values["ready"] = [one["key"] for one, ready in pairs if ready]
    values["own"] = rules.attribute_lines(one for one, ready in pairs if not ready)
    return values


def _short(value: float) -> float | int:
    """20 instead of 20.0, and no noise of binary fractions."""
    rounded = round(value, 4)
    return int(rounded) if rounded.is_integer() else rounded
