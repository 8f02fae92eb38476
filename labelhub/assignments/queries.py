"""Reads about slots: whose one is, which are free for whom, and how far the queue is.

What a claim reads costs the same with a thousand and with a million open slots: every search here
steps into an index at one place and stops at the first row that fits. Rows that do not fit (sets
that the person has ranked or skipped, whose other slots are open) are stepped over one by one; see
`actions.claim_next` for what that may cost. Only `project_counts` reads a whole project.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from django.db.models import (
    BooleanField,
    Count,
    Exists,
    OuterRef,
    Q,
    QuerySet,
    Subquery,
    Value,
)
from django.db.models.functions import Coalesce
from django.http import Http404
from django.utils import timezone
from django.utils.translation import gettext as _

from labelhub.accounts.models import User
from labelhub.assignments import rules
from labelhub.assignments.models import Pool, Slot
from labelhub.projects.models import Membership, Project
from labelhub.projects.queries import membership_of, visible_projects
from labelhub.prompts.models import Answer, AnswerSet, Prompt

State, Kind, Role = Slot.State, Slot.Kind, Membership.Role
Purpose = AnswerSet.Purpose

WORK = (Kind.OPINION, Kind.GOLD, Kind.REPEAT)  # what an annotator's queue gives, unannounced
MADE = (Kind.GOLD, Kind.REPEAT, Kind.TUTORIAL)  # made for one person, and for nobody else
_WITHHELD = ("harmful", "private")  # reasons of a skip that an admin must look at first
# To say what is left: so many slots of a pool are looked at, and so many sets counted, at most.
_COUNT_SLOTS, COUNT_TO = 500, 200


# --- whose slot


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


def own_held_slots(
    user: User, project: Project, kinds: Iterable[str] = tuple(Kind.values)
) -> QuerySet[Slot]:
    """What `user` holds in this project, also when the lease has run out.

    The one that was claimed first stands first; a second one was claimed ahead.
    """
    held = Slot.objects.filter(project=project, holder=user, state=State.HELD, kind__in=kinds)
    return held.order_by("claimed_at", "id")


def expired(now: datetime, project: Project | None = None) -> QuerySet[Slot]:
    """Held slots whose lease has ended."""
    slots = Slot.objects.filter(state=State.HELD, lease_until__lt=now)
    return slots if project is None else slots.filter(project=project)


# --- who may take what


@dataclass(frozen=True, slots=True)
class Seat:
    """A person's place in a project: what may be given to them."""

    role: str
    languages: tuple[str, ...] = ()  # none named: all
    skills: tuple[str, ...] = ()  # reviewers and admins have all
    paused: bool = False
    qualified: bool = True

    @property
    def of_prompt(self) -> Q:
        """The condition on a pool or a prompt: its language is read and its skill is there."""
        readable = Q(language__in=self.languages) if self.languages else Q()
        return readable if self.has_all_skills else readable & Q(skill__in=["", *self.skills])

    @property
    def has_all_skills(self) -> bool:
        """Whether no skill is asked of this person."""
        return self.role in {Role.REVIEWER, Role.ADMIN}

    def reads(self, pool: Pool) -> bool:
        """Whether work of this pool may be given to the person."""
        fluent = not self.languages or pool.language in self.languages
        return fluent and (self.has_all_skills or pool.skill in {"", *self.skills})


def seat_of(user: User, project: Project) -> Seat | None:
    """The person's place; None for a stranger. A superuser is an admin of all projects."""
    membership = membership_of(user, project)
    if membership is None:
        return Seat(role=Role.ADMIN) if user.is_superuser else None
    seat = _seat(membership)
    if user.is_superuser:
        return Seat(role=Role.ADMIN, languages=seat.languages, paused=seat.paused)
    return seat


def _seat(membership: Membership) -> Seat:
    return Seat(
        role=membership.role,
        languages=tuple(membership.languages),
        skills=tuple(membership.skills),
        paused=membership.paused_at is not None,
        qualified=membership.qualified_at is not None or membership.role != Role.ANNOTATOR,
    )


def who_may_take(project: Project, pool: Pool) -> QuerySet[Membership]:
    """The members who are there to be given work of this pool (languages and skills included)."""
    active = Membership.objects.filter(
        project=project,
        paused_at__isnull=True,
        user__is_active=True,
        user__is_simulated=project.is_simulated,
    )
    # Lists in JSON: only PostgreSQL could ask for their members, and a project has few people.
    able = [one.pk for one in active if _seat(one).reads(pool)]
    return Membership.objects.filter(pk__in=able)


def annotators_for(project: Project, pool: Pool) -> int:
    """How many annotators there are to give opinions on work of this pool."""
    return who_may_take(project, pool).filter(role=Role.ANNOTATOR).count()


def takes_part(user: User, project: Project) -> bool:
    """People's and simulated rankings never mix: a project holds the one kind or the other."""
    return user.is_simulated == project.is_simulated


# --- the next opinion


def pools_for(seat: Seat, project: Project) -> list[int]:
    """The pools whose work may be given to this person: one for each language and skill."""
    pools = Pool.objects.filter(seat.of_prompt, project=project)
    return list(pools.order_by("pk").values_list("pk", flat=True))


def unreserved() -> QuerySet[Slot]:
    """Open opinions that nobody is named for: what the two indexes of the queue hold."""
    return Slot.objects.filter(state=State.OPEN, kind=Kind.OPINION, reserved_for__isnull=True)


def fit_for(user: User, slots: QuerySet[Slot]) -> QuerySet[Slot]:
    """Leave out sets that the person ranked, holds or skipped, and retired prompts."""
    sets = AnswerSet.objects.filter(pk=OuterRef("answer_set"))
    own = Slot.objects.filter(
        answer_set=OuterRef("answer_set"), holder=user, state__in=[State.HELD, State.DONE]
    )
    misfits = (own, sets.filter(skips__annotator=user), sets.filter(prompt__retired=True))
    return slots.filter(*(~Q(_is_there(one)) for one in misfits))


def _is_there(rows: QuerySet[Any]) -> Coalesce:
    """Whether there is such a row, asked anew for each slot, which an index answers.

    EXISTS would say the same, but the database may make a join of it; with yesterday's statistics
    it then reads whole tables, in order to find one slot.
    """
    one = Subquery(rows.annotate(yes=Value(True)).values("yes")[:1])
    return Coalesce(one, False, output_field=BooleanField())


def reserved_for(user: User, project: Project) -> QuerySet[Slot]:
    """Open slots that this person is named for and may still take, best first."""
    return fit_for(user, _named(user, project)).order_by("-priority", "shuffle", "id")


def _named(user: User, project: Project) -> QuerySet[Slot]:
    return Slot.objects.filter(state=State.OPEN, reserved_for=user, project=project)


def top_band(pools: list[int], below: float | None) -> tuple[float, list[int]] | None:
    """The highest priority that is open in any of these pools (below a limit), and where it is."""
    slots = unreserved() if below is None else unreserved().filter(priority__lt=below)
    best = _first_of_each(pools, slots.order_by("-priority", "shuffle", "id"), "priority")
    if not best:
        return None
    band = max(best.values())
    return band, [pool for pool in pools if best.get(pool) == band]


def _first_of_each(pools: list[int], slots: QuerySet[Slot], field: str) -> dict[int, float]:
    """A field of the first slot of each pool that has one.

    One small question a pool: asked all in one, SQLite may build an index of its own each time.
    """
    firsts = {pool: slots.filter(pool=pool).values_list(field, flat=True).first() for pool in pools}
    return {pool: value for pool, value in firsts.items() if value is not None}


def stretches(pools: list[int], start: int, band: float | None = None) -> Iterable[QuerySet[Slot]]:
    """The open slots of these pools in the order in which to try them, from a start in `shuffle`.

    They are one ring ordered by `shuffle`: from the start to the end, then from the beginning. It
    comes in pieces of one pool each, since an index is ordered within a pool; the pool whose next
    slot is nearest stands first, so that pools of any size have their share. With a band: only
    slots of that priority.
    """
    slots = unreserved() if band is None else unreserved().filter(priority=band)
    order = ("shuffle", "id") if band is None else ("-priority", "shuffle", "id")
    for part in (slots.filter(shuffle__gte=start), slots.filter(shuffle__lt=start)):
        part = part.order_by(*order)
        for pool in pools if len(pools) == 1 else _nearest_first(pools, part):
            yield part.filter(pool=pool)


def _nearest_first(pools: list[int], part: QuerySet[Slot]) -> list[int]:
    nearest = _first_of_each(pools, part, "shuffle")
    return sorted(nearest, key=lambda pool: (nearest[pool], pool))


def may_take(user: User, slot: Slot) -> bool:
    """Whether this very slot could be given to the person now, by whom it was seen before."""
    seat = seat_of(user, slot.project)
    if seat is None or seat.paused or slot.project.paused or not takes_part(user, slot.project):
        return False
    if slot.state == State.CLOSED:
        free = slot.kind in MADE and slot.holder_id == user.pk
    else:
        free = slot.state == State.OPEN and slot.reserved_for_id in {None, user.pk}
        free = free and (slot.reserved_for_id == user.pk or seat.reads(slot.pool))
        free = free and (slot.kind != Kind.REVIEW or seat.has_all_skills)
    return free and fit_for(user, Slot.objects.filter(pk=slot.pk)).exists()


def done_count(user: User, project: Project) -> int:
    """How many sets of the queue this person has done here; the tutorial is not counted."""
    return Slot.objects.filter(
        project=project, holder=user, state=State.DONE, kind__in=WORK
    ).count()


# --- known rankings, repeats, reviews


def known_sets(project: Project, seat: Seat, purpose: str) -> QuerySet[AnswerSet]:
    """Gold or tutorial sets in use whose prompt this person reads, the tutorial in its order."""
    prompts = Prompt.objects.filter(seat.of_prompt, project=project, retired=False)
    return AnswerSet.objects.filter(
        # The first condition is that of the index, in the words that SQLite recognises.
        purpose__in=[Purpose.GOLD, Purpose.TUTORIAL],
        prompt__in=prompts,
    ).filter(purpose=purpose, retired=False)


def unseen_gold(user: User, project: Project, seat: Seat) -> list[int]:
    """Gold sets that this person has neither ranked nor skipped."""
    own = Slot.objects.filter(
        answer_set=OuterRef("pk"), holder=user, state__in=[State.HELD, State.DONE]
    )
    gold = known_sets(project, seat, Purpose.GOLD).filter(~Exists(own))
    return list(gold.exclude(skips__annotator=user).order_by("pk").values_list("pk", flat=True))


def repeatable(user: User, project: Project) -> list[int]:
    """Sets that this person ranked long enough ago to be shown again, and has not had again.

    Only the latest hundred are looked at: enough to draw from, however long somebody has worked.
    """
    done = Slot.objects.filter(project=project, holder=user, state=State.DONE, kind=Kind.OPINION)
    past = done.order_by("-claimed_at", "-id").values_list("answer_set_id", flat=True)
    ids = list(past[rules.REPEAT_AFTER : rules.REPEAT_AFTER + 100])
    again = Slot.objects.filter(
        answer_set__original=OuterRef("pk"), holder=user, state__in=[State.HELD, State.DONE]
    )
    sets = AnswerSet.objects.filter(pk__in=ids, purpose=Purpose.RANK, prompt__retired=False)
    return list(sets.filter(~Exists(again)).order_by("pk").values_list("pk", flat=True))


def tutorial_sets(project: Project, user: User | None = None) -> list[AnswerSet]:
    """The tutorial in its order; for one person, what is in a language and skill of theirs."""
    seat = seat_of(user, project) if user else None
    sets = known_sets(project, seat or Seat(role=Role.ADMIN), Purpose.TUTORIAL)
    return list(sets.select_related("prompt").order_by("gold__place", "pk"))


def latest_attempts(user: User, project: Project) -> dict[int, list[Slot]]:
    """The tutorial slots that this person has done, by tutorial set, in the order of attempts."""
    done = Slot.objects.filter(
        project=project, holder=user, state=State.DONE, kind=Kind.TUTORIAL
    ).select_related("answer_set")
    found: dict[int, list[Slot]] = {}
    for slot in done.order_by("claimed_at", "id"):
        found.setdefault(slot.answer_set.original_id or slot.answer_set_id, []).append(slot)
    return found


def attempt_of(user: User, project: Project) -> list[Slot]:
    """What this person has done of the newest attempt at the tutorial, in the tutorial's order.

    An attempt begins with the first set that is done one time more than before. Each set's first
    attempt is on the set itself, later ones on copies (`answer_set.original` is the set).
    """
    done = latest_attempts(user, project)
    sets = [one.pk for one in tutorial_sets(project, user)]
    times = max((len(done.get(pk, [])) for pk in sets), default=0)
    if times == 0:
        return []
    latest = [done[pk][-1] for pk in sets if pk in done]
    full = [done[pk][-1] for pk in sets if len(done.get(pk, [])) == times]
    began = min(_claimed(slot) for slot in full)
    return [slot for slot in latest if _claimed(slot) >= began]


def _claimed(slot: Slot) -> tuple[datetime, int]:
    return slot.claimed_at or slot.created, slot.pk


def open_reviews(user: User, project: Project, seat: Seat) -> QuerySet[Slot]:
    """Sets that wait for a reviewer who reads them and has not ranked them, oldest first."""
    slots = Slot.objects.filter(project=project, state=State.OPEN, kind=Kind.REVIEW)
    if seat.languages:
        slots = slots.filter(pool__language__in=seat.languages)
    return fit_for(user, slots).order_by("id")


# --- for admins


def assignable_sets(
    project: Project, to: User, language: str = "", topic: str = ""
) -> QuerySet[AnswerSet]:
    """Sets on which an opinion is open to anybody, and that this person may still rank."""
    free = unreserved().filter(answer_set=OuterRef("pk"))
    own = Slot.objects.filter(
        answer_set=OuterRef("pk"), holder=to, state__in=[State.HELD, State.DONE]
    )
    named = {"prompt__language": language, "prompt__topic": topic}
    sets = AnswerSet.objects.filter(
        prompt__project=project,
        prompt__retired=False,
        purpose__in=[Purpose.RANK, Purpose.COMPARE],
        **{name: value for name, value in named.items() if value},
    )
    fresh = sets.filter(Exists(free), ~Exists(own)).exclude(skips__annotator=to)
    return fresh.select_related("prompt").order_by("pk")


def held_back(project: Project) -> QuerySet[AnswerSet]:
    """Sets that wait for an admin, since an answer in them names a model."""
    leaks = Answer.objects.filter(answer_set=OuterRef("pk"), names_model=True)
    slots = Slot.objects.filter(answer_set=OuterRef("pk"))
    if not project.hold_back_leaks:
        return AnswerSet.objects.none()
    return (
        AnswerSet.objects.filter(
            prompt__project=project, prompt__retired=False, purpose=Purpose.RANK, retired=False
        )
        .filter(Exists(leaks), ~Exists(slots))
        .select_related("prompt")
        .order_by("pk")
    )


def no_longer_wanted() -> Q:
    """Slots that are closed instead of given back to the queue.

    They were made for one person, their prompt is retired, or an admin must look at the set first.
    """
    withheld = AnswerSet.objects.filter(
        pk=OuterRef("answer_set"), skips__reason__in=_WITHHELD, skips__handled_at__isnull=True
    )
    return Q(kind__in=MADE) | Q(answer_set__prompt__retired=True) | Q(Exists(withheld))


# --- how far the queue is


@dataclass(frozen=True, slots=True)
class QueueCounts:
    """One person's share of a project, at the price of that person's own rows."""

    mine_today: int
    mine_total: int
    left_for_me: int  # answer sets that this person can still rank, the one in hand included
    left_is_more: bool  # there are at least so many: counting stopped
    # To explain why nothing is left; while something is, they are not asked for.
    held: int = 0  # opinions that people are at now
    begun: bool = True  # whether an opinion was ever wanted


@dataclass(frozen=True, slots=True)
class ProjectCounts:
    """The opinions wanted in a project. Reads all its slots: not for every page."""

    open: int  # free to take, ended leases included
    held: int  # somebody's lease runs
    done: int

    @property
    def total(self) -> int:
        """All that are wanted; closed slots are so no longer."""
        return self.open + self.held + self.done


def project_counts(project: Project) -> ProjectCounts:
    """Count the opinions of a project; known rankings, repeats and reviews are none."""
    ended = Q(state=State.HELD, lease_until__lt=timezone.now())
    return ProjectCounts(
        **Slot.objects.filter(project=project, kind=Kind.OPINION).aggregate(
            open=Count("pk", filter=Q(state=State.OPEN) | ended),
            held=Count("pk", filter=Q(state=State.HELD) & ~ended),
            done=Count("pk", filter=Q(state=State.DONE)),
        )
    )


def queue_counts(project: Project, user: User) -> QueueCounts:
    """What this person has done here and what is left."""
    now = timezone.now()
    midnight = timezone.localtime(now).replace(hour=0, minute=0, second=0, microsecond=0)
    today = user.rankings.filter(project=project, created__gte=midnight, slot__kind__in=WORK)
    mine = Slot.objects.filter(project=project, holder=user, kind__in=WORK).aggregate(
        done=Count("pk", filter=Q(state=State.DONE)), held=Count("pk", filter=Q(state=State.HELD))
    )
    free, more = _free_for(user, project, now)
    counts = QueueCounts(
        mine_today=today.count() if mine["done"] else 0,
        mine_total=mine["done"],
        left_for_me=free + mine["held"],
        left_is_more=more,
    )
    return counts if counts.left_for_me else replace(counts, **_why_nothing(project, now))


def _why_nothing(project: Project, now: datetime) -> dict[str, Any]:
    opinions = Slot.objects.filter(project=project, kind=Kind.OPINION)
    held = opinions.filter(state=State.HELD, lease_until__gte=now)
    return {"held": held.count(), "begun": opinions.exists()}


def _free_for(user: User, project: Project, now: datetime) -> tuple[int, bool]:
    """Answer sets with a slot that `user` could claim now; True: there are more than were counted.

    Ended leases count, since the next claim gives them back to the queue first.
    """
    seat = seat_of(user, project)
    if seat is None or seat.paused or project.paused or not takes_part(user, project):
        return 0, False
    pools = pools_for(seat, project)
    ended = expired(now, project).filter(kind=Kind.OPINION).exclude(holder=user)
    for_me = Q(reserved_for=user) | Q(reserved_for__isnull=True, pool__in=pools)
    found = {*_sets(ended.filter(for_me)), *_sets(_named(user, project))}
    for pool in pools:
        if len(found) < _COUNT_SLOTS:
            found.update(_sets(unreserved().filter(pool=pool).order_by("shuffle", "id")))
    fitting = _fitting(user, found)
    more = len(found) >= _COUNT_SLOTS or fitting > COUNT_TO
    if more and not fitting:  # all of those are ranked; is there one beyond them?
        beyond = (fit_for(user, slots) for slots in stretches(pools, start=0))
        return int(any(slots.first() for slots in beyond)), False
    return min(fitting, COUNT_TO), more


def _sets(slots: QuerySet[Slot]) -> list[int]:
    return list(slots.values_list("answer_set_id", flat=True)[:_COUNT_SLOTS])


def _fitting(user: User, answer_set_ids: set[int]) -> int:
    """How many of these sets the person has not ranked, held or skipped."""
    own = Slot.objects.filter(
        answer_set=OuterRef("pk"), holder=user, state__in=[State.HELD, State.DONE]
    )
    sets = AnswerSet.objects.filter(pk__in=answer_set_ids, prompt__retired=False)
    return sets.filter(~Exists(own)).exclude(skips__annotator=user).count()
