"""Where a skipped set goes: the reason decides, and no round is left waiting for nobody."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from labelhub.accounts.models import AuditEntry, User
from labelhub.assignments.actions import assign, claim_next, open_slots, release
from labelhub.assignments.models import Slot
from labelhub.lib.errors import Refused
from labelhub.projects.models import Project
from labelhub.prompts.models import AnswerSet, Prompt
from labelhub.rankings.actions import handle_skip, skip
from labelhub.rankings.models import Skip
from labelhub.rankings.rules import ROUTES, expert_skill, route
from labelhub.rankings.signals import slots_closed
from labelhub.rounds.models import Round
from tests.factories import make_answer_set, make_prompt, make_version
from tests.labelhub.rankings.desk import heard, only, pass_on, rank, seat, skills_of, states, take

pytestmark = pytest.mark.django_db


@pytest.fixture
def answer_set(project: Project) -> AnswerSet:
    return make_answer_set(project, slots=2)


def in_round(answer_set: AnswerSet, state: str) -> Round:
    """The set belongs to a round in this state."""
    base = make_version()
    turn = Round.objects.create(
        project=answer_set.prompt.project, number=1, policy_in=base, reward_base=base, state=state
    )
    turn.answer_sets.add(answer_set)
    return turn


def prompt_of(answer_set: AnswerSet) -> Prompt:
    return Prompt.objects.get(pk=answer_set.prompt_id)


# --- the table


def test_every_reason_has_its_way() -> None:
    assert set(ROUTES) == set(Skip.Reason.values)
    assert set(ROUTES.values()) == {"requeue", "expert", "set_aside", "retire"}


def test_one_person_retires_no_prompt() -> None:
    assert [route("unclear", said_by=n) for n in (1, 2, 3)] == ["requeue", "retire", "retire"]
    assert [route("harmful", said_by=n) for n in (1, 2)] == ["set_aside", "set_aside"]


def test_an_expert_is_one_of_the_prompts_own_skill() -> None:
    assert (expert_skill(""), expert_skill("medicine")) == ("expert", "medicine")


# --- to others


@pytest.mark.parametrize("reason", ["language", "identical", "fault", "other", "unclear"])
def test_it_goes_back_to_the_queue_for_others(
    answer_set: AnswerSet, project: Project, ann: User, ben: User, reason: str
) -> None:
    pass_on(answer_set, ann, reason)
    assert states(answer_set) == ["open", "open"]
    assert skills_of(answer_set) == {""}
    assert claim_next(project=project, by=ann) is None
    assert claim_next(project=project, by=ben).answer_set == answer_set


def test_what_needs_an_expert_goes_to_one(
    answer_set: AnswerSet, project: Project, ann: User, ben: User
) -> None:
    eva = seat(project, "eva", skills=["expert"])
    pass_on(answer_set, ann, "expert")
    assert states(answer_set) == ["open", "open"]
    assert skills_of(answer_set) == {"expert"}
    assert claim_next(project=project, by=ben) is None
    assert claim_next(project=project, by=eva).answer_set == answer_set


def test_what_another_holds_stays_with_them(answer_set: AnswerSet, ann: User, ben: User) -> None:
    bens = take(answer_set, ben)
    pass_on(answer_set, ann, "expert")
    bens.refresh_from_db()
    assert (bens.holder, bens.pool.skill) == (ben, "")


def test_among_experts_it_stays_with_the_others_of_that_skill(project: Project) -> None:
    doctors = [seat(project, name, skills=["medicine"]) for name in ("dot", "dan")]
    answer_set = make_answer_set(project, prompt=make_prompt(project, skill="medicine"), slots=1)
    pass_on(answer_set, doctors[0], "expert")
    assert skills_of(answer_set) == {"medicine"}
    assert claim_next(project=project, by=doctors[1]).answer_set == answer_set


def test_work_with_a_name_on_it_loses_the_name(
    answer_set: AnswerSet, project: Project, ann: User, ben: User, ada: User
) -> None:
    assign(project=project, answer_sets=[answer_set], to=ann, by=ada)
    named = answer_set.slots.get(reserved_for=ann)
    pass_on(answer_set, ann, "other")
    named.refresh_from_db()
    assert (named.state, named.reserved_for) == ("open", None)


# --- to nobody, until an admin has looked


@pytest.mark.parametrize("reason", ["harmful", "private"])
def test_it_is_set_aside_until_an_admin_has_looked(
    answer_set: AnswerSet, project: Project, ann: User, ben: User, ada: User, reason: str
) -> None:
    skipped = pass_on(answer_set, ann, reason)
    assert states(answer_set) == ["closed", "closed"]
    assert claim_next(project=project, by=ben) is None
    handle_skip(skip=skipped, do="put_back", by=ada)
    assert states(answer_set) == ["open", "open"]
    assert claim_next(project=project, by=ben).answer_set == answer_set


def test_who_is_at_it_may_finish_and_nobody_gets_it_after_them(
    answer_set: AnswerSet, project: Project, ann: User, ben: User
) -> None:
    bens = take(answer_set, ben)
    pass_on(answer_set, ann, "harmful")
    assert sorted(states(answer_set)) == ["closed", "held"]
    release(slot_id=bens.pk, token=bens.lease_token, by=ben)
    assert states(answer_set) == ["closed", "closed"]


# --- a prompt that nobody understands


def test_a_prompt_that_two_people_find_unclear_is_retired(
    answer_set: AnswerSet, project: Project, ann: User, ben: User
) -> None:
    sibling = make_answer_set(project, prompt=answer_set.prompt, slots=1)
    pass_on(answer_set, ann, "unclear")
    assert prompt_of(answer_set).retired is False
    pass_on(sibling, ben, "unclear")
    assert prompt_of(answer_set).retired is True
    assert states(answer_set) == ["closed", "closed"]
    assert states(sibling) == ["closed"]
    assert AuditEntry.objects.get(action="prompt.retire").actor_name == "system"


def test_one_person_who_finds_two_sets_unclear_is_one_person(
    answer_set: AnswerSet, project: Project, ann: User
) -> None:
    pass_on(answer_set, ann, "unclear")
    pass_on(make_answer_set(project, prompt=answer_set.prompt, slots=1), ann, "unclear")
    assert prompt_of(answer_set).retired is False


def test_other_reasons_do_not_add_up(answer_set: AnswerSet, ann: User, ben: User) -> None:
    pass_on(answer_set, ann, "unclear")
    pass_on(answer_set, ben, "fault")
    assert prompt_of(answer_set).retired is False


def test_what_an_admin_answered_counts_no_more(
    answer_set: AnswerSet, ann: User, ben: User, ada: User
) -> None:
    handle_skip(skip=pass_on(answer_set, ann, "unclear"), do="put_back", by=ada)
    pass_on(answer_set, ben, "unclear")
    assert prompt_of(answer_set).retired is False


# --- when nobody is left


def test_nobody_is_waited_for_who_cannot_come(
    project: Project, ann: User, ben: User, django_capture_on_commit_callbacks: Callable
) -> None:
    only(project, ann, ben)
    answer_set = make_answer_set(project, slots=1)
    with heard(slots_closed) as said, django_capture_on_commit_callbacks(execute=True):
        pass_on(answer_set, ann, "language")
        assert states(answer_set) == ["open"]
        pass_on(answer_set, ben, "language")
    assert states(answer_set) == ["closed"]
    assert said == [{"answer_set_ids": [answer_set.pk]}]


def test_the_last_ranking_closes_what_the_skips_left(
    project: Project, ann: User, ben: User
) -> None:
    only(project, ann, ben)
    answer_set = make_answer_set(project, slots=2)
    pass_on(answer_set, ann, "language")
    assert states(answer_set) == ["open", "open"]
    rank(answer_set, ben)
    assert sorted(states(answer_set)) == ["closed", "done"]


def test_an_admin_counts_as_somebody(project: Project, ann: User, ada: User) -> None:
    only(project, ann, ada)
    answer_set = make_answer_set(project, slots=1)
    pass_on(answer_set, ann, "language")
    assert states(answer_set) == ["open"]
    pass_on(answer_set, ada, "language")
    assert states(answer_set) == ["closed"]


@pytest.mark.parametrize(
    "changes",
    [{"languages": ["zh-hans"]}, {"paused_at": "2030-01-01T00:00Z"}],
    ids=["language", "paused"],
)
def test_who_does_not_read_it_or_is_away_counts_as_nobody(
    project: Project, ann: User, ben: User, changes: dict[str, object]
) -> None:
    only(project, ann, ben)
    project.memberships.filter(user=ben).update(**changes)
    answer_set = make_answer_set(project, slots=1)
    pass_on(answer_set, ann, "other")
    assert states(answer_set) == ["closed"]


def test_who_holds_the_set_takes_no_second_slot_of_it(
    project: Project, ann: User, ben: User
) -> None:
    only(project, ann, ben)
    answer_set = make_answer_set(project, slots=2)
    take(answer_set, ben)
    pass_on(answer_set, ann, "other")
    assert sorted(states(answer_set)) == ["closed", "held"]


def test_what_was_set_aside_is_told_after_the_commit(
    answer_set: AnswerSet, ann: User, django_capture_on_commit_callbacks: Callable
) -> None:
    with heard(slots_closed) as said:
        with django_capture_on_commit_callbacks(execute=True):
            pass_on(answer_set, ann, "private")
            assert said == []
        assert said == [{"answer_set_ids": [answer_set.pk]}]


def test_a_blind_comparison_is_set_aside_like_any_set(project: Project, ann: User) -> None:
    pair = make_answer_set(project, purpose=AnswerSet.Purpose.COMPARE, answers=2, slots=2)
    pass_on(pair, ann, "harmful")
    assert states(pair) == ["closed", "closed"]


# --- what is not routed


def test_a_skipped_known_ranking_moves_nothing_else(project: Project, ann: User, ben: User) -> None:
    gold = make_answer_set(project, purpose=AnswerSet.Purpose.GOLD)
    real = make_answer_set(project, prompt=gold.prompt, slots=1)
    for person in (ann, ben):
        slot = take(gold, person, kind=Slot.Kind.GOLD)
        skip_it(slot, person)
    assert states(gold, Slot.Kind.GOLD) == ["closed", "closed"]
    assert states(real) == ["open"]
    assert prompt_of(real).retired is False


def skip_it(slot: Slot, by: User) -> None:
    skip(slot_id=slot.pk, token=slot.lease_token, reason="unclear", note="", by=by)


# --- the admin's answer


def test_retiring_closes_all_sets_of_the_prompt(
    answer_set: AnswerSet, project: Project, ann: User, ben: User, ada: User
) -> None:
    sibling = make_answer_set(project, prompt=answer_set.prompt, slots=1)
    skipped, other = pass_on(answer_set, ann, "fault"), pass_on(sibling, ben, "language")
    handle_skip(skip=skipped, do="retire", by=ada)
    assert prompt_of(answer_set).retired is True
    assert states(answer_set) + states(sibling) == ["closed"] * 3
    other.refresh_from_db()
    assert skipped.handled_at is not None
    assert other.handled_at is not None
    entry = AuditEntry.objects.get(action="skip.handle")
    assert (entry.actor_name, entry.details) == (
        "ada",
        {"answer_set": answer_set.pk, "do": "retire"},
    )


def test_putting_back_answers_the_other_skips_of_the_set(
    answer_set: AnswerSet, project: Project, ann: User, ben: User, ada: User
) -> None:
    first = pass_on(answer_set, ann, "harmful")
    open_slots(project=project, answer_sets=[answer_set], overlap=1)
    second = pass_on(answer_set, ben, "private")
    handle_skip(skip=first, do="put_back", by=ada)
    second.refresh_from_db()
    assert second.handled_at is not None
    # ada alone is left to take one
    assert sorted(states(answer_set)) == ["closed", "closed", "open"]


def test_putting_back_brings_a_retired_prompt_back(
    answer_set: AnswerSet, project: Project, ann: User, ben: User, ada: User
) -> None:
    pass_on(answer_set, ann, "unclear")
    last = pass_on(answer_set, ben, "unclear")
    seat(project, "cid")
    handle_skip(skip=last, do="put_back", by=ada)
    assert prompt_of(answer_set).retired is False
    assert states(answer_set) == ["open", "open"]
    assert not Skip.objects.filter(handled_at__isnull=True).exists()


def test_putting_back_ends_the_wish_for_an_expert(
    answer_set: AnswerSet, project: Project, ann: User, ben: User, ada: User
) -> None:
    skipped = pass_on(answer_set, ann, "expert")
    handle_skip(skip=skipped, do="put_back", by=ada)
    assert skills_of(answer_set) == {""}
    assert claim_next(project=project, by=ben).answer_set == answer_set


def test_a_round_that_went_on_is_asked_for_nothing_more(
    answer_set: AnswerSet, ann: User, ada: User
) -> None:
    turn = in_round(answer_set, "rank")
    skipped = pass_on(answer_set, ann, "harmful")
    Round.objects.filter(pk=turn.pk).update(state="reward")
    handle_skip(skip=skipped, do="put_back", by=ada)
    assert states(answer_set) == ["closed", "closed"]
    assert skipped.handled_at is not None


def test_a_round_that_is_being_ranked_asks_again(
    answer_set: AnswerSet, ann: User, ada: User
) -> None:
    in_round(answer_set, "rank")
    handle_skip(skip=pass_on(answer_set, ann, "harmful"), do="put_back", by=ada)
    assert states(answer_set) == ["open", "open"]


def test_there_are_two_answers_and_no_third(answer_set: AnswerSet, ann: User, ada: User) -> None:
    skipped = pass_on(answer_set, ann)
    with pytest.raises(Refused, match="put the set back or to retire"):
        handle_skip(skip=skipped, do="forget", by=ada)  # type: ignore[arg-type]
    skipped.refresh_from_db()
    assert skipped.handled_at is None
