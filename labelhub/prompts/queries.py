"""Reads about prompts and answers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from django.db.models import QuerySet

from labelhub.projects.models import Project
from labelhub.prompts.models import Answer, AnswerSet, Prompt


def usable_prompts(
    project: Project, *, held_out: bool = False, language: str | None = None
) -> QuerySet[Prompt]:
    """Prompts that are not retired: those to train on, or those held out for good."""
    prompts = Prompt.objects.filter(project=project, retired=False, held_out=held_out)
    return prompts if language is None else prompts.filter(language=language)


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


# --- what a project's prompts are about


def languages_of(project: Project) -> list[str]:
    """The languages of the prompts that are not retired."""
    return _kinds(project, "language")


def topics_of(project: Project) -> list[str]:
    """Their topics."""
    return _kinds(project, "topic")


def skills_of(project: Project) -> list[str]:
    """The skills that they need."""
    return _kinds(project, "skill")


def _kinds(project: Project, field: str) -> list[str]:
    prompts = Prompt.objects.filter(project=project, retired=False).exclude(**{field: ""})
    return list(prompts.order_by(field).values_list(field, flat=True).distinct()[:200])
