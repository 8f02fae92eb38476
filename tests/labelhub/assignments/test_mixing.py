"""Known rankings, repeats and uniform picks, mixed in and unannounced."""

from __future__ import annotations

from collections import Counter

import pytest

from labelhub.accounts.models import User
from labelhub.assignments.actions import (
    claim_next,
    release,
    release_expired,
    renew_lease,
)
from labelhub.assignments.models import Slot
from labelhub.assignments.queries import project_counts, queue_counts
from labelhub.assignments.rules import REPEAT_AFTER, next_kind
from labelhub.projects.models import Project
from labelhub.prompts.models import AnswerSet
from labelhub.rankings.models import Skip
from tests.factories import (
    hold,
    make_answer_set,
    make_project,
    make_prompt,
    make_ranking,
    make_slot,
    make_user,
)
from tests.labelhub.assignments.chance import StartAt

pytestmark = pytest.mark.django_db
State, Kind = Slot.State, Slot.Kind


def finish(slot: Slot) -> None:
    """As if it had been ranked."""
    Slot.objects.filter(pk=slot.pk).update(state=State.DONE, lease_token=None, lease_until=None)


def mixed(ann: User, *others: User, **shares: float) -> Project:
    return make_project("mixed", annotators=[ann, *others], **shares)


def gold_set(project: Project, **prompt: str) -> AnswerSet:
    return make_answer_set(project, prompt=make_prompt(project, **prompt), purpose="gold")


# --- the decision


def test_what_is_due_can_be_told_again() -> None:
    shares = {"gold_share": 0.3, "repeat_share": 0.3, "uniform_share": 0.5}
    assert [next_kind(1, 2, done, **shares) for done in range(50)] == [
        next_kind(1, 2, done, **shares) for done in range(50)
    ]
    assert {next_kind(1, 2, done, **shares) for done in range(50)} != {next_kind(1, 2, 0, **shares)}


def test_the_shares_are_kept_over_people_and_over_time() -> None:
    # 10,000 draws: of a share of 0.05 500 are expected, the standard deviation is
    # sqrt(10,000 · 0.05 · 0.95) = 22; of 0.03 300 ± 17; of 0.2 2,000 ± 40. Five of them each.
    shares = {"gold_share": 0.05, "repeat_share": 0.03, "uniform_share": 0.2}
    for turns in (
        [next_kind(1, person, 7, **shares) for person in range(10_000)],
        [next_kind(1, 7, done, **shares) for done in range(10_000)],
    ):
        kinds = Counter(turn.special for turn in turns)
        assert 390 < kinds["gold"] < 610
        assert 215 < kinds["repeat"] < 385
        assert 1800 < sum(turn.uniform for turn in turns) < 2200


def test_a_share_of_nothing_is_never_and_of_all_is_always() -> None:
    never = {"gold_share": 0.0, "repeat_share": 0.0, "uniform_share": 0.0}
    turns = [next_kind(1, 2, done, **never) for done in range(200)]
    assert {(turn.special, turn.uniform) for turn in turns} == {("", False)}
    always = {"gold_share": 0.0, "repeat_share": 1.0, "uniform_share": 1.0}
    turns = [next_kind(1, 2, done, **always) for done in range(200)]
    assert {(turn.special, turn.uniform) for turn in turns} == {("repeat", True)}


# --- known rankings


def test_a_known_set_comes_once_and_then_opinions(ann: User) -> None:
    project = mixed(ann, gold_share=1)
    known = gold_set(project)
    wanted = make_answer_set(project, slots=1)
    first = claim_next(project=project, by=ann)
    assert (first.kind, first.answer_set, first.holder) == (Kind.GOLD, known, ann)
    finish(first)
    second = claim_next(project=project, by=ann)
    assert (second.kind, second.answer_set) == (Kind.OPINION, wanted)


def test_a_known_set_is_there_for_everybody(ann: User, ben: User) -> None:
    project = mixed(ann, ben, gold_share=1)
    known = gold_set(project)
    slots = [claim_next(project=project, by=one) for one in (ann, ben)]
    assert [slot.answer_set for slot in slots] == [known, known]
    assert len({slot.pk for slot in slots}) == 2


@pytest.mark.parametrize("why", ["retired", "prompt", "language", "skipped"])
def test_some_known_sets_are_not_given(ann: User, why: str) -> None:
    project = mixed(ann, gold_share=1)
    known = gold_set(project, language="zh")
    project.memberships.update(languages=["en"] if why == "language" else [])
    AnswerSet.objects.filter(pk=known.pk).update(retired=why == "retired")
    known.prompt.retired = why == "prompt"
    known.prompt.save()
    if why == "skipped":
        slot = make_slot(known, kind=Kind.GOLD, state=State.CLOSED, holder=ann)
        Skip.objects.create(slot=slot, answer_set=known, annotator=ann, reason="other")
    assert claim_next(project=project, by=ann) is None


def test_leaving_a_known_set_looks_like_leaving_any(ann: User, ben: User) -> None:
    project = mixed(ann, ben, gold_share=1)
    known = gold_set(project)
    slot = claim_next(project=project, by=ann)
    assert release(slot_id=slot.pk, token=slot.lease_token, by=ann) is True
    assert Slot.objects.get(pk=slot.pk).state == State.CLOSED
    assert Slot.objects.filter(state=State.OPEN).count() == 0
    # Back on the page, the lease goes on; after another leave it is the same slot that is given.
    renew_lease(slot_id=slot.pk, token=slot.lease_token, by=ann)
    assert Slot.objects.get(pk=slot.pk).state == State.HELD
    release(slot_id=slot.pk, token=slot.lease_token, by=ann)
    assert claim_next(project=project, by=ann).pk == slot.pk
    assert claim_next(project=project, by=ben).pk != slot.pk
    assert known.slots.count() == 2


def test_an_ended_lease_on_a_known_set_leaves_nothing_open(ann: User, ben: User) -> None:
    project = mixed(ann, ben)
    slot = hold(make_slot(gold_set(project), kind=Kind.GOLD), ann, minutes=-1)
    assert release_expired() == 1
    assert Slot.objects.get(pk=slot.pk).state == State.CLOSED
    assert claim_next(project=project, by=ben) is None


def test_admins_and_simulated_annotators_are_not_tested(ada: User) -> None:
    robot = make_user("robot", is_simulated=True)
    for project, by in (
        (make_project("ours", admins=[ada], gold_share=1), ada),
        (make_project("theirs", annotators=[robot], gold_share=1, is_simulated=True), robot),
    ):
        gold_set(project)
        make_answer_set(project, slots=1)
        assert claim_next(project=project, by=by).kind == Kind.OPINION


def test_known_sets_are_no_opinions_wanted(ann: User) -> None:
    project = mixed(ann, gold_share=1)
    gold_set(project)
    make_answer_set(project, slots=1)
    slot = claim_next(project=project, by=ann)
    counts = project_counts(project)
    assert (counts.open, counts.held, counts.total) == (1, 0, 1)
    # To her it is a set like any other.
    assert queue_counts(project, ann).left_for_me == 2
    finish(slot)
    assert queue_counts(project, ann).mine_total == 1


# --- repeats


def test_one_of_ones_own_comes_again_as_a_copy(ann: User) -> None:
    project = mixed(ann, repeat_share=1)
    texts = ["First answer", "Second answer"]
    oldest = make_answer_set(project, answers=texts)
    make_ranking(oldest, ann)
    for _ in range(REPEAT_AFTER - 1):
        make_ranking(make_answer_set(project), ann)
    assert claim_next(project=project, by=ann) is None, "only nine were ranked since"
    make_ranking(make_answer_set(project), ann)
    slot = claim_next(project=project, by=ann)
    copy = slot.answer_set
    assert (slot.kind, copy.purpose, copy.original) == (Kind.REPEAT, "repeat", oldest)
    assert copy.prompt == oldest.prompt
    facts = ("n", "text", "sha256", "version_id", "tokens")
    assert list(copy.answers.values(*facts)) == list(oldest.answers.values(*facts))
    assert oldest.answers.count() == 2
    finish(slot)
    assert claim_next(project=project, by=ann) is None, "each comes again once"


def test_a_repeat_that_was_left_is_the_same_copy_later(ann: User) -> None:
    project = mixed(ann, repeat_share=1)
    for _ in range(REPEAT_AFTER + 1):
        make_ranking(make_answer_set(project), ann)
    slot = claim_next(project=project, by=ann)
    release(slot_id=slot.pk, token=slot.lease_token, by=ann)
    assert claim_next(project=project, by=ann).pk == slot.pk
    assert AnswerSet.objects.filter(purpose="repeat").count() == 1


def test_nobody_repeats_the_sets_of_another(ann: User, ben: User) -> None:
    project = mixed(ann, ben, repeat_share=1)
    for _ in range(REPEAT_AFTER + 5):
        make_ranking(make_answer_set(project), ann)
    assert claim_next(project=project, by=ben) is None


# --- uniform picks


def test_a_uniform_pick_looks_at_no_priority(ann: User) -> None:
    project = mixed(ann, uniform_share=1)
    make_slot(make_answer_set(project), priority=9.0, shuffle=10)
    plain = make_slot(make_answer_set(project), priority=0.0, shuffle=20)
    slot = claim_next(project=project, by=ann, rng=StartAt(15))
    assert (slot.pk, slot.uniform) == (plain.pk, True)
    assert Slot.objects.get(pk=plain.pk).uniform is True
    release(slot_id=slot.pk, token=slot.lease_token, by=ann)
    assert Slot.objects.get(pk=plain.pk).uniform is False


def test_a_pick_by_priority_is_not_called_uniform(ann: User) -> None:
    project = mixed(ann)
    make_slot(make_answer_set(project), priority=9.0)
    assert claim_next(project=project, by=ann).uniform is False


def test_simulated_annotators_do_the_same_every_time() -> None:
    robot = make_user("robot", is_simulated=True)
    project = make_project(annotators=[robot], is_simulated=True, uniform_share=1)
    for shuffle in (30, 10, 20):
        make_slot(make_answer_set(project), shuffle=shuffle)
    assert claim_next(project=project, by=robot).shuffle == 10
