"""Reads about slots: whose one is, which are free for whom, and how far the queue is."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from django.db.models import Count, Exists, OuterRef, Q, QuerySet
from django.http import Http404
from django.utils import timezone
from django.utils.translation import gettext as _

from labelhub.accounts.models import User
from labelhub.assignments.models import Slot
from labelhub.projects.models import Project
from labelhub.projects.queries import visible_projects

State = Slot.State


def get_own_slot_or_404(user: User, slot_id: int) -> Slot:
    """The slot that `user` holds (its lease may have run out) or has done; anybody else's is a 404.

    To submit, do not ask here first: late work may come for a slot that has gone to somebody else,
    and `submit_ranking` keeps it.
    """
    slot = (
        Slot.objects.select_related("project", "answer_set__prompt")
        .filter(pk=slot_id, holder=user, state__in=[State.HELD, State.DONE])
        .first()
    )
    if slot is None:
        raise Http404(_("These answers are not with you any more: take the next ones."))
    return slot


def get_slot_or_404(user: User, slot_id: int) -> Slot:
    """A slot of one of this person's projects, whoever holds it.

    For pages that take in work: its lease token proves it, and it may come late.
    """
    slot = (
        Slot.objects.select_related("project", "answer_set__prompt")
        .filter(pk=slot_id, project__in=visible_projects(user))
        .first()
    )
    if slot is None:
        raise Http404(_("There is no such set of answers in your projects."))
    return slot


def own_held_slots(user: User, project: Project) -> QuerySet[Slot]:
    """What `user` holds in this project; usually one slot, also when its lease has run out."""
    return Slot.objects.filter(project=project, holder=user, state=State.HELD).order_by("id")


def open_for(user: User, project: Project) -> QuerySet[Slot]:
    """Open slots that `user` may take, best first.

    Left out are sets that the person ranked, holds or skipped, and retired prompts. People are
    never asked to rank what simulated annotators rank.
    """
    slots = Slot.objects.filter(project=project, state=State.OPEN)
    return _fit_for(user, project, slots).order_by("-priority", "shuffle", "id")


def _fit_for(user: User, project: Project, slots: QuerySet[Slot]) -> QuerySet[Slot]:
    if project.paused or (project.is_simulated and not user.is_simulated):
        return slots.none()
    own = Slot.objects.filter(
        answer_set=OuterRef("answer_set"), holder=user, state__in=[State.HELD, State.DONE]
    )
    skipped = Slot.objects.filter(
        answer_set=OuterRef("answer_set"), answer_set__skips__annotator=user
    )
    return slots.filter(~Exists(own), ~Exists(skipped), answer_set__prompt__retired=False)


def expired(now: datetime, project: Project | None = None) -> QuerySet[Slot]:
    """Held slots whose lease has ended."""
    slots = Slot.objects.filter(state=State.HELD, lease_until__lt=now)
    return slots if project is None else slots.filter(project=project)


@dataclass(frozen=True, slots=True)
class QueueCounts:
    """How far a project's queue is; the last three speak of one person (0 without one)."""

    open: int  # free to take, ended leases included
    held: int  # somebody's lease runs
    done: int
    total: int  # open + held + done; closed slots are no longer wanted
    mine_today: int
    mine_total: int
    left_for_me: int  # answer sets that this person can still rank, the one in hand included


def queue_counts(project: Project, user: User | None = None) -> QueueCounts:
    """Count the slots of a project, and one person's share of them."""
    now = timezone.now()
    ended = Q(state=State.HELD, lease_until__lt=now)
    counts = Slot.objects.filter(project=project).aggregate(
        open=Count("pk", filter=Q(state=State.OPEN) | ended),
        held=Count("pk", filter=Q(state=State.HELD) & ~ended),
        done=Count("pk", filter=Q(state=State.DONE)),
    )
    return QueueCounts(**counts, total=sum(counts.values()), **_mine(project, user, now))


def _mine(project: Project, user: User | None, now: datetime) -> dict[str, int]:
    if user is None:
        return {"mine_today": 0, "mine_total": 0, "left_for_me": 0}
    midnight = timezone.localtime(now).replace(hour=0, minute=0, second=0, microsecond=0)
    done = Q(state=State.DONE)
    mine = Slot.objects.filter(project=project, holder=user).aggregate(
        mine_today=Count("pk", filter=done & Q(ranking__created__gte=midnight)),
        mine_total=Count("pk", filter=done),
        held=Count("pk", filter=Q(state=State.HELD)),
    )
    held = mine.pop("held")
    return {**mine, "left_for_me": held + _sets_free_for(user, project, now)}


def _sets_free_for(user: User, project: Project, now: datetime) -> int:
    """Answer sets with a slot that `user` could claim now (a union: each half has its index)."""
    free = Slot.objects.filter(project=project, state=State.OPEN)
    halves = [
        _fit_for(user, project, slots).values("answer_set")
        for slots in (free, expired(now, project))
    ]
    return halves[0].union(halves[1]).count()
