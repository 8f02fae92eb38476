"""Reads about what a person left in a project, for those who must delete it."""

from __future__ import annotations

from dataclasses import dataclass

from django.db.models import Exists, OuterRef, Q, QuerySet
from django.http import Http404
from django.utils.translation import gettext as _

from labelhub.accounts.models import User
from labelhub.projects.models import Membership, Project
from labelhub.rankings.models import Flag, Ranking, RankingRevision, Skip


@dataclass(frozen=True, slots=True)
class PersonalData:
    """How much of a person a project holds."""

    rankings: int
    revisions: int  # what rankings said before they were corrected
    skips: int
    flags: int

    @property
    def any(self) -> bool:
        """Whether there is anything to delete."""
        return bool(self.rankings or self.skips or self.flags)


def data_of(user: User, project: Project) -> PersonalData:
    """Count what this person said in the project."""
    return PersonalData(
        rankings=Ranking.objects.filter(project=project, annotator=user).count(),
        revisions=RankingRevision.objects.filter(
            ranking__project=project, ranking__annotator=user
        ).count(),
        skips=Skip.objects.filter(annotator=user, answer_set__prompt__project=project).count(),
        flags=Flag.objects.filter(
            annotator=user, answer__answer_set__prompt__project=project
        ).count(),
    )


def former_members(project: Project) -> QuerySet[User]:
    """People without a seat here whose work is still here."""
    seats = Membership.objects.filter(project=project, user=OuterRef("pk"))
    return User.objects.filter(_said_something(project), ~Exists(seats)).order_by("username")


def get_person_or_404(project: Project, user_id: int) -> User:
    """A member, or somebody whose work is still here; of anybody else nothing is told."""
    known = Q(memberships__project=project) | _said_something(project)
    found = User.objects.filter(known, pk=user_id).distinct().first()
    if found is None:
        raise Http404(_("Nobody of that number belongs to this project or worked in it."))
    return found


def _said_something(project: Project) -> Q:
    person = OuterRef("pk")
    return (
        Q(Exists(Ranking.objects.filter(project=project, annotator=person)))
        | Q(Exists(Skip.objects.filter(annotator=person, answer_set__prompt__project=project)))
        | Q(
            Exists(
                Flag.objects.filter(annotator=person, answer__answer_set__prompt__project=project)
            )
        )
    )
