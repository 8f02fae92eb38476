"""Which slot comes next, and for whom."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.http import Http404
from django.utils import timezone

from labelhub.accounts.models import User
from labelhub.assignments import queries
from labelhub.assignments.actions import claim_next, open_slots
from labelhub.assignments.models import Slot
from labelhub.assignments.queries import (
    get_own_slot_or_404,
    project_counts,
    queue_counts,
)
from labelhub.lib.errors import Refused
from labelhub.projects.models import Project
from labelhub.rankings.models import Skip
from tests.factories import (
    hold,
    make_answer_set,
    make_project,
    make_ranking,
    make_slot,
    make_user,
)
from tests.labelhub.assignments.chance import StartAt

pytestmark = pytest.mark.django_db
State = Slot.State


def test_it_gives_the_next_slot_with_a_lease(project: Project, ann: User) -> None:
    answer_set = make_answer_set(project, slots=1)
    before = timezone.now()
    slot = claim_next(project=project, by=ann)
    assert slot is not None
    stored = Slot.objects.get()
    assert stored.answer_set == answer_set
    assert (stored.state, stored.holder) == (State.HELD, ann)
    assert stored.lease_token == slot.lease_token
    quarter = timedelta(minutes=15)
    assert before + quarter <= stored.lease_until <= timezone.now() + quarter


def test_higher_priority_goes_first_then_the_shuffle(project: Project) -> None:
    answer_set = make_answer_set(project)
    places = [(0.5, 3), (2.0, 9), (0.5, 1), (2.0, 4)]
    for priority, shuffle in places:
        make_slot(answer_set, priority=priority, shuffle=shuffle)
    order = []
    for _ in places:
        annotator = make_user()
        project.memberships.create(user=annotator, role="annotator")
        slot = claim_next(project=project, by=annotator, rng=StartAt(0))
        order.append((slot.priority, slot.shuffle))
    assert order == [(2.0, 4), (2.0, 9), (0.5, 1), (0.5, 3)]


def test_inside_a_band_it_starts_somewhere_and_goes_round(project: Project) -> None:
    for shuffle in (10, 20, 30):
        make_slot(make_answer_set(project), priority=2.0, shuffle=shuffle)
    make_slot(make_answer_set(project), priority=1.0, shuffle=25)
    given = []
    for start in (15, 25, 25, 25):
        annotator = make_user()
        project.memberships.create(user=annotator, role="annotator")
        slot = claim_next(project=project, by=annotator, rng=StartAt(start))
        given.append((slot.priority, slot.shuffle))
    # From 15 on the next is 20; from 25 it is 30; then, past the end, 10; then the lower band.
    assert given == [(2.0, 20), (2.0, 30), (2.0, 10), (1.0, 25)]


def test_two_tabs_of_one_person_show_the_same_slot(project: Project, ann: User) -> None:
    make_answer_set(project, slots=1)
    make_answer_set(project, slots=1)
    first = claim_next(project=project, by=ann)
    Slot.objects.filter(pk=first.pk).update(lease_until=timezone.now() + timedelta(minutes=2))
    second = claim_next(project=project, by=ann)
    assert (second.pk, second.lease_token) == (first.pk, first.lease_token)
    assert second.lease_until > timezone.now() + timedelta(minutes=14)
    assert Slot.objects.filter(state=State.HELD).count() == 1


def test_who_comes_back_to_an_ended_lease_gets_the_same_slot(project: Project, ann: User) -> None:
    make_answer_set(project, slots=1)
    slot = hold(make_answer_set(project, slots=1).slots.get(), ann, minutes=-30)
    again = claim_next(project=project, by=ann)
    assert (again.pk, again.lease_token) == (slot.pk, slot.lease_token)


def test_a_living_lease_of_another_is_left_alone(project: Project, ann: User, ben: User) -> None:
    hold(make_answer_set(project, slots=1).slots.get(), ann)
    assert claim_next(project=project, by=ben) is None


def test_an_ended_lease_of_another_is_taken_over(project: Project, ann: User, ben: User) -> None:
    old = hold(make_answer_set(project, slots=1).slots.get(), ann, minutes=-1)
    slot = claim_next(project=project, by=ben)
    assert slot.pk == old.pk
    assert slot.holder == ben
    assert slot.lease_token != old.lease_token


def test_an_ended_lease_keeps_its_place_in_the_queue(
    project: Project, ann: User, ben: User
) -> None:
    answer_set = make_answer_set(project)
    make_slot(make_answer_set(project), priority=1.0)
    urgent = make_slot(answer_set, priority=5.0)
    hold(urgent, ann, minutes=-1)
    assert claim_next(project=project, by=ben).pk == urgent.pk


def test_overlap_two_asks_two_people(project: Project, ann: User, ben: User) -> None:
    answer_set = make_answer_set(project)
    open_slots(project=project, answer_sets=[answer_set], overlap=2)
    anns, bens = claim_next(project=project, by=ann), claim_next(project=project, by=ben)
    assert anns.pk != bens.pk
    assert anns.answer_set == bens.answer_set == answer_set


def test_nobody_gets_a_set_again(project: Project, ann: User) -> None:
    ranked = make_answer_set(project, slots=1)
    make_ranking(ranked, ann)
    skipped = make_answer_set(project, slots=1)
    Skip.objects.create(
        slot=skipped.slots.get(), answer_set=skipped, annotator=ann, reason="unclear"
    )
    assert claim_next(project=project, by=ann) is None


def test_a_set_that_one_skipped_goes_to_another(project: Project, ann: User, ben: User) -> None:
    skipped = make_answer_set(project, slots=1)
    Skip.objects.create(
        slot=skipped.slots.get(), answer_set=skipped, annotator=ann, reason="expert"
    )
    assert claim_next(project=project, by=ben).answer_set == skipped


@pytest.mark.parametrize("state", [State.DONE, State.CLOSED])
def test_done_and_closed_slots_stay_away(project: Project, ann: User, state: str) -> None:
    make_slot(make_answer_set(project), state=state)
    assert claim_next(project=project, by=ann) is None


def test_retired_prompts_stay_away(project: Project, ann: User) -> None:
    answer_set = make_answer_set(project, slots=1)
    answer_set.prompt.retired = True
    answer_set.prompt.save()
    assert claim_next(project=project, by=ann) is None


def test_other_projects_stay_away(project: Project, ann: User) -> None:
    make_answer_set(make_project(annotators=[ann]), slots=1)
    assert claim_next(project=project, by=ann) is None


def test_a_paused_project_gives_nothing_new(project: Project, ann: User, ben: User) -> None:
    make_answer_set(project, slots=2)
    held = claim_next(project=project, by=ann)
    project.paused = True
    project.save()
    assert claim_next(project=project, by=ben) is None
    assert claim_next(project=project, by=ann).pk == held.pk


def test_people_are_not_asked_what_simulated_annotators_rank(ann: User) -> None:
    robot = make_user("robot", is_simulated=True)
    demo = make_project(annotators=[ann, robot], is_simulated=True)
    make_answer_set(demo, slots=1)
    assert claim_next(project=demo, by=ann) is None
    assert claim_next(project=demo, by=robot) is not None


def test_it_refuses_a_stranger(project: Project, mallory: User) -> None:
    make_answer_set(project, slots=1)
    with pytest.raises(Refused) as refused:
        claim_next(project=project, by=mallory)
    assert refused.value.status == 404
    assert Slot.objects.get().state == State.OPEN


def test_an_admin_may_rank_too(project: Project, ada: User) -> None:
    make_answer_set(project, slots=1)
    assert claim_next(project=project, by=ada) is not None


# --- how many slots


def test_opening_again_adds_nothing(project: Project) -> None:
    sets = [make_answer_set(project) for _ in range(3)]
    assert len(open_slots(project=project, answer_sets=sets, overlap=2)) == 6
    assert len(open_slots(project=project, answer_sets=sets, overlap=2)) == 6
    assert Slot.objects.count() == 6


def test_raising_the_overlap_adds_slots(project: Project, ann: User) -> None:
    answer_set = make_answer_set(project)
    open_slots(project=project, answer_sets=[answer_set], overlap=1)
    claim_next(project=project, by=ann)
    open_slots(project=project, answer_sets=[answer_set], overlap=3)
    assert list(Slot.objects.order_by("n").values_list("n", "state")) == [
        (0, State.HELD),
        (1, State.OPEN),
        (2, State.OPEN),
    ]


def test_lowering_the_overlap_takes_nothing_from_anybody(project: Project, ann: User) -> None:
    answer_set = make_answer_set(project)
    open_slots(project=project, answer_sets=[answer_set], overlap=3)
    held = claim_next(project=project, by=ann)
    assert open_slots(project=project, answer_sets=[answer_set], overlap=1) == []
    states = dict(Slot.objects.values_list("pk", "state"))
    assert states.pop(held.pk) == State.HELD
    assert set(states.values()) == {State.CLOSED}


def test_raising_it_after_lowering_opens_as_many_as_are_missing(project: Project) -> None:
    answer_set = make_answer_set(project)
    for overlap, wanted in ((3, 3), (1, 1), (2, 2)):
        opened = open_slots(project=project, answer_sets=[answer_set], overlap=overlap)
        assert len(opened) == wanted


def test_an_overlap_of_none_is_refused(project: Project) -> None:
    with pytest.raises(Refused, match="At least one opinion"):
        open_slots(project=project, answer_sets=[make_answer_set(project)], overlap=0)


# --- whose slot, and how many are left


def test_ones_own_slot_is_found(project: Project, ann: User) -> None:
    slot = hold(make_answer_set(project, slots=1).slots.get(), ann, minutes=-1)
    assert get_own_slot_or_404(ann, slot.pk) == slot


def test_the_slot_of_another_is_not_found(project: Project, ann: User, ben: User) -> None:
    slot = hold(make_answer_set(project, slots=1).slots.get(), ann)
    for user, pk in ((ben, slot.pk), (ann, slot.pk + 1)):
        with pytest.raises(Http404):
            get_own_slot_or_404(user, pk)


def test_the_counts_add_up(project: Project, ann: User, ben: User) -> None:
    make_answer_set(project, slots=2)  # open, the same set twice
    hold(make_answer_set(project, slots=1).slots.get(), ann)
    hold(make_answer_set(project, slots=1).slots.get(), ben)
    hold(make_answer_set(project, slots=1).slots.get(), make_user(), minutes=-1)
    make_ranking(make_answer_set(project), ann)
    yesterday = make_ranking(make_answer_set(project), ann)
    type(yesterday).objects.update(created=timezone.now() - timedelta(days=1))
    make_ranking(make_answer_set(project), ann)
    make_slot(make_answer_set(project), state=State.CLOSED)

    everybody = project_counts(project)
    assert (everybody.open, everybody.held, everybody.done, everybody.total) == (3, 2, 3, 8)
    counts = queue_counts(project, ann)
    assert (counts.mine_today, counts.mine_total) == (1, 3)
    # The set with two open slots is one set to her; beside it there are the one in her hands and
    # the one whose lease has ended. What ben holds is not for her.
    assert (counts.left_for_me, counts.left_is_more) == (3, False)

    elsewhere = make_project(annotators=[ann])
    assert (queue_counts(elsewhere, ann).held, queue_counts(elsewhere, ann).begun) == (0, False)
    assert project_counts(elsewhere).total == 0


def test_counting_what_is_left_stops_somewhere(
    project: Project, ann: User, ben: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queries, "_COUNT_SLOTS", 4)
    monkeypatch.setattr(queries, "COUNT_TO", 2)
    for shuffle in range(5):
        make_slot(make_answer_set(project), shuffle=shuffle)
    counts = queue_counts(project, ann)
    assert (counts.left_for_me, counts.left_is_more) == (2, True)
    # She has ranked all that are looked at; beyond them there is one more.
    for slot in Slot.objects.filter(shuffle__lt=4):
        make_ranking(slot.answer_set, ann)
    counts = queue_counts(project, ann)
    assert (counts.left_for_me, counts.left_is_more) == (1, False)
    assert claim_next(project=project, by=ann).shuffle == 4
