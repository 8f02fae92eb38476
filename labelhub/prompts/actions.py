"""What people ask for about prompts: import them, hold some out, keep the answers to one."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from django.db import transaction
from django.db.models import Exists, OuterRef
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from labelhub.accounts.actions import audit
from labelhub.accounts.models import User
from labelhub.lib.errors import Refused
from labelhub.projects.models import MAX_ANSWERS, MIN_ANSWERS, Project
from labelhub.prompts import rules
from labelhub.prompts.models import Answer, AnswerSet, Prompt
from labelhub.prompts.queries import usable_prompts

_BATCH = 500

REASONS = {
    "no_list": gettext_lazy("A prompt must be a list of messages, each with role and content."),
    "too_many": gettext_lazy("The prompt has %(count)s messages: at most %(limit)s are allowed."),
    "too_long": gettext_lazy("The prompt is longer than %(limit)s characters: shorten it."),
    "no_object": gettext_lazy("Message %(number)s must be an object with role and content."),
    "role": gettext_lazy(
        "Message %(number)s has the role “%(role)s”: use system, user or assistant."
    ),
    "empty": gettext_lazy("Message %(number)s has no text: give it some or leave it out."),
    "characters": gettext_lazy(
        "Message %(number)s contains characters that cannot be stored (NUL or half a character):"
        " remove them."
    ),
    "turn": gettext_lazy(
        "Message %(number)s is the %(role)s's, but it is the %(wanted)s's turn:"
        " user and assistant must alternate."
    ),
    "last": gettext_lazy("The last message is the %(role)s's: a prompt must end with the user's."),
}


@dataclass(slots=True)
class ImportReport:
    """What became of the lines of an import: how many prompts are new, known, and refused why."""

    added: int = 0
    duplicates: int = 0
    refused: list[tuple[int, str]] = field(default_factory=list)  # (line number, sentence)


@transaction.atomic
def import_prompts(
    *, project: Project, lines: Iterable[str | bytes | Mapping[str, Any]], by: User | None
) -> ImportReport:
    """Add prompts from JSON lines.

    A line is `{"prompt": [messages] or text, "language"?, "topic"?, "skill"?}`; the skill is what
    an annotator must have to be given its answers.

    A bad line is refused with its number and a sentence, and the others are added all the same. A
    prompt that the project has already is counted and left as it is.
    """
    # Two imports at once would both find a prompt missing.
    Project.objects.select_for_update(no_key=True).get(pk=project.pk)
    known = set(Prompt.objects.filter(project=project).values_list("sha256", flat=True))
    report = ImportReport()
    fresh: list[Prompt] = []
    for number, line in enumerate(lines, start=1):
        prompt = _read(project, number, line, report)
        if prompt is None:
            continue
        if prompt.sha256 in known:
            report.duplicates += 1
            continue
        known.add(prompt.sha256)
        fresh.append(prompt)
    report.added = len(Prompt.objects.bulk_create(fresh, batch_size=_BATCH))
    audit(
        by=by,
        action="prompts.import",
        target=project,
        added=report.added,
        duplicates=report.duplicates,
        refused=len(report.refused),
    )
    return report


def _read(
    project: Project, number: int, line: str | bytes | Mapping[str, Any], report: ImportReport
) -> Prompt | None:
    """The prompt in a line; None for a blank line, and for a bad one, which goes to the report."""
    try:
        record = read_line(line)
        return None if record is None else _parse(project, record)
    except Refused as refused:
        report.refused.append((number, refused.message))
        return None


def read_line(line: str | bytes | Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The object in a line of an import; None for a blank line."""
    if isinstance(line, Mapping):
        return line
    return _json(line) if line.strip() else None


def add_prompt(project: Project, record: Mapping[str, Any]) -> Prompt:
    """The prompt that one object of an import speaks of: the project's own, or a new one.

    Call it with the project locked: two imports at once would both find a prompt missing.
    """
    prompt = _parse(project, record)
    known = Prompt.objects.filter(project=project, sha256=prompt.sha256).first()
    if known is None:
        prompt.save()
    return known or prompt


def _parse(project: Project, record: Mapping[str, Any]) -> Prompt:
    said = record.get("prompt", record.get("messages"))
    if isinstance(said, str):
        said = [{"role": "user", "content": said}]
    messages = checked_messages(said)
    language = record.get("language") or project.language
    topic, skill = record.get("topic") or "", record.get("skill") or ""
    facts = (("language", language, 10), ("topic", topic, 40), ("skill", skill, 40))
    for name, value, limit in facts:
        if not isinstance(value, str) or not rules.is_storable(value) or len(value) > limit:
            raise Refused(
                _("“%(name)s” must be text of at most %(limit)s characters.")
                % {"name": name, "limit": limit},
                status=400,
            )
    return Prompt(
        project=project,
        messages=messages,
        sha256=rules.messages_hash(messages),
        language=language,
        topic=topic,
        skill=skill.strip(),
    )


def _json(line: str | bytes) -> Mapping[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        raise Refused(
            _("The line is not valid JSON: write one object a line."), status=400
        ) from None
    if not isinstance(record, dict):
        raise Refused(_("The line must be a JSON object in braces."), status=400)
    return record


def checked_messages(messages: object) -> list[rules.Message]:
    """The messages as they are kept, or a refusal in a sentence."""
    try:
        return rules.validate_messages(messages)
    except rules.BadMessages as bad:
        raise Refused(str(REASONS[bad.reason]) % bad.values, status=400) from None


@transaction.atomic
def hold_out(
    *,
    project: Project,
    fraction_or_count: float,
    seed: int,
    language: str | None = None,
    by: User | None = None,
) -> list[Prompt]:
    """Hold prompts out for good, until there are so many (or, below 1, such a share of all).

    Only prompts without answers are taken, since a stage may have trained on the others. Those that
    are held out already count, so asking twice changes nothing. Returns those held out by now.
    """
    Project.objects.select_for_update(no_key=True).get(pk=project.pk)
    held = usable_prompts(project, held_out=True, language=language)
    free = usable_prompts(project, language=language)
    before = held.count()
    total = _how_many(fraction_or_count, before + free.count())
    untouched = free.filter(~Exists(AnswerSet.objects.filter(prompt=OuterRef("pk"))))
    uses = dict.fromkeys(untouched.values_list("pk", flat=True), 0)
    if total - before > len(uses):
        raise Refused(
            _(
                "There are too few prompts without answers to hold out (%(there)s of the"
                " %(wanted)s wanted): import more prompts or hold out fewer."
            )
            % {"wanted": total - before, "there": len(uses)}
        )
    drawn = rules.draw(uses, total - before, seed)
    if drawn:
        Prompt.objects.filter(pk__in=drawn).update(held_out=True)
        audit(by=by, action="prompts.hold_out", target=project, prompts=drawn, seed=seed)
    return list(held.all())


def _how_many(fraction_or_count: float, among: int) -> int:
    if fraction_or_count < 0 or (fraction_or_count > 1 and fraction_or_count % 1):
        raise Refused(
            _("Hold out a share from 0 to 1 or a whole number of prompts, not %(value)s.")
            % {"value": fraction_or_count},
            status=400,
        )
    is_share = isinstance(fraction_or_count, float) and fraction_or_count < 1
    return round(fraction_or_count * among) if is_share else int(fraction_or_count)


@transaction.atomic
def create_answer_set(
    *,
    prompt: Prompt,
    answers: list[dict[str, Any]],
    purpose: str = AnswerSet.Purpose.RANK,
) -> AnswerSet:
    """Keep the answers to a prompt as one set, numbered as they come.

    Each answer: `version` (a ModelVersion, None when no model of ours wrote it) and `text`;
    `sampling`, `seed`, `logprob`, `tokens` and `finished` where they are known.
    """
    if not MIN_ANSWERS <= len(answers) <= MAX_ANSWERS:
        raise Refused(
            _("An answer set has %(least)s to %(most)s answers, not %(count)s.")
            % {"least": MIN_ANSWERS, "most": MAX_ANSWERS, "count": len(answers)},
            status=400,
        )
    answer_set = AnswerSet.objects.create(prompt=prompt, purpose=purpose)
    Answer.objects.bulk_create(_answer(answer_set, n, record) for n, record in enumerate(answers))
    return answer_set


def _answer(answer_set: AnswerSet, n: int, record: dict[str, Any]) -> Answer:
    facts = dict(record)
    text = rules.storable(facts.pop("text"))
    return Answer(
        answer_set=answer_set,
        n=n,
        text=text,
        sha256=rules.text_hash(text),
        names_model=rules.names_a_model(text),
        **facts,
    )


@transaction.atomic
def retire_prompt(*, prompt: Prompt, by: User | None) -> None:
    """Ask nobody about this prompt any more; what was ranked stays."""
    prompt.retired = True
    prompt.save(update_fields=["retired"])
    audit(by=by, action="prompt.retire", target=prompt)


@transaction.atomic
def restore_prompt(*, prompt: Prompt, by: User | None) -> None:
    """Ask about a retired prompt again."""
    prompt.retired = False
    prompt.save(update_fields=["retired"])
    audit(by=by, action="prompt.restore", target=prompt)
