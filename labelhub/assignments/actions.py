"""What people ask for about slots: claim the next, keep or give back a lease; open and assign them.

A claim on PostgreSQL is one SELECT … FOR UPDATE SKIP LOCKED LIMIT 1, so twenty annotators at once
get twenty slots without waiting for each other. SQLite has no row locks (there the same SELECT
runs without them): on both, the write is a compare-and-swap that must change exactly one row.

Locks are always taken in this order, so that no two of these wait for each other: annotator,
answer set, slots by id. (Mind that PostgreSQL keeps the lock of a row that it had to wait for, also
when the row then no longer fits the search.)

Slots of known rankings, repeats and the tutorial are made when they are claimed, for one person.
When that person gives one back it is closed, and opened again when it is due again: nothing about
it looks different from the rest of the queue.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from django.conf import settings
from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone
from django.utils.translation import gettext as _

from labelhub.accounts.models import User
from labelhub.assignments import queries, rules
from labelhub.assignments.models import Pool, Slot
from labelhub.assignments.progress import refresh_priorities as refresh_priorities
from labelhub.assignments.wishes import assign as assign
from labelhub.assignments.wishes import close_open as close_open
from labelhub.assignments.wishes import drop_name, fresh_slot, next_number, raise_for_newcomer
from labelhub.assignments.wishes import open_for_ranking as open_for_ranking
from labelhub.assignments.wishes import open_review as open_review
from labelhub.assignments.wishes import open_slots as open_slots
from labelhub.assignments.wishes import release_held_back as release_held_back
from labelhub.assignments.wishes import send_to_skill as send_to_skill
from labelhub.assignments.wishes import unassign as unassign
from labelhub.lib.errors import Refused
from labelhub.projects.models import Project
from labelhub.prompts.models import Answer, AnswerSet

State, Kind, Role = Slot.State, Slot.Kind, queries.Role
_FREE = {
    **{"state": State.OPEN, "holder": None, "uniform": False},
    **{"lease_token": None, "lease_until": None},
}
# The holder stays on it: who comes back to the page may take it again.
_CLOSED = {"state": State.CLOSED, "lease_token": None, "lease_until": None}
_CHANCE = random.SystemRandom()


# --- the next set


class Found(NamedTuple):
    """A slot to take, and whether it was drawn without regard to priority."""

    slot: Slot
    uniform: bool = False


Search = Callable[[bool], Found | None]  # its argument: patient


def claim_next(*, project: Project, by: User, rng: random.Random = _CHANCE) -> Slot | None:
    """Give `by` the next slot of the project; None when nothing is left for this person.

    Who holds a slot here already gets that one again with a full lease: two tabs of one person
    show the same answers. Else comes what bears the person's name, then now and then a set with a
    known ranking or one of their own again, else an opinion: the top priority, or any.

    Each search starts at a random place and stops at the first slot that fits, so a million open
    slots cost no more than a thousand. What does not fit is stepped over: where a person has
    ranked the share f of a band, 1 / (1 - f) slots are looked at on average. The worst case is a
    band in which they have ranked everything while other opinions on it are open: it is read to
    its end at each claim, a few microseconds a slot, never more slots than the person's own
    rankings times the overlap.
    """
    return _claim_work(_desk(project, by, rng), ahead=False)


def claim_ahead(
    *, project: Project, by: User, slot_id: int, token: object, rng: random.Random = _CHANCE
) -> Slot | None:
    """Give the person at work on a slot the one that will come after it: at most one ahead.

    None when that slot is not in hand (any more), or nothing is left.
    """
    proof = prove(slot_id=slot_id, token=token, by=by)
    desk = _desk(project, by, rng)
    if not desk.held().filter(pk=slot_id, lease_token=proof).exists():
        return None
    slot = _claim_work(desk, ahead=True)
    return slot if slot and slot.pk != slot_id else None


@dataclass(frozen=True, slots=True)
class Desk:
    """Who asks for work, where, and by which chance."""

    project: Project
    by: User
    seat: queries.Seat
    rng: random.Random

    def held(self) -> QuerySet[Slot]:
        """What the person has in hand of the queue, the first first."""
        return queries.own_held_slots(self.by, self.project, queries.WORK)

    @property
    def gives(self) -> bool:
        """Whether there is anything new for this person at all."""
        mixed = not queries.takes_part(self.by, self.project)
        return not (self.project.paused or self.seat.paused or mixed)

    @property
    def start(self) -> int:
        """Where a search begins. Simulated annotators must do the same again: they begin at 0."""
        return 0 if self.project.is_simulated else self.rng.randrange(rules.SHUFFLE_KEYS)


def _desk(project: Project, by: User, rng: random.Random) -> Desk:
    seat = queries.seat_of(by, project)
    if seat is None:
        raise Refused(_("You are not a member of this project."), status=404, code="stranger")
    return Desk(project, by, seat, rng)


def _claim_work(desk: Desk, *, ahead: bool) -> Slot | None:
    project, by = desk.project, desk.by
    if desk.seat.paused:
        return None
    _reopen_expired(project, by)
    done = -1

    def search(patient: bool) -> Found | None:
        nonlocal done
        _refuse_unqualified(desk)
        done = queries.done_count(by, project) + ahead
        return _next_work(desk, done, patient)

    slot = _claim(by, desk.held, search if desk.gives else _nothing, place=int(ahead))
    if slot is not None and _is_new_here(desk, slot, done):
        raise_for_newcomer(slot)
    return slot


def _nothing(_patient: bool) -> Found | None:
    return None


def _claim(
    by: User, held: Callable[[], QuerySet[Slot]], search: Search, place: int = 0
) -> Slot | None:
    """Renew what the person holds at this place of the hand, or take what the search finds."""
    patient = False
    while True:
        # Each try is a transaction of its own, so that none waits for one slot while it holds
        # another: that would be a deadlock sooner or later.
        with transaction.atomic():
            one_at_a_time(by)
            slot = next(iter(held()[place : place + 1]), None)
            if slot is not None:
                given = _swap(slot, lease_until=_lease_end())
            else:
                found = search(patient)
                slot = found.slot if found else None
                given = found is not None and take(found.slot, by, uniform=found.uniform)
        if given or (patient and slot is None):
            return slot
        patient = patient or slot is None


def _refuse_unqualified(desk: Desk) -> None:
    if desk.seat.qualified or desk.by.is_simulated:
        return
    tutorial = queries.known_sets(desk.project, desk.seat, AnswerSet.Purpose.TUTORIAL)
    if tutorial.exists():
        raise Refused(
            _("Before the first real set comes the tutorial: take it, then ask again."),
            code="unqualified",
        )


def _next_work(desk: Desk, done: int, patient: bool) -> Found | None:
    """What the person is due after `done` sets; the patient look at rows that are locked, too.

    Such a row may come free: nobody shall hear that nothing is left because another person's
    click was on its way.
    """
    project = desk.project
    if slot := _first(queries.reserved_for(desk.by, project), patient):
        return Found(slot)
    turn = rules.next_kind(
        project.pk,
        desk.by.pk,
        done,
        gold_share=project.gold_share,
        repeat_share=project.repeat_share,
        uniform_share=project.uniform_share,
    )
    if not project.is_simulated and desk.seat.role != Role.ADMIN:
        if turn.special == "gold" and (slot := _gold(desk)):
            return Found(slot)
        if turn.special == "repeat" and (slot := _repeat(desk)):
            return Found(slot)
    pools = queries.pools_for(desk.seat, project)
    if turn.uniform and not project.is_simulated:
        slot = _fitting(desk, queries.stretches(pools, desk.start), patient)
        return Found(slot, uniform=True) if slot else None
    slot = _of_top_band(desk, pools, patient)
    return Found(slot) if slot else None


def _of_top_band(desk: Desk, pools: list[int], patient: bool) -> Slot | None:
    """A slot of the highest priority at which there is one for this person."""
    below: float | None = None
    while band := queries.top_band(pools, below):
        below, where = band
        if slot := _fitting(desk, queries.stretches(where, desk.start, below), patient):
            return slot
    return None


def _fitting(desk: Desk, stretches: Iterable[QuerySet[Slot]], patient: bool) -> Slot | None:
    fitting = (_first(queries.fit_for(desk.by, slots), patient) for slots in stretches)
    return next((slot for slot in fitting if slot), None)


def _first(slots: QuerySet[Slot], patient: bool) -> Slot | None:
    """The first that nobody is at; for the patient, the first at all."""
    if not patient:
        slots = slots.select_for_update(skip_locked=True, of=("self",), no_key=True)
    return slots.first()


def _is_new_here(desk: Desk, slot: Slot, done: int) -> bool:
    """Whether this set was just given to a newcomer, and others should rank it, too."""
    project = desk.project
    return (
        0 <= done < project.newcomer_sets
        and slot.kind == Kind.OPINION
        and desk.seat.role == Role.ANNOTATOR
        and not project.is_simulated
        and slot.answer_set.purpose == AnswerSet.Purpose.RANK
    )


# --- sets that are made for one person


def _gold(desk: Desk) -> Slot | None:
    """A known set that the person has not seen, drawn at random."""
    ids = queries.unseen_gold(desk.by, desk.project, desk.seat)
    return _own_slot(desk.by, desk.rng.choice(ids), Kind.GOLD) if ids else None


def _repeat(desk: Desk) -> Slot | None:
    """A copy of a set that the person ranked some time ago."""
    ids = queries.repeatable(desk.by, desk.project)
    return _copied_slot(desk.by, desk.rng.choice(ids), Kind.REPEAT) if ids else None


def _copied_slot(by: User, original_id: int, kind: str) -> Slot:
    """The person's slot on a copy of the set: one that was given back, or a new one."""
    waiting = Slot.objects.filter(
        answer_set__original=original_id, holder=by, state=State.CLOSED, kind=kind
    )
    if slot := waiting.first():
        return slot
    original = AnswerSet.objects.get(pk=original_id)
    copy = copy_set(original, purpose=AnswerSet.Purpose.REPEAT, original=original)
    return _own_slot(by, copy.pk, kind)


def copy_set(
    answer_set: AnswerSet, *, purpose: str, original: AnswerSet | None = None
) -> AnswerSet:
    """The same answers to the same prompt as a set of its own."""
    copy = AnswerSet.objects.create(
        prompt_id=answer_set.prompt_id, purpose=purpose, original=original
    )
    answers = list(answer_set.answers.order_by("n"))
    for answer in answers:
        answer.pk, answer.answer_set = None, copy
        answer._state.adding = True
    Answer.objects.bulk_create(answers)
    return copy


def _own_slot(by: User, answer_set_id: int, kind: str) -> Slot:
    """The person's slot on this set, closed as yet: one that was given back, or a new one."""
    answer_set = AnswerSet.objects.select_for_update(no_key=True).get(pk=answer_set_id)
    slots = list(answer_set.slots.order_by("pk"))
    for slot in slots:
        if (slot.state, slot.kind, slot.holder_id) == (State.CLOSED, kind, by.pk):
            return slot
    prompt = answer_set.prompt
    pool, _is_new = Pool.objects.get_or_create(
        project_id=prompt.project_id, language=prompt.language, skill=prompt.skill
    )
    slot = fresh_slot(pool, answer_set_id, next_number(slots), kind)
    slot.state, slot.holder = State.CLOSED, by
    slot.save()
    return slot


# --- the tutorial, and what opinions differ on


def claim_tutorial(*, project: Project, by: User, again: bool = False) -> Slot | None:
    """Give the person the next set of the tutorial; None when all of it is done.

    `again` begins a new attempt once the last one is complete. From the second attempt on the
    sets are copies (`answer_set.original` is the tutorial set), since nobody ranks a set twice.
    """
    desk = _desk(project, by, _CHANCE)
    _reopen_expired(project, by)

    def held() -> QuerySet[Slot]:
        return queries.own_held_slots(by, project, [Kind.TUTORIAL])

    def search(_patient: bool) -> Found | None:
        due = _due(project, by, again)
        if due is None:
            return None
        if queries.latest_attempts(by, project).get(due):
            return Found(_copied_slot(by, due, Kind.TUTORIAL))
        return Found(_own_slot(by, due, Kind.TUTORIAL))

    return _claim(by, held, search if desk.gives else _nothing)


def _due(project: Project, by: User, again: bool) -> int | None:
    """The tutorial set that comes next in this attempt."""
    sets = [one.pk for one in queries.tutorial_sets(project, by)]
    done = {slot.answer_set.original_id or slot.answer_set_id
            for slot in queries.attempt_of(by, project)}  # fmt: skip
    left = [pk for pk in sets if pk not in done]
    if not left and again:
        left = sets
    return left[0] if left else None


def claim_review(*, project: Project, by: User) -> Slot | None:
    """Give a reviewer the next set on which opinions differ; never one that they ranked."""
    desk = _desk(project, by, _CHANCE)
    if not desk.seat.has_all_skills:
        raise Refused(
            _("Only reviewers and admins decide where opinions differ."),
            status=403,
            code="not_a_reviewer",
        )
    _reopen_expired(project, by)

    def held() -> QuerySet[Slot]:
        return queries.own_held_slots(by, project, [Kind.REVIEW])

    def search(patient: bool) -> Found | None:
        slot = _first(queries.open_reviews(by, project, desk.seat), patient)
        return Found(slot) if slot else None

    return _claim(by, held, search if desk.gives else _nothing)


# --- leases


def one_at_a_time(by: User) -> None:
    """Let nothing else that this person does with slots run meanwhile (until the transaction ends).

    Without it two claims from two tabs could end at two slots, or a claim could meet a late submit.
    """
    User.objects.select_for_update(no_key=True).values_list("pk").get(pk=by.pk)


def take(slot: Slot, by: User, *, uniform: bool = False) -> bool:
    """Put a fresh lease on a slot as it was read; False when somebody was faster."""
    return _swap(
        slot,
        state=State.HELD,
        holder=by,
        uniform=uniform,
        lease_token=rules.new_token(settings.SECRET_KEY, slot.pk, by.pk),
        lease_until=_lease_end(),
        claimed_at=timezone.now(),
    )


def _lease_end() -> datetime:
    return rules.lease_end(timezone.now(), settings.LEASE_MINUTES)


def _swap(slot: Slot, **changes: object) -> bool:
    """Change a slot only if its state and lease are still as they were read."""
    unchanged = Slot.objects.filter(pk=slot.pk, state=slot.state, lease_token=slot.lease_token)
    if unchanged.update(**changes) != 1:
        return False
    for name, value in changes.items():
        setattr(slot, name, value)
    return True


def renew_lease(*, slot_id: int, token: object, by: User) -> datetime:
    """Start the lease anew, since `by` is at work; returns its end.

    A lease that ran out is renewed too, and even a slot that went back to the queue is taken
    again, as long as nobody else has it. What was claimed ahead is kept along with it.
    """
    proof = prove(slot_id=slot_id, token=token, by=by)
    with transaction.atomic():
        one_at_a_time(by)
        slot = Slot.objects.select_for_update(no_key=True).get(pk=slot_id)
        end = _lease_end()
        if slot.state == State.HELD and slot.lease_token == proof and slot.holder_id == by.pk:
            hand = queries.own_held_slots(by, slot.project, _lane(slot))
            hand.update(lease_until=end)
            return end
        if _may_return_to(slot, by) and _swap(
            slot, state=State.HELD, holder=by, lease_token=proof, lease_until=end
        ):
            return end
    raise Refused(
        _("Your time for these answers has run out. Submit all the same: your ranking is kept."),
        code="lease_lost",
    )


def _lane(slot: Slot) -> tuple[str, ...]:
    """The kinds that are held in one hand: the queue, the tutorial or the reviews."""
    return queries.WORK if slot.kind in queries.WORK else (slot.kind,)


def _may_return_to(slot: Slot, by: User) -> bool:
    busy = queries.own_held_slots(by, slot.project, _lane(slot)).exists()
    return not busy and queries.may_take(by, slot)


def release(*, slot_id: int, token: object, by: User) -> bool:
    """Give a slot back to the queue, as when its page is left; False when it was not in hand.

    What was claimed ahead of the slot goes back with it.
    """
    proof = rules.parse_token(token)
    with transaction.atomic():
        one_at_a_time(by)
        slot = Slot.objects.filter(
            pk=slot_id, holder=by, state=State.HELD, lease_token=proof
        ).first()
        if proof is None or slot is None:
            return False
        hand = list(queries.own_held_slots(by, slot.project, _lane(slot)))
        behind = hand[hand.index(slot) :]
        return _let_go(Slot.objects.filter(pk__in=[one.pk for one in behind], holder=by)) > 0


def give_back(*, answer_set_id: int, by: User) -> None:
    """Give back what this person holds of an answer set, whichever slot it is."""
    with transaction.atomic():
        _let_go(Slot.objects.filter(answer_set_id=answer_set_id, holder=by))


@transaction.atomic
def hand_back(*, project: Project, user: User) -> int:
    """Give back all that a person holds in a project, and take their name off what waits for them.

    For somebody who pauses, leaves or is removed. Returns how many slots others can have now.
    """
    one_at_a_time(user)
    freed = _let_go(Slot.objects.filter(project=project, holder=user))
    return freed + drop_name(project, user)


def release_expired() -> int:
    """Give every slot whose lease has ended back to the queue; returns how many."""
    with transaction.atomic():
        return _let_go(queries.expired(timezone.now()))


def _reopen_expired(project: Project, by: User) -> None:
    """Give back what others let run out; one's own is still in one's hand."""
    ended = queries.expired(timezone.now(), project).exclude(holder=by)
    if ended.exists():
        with transaction.atomic():
            _let_go(ended)


def _let_go(slots: QuerySet[Slot]) -> int:
    """Give held slots back to the queue, or close what nobody is to be asked about again."""
    # Waits for a row that is locked instead of passing it by: whoever reopens it commits soon, and
    # a claim that looks afterwards must find it.
    held = slots.filter(state=State.HELD).select_for_update(of=("self",), no_key=True)
    ids = list(held.order_by("pk").values_list("pk", flat=True))
    if not ids:
        return 0
    locked = slots.filter(pk__in=ids, state=State.HELD)
    closing = Slot.objects.filter(queries.no_longer_wanted(), pk__in=ids)
    closed = list(closing.values_list("pk", flat=True))
    count = locked.filter(pk__in=closed).update(**_CLOSED) if closed else 0
    return count + locked.exclude(pk__in=closed).update(**_FREE)


def prove(*, slot_id: int, token: object, by: User) -> uuid.UUID:
    """Check that this token was given to `by` for this slot; a stranger learns nothing but 404."""
    proof = rules.parse_token(token)
    slot = Slot.objects.filter(pk=slot_id).first()
    if proof is None or slot is None:
        raise not_yours()
    current = slot.holder_id == by.pk and slot.lease_token == proof
    if not current and not rules.is_proof(proof, settings.SECRET_KEY, slot_id, by.pk):
        raise not_yours()
    return proof


def not_yours() -> Refused:
    """The refusal of a slot that was never given to the person who names it."""
    return Refused(
        _("These answers were not given to you: take the next ones."), status=404, code="not_yours"
    )


def settle(*, slot: Slot, by: User) -> tuple[Slot, bool]:
    """Mark the slot as done on which this person's opinion will stand; True beside it = late.

    Call it in the transaction that writes the opinion, with the answer set locked and the token
    proved. It is not late while the person holds a living lease on the set (only a held slot has
    a lease).
    """
    same_set = Slot.objects.filter(answer_set=slot.answer_set_id)
    slots = list(same_set.select_for_update(no_key=True).order_by("pk"))
    chosen = _place_for(slot.pk, slots, by)
    late = chosen.lease_until is None or chosen.lease_until < timezone.now()
    chosen.state, chosen.holder = State.DONE, by
    chosen.lease_token = chosen.lease_until = None
    chosen.claimed_at = chosen.claimed_at or timezone.now()
    chosen.save()
    return chosen, late


def _place_for(slot_id: int, slots: list[Slot], by: User) -> Slot:
    """What the person holds of the set by now; else the named slot if it is free; else one like it.

    When others hold or have done them all, a further slot of the same kind is added, so that no
    work is lost.
    """
    for one in slots:
        if one.state == State.HELD and one.holder_id == by.pk:
            return one
    named = next(one for one in slots if one.pk == slot_id)
    alike = [one for one in slots if one.kind == named.kind and one.state == State.OPEN]
    free = [one for one in alike if one.reserved_for_id in {None, by.pk}]
    if named.state == State.CLOSED or named in free:
        return named
    return free[0] if free else _further(named, slots)


def _further(named: Slot, slots: list[Slot]) -> Slot:
    slot = fresh_slot(named.pool, named.answer_set_id, next_number(slots), named.kind)
    slot.priority = named.priority
    return slot
