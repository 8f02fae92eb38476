"""Reads about single rankings: a person's own, and the opinions that a reviewer compares."""

from __future__ import annotations

from django.db.models import QuerySet

from labelhub.accounts.models import User
from labelhub.projects.models import Guidelines, Project
from labelhub.prompts.models import AnswerSet
from labelhub.rankings.models import Ranking


def last_guidelines_of(user: User, project: Project) -> Guidelines | None:
    """The version that this person's latest ranking followed; None before the first."""
    latest = (
        Ranking.objects.filter(project=project, annotator=user)
        .select_related("guidelines")
        .order_by("-pk")
        .first()
    )
    return latest.guidelines if latest else None


def opinions_on(answer_set: AnswerSet) -> QuerySet[Ranking]:
    """What people said of a set, decisions of reviewers left out."""
    return (
        Ranking.objects.filter(answer_set=answer_set, adjudicates=False)
        .prefetch_related("items")
        .order_by("pk")
    )
