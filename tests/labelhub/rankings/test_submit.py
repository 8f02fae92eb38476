"""A ranking from the submit to the database: stored once, whole, and never lost."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from labelhub.accounts.models import AuditEntry, User
from labelhub.assignments.actions import claim_next, open_slots, release_expired
from labelhub.assignments.models import Slot
from labelhub.assignments.rules import display_order
from labelhub.lib.errors import Refused
from labelhub.projects.models import Project
from labelhub.rankings.actions import submit_ranking
from labelhub.rankings.models import Ranking
from labelhub.rankings.signals import ranking_submitted
from tests.factories import hold, make_answer_set, make_project, make_slot, make_user

pytestmark = pytest.mark.django_db
State = Slot.State


@pytest.fixture
def held(project: Project, ann: User) -> Slot:
    """What ann has in hand: four answers."""
    make_answer_set(project, slots=1)
    return claim_next(project=project, by=ann)


def answer_ids(slot: Slot) -> list[int]:
    return list(slot.answer_set.answers.order_by("n").values_list("pk", flat=True))


def submit(slot: Slot, by: User, places: tuple[int, ...] = (2, 1, 4, 3), **said: Any) -> Ranking:
    """Submit as the page does; `places` belong to the answers by their number."""
    said.setdefault("ranks", dict(zip(answer_ids(slot), places, strict=True)))
    said.setdefault("token", str(slot.lease_token))
    said.setdefault("idempotency_key", str(uuid.uuid4()))
    said.setdefault("duration_ms", 42_000)
    said.setdefault("active_ms", 40_000)
    return submit_ranking(slot_id=slot.pk, by=by, **said)


def run_out(slot: Slot) -> None:
    Slot.objects.filter(pk=slot.pk).update(lease_until=timezone.now() - timedelta(minutes=1))


def taken_over(slot: Slot, project: Project, by: User) -> Slot:
    """The lease has run out, and `by` has claimed the slot."""
    run_out(slot)
    again = claim_next(project=project, by=by)
    assert again.pk == slot.pk
    return again


# --- what is stored


def test_it_stores_the_order(held: Slot, project: Project, ann: User) -> None:
    ranking = submit(held, ann)
    assert Ranking.objects.get() == ranking
    assert ranking.slot_id == held.pk
    assert (ranking.answer_set, ranking.project) == (held.answer_set, project)
    assert ranking.annotator == ann
    assert (ranking.duration_ms, ranking.active_ms) == (42_000, 40_000)
    assert ranking.late is False
    ranks = dict(ranking.items.values_list("answer__n", "rank"))
    assert ranks == {0: 2, 1: 1, 2: 4, 3: 3}


def test_the_slot_is_done_and_has_no_lease_any_more(held: Slot, ann: User) -> None:
    submit(held, ann)
    slot = Slot.objects.get()
    assert (slot.state, slot.holder) == (State.DONE, ann)
    assert (slot.lease_token, slot.lease_until) == (None, None)


def test_ranks_are_made_dense(held: Slot, ann: User) -> None:
    ranking = submit(held, ann, (9, 2, 9, 40))
    assert dict(ranking.items.values_list("answer__n", "rank")) == {0: 2, 1: 1, 2: 2, 3: 3}


def test_each_answer_keeps_the_place_where_it_was_shown(held: Slot, ann: User) -> None:
    ranking = submit(held, ann)
    shown = display_order(held.pk, ann.pk, answer_ids(held))
    stored = ranking.items.order_by("position").values_list("answer", flat=True)
    assert list(stored) == shown


def test_gaps_stand_with_the_better_of_two_ranks(held: Slot, ann: User) -> None:
    ranking = submit(held, ann, (1, 2, 2, 3), gaps=[3, None])
    gaps = dict(ranking.items.values_list("answer__n", "gap"))
    assert gaps == {0: 3, 1: None, 2: None, 3: None}


def test_it_keeps_the_guidelines_that_held_then(held: Slot, project: Project, ann: User) -> None:
    newer = project.guidelines.create(version=2, text="Prefer the kinder answer.")
    ranking = submit(held, ann)
    project.guidelines.create(version=3, text="Prefer the shorter answer.")
    assert Ranking.objects.get(pk=ranking.pk).guidelines == newer


def test_a_project_without_guidelines_can_be_ranked(ann: User) -> None:
    bare = make_project(annotators=[ann], guidelines="")
    make_answer_set(bare, slots=1)
    assert submit(claim_next(project=bare, by=ann), ann).guidelines is None


def test_rankings_of_simulated_annotators_are_marked() -> None:
    robot = make_user("robot", is_simulated=True)
    project = make_project(annotators=[robot], is_simulated=True)
    make_answer_set(project, slots=1)
    assert submit(claim_next(project=project, by=robot), robot).is_simulated is True


def test_a_clock_that_jumped_refuses_nothing(held: Slot, ann: User) -> None:
    ranking = submit(held, ann, duration_ms=-5, active_ms=10**15)
    assert (ranking.duration_ms, ranking.active_ms) == (0, 0)


def test_it_leaves_a_line_in_the_audit_log(held: Slot, ann: User) -> None:
    ranking = submit(held, ann)
    entry = AuditEntry.objects.get(action="ranking.submit")
    assert (entry.actor_name, entry.target) == ("ann", f"ranking:{ranking.pk}")
    assert entry.details == {"slot": held.pk, "late": False}


def test_others_hear_of_it_after_the_commit(
    held: Slot, project: Project, ann: User, django_capture_on_commit_callbacks: Callable
) -> None:
    heard: list[tuple[int, int]] = []

    def listen(ranking_id: int, project_id: int, **_kwargs: object) -> None:
        heard.append((ranking_id, project_id))

    ranking_submitted.connect(listen)
    try:
        with django_capture_on_commit_callbacks(execute=True):
            ranking = submit(held, ann)
            assert heard == []
    finally:
        ranking_submitted.disconnect(listen)
    assert heard == [(ranking.pk, project.pk)]


def test_a_listener_that_fails_loses_no_ranking(
    held: Slot, ann: User, django_capture_on_commit_callbacks: Callable
) -> None:
    def broken(**_kwargs: object) -> None:
        raise ConnectionError("the broker is gone")

    ranking_submitted.connect(broken)
    try:
        with django_capture_on_commit_callbacks(execute=True):
            submit(held, ann)
    finally:
        ranking_submitted.disconnect(broken)
    assert Ranking.objects.count() == 1


# --- the same again


def test_the_same_submit_again_returns_the_first_ranking(held: Slot, ann: User) -> None:
    key = uuid.uuid4()
    first = submit(held, ann, idempotency_key=key)
    again = submit(held, ann, (1, 2, 3, 4), idempotency_key=str(key))
    assert again == first
    assert Ranking.objects.count() == 1
    assert dict(again.items.values_list("answer__n", "rank")) == {0: 2, 1: 1, 2: 4, 3: 3}
    assert AuditEntry.objects.filter(action="ranking.submit").count() == 1


def test_a_second_tab_cannot_rank_the_set_again(held: Slot, ann: User) -> None:
    first = submit(held, ann)
    with pytest.raises(Refused, match="already") as refused:
        submit(held, ann, (4, 3, 2, 1))
    assert refused.value.code == "already_ranked"
    assert Ranking.objects.get() == first


def test_the_key_of_another_ranking_is_refused(held: Slot, project: Project, ann: User) -> None:
    key = uuid.uuid4()
    submit(held, ann, idempotency_key=key)
    make_answer_set(project, slots=1)
    following = claim_next(project=project, by=ann)
    with pytest.raises(Refused, match="submit key"):
        submit(following, ann, idempotency_key=key)
    assert Ranking.objects.count() == 1


def test_the_key_of_another_person_reveals_nothing(
    held: Slot, project: Project, ann: User, ben: User
) -> None:
    open_slots(project=project, answer_sets=[held.answer_set], overlap=2)
    key = uuid.uuid4()
    submit(held, ann, idempotency_key=key)
    bens = claim_next(project=project, by=ben)
    with pytest.raises(Refused, match="submit key"):
        submit(bens, ben, idempotency_key=key)


def test_a_submit_without_a_key_is_refused(held: Slot, ann: User) -> None:
    with pytest.raises(Refused, match="load it again"):
        submit(held, ann, idempotency_key="")


# --- late, but honest


def test_a_late_ranking_is_kept_and_marked(held: Slot, ann: User) -> None:
    run_out(held)
    ranking = submit(held, ann)
    assert ranking.late is True
    assert Slot.objects.get().state == State.DONE


def test_a_ranking_after_the_slot_went_back_is_kept(held: Slot, ann: User) -> None:
    run_out(held)
    release_expired()
    ranking = submit(held, ann)
    assert (ranking.late, ranking.slot_id) == (True, held.pk)


def test_both_are_kept_when_another_took_over(
    held: Slot, project: Project, ann: User, ben: User
) -> None:
    bens_slot = taken_over(held, project, by=ben)
    anns = submit(held, ann)
    bens = submit(bens_slot, ben)
    assert (anns.late, bens.late) == (True, False)
    assert bens.slot_id == held.pk
    assert (anns.slot.n, anns.slot.state, anns.slot.holder) == (1, State.DONE, ann)
    assert set(held.answer_set.rankings.all()) == {anns, bens}


def test_both_are_kept_when_another_was_faster(
    held: Slot, project: Project, ann: User, ben: User
) -> None:
    bens = submit(taken_over(held, project, by=ben), ben)
    anns = submit(held, ann)
    assert (anns.late, bens.late) == (True, False)
    assert anns.slot_id != bens.slot_id


def test_late_work_keeps_the_places_of_the_page_that_was_open(
    held: Slot, project: Project, ann: User, ben: User
) -> None:
    taken_over(held, project, by=ben)
    anns = submit(held, ann)
    shown = display_order(held.pk, ann.pk, answer_ids(held))
    assert list(anns.items.order_by("position").values_list("answer", flat=True)) == shown


def test_late_work_fills_an_open_slot_before_one_is_added(
    held: Slot, project: Project, ann: User, ben: User
) -> None:
    taken_over(held, project, by=ben)
    open_slots(project=project, answer_sets=[held.answer_set], overlap=2)
    anns = submit(held, ann)
    assert anns.slot.n == 1
    assert Slot.objects.count() == 2


def test_late_work_fills_the_slot_that_the_person_holds_by_now(
    held: Slot, project: Project, ann: User, ben: User
) -> None:
    open_slots(project=project, answer_sets=[held.answer_set], overlap=2)
    Slot.objects.filter(n=1).update(priority=-1)
    taken_over(held, project, by=ben)
    second = claim_next(project=project, by=ann)
    assert (second.answer_set, second.n) == (held.answer_set, 1)
    anns = submit(held, ann)
    assert anns.slot == second
    assert anns.late is False  # her lease on the set lives, only the tab is the old one
    assert Slot.objects.count() == 2


def test_work_on_a_slot_that_was_closed_meanwhile_is_kept(held: Slot, ann: User) -> None:
    Slot.objects.update(state=State.CLOSED, holder=None, lease_token=None, lease_until=None)
    assert submit(held, ann).late is True


# --- what is refused


@pytest.mark.parametrize(
    ("given", "sentence"),
    [(3, "1 answer has no place yet"), (1, "3 answers have no place yet")],
)
def test_a_half_filled_ranking_says_how_many_are_missing(
    held: Slot, ann: User, given: int, sentence: str
) -> None:
    ids = answer_ids(held)
    with pytest.raises(Refused, match=sentence) as refused:
        submit(held, ann, ranks=dict.fromkeys(ids[:given], 1))
    assert "nothing is lost" in refused.value.message
    assert refused.value.details == {"missing": ids[given:]}
    slot = Slot.objects.get()
    assert (slot.state, slot.holder, slot.lease_token) == (State.HELD, ann, held.lease_token)
    assert submit(held, ann).late is False


@pytest.mark.parametrize("rank", [0, -1, 1.5, "2", None, True])
def test_a_place_must_be_a_whole_number_from_one(held: Slot, ann: User, rank: object) -> None:
    ranks = dict.fromkeys(answer_ids(held), 1) | {answer_ids(held)[0]: rank}
    with pytest.raises(Refused, match="whole number from 1") as refused:
        submit(held, ann, ranks=ranks)
    assert refused.value.status == 400
    assert not Ranking.objects.exists()


def test_an_answer_of_another_set_is_refused(held: Slot, project: Project, ann: User) -> None:
    stranger = make_answer_set(project).answers.first()
    ranks = dict.fromkeys([*answer_ids(held), stranger.pk], 1)
    with pytest.raises(Refused, match="not among these"):
        submit(held, ann, ranks=ranks)


@pytest.mark.parametrize("gaps", [[1], [1, 2, 3, 1], [1, 2, 4], [0, 1, 2], [1, 2, "much"]])
def test_gaps_must_fit_the_steps(held: Slot, ann: User, gaps: list) -> None:
    with pytest.raises(Refused, match="gap from 1 to 3"):
        submit(held, ann, (1, 2, 3, 4), gaps=gaps)


def test_texts_must_be_those_that_were_shown(held: Slot, ann: User) -> None:
    shown = dict(held.answer_set.answers.values_list("pk", "sha256"))
    one = answer_ids(held)[0]
    for texts in (shown | {one: "0" * 64}, {one: shown[one]}):
        with pytest.raises(Refused, match="other texts") as refused:
            submit(held, ann, sha256=texts)
        assert refused.value.code == "other_text"
    assert submit(held, ann, sha256=shown).pk


@pytest.mark.parametrize("token", ["", "no token", str(uuid.UUID(int=7))])
def test_a_false_token_is_refused(held: Slot, ann: User, token: str) -> None:
    with pytest.raises(Refused) as refused:
        submit(held, ann, token=token)
    assert refused.value.status == 404


def test_the_slot_of_another_is_refused(held: Slot, ben: User, mallory: User) -> None:
    for user in (ben, mallory):
        with pytest.raises(Refused) as refused:
            submit(held, user)
        assert refused.value.status == 404
    assert not Ranking.objects.exists()
    assert Slot.objects.get().state == State.HELD


def test_the_token_of_another_slot_is_refused(held: Slot, project: Project, ann: User) -> None:
    elsewhere = make_slot(make_answer_set(project))
    with pytest.raises(Refused) as refused:
        submit(elsewhere, ann, token=held.lease_token)
    assert refused.value.status == 404


def test_a_slot_that_is_not_there_is_refused(held: Slot, ann: User) -> None:
    Slot.objects.filter(pk=held.pk).delete()
    with pytest.raises(Refused):
        submit(held, ann)


def test_who_left_the_project_is_refused(held: Slot, project: Project, ann: User) -> None:
    project.memberships.filter(user=ann).delete()
    with pytest.raises(Refused) as refused:
        submit(held, ann)
    assert refused.value.status == 404


def test_a_lease_may_be_held_to_its_last_second(project: Project, ann: User) -> None:
    slot = hold(make_answer_set(project, slots=1).slots.get(), ann, minutes=0.05)
    assert submit(slot, ann).late is False
