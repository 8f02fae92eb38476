"""Twenty annotators click at the same moment: no slot is given twice, and none is lost.

Real threads with connections of their own, on a SQLite file; test_postgresql.py runs the same on
PostgreSQL.
"""

from __future__ import annotations

import os
import uuid
from collections import Counter

import pytest
from django.db import connection

from labelhub.accounts.models import User
from labelhub.assignments.actions import (
    assign,
    claim_next,
    claim_review,
    hand_back,
    open_review,
    open_slots,
    release_expired,
    take,
)
from labelhub.assignments.models import Slot
from labelhub.projects.models import Project
from labelhub.prompts.models import AnswerSet
from labelhub.rankings.actions import submit_ranking
from labelhub.rankings.models import Ranking
from tests.factories import hold, make_answer_set, make_project, make_user
from tests.labelhub.race import race, raised

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(180)]

CROWD = 20


@pytest.fixture
def crowd() -> list[User]:
    return [make_user(f"racer{n}") for n in range(CROWD)]


@pytest.fixture
def track(crowd: list[User]) -> Project:
    return make_project("track", annotators=crowd)


def sets_with_slots(project: Project, count: int, overlap: int = 1) -> None:
    answer_sets = [make_answer_set(project, answers=2) for _ in range(count)]
    open_slots(project=project, answer_sets=answer_sets, overlap=overlap)


def rank(slot: Slot, by: User) -> Ranking:
    answers = slot.answer_set.answers.values_list("pk", flat=True)
    return submit_ranking(
        slot_id=slot.pk,
        token=slot.lease_token,
        ranks={pk: place for place, pk in enumerate(answers, start=1)},
        idempotency_key=uuid.uuid4(),
        duration_ms=1000,
        active_ms=1000,
        by=by,
    )


def test_the_race_is_run_on_the_database_that_was_asked_for() -> None:
    if os.environ.get("DATABASE_URL", "").startswith("postgres"):
        assert connection.vendor == "postgresql"
    else:
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA journal_mode")
            assert cursor.fetchone() == ("wal",)


def test_everybody_gets_a_slot_of_their_own(track: Project, crowd: list[User]) -> None:
    sets_with_slots(track, CROWD)
    slots = race(lambda one: claim_next(project=track, by=one), crowd)
    assert raised(slots) == []
    assert len({slot.pk for slot in slots}) == CROWD
    assert {slot.holder_id for slot in Slot.objects.all()} == {one.pk for one in crowd}


def test_seven_slots_go_to_seven_people(track: Project, crowd: list[User]) -> None:
    sets_with_slots(track, 7)
    slots = race(lambda one: claim_next(project=track, by=one), crowd)
    assert raised(slots) == []
    given = [slot.pk for slot in slots if slot is not None]
    assert len(given) == 7
    assert len(set(given)) == 7
    held = Slot.objects.filter(state=Slot.State.HELD)
    assert held.values("holder").distinct().count() == 7


def test_overlap_two_gives_a_set_to_two_people(track: Project, crowd: list[User]) -> None:
    sets_with_slots(track, CROWD // 2, overlap=2)
    slots = race(lambda one: claim_next(project=track, by=one), crowd)
    assert raised(slots) == []
    assert len({slot.pk for slot in slots}) == CROWD
    assert set(Counter(slot.answer_set_id for slot in slots).values()) == {2}


def test_ended_leases_are_taken_over_once_each(track: Project, crowd: list[User]) -> None:
    sets_with_slots(track, CROWD)
    for slot in Slot.objects.all():
        hold(slot, make_user(), minutes=-1)
    slots = race(lambda one: claim_next(project=track, by=one), crowd)
    assert raised(slots) == []
    assert len({slot.pk for slot in slots}) == CROWD
    assert {slot.holder_id for slot in Slot.objects.all()} == {one.pk for one in crowd}


def test_sweeping_up_ended_leases_hinders_nobody(track: Project, crowd: list[User]) -> None:
    sets_with_slots(track, CROWD)
    for slot in Slot.objects.all():
        hold(slot, make_user(), minutes=-1)

    def claim_or_sweep(one: User | None) -> Slot | int | None:
        return release_expired() if one is None else claim_next(project=track, by=one)

    results = race(claim_or_sweep, [*crowd, None, None, None, None])
    assert raised(results) == []
    assert len({slot.pk for slot in results[:CROWD]}) == CROWD


def test_twenty_tabs_of_one_person_show_one_slot(track: Project, crowd: list[User]) -> None:
    sets_with_slots(track, CROWD)
    slots = race(lambda _tab: claim_next(project=track, by=crowd[0]), range(CROWD))
    assert raised(slots) == []
    assert len({(slot.pk, slot.lease_token) for slot in slots}) == 1
    assert Slot.objects.filter(state=Slot.State.HELD).count() == 1


def test_the_crowd_ranks_the_queue_to_its_end(track: Project, crowd: list[User]) -> None:
    sets_with_slots(track, 15, overlap=2)

    def work(one: User) -> int:
        done = 0
        while slot := claim_next(project=track, by=one):
            rank(slot, one)
            done += 1
        return done

    done = race(work, crowd)
    assert raised(done) == []
    assert sum(done) == 30
    assert Slot.objects.filter(state=Slot.State.DONE).count() == 30
    assert Slot.objects.count() == 30
    of_each_set = Counter(Ranking.objects.values_list("answer_set", flat=True))
    assert set(of_each_set.values()) == {2}
    assert not Ranking.objects.filter(late=True).exists()


def test_a_known_set_goes_to_everybody_at_once(track: Project, crowd: list[User]) -> None:
    Project.objects.update(gold_share=1)
    track.refresh_from_db()
    known = make_answer_set(track, answers=2, purpose="gold")
    slots = race(lambda one: claim_next(project=track, by=one), crowd)
    assert raised(slots) == []
    assert {slot.answer_set_id for slot in slots} == {known.pk}
    assert sorted(known.slots.values_list("n", flat=True)) == list(range(CROWD))
    assert {slot.holder_id for slot in known.slots.all()} == {one.pk for one in crowd}


def test_newcomers_at_once_raise_a_set_once(track: Project, crowd: list[User]) -> None:
    Project.objects.update(newcomer_sets=5, shared_overlap=3)
    track.refresh_from_db()
    sets_with_slots(track, CROWD)
    slots = race(lambda one: claim_next(project=track, by=one), crowd)
    assert raised(slots) == []
    assert len({slot.pk for slot in slots}) == CROWD
    of_each_set = Counter(Slot.objects.values_list("answer_set", flat=True))
    assert {of_each_set[slot.answer_set_id] for slot in slots} == {3}
    assert max(of_each_set.values()) == 3


def test_a_review_goes_to_one_reviewer(track: Project, crowd: list[User]) -> None:
    track.memberships.update(role="reviewer")
    answer_set = make_answer_set(track, answers=2)
    reviews = race(lambda _one: open_review(answer_set), crowd)
    assert raised(reviews) == []
    assert len({slot.pk for slot in reviews}) == 1
    slots = race(lambda one: claim_review(project=track, by=one), crowd)
    assert raised(slots) == []
    assert len([slot for slot in slots if slot is not None]) == 1


def test_names_and_wishes_change_while_people_claim(track: Project, crowd: list[User]) -> None:
    sets_with_slots(track, CROWD)
    answer_sets = list(AnswerSet.objects.select_related("prompt"))

    def act(at: int) -> object:
        one = crowd[at % CROWD]
        if at >= CROWD + 6:
            return hand_back(project=track, user=one)
        if at >= CROWD + 3:
            return assign(project=track, answer_sets=answer_sets[:5], to=one, by=one)
        if at >= CROWD:
            return open_slots(project=track, answer_sets=answer_sets, overlap=at - CROWD + 1)
        return claim_next(project=track, by=one)

    results = race(act, range(CROWD + 9))
    assert raised(results) == []
    held = Slot.objects.filter(state=Slot.State.HELD)
    assert held.values("holder").distinct().count() == held.count()
    assert not Slot.objects.filter(state=Slot.State.OPEN, holder__isnull=False).exists()


def test_of_those_who_read_the_same_open_slot_one_takes_it(
    track: Project, crowd: list[User]
) -> None:
    sets_with_slots(track, 1)
    as_read = [(Slot.objects.get(), one) for one in crowd]
    taken = race(lambda pair: take(*pair), as_read)
    assert sorted(taken) == [False] * (CROWD - 1) + [True]
    assert Slot.objects.get().holder == crowd[taken.index(True)]
