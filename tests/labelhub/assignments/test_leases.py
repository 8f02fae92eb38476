"""Keeping, giving back and losing a lease."""

from __future__ import annotations

import uuid
from datetime import timedelta

import pytest
from django.utils import timezone

from labelhub.accounts.models import User
from labelhub.assignments.actions import claim_next, release, release_expired, renew_lease
from labelhub.assignments.models import Slot
from labelhub.lib.errors import Refused
from labelhub.projects.models import Project
from tests.factories import hold, make_answer_set, make_ranking

pytestmark = pytest.mark.django_db
State = Slot.State


@pytest.fixture
def held(project: Project, ann: User) -> Slot:
    """What ann has in hand."""
    make_answer_set(project, slots=1)
    return claim_next(project=project, by=ann)


def run_out(slot: Slot) -> None:
    Slot.objects.filter(pk=slot.pk).update(lease_until=timezone.now() - timedelta(minutes=1))


def test_renewing_starts_the_lease_anew(held: Slot, ann: User) -> None:
    soon = timezone.now() + timedelta(minutes=1)
    Slot.objects.filter(pk=held.pk).update(lease_until=soon)
    end = renew_lease(slot_id=held.pk, token=str(held.lease_token), by=ann)
    assert end > soon + timedelta(minutes=13)
    assert Slot.objects.get().lease_until == end


def test_an_ended_lease_is_renewed_while_nobody_else_has_the_slot(held: Slot, ann: User) -> None:
    run_out(held)
    renew_lease(slot_id=held.pk, token=held.lease_token, by=ann)
    assert Slot.objects.get().lease_until > timezone.now()


def test_a_slot_back_in_the_queue_is_taken_again(held: Slot, ann: User) -> None:
    run_out(held)
    assert release_expired() == 1
    renew_lease(slot_id=held.pk, token=held.lease_token, by=ann)
    slot = Slot.objects.get()
    assert (slot.state, slot.holder, slot.lease_token) == (State.HELD, ann, held.lease_token)


def test_a_slot_that_another_has_cannot_be_renewed(
    held: Slot, project: Project, ann: User, ben: User
) -> None:
    run_out(held)
    assert claim_next(project=project, by=ben).pk == held.pk
    with pytest.raises(Refused, match="your ranking is kept") as refused:
        renew_lease(slot_id=held.pk, token=held.lease_token, by=ann)
    assert refused.value.code == "lease_lost"
    assert Slot.objects.get().holder == ben


def test_an_old_tab_does_not_take_a_second_slot(held: Slot, project: Project, ann: User) -> None:
    run_out(held)
    release_expired()
    Slot.objects.filter(pk=held.pk).update(priority=-1)
    make_answer_set(project, slots=1)
    now_in_hand = claim_next(project=project, by=ann)
    assert now_in_hand.pk != held.pk
    with pytest.raises(Refused):
        renew_lease(slot_id=held.pk, token=held.lease_token, by=ann)
    assert Slot.objects.filter(holder=ann).get() == now_in_hand


def test_an_old_tab_does_not_reopen_what_was_ranked(
    held: Slot, project: Project, ann: User
) -> None:
    run_out(held)
    release_expired()
    make_ranking(held.answer_set, ann)
    with pytest.raises(Refused):
        renew_lease(slot_id=held.pk, token=held.lease_token, by=ann)
    assert Slot.objects.get(pk=held.pk).state == State.OPEN


@pytest.mark.parametrize("token", ["", "no token", str(uuid.UUID(int=7))])
def test_a_false_token_is_refused(held: Slot, ann: User, token: str) -> None:
    with pytest.raises(Refused) as refused:
        renew_lease(slot_id=held.pk, token=token, by=ann)
    assert refused.value.status == 404
    assert release(slot_id=held.pk, token=token, by=ann) is False


def test_the_token_of_another_is_refused(held: Slot, ben: User, mallory: User) -> None:
    before = Slot.objects.get()
    for user in (ben, mallory):
        with pytest.raises(Refused) as refused:
            renew_lease(slot_id=held.pk, token=held.lease_token, by=user)
        assert refused.value.status == 404
        assert release(slot_id=held.pk, token=held.lease_token, by=user) is False
    after = Slot.objects.get()
    assert (after.state, after.lease_until) == (State.HELD, before.lease_until)


def test_a_slot_that_is_not_there_is_refused(held: Slot, ann: User) -> None:
    with pytest.raises(Refused):
        renew_lease(slot_id=held.pk + 1, token=held.lease_token, by=ann)


def test_leaving_the_page_gives_the_slot_to_others(
    held: Slot, project: Project, ann: User, ben: User
) -> None:
    assert release(slot_id=held.pk, token=str(held.lease_token), by=ann) is True
    slot = Slot.objects.get()
    assert (slot.state, slot.holder, slot.lease_token) == (State.OPEN, None, None)
    assert claim_next(project=project, by=ben).pk == held.pk


def test_leaving_twice_does_no_harm(held: Slot, project: Project, ann: User, ben: User) -> None:
    release(slot_id=held.pk, token=held.lease_token, by=ann)
    claim_next(project=project, by=ben)
    assert release(slot_id=held.pk, token=held.lease_token, by=ann) is False
    assert Slot.objects.get().holder == ben


def test_sweeping_reopens_ended_leases_and_no_others(
    held: Slot, project: Project, ben: User
) -> None:
    hold(make_answer_set(project, slots=1).slots.get(), ben, minutes=-1)
    assert release_expired() == 1
    assert release_expired() == 0
    assert Slot.objects.get(pk=held.pk).state == State.HELD
