"""The set after the one in hand: at most one ahead, and gone when the page is left."""

from __future__ import annotations

import uuid
from datetime import timedelta

import pytest
from django.utils import timezone

from labelhub.accounts.models import User
from labelhub.assignments.actions import claim_ahead, claim_next, release, renew_lease
from labelhub.assignments.models import Slot
from labelhub.lib.errors import Refused
from labelhub.projects.models import Project
from tests.factories import make_answer_set

pytestmark = pytest.mark.django_db
State = Slot.State


@pytest.fixture
def held(project: Project, ann: User) -> Slot:
    """What ann has in hand; two more sets are open."""
    for _ in range(3):
        make_answer_set(project, slots=1)
    return claim_next(project=project, by=ann)


def ahead(slot: Slot, project: Project, by: User) -> Slot | None:
    return claim_ahead(project=project, by=by, slot_id=slot.pk, token=slot.lease_token)


def test_the_next_set_is_held_along_with_the_first(held: Slot, project: Project, ann: User) -> None:
    following = ahead(held, project, ann)
    assert following.answer_set != held.answer_set
    assert set(Slot.objects.filter(state=State.HELD, holder=ann)) == {held, following}


def test_asking_again_gives_the_same(held: Slot, project: Project, ann: User) -> None:
    assert {ahead(held, project, ann).pk for _ in range(3)} == {ahead(held, project, ann).pk}
    assert Slot.objects.filter(state=State.HELD).count() == 2


def test_nothing_comes_after_what_is_ahead(held: Slot, project: Project, ann: User) -> None:
    following = ahead(held, project, ann)
    assert ahead(following, project, ann) is None
    assert Slot.objects.filter(state=State.HELD).count() == 2


def test_while_the_first_is_held_the_next_page_still_shows_it(
    held: Slot, project: Project, ann: User
) -> None:
    ahead(held, project, ann)
    assert claim_next(project=project, by=ann).pk == held.pk


def test_after_the_first_comes_what_was_ahead(held: Slot, project: Project, ann: User) -> None:
    following = ahead(held, project, ann)
    Slot.objects.filter(pk=held.pk).update(state=State.DONE, lease_token=None, lease_until=None)
    after = claim_next(project=project, by=ann)
    assert (after.pk, after.lease_token) == (following.pk, following.lease_token)


def test_leaving_the_page_gives_both_to_others(held: Slot, project: Project, ann: User) -> None:
    ahead(held, project, ann)
    assert release(slot_id=held.pk, token=held.lease_token, by=ann) is True
    assert not Slot.objects.exclude(state=State.OPEN).exists()


def test_giving_back_what_is_ahead_keeps_the_first(held: Slot, project: Project, ann: User) -> None:
    following = ahead(held, project, ann)
    release(slot_id=following.pk, token=following.lease_token, by=ann)
    assert list(Slot.objects.filter(state=State.HELD)) == [held]


def test_the_lease_of_both_is_kept(held: Slot, project: Project, ann: User) -> None:
    following = ahead(held, project, ann)
    Slot.objects.update(lease_until=timezone.now() + timedelta(minutes=1))
    end = renew_lease(slot_id=held.pk, token=held.lease_token, by=ann)
    assert Slot.objects.get(pk=following.pk).lease_until == end
    assert Slot.objects.filter(state=State.OPEN).get().lease_until != end


def test_who_has_nothing_in_hand_gets_nothing_ahead(
    held: Slot, project: Project, ann: User
) -> None:
    release(slot_id=held.pk, token=held.lease_token, by=ann)
    assert ahead(held, project, ann) is None


def test_the_slot_of_another_gives_nothing(
    held: Slot, project: Project, ann: User, ben: User
) -> None:
    for by, token in ((ben, held.lease_token), (ann, uuid.uuid4())):
        with pytest.raises(Refused) as refused:
            claim_ahead(project=project, by=by, slot_id=held.pk, token=token)
        assert refused.value.status == 404


def test_at_the_end_there_is_nothing_ahead(project: Project, ann: User) -> None:
    make_answer_set(project, slots=2)
    assert ahead(claim_next(project=project, by=ann), project, ann) is None
