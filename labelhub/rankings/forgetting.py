"""A person's data in a project is deleted, and it is said what had been made from it.

Not here: the person's seat and account, and weights: a model cannot forget. The audit log stays, as
a law of its own; it holds ids and no texts.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from django.db import transaction
from django.db.models import Q

from labelhub.accounts.actions import audit
from labelhub.accounts.models import User
from labelhub.assignments.actions import hand_back, one_at_a_time
from labelhub.assignments.models import Slot
from labelhub.projects.models import Project
from labelhub.prompts.models import AnswerSet
from labelhub.rankings import routing
from labelhub.rankings.models import Flag, QualityReport, Ranking, RankingRevision, Skip

State = Slot.State


@dataclass(frozen=True)
class Forgotten:
    """How much was deleted, and which snapshots had held some of it."""

    rankings: int
    revisions: int
    skips: int
    flags: int
    snapshots: tuple[int, ...]  # ids, oldest first


@transaction.atomic
def forget_person(*, project: Project, user: User, by: User | None) -> Forgotten:
    """Delete the rankings, their revisions, the skips and the flags of a person in a project.

    The opinions are wanted anew where the round is still being ranked. Snapshots keep their count
    and lose the link: ask `runs.queries.touched_by` before, for the models that came of them.
    Who is to add nothing afterwards must have left the project first.
    """
    one_at_a_time(user)
    own = Ranking.objects.filter(project=project, annotator=user)
    flags = Flag.objects.filter(annotator=user, answer__answer_set__prompt__project=project)
    skips = Skip.objects.filter(annotator=user, answer_set__prompt__project=project)
    touched = AnswerSet.objects.filter(
        Q(pk__in=own.values("answer_set")) | Q(pk__in=skips.values("answer_set"))
    )
    sets = routing.lock_sets(touched.select_related("prompt"))
    snapshots = own.filter(snapshots__isnull=False).values_list("snapshots", flat=True).distinct()
    found = Forgotten(
        rankings=own.count(),
        revisions=RankingRevision.objects.filter(ranking__in=own).count(),
        skips=skips.count(),
        flags=flags.count(),
        snapshots=tuple(sorted(snapshots)),
    )
    hand_back(project=project, user=user)
    flags.delete()
    skips.delete()
    own.delete()
    QualityReport.objects.filter(project=project).delete()  # a worker makes them anew
    _want_anew(project, user)
    routing.close_unreachable(sets, project)
    audit(by=by, action="person.forget", target=project, user=user.pk, **asdict(found))
    return found


def _want_anew(project: Project, user: User) -> None:
    """What the person had done is open again where it is still wanted, and closed elsewhere."""
    own = Slot.objects.filter(project=project, holder=user)
    list(own.select_for_update(no_key=True).order_by("pk").values_list("pk"))  # locks them
    still = AnswerSet.objects.filter(
        routing.STILL_RANKED, prompt__project=project, prompt__retired=False
    )
    wanted = own.filter(state=State.DONE, kind__in=routing.SHARED, answer_set__in=still)
    free = {"holder": None, "lease_token": None, "lease_until": None, "claimed_at": None}
    wanted.exclude(routing.set_aside()).update(state=State.OPEN, **free)
    own.update(state=State.CLOSED, **free)  # those just opened have no holder any more
