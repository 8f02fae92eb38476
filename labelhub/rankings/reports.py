"""Reads about what annotators reported: sets that they passed on, and answers that they flagged."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

from django.db.models import Prefetch, QuerySet
from django.http import Http404
from django.utils.translation import gettext as _

from labelhub.projects.models import Project
from labelhub.prompts.models import Answer, AnswerSet, Prompt
from labelhub.rankings.models import Flag, Skip
from labelhub.rankings.rules import RETIRE, ROUTES, SET_ASIDE


@dataclass(frozen=True, slots=True)
class Passed:
    """One answer set that people passed on, with what each of them said."""

    answer_set: AnswerSet
    skips: list[Skip]

    @property
    def first(self) -> Skip:
        """The skip by which all of them are answered."""
        return self.skips[0]

    @property
    def prompt(self) -> Prompt:
        return self.answer_set.prompt

    @property
    def waits(self) -> bool:
        """Whether nobody is asked about it until an admin has looked."""
        return any(ROUTES[skip.reason] == SET_ASIDE for skip in self.skips)

    @property
    def retired(self) -> bool:
        """Whether what people said has retired its prompt."""
        return self.prompt.retired and any(ROUTES[skip.reason] == RETIRE for skip in self.skips)

    @property
    def urgency(self) -> int:
        """Those that wait first, then those whose prompt is gone, then the rest."""
        return 0 if self.waits else 1 if self.retired else 2


def passed_on(project: Project, limit: int = 100) -> list[Passed]:
    """Sets with skips that no admin has looked at, those that wait for one first."""
    skips = (
        _skips(project)
        .filter(handled_at__isnull=True)
        .select_related("answer_set__prompt")
        .prefetch_related(Prefetch("answer_set__answers", Answer.objects.order_by("n")))
        .order_by("answer_set_id", "pk")[: limit * 5]
    )
    found = [
        Passed(of_set[0].answer_set, of_set)
        for of_set in (list(group) for _pk, group in groupby(skips, lambda one: one.answer_set_id))
    ]
    return sorted(found, key=lambda one: (one.urgency, -one.answer_set.pk))[:limit]


def open_flags(project: Project) -> QuerySet[Flag]:
    """Flagged answers that no admin has looked at, newest first."""
    return _flags(project).filter(handled_at__isnull=True).order_by("-pk")


def latest_handled(project: Project, limit: int = 20) -> list[Skip | Flag]:
    """What admins looked at last."""
    rows: list[Skip | Flag] = [
        *_skips(project).filter(handled_at__isnull=False).order_by("-handled_at")[:limit],
        *_flags(project).filter(handled_at__isnull=False).order_by("-handled_at")[:limit],
    ]
    return sorted(rows, key=lambda row: str(row.handled_at), reverse=True)[:limit]


def get_skip_or_404(project: Project, skip_id: int) -> Skip:
    """One skip of this project."""
    found = _skips(project).filter(pk=skip_id).first()
    if found is None:
        raise Http404(_("There is no such report in this project."))
    return found


def get_flag_or_404(project: Project, flag_id: int) -> Flag:
    """One flag of this project."""
    found = _flags(project).filter(pk=flag_id).first()
    if found is None:
        raise Http404(_("There is no such report in this project."))
    return found


def _skips(project: Project) -> QuerySet[Skip]:
    return Skip.objects.filter(answer_set__prompt__project=project).select_related(
        "annotator", "answer_set__prompt"
    )


def _flags(project: Project) -> QuerySet[Flag]:
    return Flag.objects.filter(answer__answer_set__prompt__project=project).select_related(
        "annotator", "answer__answer_set__prompt"
    )
