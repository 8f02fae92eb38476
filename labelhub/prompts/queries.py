"""Reads about prompts and answers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from django.db.models import Count, QuerySet

from labelhub.projects.models import Project
from labelhub.prompts import rules
from labelhub.prompts.models import Answer, AnswerSet, Prompt


def usable_prompts(
    project: Project, *, held_out: bool = False, language: str | None = None
) -> QuerySet[Prompt]:
    """Prompts that are not retired: those to train on, or those held out for good."""
    prompts = Prompt.objects.filter(project=project, retired=False, held_out=held_out)
    return prompts if language is None else prompts.filter(language=language)


def draw_prompts(
    project: Project, *, count: int, seed: int, held_out: bool = False, language: str | None = None
) -> list[Prompt]:
    """Draw prompts for a round, those with the fewest answer sets first; in the order drawn."""
    prompts = usable_prompts(project, held_out=held_out, language=language)
    uses = dict(prompts.annotate(uses=Count("answer_sets")).values_list("pk", "uses"))
    drawn = rules.draw(uses, count, seed)
    found = Prompt.objects.in_bulk(drawn)
    return [found[pk] for pk in drawn]


def prompt_lines(prompts: Iterable[Prompt]) -> Iterator[dict[str, Any]]:
    """The lines of the trainer's prompts.jsonl; ids are strings."""
    for prompt in prompts:
        yield {"id": str(prompt.pk), "prompt": prompt.messages}


def answer_lines(answers: Iterable[Answer]) -> Iterator[dict[str, Any]]:
    """The lines of the trainer's answers.jsonl; which model wrote an answer is not in them."""
    for answer in answers:
        prompt = answer.answer_set.prompt
        yield {
            "id": str(answer.pk),
            "prompt_id": str(prompt.pk),
            "prompt": prompt.messages,
            "text": answer.text,
            "logprob": answer.logprob,
            "tokens": answer.tokens,
            "finished": answer.finished,
        }


def answers_of(answer_sets: Iterable[AnswerSet]) -> QuerySet[Answer]:
    """All answers of these sets, set after set, with their prompts at hand for `answer_lines`."""
    return (
        Answer.objects.filter(answer_set__in=answer_sets)
        .select_related("answer_set__prompt")
        .order_by("answer_set_id", "n")
    )
