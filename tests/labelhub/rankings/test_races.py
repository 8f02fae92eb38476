"""Submits that arrive at the same moment, from real threads; also run on PostgreSQL."""

from __future__ import annotations

import uuid
from datetime import timedelta

import pytest
from django.utils import timezone

from labelhub.accounts.models import User
from labelhub.assignments.actions import claim_next
from labelhub.assignments.models import Slot
from labelhub.lib.errors import Refused
from labelhub.projects.models import Project
from labelhub.rankings.actions import skip, submit_ranking
from labelhub.rankings.models import Ranking
from labelhub.rankings.signals import ranking_submitted
from tests.factories import make_answer_set, make_project, make_user
from tests.labelhub.race import race, raised

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(180)]

CLICKS = 20


@pytest.fixture
def held(project: Project, ann: User) -> Slot:
    make_answer_set(project, slots=1)
    return claim_next(project=project, by=ann)


def submit(slot: Slot, by: User, key: uuid.UUID) -> int:
    """The id of the ranking that a submit stores or recognises."""
    answers = slot.answer_set.answers.values_list("pk", flat=True)
    return submit_ranking(
        slot_id=slot.pk,
        token=slot.lease_token,
        ranks={pk: place for place, pk in enumerate(answers, start=1)},
        idempotency_key=key,
        duration_ms=1000,
        active_ms=1000,
        by=by,
    ).pk


def test_twenty_clicks_on_submit_store_one_ranking(held: Slot, ann: User) -> None:
    heard: list[int] = []

    def listen(ranking_id: int, **_kwargs: object) -> None:
        heard.append(ranking_id)

    key = uuid.uuid4()
    ranking_submitted.connect(listen)
    try:
        ids = race(lambda _click: submit(held, ann, key), range(CLICKS))
    finally:
        ranking_submitted.disconnect(listen)
    assert raised(ids) == []
    stored = Ranking.objects.get()
    assert set(ids) == {stored.pk}
    assert heard == [stored.pk]
    assert stored.items.count() == 4


def test_twenty_tabs_store_one_ranking_and_the_others_hear_so(held: Slot, ann: User) -> None:
    results = race(lambda _tab: submit(held, ann, uuid.uuid4()), range(CLICKS))
    refusals = raised(results)
    assert len(refusals) == CLICKS - 1
    assert {getattr(one, "code", repr(one)) for one in refusals} == {"already_ranked"}
    assert Ranking.objects.count() == 1
    assert Slot.objects.count() == 1


def test_late_and_timely_work_at_the_same_moment_are_both_kept() -> None:
    crowd = [make_user(f"racer{n}") for n in range(CLICKS)]
    project = make_project("track", annotators=crowd)
    answer_set = make_answer_set(project, slots=1)
    claims = []
    for one in crowd:
        Slot.objects.filter(state="held").update(lease_until=timezone.now() - timedelta(minutes=1))
        claims.append((claim_next(project=project, by=one), one))
    assert {slot.pk for slot, _one in claims} == {answer_set.slots.get().pk}

    ids = race(lambda claim: submit(*claim, uuid.uuid4()), claims)
    assert raised(ids) == []
    assert len(set(ids)) == CLICKS
    # The last one's lease lives, and late work that comes first does not take the slot from it.
    assert Ranking.objects.get(late=False).annotator == crowd[-1]
    numbers = Ranking.objects.order_by("slot__n").values_list("slot__n", flat=True)
    assert list(numbers) == list(range(CLICKS))


def test_submit_and_skip_at_the_same_moment_end_in_one_of_them(held: Slot, ann: User) -> None:
    def click(button: str) -> object:
        if button == "submit":
            return submit(held, ann, uuid.uuid4())
        return skip(slot_id=held.pk, token=held.lease_token, reason="other", note="", by=ann)

    results = race(click, ["submit", "skip"])
    # Skipping first and submitting then keeps the ranking, since work is never thrown away.
    assert Ranking.objects.count() == 1
    assert all(isinstance(one, Refused) for one in raised(results))
    assert Slot.objects.get().state == "done"
