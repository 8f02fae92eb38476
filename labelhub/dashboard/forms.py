"""What admins fill in. A field that has a default works with it: the form can be sent as it is."""

from __future__ import annotations

import json
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.utils.text import slugify
from django.utils.translation import gettext_lazy as _

from labelhub.projects.models import Project
from labelhub.rounds.models import Round
from labelhub.rounds.queries import PromptCounts
from labelhub.rounds.rules import RoundConfig

DEFAULTS = RoundConfig()
# Files beyond this are for the API: a browser upload of them would hold a web worker for long.
MOST_BYTES = 20 * 1024 * 1024
# Words that stand in addresses where a project's short name would.
RESERVED = {"new", "live"}


def _whole(name: str, label: Any, hint: Any = "") -> forms.IntegerField:
    low, high = RoundConfig.BOUNDS[name]
    return forms.IntegerField(
        label=label,
        help_text=hint,
        min_value=int(low),
        max_value=int(high),
        initial=getattr(DEFAULTS, name),
    )


class StartRoundForm(forms.Form):
    """The settings of a round; see rounds/rules.py:RoundConfig."""

    prompts = _whole("prompts", _("Prompts"), _("Each one gets answers to rank."))
    answers = _whole("answers", _("Answers to each"), _("Shown together and ranked."))
    steps = _whole("steps", _("PPO steps"), _("Training ends earlier if the KL budget is spent."))
    mode = forms.ChoiceField(
        label=_("How it goes on"),
        choices=[
            (Round.Mode.AUTO, _("By itself")),
            (Round.Mode.STEP, _("Step by step")),
        ],
        help_text=_("Step by step, each stage waits until you start it."),
        initial=Round.Mode.AUTO,
    )
    overlap = _whole("overlap", _("Opinions on each prompt"))
    max_new_tokens = _whole("max_new_tokens", _("Longest answer, in tokens"))
    temperature = forms.FloatField(
        label=_("Sampling temperature"), min_value=0.1, max_value=2.0, initial=DEFAULTS.temperature
    )
    episodes = _whole("episodes", _("Answers written in a PPO step"))
    kl_budget = forms.FloatField(
        label=_("KL budget, in nats a reply"),
        min_value=0.1,
        max_value=1000.0,
        initial=DEFAULTS.kl_budget,
    )
    heldout_prompts = _whole("heldout_prompts", _("Held-out prompts to measure the gain on"))
    reward_epochs = _whole("reward_epochs", _("Times the reward model sees each ranking"))
    reward_ensemble = _whole(
        "reward_ensemble",
        _("Heads of the reward model"),
        _("Two or more disagree where it is unsure: later rounds rank such sets first."),
    )
    compare_prompts = _whole(
        "compare_prompts",
        _("Held-out prompts that people compare, blind"),
        _("The old and the new policy's answers, before the decision. 0: none."),
    )
    compare_opinions = _whole("compare_opinions", _("Opinions on each comparison"))
    languages = forms.CharField(
        label=_("Languages of the prompts"),
        help_text=_("Codes with commas between them, such as en, zh."),
        initial=", ".join(DEFAULTS.languages),
        max_length=100,
    )
    seed = forms.IntegerField(label=_("Seed"), min_value=0, max_value=10**12, initial=0)

    main_fields = ("prompts", "answers", "steps", "mode")

    def main(self) -> list[forms.BoundField]:
        """The fields that stand open."""
        return [self[name] for name in self.main_fields]

    def more(self) -> list[forms.BoundField]:
        """The fields behind “more settings”."""
        return [self[name] for name in self.fields if name not in self.main_fields]

    def more_is_wrong(self) -> bool:
        """Whether an error hides behind “more settings”, which then must stand open."""
        return any(field.errors for field in self.more())

    def clean_languages(self) -> list[str]:
        """Codes in the order given, each once."""
        parts = [part.strip() for part in self.cleaned_data["languages"].split(",")]
        return list(dict.fromkeys(part for part in parts if part))

    def config(self) -> dict[str, Any]:
        """What `start_round` takes as its config."""
        return {k: v for k, v in self.cleaned_data.items() if k not in ("mode", "seed")}


def first_values(project: Project, last: Round | None, counts: PromptCounts) -> dict[str, Any]:
    """The settings of the round before, else the project's; never more prompts than there are."""
    values: dict[str, Any] = {
        "answers": project.answers_per_prompt,
        "overlap": project.overlap,
        "temperature": project.temperature,
        "languages": project.language,
        "compare_prompts": 0 if project.is_simulated else project.compare_prompts,
        "compare_opinions": project.compare_opinions,
    }
    if last is not None:
        known = {k: v for k, v in last.config.items() if k in StartRoundForm.base_fields}
        values |= known | {"mode": last.mode, "seed": last.seed + 1}
        values["languages"] = ", ".join(last.config.get("languages") or [project.language])
    wanted = int(values.get("prompts", DEFAULTS.prompts))
    codes = [code.strip() for code in str(values["languages"]).split(",")]
    there = sum(counts.languages.get(code, 0) for code in codes)
    values["prompts"] = min(wanted, there) if there else wanted
    if counts.held_out:
        held_out = int(values.get("heldout_prompts", DEFAULTS.heldout_prompts))
        values["heldout_prompts"] = min(held_out, counts.held_out)
    return values


class GuidelinesForm(forms.Form):
    """A new version of the guidelines."""

    text = forms.CharField(
        label=_("Guidelines"),
        help_text=_("Markdown. Annotators see it beside every set of answers."),
        widget=forms.Textarea(attrs={"rows": 14}),
        max_length=50_000,
    )


class LinesForm(forms.Form):
    """Lines of text, pasted into `text` or as a `file`; `data["lines"]` holds them."""

    nothing: Any = ""  # the sentence for a form in which neither is filled in

    def clean(self) -> dict[str, Any]:
        """Read the file if there is one, and part what was sent into lines."""
        data: dict[str, Any] = super().clean() or {}
        file = data.get("file")
        text = data.get("text") or ""
        if file is not None:
            if file.size > MOST_BYTES:
                raise ValidationError(
                    _("The file is larger than 20 MB: split it, or import it through the API.")
                )
            try:
                text = file.read().decode("utf-8-sig")
            except UnicodeDecodeError:
                raise ValidationError(
                    _("The file is not UTF-8 text: save it as UTF-8 and choose it again.")
                ) from None
        if not text.strip():
            raise ValidationError(self.nothing)
        # Not splitlines(): it would also break at U+2028, which JSON text may hold as it is.
        data["lines"] = text.split("\n")
        return data


class ImportPromptsForm(LinesForm):
    """Prompts as JSON lines, pasted or as a file, or as plain lines of text."""

    nothing = _("Nothing to import: paste prompts or choose a file.")

    text = forms.CharField(
        label=_("Prompts"),
        help_text=_(
            "One a line: either plain text, or JSON such as "
            '{"prompt": [{"role": "user", "content": "…"}]}.'
        ),
        widget=forms.Textarea(attrs={"rows": 8, "spellcheck": "false"}),
        required=False,
    )
    file = forms.FileField(label=_("Or a file (.jsonl or .txt)"), required=False)
    language = forms.RegexField(
        r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*$",
        label=_("Language of plain lines"),
        max_length=10,
        initial="en",
    )

    def clean(self) -> dict[str, Any]:
        """Make a JSON line of each line that is plain text."""
        data = super().clean()
        language = data.get("language") or "en"
        data["lines"] = [as_json_line(line, language) for line in data["lines"]]
        return data


def as_json_line(line: str, language: str) -> str:
    """A line as the import takes it: JSON stays as it is, plain text becomes one user turn."""
    stripped = line.strip()
    if not stripped or stripped.startswith("{"):
        return stripped
    message = {"role": "user", "content": stripped}
    return json.dumps({"prompt": [message], "language": language}, ensure_ascii=False)


class HoldOutForm(forms.Form):
    """How many prompts are to be kept from all training."""

    count = forms.IntegerField(
        label=_("Prompts to hold out in all"),
        help_text=_("Those that are held out already count."),
        min_value=1,
        max_value=10_000,
        initial=DEFAULTS.heldout_prompts,
    )
    language = forms.CharField(label=_("Language"), max_length=10, initial="en")


class NewProjectForm(forms.Form):
    """What a project begins with. All but the short name can be changed later, and much more."""

    name = forms.CharField(label=_("Name"), max_length=120)
    slug = forms.SlugField(
        label=_("Short name for addresses"),
        help_text=_("Left empty, it is made from the name."),
        max_length=60,
        required=False,
    )
    language = forms.CharField(label=_("Language"), max_length=10, initial="en")
    answers_per_prompt = _whole("answers", _("Answers to each prompt"))
    overlap = _whole("overlap", _("Opinions on each prompt"))

    def clean(self) -> dict[str, Any]:
        """Make the short name where it was left open, and see that nobody has it."""
        data: dict[str, Any] = super().clean() or {}
        data["slug"] = data.get("slug") or slugify(data.get("name", ""))[:60]
        if not data["slug"] and "name" in data:
            self.add_error("slug", _("Give a short name in Latin letters."))
        elif data["slug"] in RESERVED:
            self.add_error("slug", _("This word has a page of its own: take another."))
        elif Project.objects.filter(slug=data["slug"]).exists():
            self.add_error("slug", _("Another project has this short name."))
        return data
