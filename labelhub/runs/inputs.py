"""What a person or a program named as a run's inputs, found: names and numbers become things.

| the role's kind | how it is named |
|---|---|
| a model | the version's name |
| rankings, pairs | the snapshot's number |
| text | the corpus's name |
| report | the number of a finished run |
| prompts | numbers, or a choice: {"held_out"?, "language"?, "number"?} |
| answers | numbers, or a choice: {"version"?, "number"?}; or what a run wrote: {"run"} |

Whether a thing may play its role is for `actions.start_run` to say. A refusal carries the role.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any

from django.db.models import QuerySet
from django.utils.translation import gettext as _

from labelhub.lib.errors import Refused
from labelhub.projects.models import Project
from labelhub.prompts.models import Answer, Prompt
from labelhub.registry.queries import seen_by
from labelhub.runs import launcher, rules
from labelhub.runs.launcher import StageFacts
from labelhub.runs.models import Run, Snapshot
from labelhub.runs.queries import corpora_of
from labelhub.runs.stages import Thing


@dataclass
class Found:
    """What a run is to read: things by role, and numbers of rows by role."""

    things: dict[str, Thing] = field(default_factory=dict)
    rows: dict[str, list[int]] = field(default_factory=dict)


def find_inputs(project: Project, stage: str, asked: Mapping[str, Any], seed: int) -> Found:
    """Everything that is named, found in the project; refuses a role that the stage does not read.

    Prompts and answers that are chosen by number are drawn with the run's seed.
    """
    told = launcher.stage_facts(stage)
    found = Found()
    for role in asked:
        if role not in told.kinds:
            words = _("The stage “%(stage)s” does not read this; it reads %(known)s.")
            known = ", ".join(sorted(told.kinds))
            raise _refusal(role, words % {"stage": stage, "known": known})
    _refuse_missing(told, set(asked))
    for role, said in asked.items():
        kind = told.kinds[role]
        if kind == "answers" and isinstance(said, dict) and "run" in said:
            found.things[role] = _writing(project, role, said)
        elif kind in rules.ROW_KINDS:
            found.rows[role] = _rows(project, role, kind, said, seed)
        else:
            found.things[role] = _thing(project, role, kind, said)
    return found


def _refusal(role: str, sentence: str) -> Refused:
    return Refused(sentence, status=400, code="invalid", role=role)


def _refuse_missing(told: StageFacts, given: set[str]) -> None:
    missing = min((set(wanted) - given for wanted in told.needs), key=len)
    if missing:
        words = _("The stage “%(stage)s” also needs %(missing)s.")
        raise _refusal("", words % {"stage": told.stage, "missing": ", ".join(sorted(missing))})


def _thing(project: Project, role: str, kind: str, said: Any) -> Thing:
    rows: QuerySet[Any]
    name: dict[str, Any]
    if kind in rules.VERSION_KINDS:
        rows, name = seen_by(project), {"name": _text(role, said)}
        words = _("There is no model version “%(said)s” in this project.")
    elif kind in rules.SNAPSHOT_KINDS:
        rows, name = Snapshot.objects.filter(project=project), {"pk": _number(role, said)}
        words = _("There is no snapshot %(said)s in this project.")
    elif kind == "text":
        # The project's own text hides one of the house that has the same name.
        rows, name = corpora_of(project), {"name": _text(role, said)}
        words = _("There is no text “%(said)s” in this project.")
    else:
        rows, name = Run.objects.filter(project=project), {"pk": _number(role, said)}
        words = _("There is no run %(said)s in this project.")
    thing: Thing | None = rows.filter(**name).first()
    if thing is None:
        raise _refusal(role, words % {"said": said})
    return thing


def _writing(project: Project, role: str, said: dict[str, Any]) -> Thing:
    """The run whose answers are read."""
    if set(said) != {"run"}:
        raise _refusal(role, _("All that a run wrote is read: name nothing besides the run."))
    return _thing(project, role, "report", said["run"])


def _text(role: str, said: Any) -> str:
    if not isinstance(said, str) or not said or "\0" in said:
        raise _refusal(role, _("Give a name here."))
    return said


def _number(role: str, said: Any) -> int:
    if isinstance(said, bool) or not isinstance(said, int) or not 0 < said < 2**63:
        raise _refusal(role, _("Give a number here."))
    return said


def _rows(project: Project, role: str, kind: str, said: Any, seed: int) -> list[int]:
    """Numbers of rows: those that were named, each once, or those that were chosen."""
    if isinstance(said, list):
        return sorted({_number(role, one) for one in said})
    choose = _choose_prompts if kind == "prompts" else _choose_answers
    ids = choose(project, role, _choice(role, kind, said), seed)
    if not ids:
        raise _refusal(
            role,
            _("There is no such prompt in this project.")
            if kind == "prompts"
            else _("There is no such answer in this project."),
        )
    return ids


_CHOICES = {
    "prompts": {"held_out": bool, "language": str, "number": int},
    "answers": {"version": str, "number": int},
}


def _choice(role: str, kind: str, said: Any) -> dict[str, Any]:
    known = _CHOICES[kind]
    if not isinstance(said, dict) or any(
        name not in known or type(value) is not known[name] for name, value in said.items()
    ):
        words = _("Give a list of numbers, or an object with some of %(known)s.")
        raise _refusal(role, words % {"known": ", ".join(known)})
    if "number" in said:
        _number(role, said["number"])
    return said


def _choose_prompts(project: Project, role: str, said: dict[str, Any], seed: int) -> list[int]:
    prompts = Prompt.objects.filter(project=project, retired=False)
    for name in ("held_out", "language"):
        if name in said:
            prompts = prompts.filter(**{name: said[name]})
    return _some(prompts.order_by("pk").values_list("pk", flat=True), said, seed)


def _choose_answers(project: Project, role: str, said: dict[str, Any], seed: int) -> list[int]:
    answers = Answer.objects.filter(answer_set__prompt__project=project)
    if "version" in said:
        answers = answers.filter(version__name=_text(role, said["version"]))
    return _some(answers.order_by("pk").values_list("pk", flat=True), said, seed)


def _some(ids: Any, said: dict[str, Any], seed: int) -> list[int]:
    """As many as were asked for, drawn with the seed; all of them when no number was named."""
    rows = list(ids)
    number = said.get("number")
    return sorted(Random(seed).sample(rows, number)) if number and number < len(rows) else rows
