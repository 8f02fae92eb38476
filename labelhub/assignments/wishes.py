"""Which opinions are wanted: slots are opened, closed, moved to other pools and given names.

All of it locks the answer sets first and then their slots, each by id (the order of `actions`).
What somebody holds or has done is never taken away here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from django.db import transaction
from django.utils.translation import gettext as _

from labelhub.accounts.actions import audit
from labelhub.accounts.models import User
from labelhub.assignments import queries, rules
from labelhub.assignments.models import Pool, Slot
from labelhub.lib.errors import Refused
from labelhub.projects.models import Project
from labelhub.prompts.models import Answer, AnswerSet

State, Kind = Slot.State, Slot.Kind
_BATCH = 500


# --- how many opinions


def open_slots(
    *, project: Project, answer_sets: Iterable[AnswerSet], overlap: int, by: User | None = None
) -> list[Slot]:
    """Want `overlap` opinions on each of these answer sets; returns the slots that are open now.

    Asking again with another number raises or lowers the wish. What somebody holds or has done is
    never taken away; lowering closes open slots only.
    """
    wanted = list(answer_sets)
    return _open(project, wanted, dict.fromkeys((one.pk for one in wanted), overlap), by)


def open_for_ranking(
    *, project: Project, answer_sets: Iterable[AnswerSet], overlap: int, by: User | None = None
) -> list[Slot]:
    """Want the opinions that the project's settings ask for, on sets that are new.

    A share of them gets more than `overlap`, so that agreement can be measured, but not more than
    there are annotators. Sets in which an answer names a model wait for an admin, if the project
    says so. Returns the slots that are open now.
    """
    wanted = list(answer_sets)
    if project.hold_back_leaks:
        wanted = _without_leaks(wanted)
    return _open(project, wanted, _plan(project, wanted, overlap), by)


def _without_leaks(answer_sets: list[AnswerSet]) -> list[AnswerSet]:
    leaking: set[int] = set()
    for part in _parts([one.pk for one in answer_sets]):
        answers = Answer.objects.filter(answer_set__in=part, names_model=True)
        leaking.update(answers.values_list("answer_set_id", flat=True))
    return [one for one in answer_sets if one.pk not in leaking]


def _plan(project: Project, answer_sets: list[AnswerSet], overlap: int) -> dict[int, int]:
    """How many opinions each set shall get; simulated annotators are asked for no more."""
    if project.is_simulated:
        return {one.pk: overlap for one in answer_sets}
    pools, plan = _pools(project, answer_sets), dict[int, int]()
    for pool in {pool.pk: pool for pool in pools.values()}.values():
        plan |= rules.overlap_plan(
            (one.pk for one in answer_sets if pools[one.pk] == pool),
            project_id=project.pk,
            overlap=overlap,
            shared_share=project.shared_share,
            shared_overlap=project.shared_overlap,
            annotators=queries.annotators_for(project, pool),
        )
    return plan


@transaction.atomic
def _open(
    project: Project, answer_sets: list[AnswerSet], plan: Mapping[int, int], by: User | None
) -> list[Slot]:
    if any(overlap < 1 for overlap in plan.values()):
        raise Refused(_("At least one opinion must be wanted on each answer set."), status=400)
    pools, opened = _pools(project, answer_sets), list[Slot]()
    for part in _parts(sorted(plan)):
        slots = _locked(part)
        fresh = [slot for pk in part for slot in _missing(pools[pk], pk, slots[pk], plan[pk])]
        Slot.objects.bulk_create(fresh)
        surplus = [pk for one in part for pk in _surplus(slots[one], plan[one])]
        Slot.objects.filter(pk__in=surplus).update(state=State.CLOSED)
        now_open = Slot.objects.filter(answer_set__in=part, state=State.OPEN, kind=Kind.OPINION)
        opened += now_open.order_by("pk")
    most = max(plan.values(), default=0)
    audit(by=by, action="slots.open", target=project, answer_sets=len(plan), overlap=most)
    return opened


def _locked(ids: Sequence[int]) -> dict[int, list[Slot]]:
    """All slots of these sets by set, once the sets and then the slots are locked."""
    list(AnswerSet.objects.select_for_update(no_key=True).filter(pk__in=ids).order_by("pk"))
    slots: dict[int, list[Slot]] = {pk: [] for pk in ids}
    locked = Slot.objects.select_for_update(no_key=True).filter(answer_set__in=ids)
    for slot in locked.order_by("pk"):
        slots[slot.answer_set_id].append(slot)
    return slots


def _pools(project: Project, answer_sets: Iterable[AnswerSet]) -> dict[int, Pool]:
    """The pool of each answer set, by its prompt's language and skill."""
    made: dict[tuple[str, str], Pool] = {}
    kinds = {one.pk: (one.prompt.language, one.prompt.skill) for one in answer_sets}
    for language, skill in set(kinds.values()):
        pool, _is_new = Pool.objects.get_or_create(project=project, language=language, skill=skill)
        made[language, skill] = pool
    return {pk: made[kind] for pk, kind in kinds.items()}


def _missing(pool: Pool, answer_set_id: int, slots: list[Slot], overlap: int) -> list[Slot]:
    first, lacking = next_number(slots), overlap - len(_wished(slots))
    return [fresh_slot(pool, answer_set_id, n) for n in range(first, first + lacking)]


def _surplus(slots: list[Slot], overlap: int) -> list[int]:
    """Which open slots to close: those with a name on them last."""
    wished = _wished(slots)
    free = [slot for slot in wished if slot.state == State.OPEN]
    free.sort(key=lambda one: (one.reserved_for_id is not None, -one.n))
    return [slot.pk for slot in free[: max(0, len(wished) - overlap)]]


def _wished(slots: list[Slot]) -> list[Slot]:
    return [one for one in slots if one.kind == Kind.OPINION and one.state != State.CLOSED]


def next_number(slots: Iterable[Slot]) -> int:
    """The number of a further slot beside all that a set ever had."""
    return max((slot.n for slot in slots), default=-1) + 1


def fresh_slot(pool: Pool, answer_set_id: int, n: int, kind: str = Kind.OPINION) -> Slot:
    """A slot that is not stored yet."""
    return Slot(
        answer_set_id=answer_set_id,
        project_id=pool.project_id,
        pool=pool,
        n=n,
        kind=kind,
        shuffle=rules.shuffle_key(answer_set_id, n),
    )


def _parts(ids: Sequence[int]) -> list[list[int]]:
    """Small lists: a database takes only so many ids in one question."""
    return [list(ids[at : at + _BATCH]) for at in range(0, len(ids), _BATCH)]


@transaction.atomic
def raise_for_newcomer(slot: Slot) -> None:
    """Have a set that a newcomer was given ranked by others too, so that the two can be compared.

    Only once the claim is over: it has a slot locked, and sets are locked before slots.
    """
    project = slot.project
    wish = rules.shared(1, project.shared_overlap, queries.annotators_for(project, slot.pool))
    slots = _locked([slot.answer_set_id])[slot.answer_set_id]
    barred = queries.no_longer_wanted()
    if not Slot.objects.filter(barred, pk=slot.pk).exists():
        Slot.objects.bulk_create(_missing(slot.pool, slot.answer_set_id, slots, wish))


# --- sets that need somebody else


@transaction.atomic
def open_review(answer_set: AnswerSet) -> Slot:
    """Ask a reviewer to decide about a set on which opinions differ; asking again changes nothing.

    Once a reviewer has decided, the set is not asked about again.
    """
    slots = _locked([answer_set.pk])[answer_set.pk]
    for slot in slots:
        if slot.kind == Kind.REVIEW and slot.state != State.CLOSED:
            return slot
    pool = _pools(answer_set.prompt.project, [answer_set])[answer_set.pk]
    review = fresh_slot(pool, answer_set.pk, next_number(slots), Kind.REVIEW)
    review.save()
    return review


@transaction.atomic
def close_open(*, answer_sets: Iterable[AnswerSet]) -> int:
    """Want nothing more on these sets: close what nobody holds; returns how many slots."""
    closed = 0
    for part in _parts(sorted(one.pk for one in answer_sets)):
        slots = [slot for of_set in _locked(part).values() for slot in of_set]
        ids = [slot.pk for slot in slots if slot.state == State.OPEN]
        closed += Slot.objects.filter(pk__in=ids).update(state=State.CLOSED)
    return closed


@transaction.atomic
def send_to_skill(*, answer_set: AnswerSet, skill: str) -> int:
    """Offer the set's open slots to people with this skill only; returns how many slots."""
    slots = _locked([answer_set.pk])[answer_set.pk]
    project, language = answer_set.prompt.project, answer_set.prompt.language
    pool, _is_new = Pool.objects.get_or_create(project=project, language=language, skill=skill)
    ids = [slot.pk for slot in slots if slot.state == State.OPEN]
    return Slot.objects.filter(pk__in=ids).update(pool=pool, reserved_for=None)


@transaction.atomic
def release_held_back(*, answer_set: AnswerSet, by: User) -> list[Slot]:
    """Let a set be ranked although an answer in it names a model; its slots are open now."""
    project = answer_set.prompt.project
    plan = _plan(project, [answer_set], project.overlap)
    audit(by=by, action="answers.release", target=answer_set)
    return _open(project, [answer_set], plan, by)


# --- named assignment


@transaction.atomic
def assign(*, project: Project, answer_sets: Iterable[AnswerSet], to: User, by: User) -> int:
    """Put a person's name on one open slot of each of these sets; returns on how many sets.

    Where none is open, one more opinion is wanted. Sets that the person ranked, holds or skipped,
    and those that have the name already, are left as they are.
    """
    wanted = [one for one in answer_sets if one.prompt.project_id == project.pk]
    if not _is_there(project, to):
        raise Refused(_("Only a member who is not paused can be given work by name."), status=400)
    pools, named = _pools(project, wanted), 0
    skipped = set(AnswerSet.objects.filter(skips__annotator=to).values_list("pk", flat=True))
    for part in _parts(sorted(pools)):
        for pk, slots in _locked(part).items():
            if pk in skipped or any(_is_with(slot, to) for slot in slots):
                continue
            slot = next((one for one in slots if _is_free(one)), None)
            slot = slot or fresh_slot(pools[pk], pk, next_number(slots))
            slot.reserved_for = to
            slot.save()
            named += 1
    audit(by=by, action="slots.assign", target=project, to=to.username, answer_sets=named)
    return named


def _is_there(project: Project, user: User) -> bool:
    seat = queries.seat_of(user, project)
    return seat is not None and not seat.paused and queries.takes_part(user, project)


def _is_with(slot: Slot, user: User) -> bool:
    held = slot.holder_id == user.pk and slot.state in {State.HELD, State.DONE}
    return held or (slot.reserved_for_id == user.pk and slot.state == State.OPEN)


def _is_free(slot: Slot) -> bool:
    return (slot.state, slot.kind, slot.reserved_for_id) == (State.OPEN, Kind.OPINION, None)


@transaction.atomic
def unassign(*, project: Project, to: User, by: User) -> int:
    """Take a person's name off what waits for them: anybody may rank it; returns how many slots."""
    freed = drop_name(project, to)
    audit(by=by, action="slots.unassign", target=project, to=to.username, slots=freed)
    return freed


def drop_name(project: Project, user: User) -> int:
    """Reserve nothing in this project for this person any more; call it in a transaction."""
    named = Slot.objects.filter(
        project=project, reserved_for=user, state__in=[State.OPEN, State.HELD]
    )
    locked = named.select_for_update(no_key=True).order_by("pk")
    ids = list(locked.values_list("pk", flat=True))
    return sum(Slot.objects.filter(pk__in=part).update(reserved_for=None) for part in _parts(ids))
