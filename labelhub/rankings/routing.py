"""What becomes of an answer set's slots after what people said of it.

Everything here runs inside the transaction of its caller, who holds the lock of each answer set
named; slots are locked after them, by id (the order of `assignments.actions`). What somebody holds
or has done is never taken away: only open slots are moved or closed.

Not here: who is offered which slot, and the leases.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial

from django.db import transaction
from django.db.models import Exists, OuterRef, Q, QuerySet

from labelhub.accounts.models import User
from labelhub.assignments.actions import close_open, open_review, send_to_skill
from labelhub.assignments.models import Pool, Slot
from labelhub.assignments.queries import who_may_take
from labelhub.projects.models import Membership, Project
from labelhub.prompts.actions import restore_prompt, retire_prompt
from labelhub.prompts.models import AnswerSet, Prompt
from labelhub.rankings import rules
from labelhub.rankings.models import Ranking, RankingItem, Skip
from labelhub.rankings.signals import slots_closed

State, Kind = Slot.State, Slot.Kind
# The slots on which several people look at the same set.
SHARED = (Kind.OPINION, Kind.REVIEW)
_DECIDERS = (Membership.Role.REVIEWER, Membership.Role.ADMIN)
_ANYBODY = tuple(Membership.Role.values)
_BATCH = 500
# Answer sets on which an opinion may still be wanted: those in no round, in one that is being
# ranked, or in a comparison that people are asked for. (Rounds are a higher room; the names of its
# tables are all that is known of it here.)
STILL_RANKED = Q(purpose=AnswerSet.Purpose.COMPARE, comparisons__state="open") | ~Q(
    purpose=AnswerSet.Purpose.COMPARE
) & (Q(rounds__isnull=True) | Q(rounds__state="rank"))

# Skips that set an answer set aside, and that no admin has answered yet.
_UNANSWERED = Q(
    reason__in=[reason for reason, way in rules.ROUTES.items() if way == rules.SET_ASIDE],
    handled_at__isnull=True,
)


def lock_sets(answer_sets: QuerySet[AnswerSet]) -> list[AnswerSet]:
    """Lock these answer sets, by id."""
    return list(answer_sets.select_for_update(no_key=True, of=("self",)).order_by("pk"))


def sets_of(prompt_id: int) -> QuerySet[AnswerSet]:
    """All answer sets of a prompt."""
    return AnswerSet.objects.filter(prompt_id=prompt_id)


def _locked_slots(answer_sets: Sequence[AnswerSet], state: str, kinds: Sequence[str]) -> list[Slot]:
    slots = Slot.objects.select_for_update(no_key=True, of=("self",)).select_related("pool")
    wanted = slots.filter(answer_set__in=answer_sets, state=state, kind__in=kinds)
    return list(wanted.order_by("pk"))


def _tell(answer_set_ids: Iterable[int]) -> None:
    """Let those who wait for opinions on these sets look again, once this is committed."""
    ids = sorted(set(answer_set_ids))
    if ids:
        transaction.on_commit(partial(slots_closed.send_robust, sender=Slot, answer_set_ids=ids))


# --- after a ranking


def look_for_disagreement(answer_set: AnswerSet, project: Project) -> None:
    """Ask for a reviewer's decision when the last opinion is in and the opinions differ too much.

    Only opinions on sets that are to be ranked are looked at, and only people's: simulated ones
    have no reviewers. Nor is one waited for who cannot come: somebody who
    may review must be left who has no opinion of their own on the set.
    """
    if project.review_below is None or project.is_simulated:
        return
    if answer_set.purpose != AnswerSet.Purpose.RANK:
        return
    tau = rules.mean_tau(_opinions_on(answer_set))
    if tau is None or tau >= project.review_below or _is_decided(answer_set):
        return
    opinions = Slot.objects.filter(answer_set=answer_set, kind=Kind.OPINION)
    if opinions.filter(state__in=[State.OPEN, State.HELD]).exists():
        return
    done = opinions.filter(state=State.DONE).select_related("pool").first()
    if done is not None and _people_left(answer_set, project, done.pool, _DECIDERS):
        open_review(answer_set)


def _opinions_on(answer_set: AnswerSet) -> list[dict[int, int]]:
    rows = RankingItem.objects.filter(
        ranking__answer_set=answer_set, ranking__adjudicates=False
    ).values_list("ranking", "answer", "rank")
    orders: dict[int, dict[int, int]] = {}
    for ranking, answer, rank in rows.order_by("ranking", "answer"):
        orders.setdefault(ranking, {})[answer] = rank
    return list(orders.values())


def _is_decided(answer_set: AnswerSet) -> bool:
    return Ranking.objects.filter(answer_set=answer_set, adjudicates=True).exists()


def _people_left(
    answer_set: AnswerSet, project: Project, pool: Pool, roles: Sequence[str] = _ANYBODY
) -> set[int]:
    """Who may take a slot of this pool on this set and was not there yet."""
    return _able(project, pool, roles) - _been_there([answer_set.pk])[answer_set.pk]


def _able(project: Project, pool: Pool, roles: Sequence[str]) -> set[int]:
    members = who_may_take(project, pool).filter(role__in=roles)
    return set(members.values_list("user_id", flat=True))


def _been_there(answer_set_ids: Sequence[int]) -> dict[int, set[int]]:
    """By set, who has, has done, or passed on a slot of it: they are not offered another."""
    own = Slot.objects.filter(holder__isnull=False, state__in=[State.HELD, State.DONE])
    people: dict[int, set[int]] = {pk: set() for pk in answer_set_ids}
    for rows in (
        own.filter(answer_set__in=answer_set_ids).values_list("answer_set_id", "holder_id"),
        Skip.objects.filter(answer_set__in=answer_set_ids).values_list(
            "answer_set_id", "annotator_id"
        ),
    ):
        for pk, person in rows:
            if person is not None:
                people[pk].add(person)
    return people


def close_unreachable(answer_sets: Sequence[AnswerSet], project: Project) -> None:
    """Close the open slots that nobody is left to take, so that no round waits for nobody."""
    able: dict[tuple[int, str], set[int]] = {}
    for start in range(0, len(answer_sets), _BATCH):
        some = answer_sets[start : start + _BATCH]
        slots = _locked_slots(some, State.OPEN, SHARED)
        gone = _been_there([one.pk for one in some]) if slots else {}
        closing = [one for one in slots if not _is_reachable(one, gone, able, project)]
        if closing:
            ids = [one.pk for one in closing]
            Slot.objects.filter(pk__in=ids).update(state=State.CLOSED)
            _tell(one.answer_set_id for one in closing)


def _is_reachable(
    slot: Slot,
    gone: Mapping[int, set[int]],
    able: dict[tuple[int, str], set[int]],
    project: Project,
) -> bool:
    """Whether anybody is left for a slot; `able` remembers who may take what, by pool and kind."""
    if slot.reserved_for_id is not None:
        return slot.reserved_for_id not in gone[slot.answer_set_id]
    which = (slot.pool_id, slot.kind)
    if which not in able:
        roles = _DECIDERS if slot.kind == Kind.REVIEW else _ANYBODY
        able[which] = _able(project, slot.pool, roles)
    return bool(able[which] - gone[slot.answer_set_id])


# --- after a skip


def send_on(skipped: Skip, project: Project) -> None:
    """Do with a skipped set what the reason asks for: see `rules.ROUTES`."""
    answer_set, prompt = skipped.answer_set, skipped.answer_set.prompt
    way = rules.route(skipped.reason, said_by=_people_who_say_so(skipped))
    if way == rules.SET_ASIDE:
        close([answer_set])
    elif way == rules.RETIRE:
        retire(prompt, by=None)
    elif way == rules.EXPERT:
        send_to_skill(answer_set=answer_set, skill=rules.expert_skill(prompt.skill))
    close_unreachable([answer_set], project)


def _people_who_say_so(skipped: Skip) -> int:
    """How many people passed on this prompt for this reason and were not answered by an admin."""
    same = Skip.objects.filter(
        answer_set__prompt=skipped.answer_set.prompt_id,
        reason=skipped.reason,
        handled_at__isnull=True,
    )
    return same.values("annotator").distinct().count()


def close(answer_sets: Sequence[AnswerSet]) -> None:
    """Want nothing more on these sets."""
    close_open(answer_sets=answer_sets)
    _tell(one.pk for one in answer_sets)


def retire(prompt: Prompt, *, by: User | None) -> None:
    """Ask nobody about a prompt any more. Its answer sets must be locked."""
    retire_prompt(prompt=prompt, by=by)
    close(list(sets_of(prompt.pk)))


def put_back(answer_set: AnswerSet, project: Project, *, by: User) -> None:
    """Ask others again about a set. The answer sets of its prompt must be locked.

    Its slots return to the pool that the prompt asks for. If the prompt was retired it comes back
    with all its sets.
    """
    prompt, sets = answer_set.prompt, [answer_set]
    if prompt.retired:
        restore_prompt(prompt=prompt, by=by)
        sets = list(sets_of(prompt.pk).select_related("prompt").order_by("pk"))
    for one in sets:
        _to_own_pool(_locked_slots([one], State.OPEN, [Kind.OPINION]), prompt)
        _reopen(one, project)


def _to_own_pool(slots: Sequence[Slot], prompt: Prompt) -> Pool:
    pool, _new = Pool.objects.get_or_create(
        project_id=prompt.project_id, language=prompt.language, skill=prompt.skill
    )
    Slot.objects.filter(pk__in=[one.pk for one in slots]).update(pool=pool)
    return pool


def _reopen(answer_set: AnswerSet, project: Project) -> None:
    """Open the closed slots of a set again, as many as there are people who can still take one."""
    barred = Skip.objects.filter(_UNANSWERED, answer_set=answer_set)
    if barred.exists() or not AnswerSet.objects.filter(STILL_RANKED, pk=answer_set.pk).exists():
        return
    closed = _locked_slots([answer_set], State.CLOSED, [Kind.OPINION])
    pool = _to_own_pool(closed, answer_set.prompt)
    opinions = Slot.objects.filter(answer_set=answer_set, kind=Kind.OPINION)
    left = len(_people_left(answer_set, project, pool))
    room = max(0, left - opinions.filter(state=State.OPEN).count())
    opening = [one.pk for one in closed[:room]]
    Slot.objects.filter(pk__in=opening).update(state=State.OPEN, holder=None)


def set_aside() -> Exists:
    """For a query of slots: an unanswered skip says that nobody may be asked about the set."""
    return Exists(Skip.objects.filter(_UNANSWERED, answer_set=OuterRef("answer_set")))
