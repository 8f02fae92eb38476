"""Known rankings: gold, mixed in to see how well people rank, and the tutorial's sets.

A known ranking always has answers of its own: a copy of an answer set that was ranked, or texts
that somebody brought. So it never touches what is trained on, and the set it was copied from can
still be given to people.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from django.db import transaction
from django.db.models import Max
from django.utils.translation import gettext as _

from labelhub.accounts.actions import audit
from labelhub.accounts.models import User
from labelhub.assignments.models import Slot
from labelhub.lib.errors import Refused
from labelhub.projects.models import Project
from labelhub.prompts.actions import ImportReport, add_prompt, create_answer_set, read_line
from labelhub.prompts.models import Answer, AnswerSet, Prompt
from labelhub.prompts.rules import MAX_CHARACTERS, is_storable, storable, text_hash
from labelhub.rankings import rules
from labelhub.rankings.models import Gold

Purpose = AnswerSet.Purpose
Ranks = Mapping[int, int] | Sequence[int]

_COPIED = ("version", "text", "sampling", "seed", "logprob", "tokens", "finished")


@transaction.atomic
def make_gold(
    *,
    project: Project,
    by: User | None,
    ranks: Ranks,
    explanation: str = "",
    tutorial: bool = False,
    answer_set: AnswerSet | None = None,
    prompt: Prompt | None = None,
    texts: Sequence[str] | None = None,
) -> Gold:
    """Keep a known ranking of a copy of `answer_set`'s answers, or of `texts` to `prompt`.

    `ranks` belong to the answers by id (of `answer_set`) or in their order; 1 = best, equal = tie.
    The tutorial shows its sets in the order in which they were made.
    """
    # One at a time: the tutorial's places are counted.
    Project.objects.select_for_update(no_key=True).get(pk=project.pk)
    if answer_set is not None:
        answers = list(answer_set.answers.order_by("n"))
        prompt, ids = answer_set.prompt, [one.pk for one in answers]
        records = [_copy(one) for one in answers]
    else:
        records = [{"text": text} for text in _checked_texts(texts)]
        ids = list(range(len(records)))
    if prompt is None or prompt.project_id != project.pk:
        raise Refused(_("Choose a prompt of this project for the known ranking."), status=400)
    order = _checked_ranks(ranks, ids)
    purpose = Purpose.TUTORIAL if tutorial else Purpose.GOLD
    known = create_answer_set(prompt=prompt, answers=records, purpose=purpose)
    places = dict(zip(known.answers.order_by("n").values_list("pk", flat=True), order, strict=True))
    gold = Gold.objects.create(
        answer_set=known,
        ranks={str(pk): rank for pk, rank in places.items()},
        explanation=_checked_explanation(explanation),
        place=_next_place(project) if tutorial else 0,
        created_by=by,
    )
    audit(by=by, action="gold.make", target=gold, answer_set=known.pk, tutorial=tutorial)
    return gold


def _copy(answer: Answer) -> dict[str, Any]:
    return {name: getattr(answer, name) for name in _COPIED}


def _checked_texts(texts: object) -> list[str]:
    if not isinstance(texts, Sequence) or isinstance(texts, str):
        raise Refused(_("The answers must be a list of texts."), status=400)
    for number, text in enumerate(texts, start=1):
        if not isinstance(text, str) or not text.strip() or not is_storable(text):
            raise Refused(
                _("Answer %(number)s is no text that can be kept: give it some.")
                % {"number": number},
                status=400,
            )
        if len(text) > MAX_CHARACTERS:
            raise Refused(
                _("Answer %(number)s is longer than %(limit)s characters: shorten it.")
                % {"number": number, "limit": MAX_CHARACTERS},
                status=400,
            )
    if len(set(texts)) < len(texts):
        raise Refused(_("Two of the answers are the same text: leave one out."), status=400)
    return list(texts)


def _checked_ranks(ranks: object, ids: Sequence[int]) -> list[int]:
    """Dense ranks in the order of `ids`."""
    if isinstance(ranks, Mapping):
        given = dict(ranks)
    elif isinstance(ranks, Sequence) and not isinstance(ranks, str):
        given = dict(zip(ids, ranks, strict=False)) if len(ranks) == len(ids) else {}
    else:
        given = {}
    if set(given) != set(ids) or not all(rules.is_rank(rank) for rank in given.values()):
        raise Refused(
            _(
                "A known ranking needs one place for each of its %(count)s answers: a whole number"
                " from 1 = best; equal numbers are a tie."
            )
            % {"count": len(ids)},
            status=400,
        )
    if len(set(given.values())) == 1:
        raise Refused(_("A known ranking must put at least one answer above another."), status=400)
    dense = rules.dense(given)
    return [dense[pk] for pk in ids]


def _checked_explanation(text: object) -> str:
    if not isinstance(text, str) or len(text) > rules.MAX_CRITIQUE:
        raise Refused(
            _("The explanation must be text of at most %(limit)s characters.")
            % {"limit": rules.MAX_CRITIQUE},
            status=400,
        )
    return storable(text).strip()


def _next_place(project: Project) -> int:
    of_tutorial = Gold.objects.filter(
        answer_set__prompt__project=project, answer_set__purpose=Purpose.TUTORIAL
    )
    last = of_tutorial.aggregate(last=Max("place"))["last"]
    return 0 if last is None else last + 1


@transaction.atomic
def retire_gold(*, gold: Gold, by: User | None) -> Gold:
    """Give a known ranking to nobody any more; what people made of it stays."""
    AnswerSet.objects.select_for_update(no_key=True).get(pk=gold.answer_set_id)
    AnswerSet.objects.filter(pk=gold.answer_set_id).update(retired=True)
    slots = Slot.objects.select_for_update(no_key=True).filter(
        answer_set=gold.answer_set_id, state=Slot.State.OPEN
    )
    ids = list(slots.order_by("pk").values_list("pk", flat=True))
    Slot.objects.filter(pk__in=ids).update(state=Slot.State.CLOSED)
    audit(by=by, action="gold.retire", target=gold, answer_set=gold.answer_set_id)
    gold.answer_set.refresh_from_db()
    return gold


@transaction.atomic
def import_gold(
    *, project: Project, lines: Iterable[str | bytes | Mapping[str, Any]], by: User | None
) -> ImportReport:
    """Add known rankings from JSON lines.

    A line is `{"prompt": text or [messages], "answers": [texts], "ranks": [1, 2, …]}` and may have
    `"explanation"`, `"tutorial": true`, `"language"`, `"topic"` and `"skill"`. A prompt that the
    project does not have becomes one of its prompts. A bad line is refused with its number and a
    sentence, and the others are added all the same. A known ranking of the same texts to the same
    prompt that is there already is counted and left as it is.
    """
    Project.objects.select_for_update(no_key=True).get(pk=project.pk)
    report = ImportReport()
    for number, line in enumerate(lines, start=1):
        try:
            with transaction.atomic():
                _import_line(project, line, report, by)
        except Refused as refused:
            report.refused.append((number, refused.message))
    audit(
        by=by,
        action="gold.import",
        target=project,
        added=report.added,
        duplicates=report.duplicates,
        refused=len(report.refused),
    )
    return report


def _import_line(
    project: Project,
    line: str | bytes | Mapping[str, Any],
    report: ImportReport,
    by: User | None,
) -> None:
    record = read_line(line)
    if record is None:
        return
    tutorial = record.get("tutorial", False)
    if not isinstance(tutorial, bool):
        raise Refused(_("“tutorial” must be true or false."), status=400)
    prompt = add_prompt(project, record)
    texts = _checked_texts(record.get("answers"))
    if _is_there(prompt, texts, tutorial):
        report.duplicates += 1
        return
    make_gold(
        project=project,
        by=by,
        ranks=record.get("ranks", ()),
        explanation=record.get("explanation", ""),
        tutorial=tutorial,
        prompt=prompt,
        texts=texts,
    )
    report.added += 1


def _is_there(prompt: Prompt, texts: Sequence[str], tutorial: bool) -> bool:
    purpose = Purpose.TUTORIAL if tutorial else Purpose.GOLD
    wanted = sorted(text_hash(text) for text in texts)
    sets = AnswerSet.objects.filter(
        prompt=prompt, purpose=purpose, retired=False, gold__isnull=False
    )
    return any(sorted(one.answers.values_list("sha256", flat=True)) == wanted for one in sets)
