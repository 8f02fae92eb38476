"""What people ask for about slots: open them, claim the next, keep or give back a lease.

A claim on PostgreSQL is one SELECT … FOR UPDATE SKIP LOCKED LIMIT 1, so twenty annotators at once
get twenty slots without waiting for each other. SQLite has no row locks (there the same SELECT
runs without them): on both, the write is a compare-and-swap that must change exactly one row.

Locks are always taken in this order, so that no two of these wait for each other: annotator,
answer set, slots by id. (Mind that PostgreSQL keeps the lock of a row that it had to wait for, also
when the row then no longer fits the search.)
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from datetime import datetime

from django.conf import settings
from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone
from django.utils.translation import gettext as _

from labelhub.accounts.actions import audit
from labelhub.accounts.models import User
from labelhub.assignments import queries, rules
from labelhub.assignments.models import Pool, Slot
from labelhub.lib.errors import Refused
from labelhub.projects.models import Project
from labelhub.projects.queries import role_in
from labelhub.prompts.models import AnswerSet

State = Slot.State
_FREE = {"state": State.OPEN, "holder": None, "lease_token": None, "lease_until": None}


# --- the wish for opinions


@transaction.atomic
def open_slots(
    *, project: Project, answer_sets: Iterable[AnswerSet], overlap: int, by: User | None = None
) -> list[Slot]:
    """Want `overlap` opinions on each of these answer sets; returns the slots that are open now.

    Asking again with another number raises or lowers the wish. What somebody holds or has done is
    never taken away; lowering closes open slots only.
    """
    if overlap < 1:
        raise Refused(_("At least one opinion must be wanted on each answer set."), status=400)
    wanted = sorted(answer_sets, key=lambda one: one.pk)
    ids = [one.pk for one in wanted]
    list(AnswerSet.objects.select_for_update(no_key=True).filter(pk__in=ids).order_by("pk"))
    slots: dict[int, list[Slot]] = {pk: [] for pk in ids}
    locked = Slot.objects.select_for_update(no_key=True).filter(answer_set__in=ids)
    for slot in locked.order_by("pk"):
        slots[slot.answer_set_id].append(slot)
    pools = _pools(project, wanted)
    fresh = [slot for pk in ids for slot in _missing(pools[pk], pk, slots[pk], overlap)]
    Slot.objects.bulk_create(fresh, batch_size=500)
    for pk in ids:
        _close_surplus(slots[pk], overlap)
    audit(by=by, action="slots.open", target=project, answer_sets=len(ids), overlap=overlap)
    return list(Slot.objects.filter(answer_set__in=ids, state=State.OPEN).order_by("pk"))


def _pools(project: Project, answer_sets: list[AnswerSet]) -> dict[int, Pool]:
    """The pool of each answer set, by its prompt's language and skill."""
    made: dict[tuple[str, str], Pool] = {}
    for one in answer_sets:
        kind = (one.prompt.language, one.prompt.skill)
        if kind not in made:
            made[kind] = Pool.objects.get_or_create(
                project=project, language=kind[0], skill=kind[1]
            )[0]
    return {one.pk: made[one.prompt.language, one.prompt.skill] for one in answer_sets}


def _missing(pool: Pool, answer_set_id: int, slots: list[Slot], overlap: int) -> list[Slot]:
    wished = [slot for slot in slots if slot.state != State.CLOSED]
    first = max((slot.n for slot in slots), default=-1) + 1
    return [
        Slot(
            answer_set_id=answer_set_id,
            project_id=pool.project_id,
            pool=pool,
            n=n,
            shuffle=rules.shuffle_key(answer_set_id, n),
        )
        for n in range(first, first + overlap - len(wished))
    ]


def _close_surplus(slots: list[Slot], overlap: int) -> None:
    wished = [slot for slot in slots if slot.state != State.CLOSED]
    free = sorted((one for one in wished if one.state == State.OPEN), key=lambda one: -one.n)
    surplus = [slot.pk for slot in free[: max(0, len(wished) - overlap)]]
    Slot.objects.filter(pk__in=surplus).update(state=State.CLOSED)


# --- leases


def claim_next(*, project: Project, by: User) -> Slot | None:
    """Give `by` the next slot of the project; None when nothing is left for this person.

    Who holds a slot here already gets that one again with a full lease: two tabs of one person
    show the same answers.
    """
    if role_in(by, project) is None:
        raise Refused(_("You are not a member of this project."), status=404, code="stranger")
    with transaction.atomic():
        _reopen(queries.expired(timezone.now(), project).exclude(holder=by))
    patient = False
    while True:
        # Each try is a transaction of its own, so that none waits for one slot while it holds
        # another: that would be a deadlock sooner or later.
        with transaction.atomic():
            one_at_a_time(by)
            if slot := queries.own_held_slots(by, project).first():
                given = _swap(slot, lease_until=_lease_end())
            else:
                slot = _next_free(project, by, patient)
                given = slot is not None and take(slot, by)
        if given or (patient and slot is None):
            return slot
        patient = patient or slot is None


def _next_free(project: Project, by: User, patient: bool) -> Slot | None:
    """The best open slot that nobody is at; for the patient, the best one at all.

    That second choice is a row that somebody has locked. It may come free: nobody shall hear that
    nothing is left because another person's click was on its way.
    """
    slots = queries.open_for(by, project)
    if not patient:
        slots = slots.select_for_update(skip_locked=True, of=("self",), no_key=True)
    return slots.first()


def one_at_a_time(by: User) -> None:
    """Let nothing else that this person does with slots run meanwhile (until the transaction ends).

    Without it two claims from two tabs could end at two slots, or a claim could meet a late submit.
    """
    User.objects.select_for_update(no_key=True).get(pk=by.pk)


def take(slot: Slot, by: User) -> bool:
    """Put a fresh lease on a slot as it was read; False when somebody was faster."""
    return _swap(
        slot,
        state=State.HELD,
        holder=by,
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
    again, as long as nobody else has it.
    """
    proof = prove(slot_id=slot_id, token=token, by=by)
    with transaction.atomic():
        one_at_a_time(by)
        slot = Slot.objects.select_for_update(no_key=True).get(pk=slot_id)
        end = _lease_end()
        mine = slot.state == State.HELD and slot.lease_token == proof
        if mine and _swap(slot, lease_until=end):
            return end
        if _may_return_to(slot, by) and _swap(
            slot, state=State.HELD, holder=by, lease_token=proof, lease_until=end
        ):
            return end
    raise Refused(
        _("Your time for these answers has run out. Submit all the same: your ranking is kept."),
        code="lease_lost",
    )


def _may_return_to(slot: Slot, by: User) -> bool:
    if slot.state != State.OPEN:
        return False
    busy = queries.own_held_slots(by, slot.project).exists()
    return not busy and queries.open_for(by, slot.project).filter(pk=slot.pk).exists()


def release(*, slot_id: int, token: object, by: User) -> bool:
    """Give a slot back to the queue, as when its page is left; False when it was not in hand."""
    proof = rules.parse_token(token)
    held = Slot.objects.filter(pk=slot_id, holder=by, state=State.HELD, lease_token=proof)
    return proof is not None and held.update(**_FREE) == 1


def give_back(*, answer_set_id: int, by: User) -> None:
    """Give back what this person holds of an answer set, whichever slot it is."""
    held = Slot.objects.filter(answer_set_id=answer_set_id, holder=by, state=State.HELD)
    held.update(**_FREE)


def release_expired() -> int:
    """Give every slot whose lease has ended back to the queue; returns how many."""
    with transaction.atomic():
        return _reopen(queries.expired(timezone.now()))


def _reopen(slots: QuerySet[Slot]) -> int:
    # Waits for a row that is locked instead of passing it by: whoever reopens it commits soon, and
    # a claim that looks afterwards must find it.
    ids = list(
        slots.select_for_update(of=("self",), no_key=True)
        .order_by("pk")
        .values_list("pk", flat=True)
    )
    return slots.filter(pk__in=ids).update(**_FREE) if ids else 0


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
    chosen.save()
    return chosen, late


def _place_for(slot_id: int, slots: list[Slot], by: User) -> Slot:
    """What the person holds of the set by now; else the named slot if it is free; else an open one.

    When others hold or have done them all, a further slot is added, so that no work is lost.
    """
    for one in slots:
        if one.state == State.HELD and one.holder_id == by.pk:
            return one
    named = next(one for one in slots if one.pk == slot_id)
    if named.state in (State.OPEN, State.CLOSED):
        return named
    return next((one for one in slots if one.state == State.OPEN), None) or _further(slots)


def _further(slots: list[Slot]) -> Slot:
    first, n = slots[0], max(slot.n for slot in slots) + 1
    return Slot(
        answer_set_id=first.answer_set_id,
        project_id=first.project_id,
        pool_id=first.pool_id,
        n=n,
        priority=first.priority,
        shuffle=rules.shuffle_key(first.answer_set_id, n),
    )
