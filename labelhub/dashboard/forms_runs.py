"""Forms that start a stage by hand and bring what it learns from.

The form of a stage is made from the trainer's own settings: name, help text, bounds, choices and
default of each come from `trainer/config.py`. What is wrong with a value the trainer says itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from django import forms
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.urls import reverse
from django.utils import formats
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from labelhub.dashboard.forms import LinesForm
from labelhub.lib.errors import Refused
from labelhub.projects.models import Project
from labelhub.prompts.queries import languages_of
from labelhub.registry.models import ModelVersion
from labelhub.registry.queries import live_version, seen_by
from labelhub.runs import queries, rules
from labelhub.runs.actions import check_config
from labelhub.runs.gathering import TEXT_ENDINGS
from labelhub.runs.models import Corpus, Run
from labelhub.runs.stages import FIRST, Knob, Reading, Thing, facts, reading, uses_of

# A role as people know it, and what it does in a stage.
ROLES: dict[str, tuple[Any, Any]] = {
    "policy": (_("Policy"), _("The model that writes.")),
    "reference": (_("Reference"), _("The model that the policy is compared with.")),
    "base": (_("Base"), _("The model that training begins with.")),
    "reward": (_("Reward model"), _("It scores what is written.")),
    "second": (
        _("Second reward model"),
        _("It only watches: fitted on other rankings, it shows when the first is being fooled."),
    ),
    "tokenizer": (_("Tokenizer of"), _("Left open, one is made from the text.")),
    "prompts": (_("Prompts"), _("What is written to.")),
    "rankings": (_("Rankings"), _("A frozen snapshot.")),
    "pairs": (_("Pairs"), _("A frozen snapshot of prompts with the answers to learn.")),
    "answers": (_("Answers"), _("What is scored.")),
    "text": (_("Text"), _("What the model is made from.")),
    "heldout": (_("Held-out data"), _("Left open, a share of the data is held out.")),
    "history": (_("Figures of a PPO run"), _("To set its score against the best of n.")),
}
# What a version was made from and no form asks for: who wrote the winners that it learned, and who
# chose them.
ANCESTORS: dict[str, Any] = {"writer": _("Writer of the winners"), "judge": _("Judge of them")}
# Where the held-out data are prompts, nothing is held out of the others.
WATCHED = (_("Watched prompts"), _("On held-out ones it shows whether the gain is real."))
INPUT, SETTING = "input_", "set_"
# Settings that change where and how a run computes, and not what comes out.
MACHINE = frozenset({"threads", "dtype", "device", "keep_checkpoints", "engine", "engine_memory"})
# Before the number of a run among the answers that can be chosen; no version's name begins so.
RUN = "run:"


class Numbers(forms.CharField):
    """Numbers of rows with commas or blanks between them."""

    def to_python(self, value: Any) -> Any:
        """The numbers as a list; an empty field is None."""
        words = re.split(r"[\s,;，；、]+", str(value or "").strip())
        if words == [""]:
            return None
        if not all(word.isascii() and word.isdigit() for word in words):
            raise ValidationError(_("Give whole numbers with commas between them."))
        return [int(word) for word in words]


class RunForm(forms.Form):
    """One run of one stage."""

    def __init__(self, project: Project, stage: str, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.project, self.stage, self.told = project, stage, facts(stage)
        chosen = {role for role in self.told.kinds if self.initial.get(INPUT + role)}
        way = reading(stage, chosen) or Reading(self.told.needs[0], {})
        # Filled in at first is what one set of inputs needs: the set in which the chosen ones are.
        self.wanted = way.roles
        self.initial = {SETTING + name: said for name, said in way.settings.items()} | {
            **self.initial
        }
        self.groups_of_role: dict[str, list[str]] = {}
        for role, kind in self.told.kinds.items():
            self.groups_of_role[role] = self._add_input(role, kind)
        for knob in self.told.knobs:
            self.fields[SETTING + knob.name] = _setting(knob)
        self.fields["seed"] = forms.IntegerField(
            label="seed", min_value=0, max_value=2**63 - 1, initial=0,
            help_text=_("The same seed and inputs give the same result."),
        )  # fmt: skip

    # --- what it reads

    def _add_input(self, role: str, kind: str) -> list[str]:
        """The fields of one role; returns their names."""
        title, hint = WATCHED if (role, kind) == ("heldout", "prompts") else ROLES[role]
        name = INPUT + role
        if kind in rules.ROW_KINDS:
            return self._add_rows(name, kind, title, hint)
        choices = self._choices(kind)
        usual = self._usual(role, choices) if role in self.wanted else ""
        needed = all(role in names for names in self.told.needs)
        self.fields[name] = forms.ChoiceField(
            label=title, help_text=hint, required=False, initial=usual,
            choices=choices if needed and choices else [("", _nothing(choices)), *choices],
        )  # fmt: skip
        return [name]

    def _choices(self, kind: str) -> list[tuple[Any, str]]:
        if kind in rules.VERSION_KINDS:
            rows = seen_by(self.project).filter(kind__in=rules.VERSION_KINDS[kind]).order_by("-id")
            return [(one.name, f"{one.name} · {one.get_kind_display()}") for one in rows]
        if kind in rules.SNAPSHOT_KINDS:
            return [
                (one.pk, snapshot_words(one)) for one in queries.snapshots_of(self.project, kind)
            ]
        if kind == "text":
            return [(name, name) for name in _names(queries.corpora_of(self.project))]
        runs = queries.reports_of(self.project)
        return [(run.pk, run_words(run)) for run in runs]

    def _usual(self, role: str, choices: list[tuple[Any, str]]) -> Any:
        """What most runs would read: the live policy; else the newest that fits.

        Where it is compared with a reference the newest other version is, not the live one.
        """
        live = live_version(self.project)
        names = [value for value, _label in choices]
        if live is not None and live.name in names:
            if role == "policy" and "reference" in self.told.kinds:
                names = [name for name in names if name != live.name] or names
            elif role in ("policy", "base", "reference"):
                return live.name
        return names[0] if names else ""

    def _add_rows(self, name: str, kind: str, title: Any, hint: Any) -> list[str]:
        """A choice among prompts or answers, and how many of them."""
        which: list[tuple[str, Any]] = [("", "–"), ("all", _("all"))]
        if kind == "prompts":
            which[1:] = [
                ("free", _("not held out")),
                ("held_out", _("held out")),
                ("all", _("all")),
            ]
        else:
            wrote = ModelVersion.objects.filter(answers__answer_set__prompt__project=self.project)
            which += [(one.name, one.name) for one in wrote.distinct().order_by("-id")]
            which += [
                (f"{RUN}{run.pk}", f"{run_words(run)} · {run.what}")
                for run in queries.writings_of(self.project)
            ]
        wanted = name.removeprefix(INPUT) in self.wanted
        self.fields[name] = forms.ChoiceField(
            label=title, help_text=hint, choices=which, required=False,
            initial=which[1][0] if wanted else "",
        )  # fmt: skip
        names = [name]
        if kind == "prompts":
            self.fields[f"{name}_language"] = forms.ChoiceField(
                label=_("Language"), required=False,
                choices=[("", _("any")), *((code, code) for code in languages_of(self.project))],
            )  # fmt: skip
            names.append(f"{name}_language")
        self.fields[f"{name}_number"] = forms.IntegerField(
            label=_("How many"), min_value=1, required=False,
            help_text=_("Drawn with the seed; left open, all of them."),
        )  # fmt: skip
        self.fields[f"{name}_ids"] = Numbers(
            label=_("Or their numbers"), required=False, help_text=_("Such as 12, 15, 16.")
        )
        return [*names, f"{name}_number", f"{name}_ids"]

    def inputs(self) -> dict[str, Any]:
        """What was chosen, as `runs.inputs.find_inputs` takes it."""
        asked: dict[str, Any] = {}
        for role, kind in self.told.kinds.items():
            said = self._said(INPUT + role, kind)
            if said is not None:
                asked[role] = said
        return asked

    def _said(self, name: str, kind: str) -> Any:
        value = self.cleaned_data.get(name)
        if kind not in rules.ROW_KINDS:
            if not value:
                return None
            return int(value) if kind in rules.SNAPSHOT_KINDS or kind == "report" else value
        if numbers := self.cleaned_data.get(f"{name}_ids"):
            return numbers
        if not value:
            return None
        choice: dict[str, Any] = {}
        if value.startswith(RUN):
            choice["run"] = int(value.removeprefix(RUN))
        elif value in ("free", "held_out"):
            choice["held_out"] = value == "held_out"
        elif value != "all":
            choice["version"] = value
        if language := self.cleaned_data.get(f"{name}_language"):
            choice["language"] = language
        if number := self.cleaned_data.get(f"{name}_number"):
            choice["number"] = number
        return choice

    # --- its settings

    def config(self) -> dict[str, Any]:
        """The settings that differ from the defaults."""
        values = {knob: self.cleaned_data.get(SETTING + knob.name) for knob in self.told.knobs}
        return {
            knob.name: value
            for knob, value in values.items()
            if value not in (None, "") and value != knob.default
        }

    def clean(self) -> dict[str, Any]:
        """Ask the trainer about each setting by itself, then about all of them together."""
        data: dict[str, Any] = super().clean() or {}
        self._refuse_missing()
        for name, value in self.config().items():
            self._ask_trainer({name: value}, alone=True)
        if not self.errors:
            self._ask_trainer(self.config(), alone=False)
        return data

    def _refuse_missing(self) -> None:
        """Say beside its field what the stage cannot do without; the nearest set of inputs counts.

        A field that was filled in wrongly has its own sentence.
        """
        given = {
            role
            for role, kind in self.told.kinds.items()
            if self._said(INPUT + role, kind) is not None or self._is_wrong(role)
        }
        nearest = min(
            map(set, self.told.needs), key=lambda names: (len(names - given), -len(names & given))
        )
        for role in sorted(nearest - given):
            kind = self.told.kinds[role]
            some = kind in rules.ROW_KINDS or self._choices(kind)
            self.add_error(
                INPUT + role,
                _("It does not run without: choose one.")
                if some
                else _("It does not run without, and there is none yet: make or bring one first."),
            )

    def _is_wrong(self, role: str) -> bool:
        return any(name in self.errors for name in self.groups_of_role[role])

    def _ask_trainer(self, config: dict[str, Any], *, alone: bool) -> None:
        try:
            check_config(self.stage, config)
        except Refused as refusal:
            # A setting that only does not go with the default of another is judged with the rest.
            if not alone or refusal.details.get("setting") in config:
                self.refuse(refusal)

    def refuse(self, refusal: Refused) -> None:
        """Put a refusal beside the field that it is about, else above the form."""
        role, setting = refusal.details.get("role"), refusal.details.get("setting")
        field = f"{INPUT}{role}" if role else f"{SETTING}{setting}"
        if field not in self.fields:
            self.add_error(None, refusal.message)
        elif refusal.message not in self.errors.get(field, ()):
            self.add_error(field, refusal.message)

    # --- how it is laid out

    def read(self) -> list[list[forms.BoundField]]:
        """The inputs: for each role its fields, the one that names it first; single ones on top."""
        groups = sorted(self.groups_of_role.values(), key=lambda names: len(names) > 1)
        return [[self[name] for name in names] for names in groups]

    def first(self) -> list[forms.BoundField]:
        """The settings that most decide what comes out."""
        return [self[SETTING + name] for name in FIRST[self.stage]]

    def more(self) -> list[forms.BoundField]:
        """The other settings, those about the machine last."""
        names = [knob.name for knob in self.told.knobs if knob.name not in FIRST[self.stage]]
        return [self[SETTING + name] for name in sorted(names, key=MACHINE.__contains__)]

    def more_is_wrong(self) -> bool:
        """Whether an error hides behind “more settings”, which then must stand open."""
        return any(field.errors for field in self.more())


def _nothing(choices: list[tuple[Any, str]]) -> Any:
    """What a field says in which nothing is chosen."""
    return "–" if choices else _("– none yet –")


def role_words(role: str, kind: str = "") -> str:
    """What a role is called; one that nobody knows here by its own name."""
    if (role, kind) == ("heldout", "prompts"):
        return str(WATCHED[0])
    return str(ROLES[role][0] if role in ROLES else ANCESTORS.get(role, role))


def run_words(run: Run) -> str:
    """A run in a list."""
    return gettext("Run %(n)d") % {"n": run.pk}


def snapshot_words(snapshot: Any) -> str:
    """A snapshot in a list."""
    day = formats.date_format(snapshot.created, "Y-m-d H:i")
    kind = snapshot.get_kind_display()
    return f"{snapshot.pk} · {snapshot.count} · {kind} · {day}"


def _names(rows: QuerySet[Any]) -> list[str]:
    return list(dict.fromkeys(rows.values_list("name", flat=True)))


class Lenient(forms.Field):
    """A number that the trainer is to judge: what is none goes to it as it was typed."""

    def __init__(self, knob: Knob, **options: Any) -> None:
        self.knob = knob
        step = "1" if knob.kind == "int" else "any"
        bounds = {"min": knob.low, "max": knob.high}
        attributes = {"step": step, **{k: v for k, v in bounds.items() if v is not None}}
        super().__init__(widget=forms.NumberInput(attrs=attributes), **options)

    def to_python(self, value: Any) -> Any:
        """A number of the setting's kind where it is one; an empty field is the default."""
        text = str(value if value is not None else "").strip()
        if not text:
            return None
        try:
            return int(text) if self.knob.kind == "int" else float(text)
        except ValueError:
            return text


def _setting(knob: Knob) -> forms.Field:
    """The field of one setting, under its own name: that is what specs and documents call it."""
    told: dict[str, Any] = {
        "label": knob.name, "help_text": gettext(knob.about), "initial": knob.default,
        "required": False,
    }  # fmt: skip
    if knob.kind == "bool":
        return forms.BooleanField(**told)
    if knob.choices:
        return forms.ChoiceField(choices=[(one, one) for one in knob.choices], **told)
    if knob.kind == "str":
        return forms.CharField(**told)
    return Lenient(knob, **told)


def input_value(role: str, thing: Thing) -> Any:
    """What a role's field says when this thing is chosen in it."""
    if role == "answers":
        return f"{RUN}{thing.pk}"
    return thing.name if isinstance(thing, ModelVersion | Corpus) else thing.pk


@dataclass(frozen=True)
class StartLink:
    """A link to the form of a stage in which a thing is chosen already."""

    stage: Run.Stage
    role: Any
    url: str


def start_links(project: Project, thing: Thing) -> list[StartLink]:
    """What can be started with a thing: a link to each stage that can read it."""
    links = []
    for use in uses_of(thing):
        query = urlencode({INPUT + use.role: input_value(use.role, thing)})
        address = reverse("dashboard:new-run", args=[project.slug, use.stage.value])
        links.append(StartLink(use.stage, ROLES[use.role][0], f"{address}?{query}"))
    return links


def named(project: Project, stage: str, asked: Mapping[str, str]) -> dict[str, Any]:
    """The first values of a form that a link names by their fields; refuses what is not there."""
    values = {name: asked[name] for name in RunForm(project, stage).fields if name in asked}
    form = RunForm(project, stage, initial=values)
    for name, value in values.items():
        field = form.fields[name]
        if isinstance(field, forms.ChoiceField) and not field.valid_value(value):
            words = gettext("There is no “%(value)s” to choose for “%(name)s” in this project.")
            raise Refused(words % {"value": value, "name": field.label}, status=404)
    return values


def again(run: Run) -> dict[str, Any]:
    """The first values of a form that does the same once more."""
    values: dict[str, Any] = {SETTING + name: value for name, value in run.config.items()}
    for role, kind in facts(run.stage).kinds.items():
        if kind not in rules.ROW_KINDS:
            values[INPUT + role] = ""
        values[f"{INPUT}{role}_ids"] = ", ".join(map(str, run.data.get(role, [])))
    for link in queries.inputs_of(run):
        values[INPUT + link.role] = input_value(link.role, link.thing)
    return values | {"seed": run.seed}


# --- what runs learn from


class PairsForm(LinesForm):
    """Pairs to fine-tune on as JSON lines, pasted or as a file."""

    nothing = _("Nothing to bring: paste pairs or choose a file.")

    text = forms.CharField(
        label=_("Pairs"),
        help_text=_('JSON, one a line, such as {"prompt": "…", "answer": "…"}.'),
        widget=forms.Textarea(attrs={"rows": 5, "spellcheck": "false"}),
        required=False,
    )
    file = forms.FileField(label=_("Or a file (.jsonl)"), required=False)


class ManyFiles(forms.ClearableFileInput):
    """Several files at once."""

    allow_multiple_selected = True


class FilesField(forms.FileField):
    """One or more files."""

    def clean(self, data: Any, initial: Any = None) -> Any:
        """All of them, each checked as one."""
        some = data if isinstance(data, list | tuple) else [data]
        return [super(FilesField, self).clean(one, initial) for one in some]


class CorpusForm(forms.Form):
    """Text to pretrain on."""

    name = forms.CharField(label=_("Name"), max_length=80)
    texts = FilesField(
        label=_("Files"),
        help_text=_('Plain text, packed or not, or JSON lines with a "text" each; UTF-8.'),
        widget=ManyFiles(attrs={"accept": ",".join(TEXT_ENDINGS)}),
    )


def filters(asked: Mapping[str, str]) -> dict[str, str]:
    """The stage and state that a list of runs is narrowed to; what is unknown is left out."""
    known = {"stage": Run.Stage.values, "state": Run.State.values}
    return {name: asked[name] for name in known if asked.get(name) in known[name]}
