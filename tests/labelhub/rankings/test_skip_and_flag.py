"""Passing on an answer set, and telling the admins about one answer."""

from __future__ import annotations

import uuid
from datetime import timedelta

import pytest
from django.utils import timezone

from labelhub.accounts.models import AuditEntry, User
from labelhub.assignments.actions import claim_next
from labelhub.assignments.models import Slot
from labelhub.lib.errors import Refused
from labelhub.projects.models import Project
from labelhub.rankings.actions import flag_answer, handle_flag, skip
from labelhub.rankings.models import Flag, Skip
from labelhub.rankings.queries import flags_in, harmful_skips
from tests.factories import make_answer_set, make_ranking

pytestmark = pytest.mark.django_db


@pytest.fixture
def held(project: Project, ann: User) -> Slot:
    make_answer_set(project, slots=1)
    return claim_next(project=project, by=ann)


def pass_on(slot: Slot, by: User, reason: str = "unclear", note: str = "", **said: object) -> Skip:
    token = said.get("token", str(slot.lease_token))
    return skip(slot_id=slot.pk, token=token, reason=reason, note=note, by=by)


def test_it_keeps_who_skipped_what_and_why(held: Slot, ann: User) -> None:
    skipped = pass_on(held, ann, "expert", "  About tax law.  ")
    assert Skip.objects.get() == skipped
    assert (skipped.slot, skipped.answer_set, skipped.annotator) == (held, held.answer_set, ann)
    assert (skipped.reason, skipped.note) == ("expert", "About tax law.")


def test_the_slot_goes_to_others_and_never_back(
    held: Slot, project: Project, ann: User, ben: User
) -> None:
    pass_on(held, ann)
    assert claim_next(project=project, by=ann) is None
    assert claim_next(project=project, by=ben).pk == held.pk


def test_skipping_twice_keeps_the_first_reason(held: Slot, ann: User) -> None:
    first = pass_on(held, ann, "unclear")
    assert pass_on(held, ann, "other") == first
    assert Skip.objects.get().reason == "unclear"
    assert AuditEntry.objects.filter(action="slot.skip").count() == 1


def test_a_late_skip_takes_the_slot_from_nobody(
    held: Slot, project: Project, ann: User, ben: User
) -> None:
    Slot.objects.update(lease_until=timezone.now() - timedelta(minutes=1))
    claim_next(project=project, by=ben)
    pass_on(held, ann)
    assert Slot.objects.get().holder == ben
    assert Skip.objects.get().annotator == ann


def test_a_harmful_set_is_reported(held: Slot, project: Project, ann: User) -> None:
    skipped = pass_on(held, ann, "harmful", "Names a private person.")
    assert list(harmful_skips(project)) == [skipped]
    entry = AuditEntry.objects.get(action="answers.report_harmful")
    assert entry.details == {"answer_set": held.answer_set_id, "reason": "harmful"}


def test_other_reasons_are_no_report(held: Slot, project: Project, ann: User) -> None:
    pass_on(held, ann, "language")
    assert list(harmful_skips(project)) == []
    assert AuditEntry.objects.filter(action="slot.skip").count() == 1


@pytest.mark.parametrize("reason", ["", "bored"])
def test_an_unknown_reason_is_refused(held: Slot, ann: User, reason: str) -> None:
    with pytest.raises(Refused, match="Choose one of the reasons"):
        pass_on(held, ann, reason)
    assert Slot.objects.get().state == Slot.State.HELD


def test_what_was_ranked_cannot_be_skipped(held: Slot, project: Project, ann: User) -> None:
    Slot.objects.update(state="open", holder=None, lease_token=None)
    make_ranking(held.answer_set, ann)
    with pytest.raises(Refused, match="ranked these answers already"):
        pass_on(held, ann)


def test_the_slot_of_another_cannot_be_skipped(held: Slot, ben: User, mallory: User) -> None:
    for user, token in ((ben, held.lease_token), (mallory, held.lease_token), (ben, uuid.uuid4())):
        with pytest.raises(Refused) as refused:
            pass_on(held, user, token=token)
        assert refused.value.status == 404
    assert not Skip.objects.exists()


def test_a_long_note_is_cut_and_not_refused(held: Slot, ann: User) -> None:
    assert pass_on(held, ann, note="a\x00" + "b" * 600).note == "a" + "b" * 499


# --- flags


def test_a_flag_reaches_the_admins(held: Slot, project: Project, ann: User) -> None:
    answer = held.answer_set.answers.first()
    flag = flag_answer(answer=answer, note="Gives a phone number.", by=ann)
    assert list(flags_in(project)) == [flag]
    assert AuditEntry.objects.get(action="answer.flag").target == f"answer:{answer.pk}"


def test_flagging_again_replaces_the_note(held: Slot, ann: User) -> None:
    answer = held.answer_set.answers.first()
    flag_answer(answer=answer, note="Rude.", by=ann)
    flag_answer(answer=answer, note="Rude, and wrong.", by=ann)
    assert Flag.objects.get().note == "Rude, and wrong."


def test_a_flag_is_handled_once(held: Slot, ann: User, ada: User) -> None:
    flag = flag_answer(answer=held.answer_set.answers.first(), note="Rude.", by=ann)
    moment = handle_flag(flag=flag, by=ada).handled_at
    assert moment is not None
    assert handle_flag(flag=flag, by=ada).handled_at == moment
    entry = AuditEntry.objects.get(action="flag.handle")
    assert (entry.actor_name, entry.target) == ("ada", f"flag:{flag.pk}")


def test_flagging_again_asks_the_admins_again(held: Slot, ann: User, ada: User) -> None:
    answer = held.answer_set.answers.first()
    handle_flag(flag=flag_answer(answer=answer, note="Rude.", by=ann), by=ada)
    assert flag_answer(answer=answer, note="Still there.", by=ann).handled_at is None


def test_a_stranger_flags_nothing(held: Slot, mallory: User) -> None:
    with pytest.raises(Refused) as refused:
        flag_answer(answer=held.answer_set.answers.first(), note="", by=mallory)
    assert refused.value.status == 404
    assert not Flag.objects.exists()
