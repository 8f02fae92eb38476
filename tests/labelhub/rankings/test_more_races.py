"""Corrections, skips, snapshots and deletions that meet at the same moment, from real threads."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable

import pytest

from labelhub.accounts.models import User
from labelhub.assignments.actions import claim_next
from labelhub.assignments.models import Slot
from labelhub.lib.errors import Refused
from labelhub.projects.models import Project
from labelhub.prompts.models import Prompt
from labelhub.rankings.actions import flag_answer, forget_person, skip
from labelhub.rankings.models import Flag, Ranking, Skip
from labelhub.rankings.queries import export_lines, usable_rankings
from labelhub.runs.actions import take_snapshot
from labelhub.runs.queries import snapshot_lines
from tests.factories import make_answer_set, make_project, make_user
from tests.labelhub.race import race, raised
from tests.labelhub.rankings.desk import (
    BEST_FIRST,
    WORST_FIRST,
    correct,
    places_in,
    rank,
    states,
    submit,
    take,
)

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(180)]

CLICKS = 12


def codes(results: list[object]) -> set[str]:
    """The codes of the refusals; whatever else was raised stands there as it is."""
    return {getattr(one, "code", repr(one)) for one in raised(results)}


def doing(*some: Callable[[], object]) -> list[object]:
    """Do these at the same moment."""
    return race(lambda do: do(), some)


# --- corrections


def test_of_two_corrections_at_once_one_stands_and_the_other_hears_so(
    project: Project, ann: User
) -> None:
    ranking = rank(make_answer_set(project, slots=1), ann)
    orders = [(1, 1, 2, 2), WORST_FIRST] * (CLICKS // 2)
    results = race(lambda order: correct(ranking, ann, order), orders)
    assert codes(results) == {"changed"}
    assert len(raised(results)) == CLICKS - 1
    ranking.refresh_from_db()
    assert (ranking.revision, ranking.revisions.count()) == (2, 1)
    (winner,) = (one for one in results if isinstance(one, Ranking))
    assert places_in(ranking) == orders[results.index(winner)]


def test_the_same_correction_sent_many_times_is_one(project: Project, ann: User) -> None:
    ranking, key = rank(make_answer_set(project, slots=1), ann), uuid.uuid4()
    results = race(
        lambda _click: correct(ranking, ann, WORST_FIRST, idempotency_key=key), range(CLICKS)
    )
    assert raised(results) == []
    ranking.refresh_from_db()
    assert (ranking.revision, ranking.revisions.count()) == (2, 1)


def test_a_snapshot_holds_what_stands_whichever_came_first(project: Project, ann: User) -> None:
    rankings = [rank(make_answer_set(project, slots=1), ann) for _ in range(6)]

    def snapshot() -> object:
        return take_snapshot(project=project, rankings=usable_rankings(project), by=None)

    corrections = [lambda one=one: correct(one, ann, WORST_FIRST) for one in rankings]
    taken, *results = doing(snapshot, *corrections)
    assert not isinstance(taken, Exception)
    assert codes(results) <= {"frozen"}
    # What was corrected was so before it was read, and nothing was afterwards.
    lines = list(snapshot_lines(taken))
    assert lines == list(export_lines(Ranking.objects.all()))
    for one, result in zip(rankings, results, strict=True):
        stored = Ranking.objects.get(pk=one.pk)
        corrected = not isinstance(result, Exception)
        assert places_in(stored) == (WORST_FIRST if corrected else BEST_FIRST)
        assert stored.frozen_at is not None


# --- skips


@pytest.mark.parametrize("reason", ["unclear", "expert", "harmful", "other"])
def test_a_skip_and_a_submit_at_once_end_in_a_ranking(
    project: Project, ann: User, reason: str
) -> None:
    answer_set = make_answer_set(project, slots=2)
    held = claim_next(project=project, by=ann)
    results = doing(
        lambda: submit(held, ann),
        lambda: skip(slot_id=held.pk, token=held.lease_token, reason=reason, note="", by=ann),
    )
    # Skipping first and submitting then keeps the ranking, since work is never thrown away.
    assert codes(results) <= {"already_ranked"}
    ranking = Ranking.objects.get()
    assert (ranking.slot.state, ranking.slot.holder) == ("done", ann)
    assert Skip.objects.count() == 2 - 1 - len(raised(results))
    assert states(answer_set).count("held") == 0


def test_two_who_find_a_prompt_unclear_at_once_retire_it(project: Project) -> None:
    crowd = [make_user(f"racer{n}") for n in range(6)]
    track = make_project("track", annotators=crowd)
    first = make_answer_set(track)
    sets = [first, *(make_answer_set(track, prompt=first.prompt) for _ in range(2))]
    slots = [take(sets[n % 3], one) for n, one in enumerate(crowd)]
    results = race(
        lambda n: skip(
            slot_id=slots[n].pk,
            token=slots[n].lease_token,
            reason="unclear",
            note="",
            by=crowd[n],
        ),
        range(6),
    )
    assert raised(results) == []
    assert Prompt.objects.get(pk=first.prompt_id).retired is True
    assert Skip.objects.count() == 6
    assert [state for one in sets for state in states(one)] == ["closed"] * 6


def test_skips_rankings_and_claims_end_without_a_slot_for_nobody() -> None:
    crowd = [make_user(f"racer{n}") for n in range(8)]
    track = make_project("track", annotators=crowd)
    sets = [make_answer_set(track, slots=3) for _ in range(4)]
    ways = ["unclear", "other", "submit", "submit", "expert", "submit", "fault", "submit"]

    def work(n: int) -> int:
        done = 0
        while slot := claim_next(project=track, by=crowd[n]):
            if ways[n] == "submit":
                submit(slot, crowd[n])
            else:
                skip(
                    slot_id=slot.pk,
                    token=slot.lease_token,
                    reason=ways[n],
                    note="",
                    by=crowd[n],
                )
            done += 1
        return done

    results = race(work, range(8))
    assert raised(results) == []
    for one in sets:
        assert set(states(one)) <= {"done", "closed", "open"}
        rankings = one.rankings.count()
        assert rankings == states(one).count("done")
        assert one.skips.count() + rankings <= len(crowd)
    open_now = Slot.objects.filter(state="open", answer_set__prompt__retired=False)
    for slot in open_now:  # somebody is left for each: only experts may be missing
        assert slot.pool.skill == "expert" or slot.answer_set.skips.count() < len(crowd)


# --- forgetting


def test_who_is_forgotten_while_submitting_leaves_nothing_or_one_whole_ranking(
    project: Project, ann: User
) -> None:
    answer_set = make_answer_set(project, slots=1)
    held = claim_next(project=project, by=ann)
    forgotten, submitted = doing(
        lambda: forget_person(project=project, user=ann, by=None), lambda: submit(held, ann)
    )
    assert codes([forgotten, submitted]) == set()
    stored = Ranking.objects.first()
    assert forgotten.rankings == (0 if stored else 1)  # type: ignore[union-attr]
    if stored is None:
        assert states(answer_set) == ["open"]
    else:
        assert (stored.items.count(), states(answer_set)) == (4, ["done"])


def test_who_left_and_is_forgotten_leaves_nothing(project: Project, ann: User) -> None:
    sets = [make_answer_set(project, slots=1) for _ in range(6)]
    slots = [take(one, ann) for one in sets]
    left = threading.Event()

    def leave() -> object:
        project.memberships.filter(user=ann).delete()
        left.set()
        return forget_person(project=project, user=ann, by=None)

    submits = [lambda slot=slot: submit(slot, ann) for slot in slots]
    forgotten, *results = doing(leave, *submits)
    assert not isinstance(forgotten, Exception)
    assert all(isinstance(one, Refused) and one.status == 404 for one in raised(results))
    assert not Ranking.objects.exists()
    assert not Slot.objects.filter(holder=ann).exists()
    assert [state for one in sets for state in states(one)] == ["open"] * 6


def test_flags_of_many_tabs_are_one(project: Project, ann: User) -> None:
    answer = make_answer_set(project).answers.first()
    results = race(lambda n: flag_answer(answer=answer, note=f"Tab {n}", by=ann), range(CLICKS))
    assert raised(results) == []
    assert Flag.objects.count() == 1
