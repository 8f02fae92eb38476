"""Blind comparisons: a round's before its decision, and those of any two versions."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from labelhub.accounts.models import AuditEntry, User
from labelhub.assignments.actions import claim_next, hand_back
from labelhub.assignments.models import Slot
from labelhub.lib.errors import Refused
from labelhub.projects.models import Project
from labelhub.prompts.actions import retire_prompt
from labelhub.prompts.models import AnswerSet
from labelhub.rankings.actions import forget_person, handle_skip
from labelhub.rankings.queries import usable_rankings, why_not_correctable
from labelhub.registry.models import LivePolicy
from labelhub.rounds import actions, comparing, progress
from labelhub.rounds.estimates import WinRate
from labelhub.rounds.models import Comparison, Round
from labelhub.rounds.rules import ENDED, NEXT
from labelhub.rounds.tasks import sweep_rounds
from labelhub.rounds.verdicts import comparison_of, judged, verdict_of
from labelhub.runs import actions as run_actions
from labelhub.runs.models import Run
from tests import factories
from tests.labelhub.rankings import desk
from tests.labelhub.rounds.turns import CONFIG, compared, end, furnish

NEW, OLD, TIE = (2, 1), (1, 2), (1, 1)  # places of the old answer and the new one
Callbacks = Callable[..., Any]


@pytest.fixture(autouse=True)
def no_trainer(var: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs are queued and nobody starts them."""
    monkeypatch.setattr(run_actions, "enqueue_on_commit", lambda *_args: None)


def evaluated(project: Project, ada: User, *, same: int = 0, **config: Any) -> Round:
    """A round whose evaluation has just ended."""
    turn = actions.start_round(project=project, by=ada, config=CONFIG | config)
    for kind in ("reward", "policy"):
        made = factories.make_version(f"everyday/{kind}-v1", kind=kind, project=project, number=1)
        setattr(turn, "reward" if kind == "reward" else "policy_out", made)
    end(progress.begin_stage(turn, "ppo"))
    end(progress.begin_stage(turn, "evaluate"), lines=[])
    turn.state = Round.State.EVALUATE
    turn.save()
    run = progress.current_run(turn)
    assert run is not None
    end(run, lines=compared(run, same=same))
    return turn


@pytest.fixture
def turn(project: Project, ada: User) -> Round:
    """A round of which four pairs wait for one opinion each."""
    turn = evaluated(furnish(project, held_out=4), ada, heldout_prompts=4, compare_prompts=4)
    assert progress.advance(turn.pk) == "compare"
    turn.refresh_from_db()
    return turn


def pairs_of(comparison: Comparison | None) -> list[AnswerSet]:
    assert comparison is not None
    return list(comparison.answer_sets.order_by("pk"))


def people(turn: Round) -> WinRate:
    comparison = comparison_of(turn)
    assert comparison is not None
    return verdict_of(comparison).people


def state_of(turn: Round) -> str:
    turn.refresh_from_db()
    return turn.state


# --- in a round


def test_without_a_wish_the_evaluation_leads_to_the_decision(project: Project, ada: User) -> None:
    turn = evaluated(furnish(project), ada)
    assert progress.advance(turn.pk) == "decide"
    assert comparison_of(turn) is None


def test_a_project_of_people_wants_forty_and_a_simulated_one_none(
    project: Project, ada: User
) -> None:
    furnish(project)
    wish = {name: value for name, value in CONFIG.items() if name != "compare_prompts"}
    turn = actions.start_round(project=project, by=ada, config=wish)
    assert (turn.config["compare_prompts"], turn.config["compare_opinions"]) == (40, 1)
    actions.abandon_round(round=turn, by=ada)
    Project.objects.update(is_simulated=True)
    project.refresh_from_db()
    assert actions.start_round(project=project, by=ada, config=wish).config["compare_prompts"] == 0


def test_the_last_opinion_leads_to_the_decision(
    turn: Round, ann: User, ada: User, django_capture_on_commit_callbacks: Callbacks
) -> None:
    pairs = pairs_of(comparison_of(turn))
    assert (len(pairs), progress.open_opinions(turn)) == (4, 4)
    for pair, places in zip(pairs, (NEW, NEW, TIE, OLD), strict=True):
        assert state_of(turn) == "compare"
        with django_capture_on_commit_callbacks(execute=True):
            desk.rank(pair, ann, places)
    assert state_of(turn) == "decide"
    assert people(turn) == WinRate(wins=2, ties=1, losses=1)
    closed = AuditEntry.objects.get(action="comparison.close")
    assert closed.details == {"wins": 2, "ties": 1, "losses": 1}
    actions.decide(round=turn, promote=True, by=ada)
    assert LivePolicy.objects.get(project=turn.project).version == turn.policy_out


def test_every_move_is_one_of_the_table(project: Project, ann: User, ada: User) -> None:
    turn = evaluated(furnish(project), ada, compare_prompts=1)
    assert set(NEXT) == set(Round.State.values)
    while turn.state not in ENDED:
        before = state_of(turn)
        if before == "compare":
            desk.rank(pairs_of(comparison_of(turn))[0], ann, TIE)
        if before == "decide":
            actions.decide(round=turn, promote=False, by=ada)
        else:
            assert progress.advance(turn.pk) is not None
        assert state_of(turn) in NEXT[before]


def test_in_step_mode_the_admin_takes_the_last_step_too(turn: Round, ann: User, ada: User) -> None:
    actions.set_mode(round=turn, mode="step", by=ada)
    for pair in pairs_of(comparison_of(turn)):
        desk.rank(pair, ann, NEW)
    assert progress.advance(turn.pk) is None
    assert actions.step_round(round=turn, by=ada).state == "decide"


def test_so_many_prompts_are_drawn_as_are_wanted(project: Project, ada: User) -> None:
    turn = evaluated(
        furnish(project, held_out=5), ada,
        heldout_prompts=5, compare_prompts=3, compare_opinions=2,
    )  # fmt: skip
    progress.advance(turn.pk)
    pairs = pairs_of(comparison_of(turn))
    assert [desk.states(pair) for pair in pairs] == [["open", "open"]] * 3
    assert turn.answer_sets.filter(purpose="compare").count() == 5, "the others are kept, unasked"


def test_nobody_is_asked_about_two_answers_of_the_same_text(
    project: Project, ann: User, ada: User
) -> None:
    turn = evaluated(
        furnish(project, held_out=3), ada, same=2, heldout_prompts=3, compare_prompts=3
    )
    assert progress.advance(turn.pk) == "compare"
    asked = Slot.objects.filter(answer_set__comparisons__round=turn)
    assert asked.count() == 1
    desk.rank(asked.get().answer_set, ann, NEW)
    assert progress.advance(turn.pk) == "decide"
    assert people(turn) == WinRate(wins=1, ties=2)


def test_where_every_answer_is_the_same_text_nobody_is_waited_for(
    project: Project, ada: User
) -> None:
    turn = evaluated(furnish(project), ada, same=2, compare_prompts=2)
    assert progress.advance(turn.pk) == "decide"
    assert people(turn) == WinRate(ties=2)


def test_a_pair_that_names_a_model_is_not_drawn_where_such_are_held_back(
    project: Project, ada: User
) -> None:
    Project.objects.update(hold_back_leaks=True)
    project.refresh_from_db()
    turn = evaluated(furnish(project), ada, compare_prompts=2)
    run = progress.current_run(turn)
    assert run is not None
    lines = compared(run)
    lines[0]["text"] = "As an AI language model I cannot say."
    end(run, lines=lines)
    progress.advance(turn.pk)
    (pair,) = pairs_of(comparison_of(turn))
    assert [one.names_model for one in pair.answers.all()] == [False, False]


def test_what_most_say_of_a_pair_is_its_outcome(
    project: Project, ann: User, ben: User, ada: User
) -> None:
    turn = evaluated(furnish(project), ada, compare_prompts=2, compare_opinions=3)
    progress.advance(turn.pk)
    first, second = pairs_of(comparison_of(turn))
    for person, one, other in ((ann, NEW, NEW), (ben, NEW, OLD), (ada, OLD, TIE)):
        desk.rank(first, person, one)
        desk.rank(second, person, other)
    assert people(turn) == WinRate(wins=1, ties=1), "not three opinions on each, but two pairs"


def test_comparisons_teach_no_reward_model(turn: Round, ann: User) -> None:
    given = [desk.rank(pair, ann, NEW) for pair in pairs_of(comparison_of(turn))]
    assert not usable_rankings(turn.project).exists()
    assert not progress.round_rankings(turn).exists()
    assert all(one.answer_set.prompt.held_out for one in given)
    with pytest.raises(Refused, match="no ranking yet"):
        run_actions.take_snapshot(
            project=turn.project, rankings=usable_rankings(turn.project), by=None
        )


def test_the_queue_gives_a_pair_like_any_other_set(turn: Round, ann: User) -> None:
    slot = claim_next(project=turn.project, by=ann)
    assert slot is not None
    assert (slot.kind, slot.answer_set.purpose) == ("opinion", "compare")
    assert desk.submit(slot, ann, TIE).answer_set == slot.answer_set


# --- how it ends otherwise


def test_it_can_be_closed_with_what_is_there_and_what_comes_late_does_not_count(
    turn: Round, ann: User, ben: User, ada: User
) -> None:
    first, second, *_ = pairs_of(comparison_of(turn))
    counted = desk.rank(first, ann, NEW)
    held = desk.take(second, ben)
    assert actions.close_comparing(round=turn, by=ada).state == "decide"
    assert not Slot.objects.filter(answer_set__comparisons__round=turn, state="open").exists()
    desk.submit(held, ben, OLD)
    assert people(turn) == WinRate(wins=1)
    counted.refresh_from_db()
    assert why_not_correctable(counted) == "frozen"
    with pytest.raises(Refused, match="not being compared"):
        actions.close_comparing(round=turn, by=ada)


def test_it_can_be_closed_before_anybody_said_anything(turn: Round, ada: User) -> None:
    assert actions.close_comparing(round=turn, by=ada).state == "decide"
    assert people(turn).advice == ""


def test_what_everybody_skipped_is_waited_for_no_longer(
    turn: Round, ann: User, ada: User, django_capture_on_commit_callbacks: Callbacks
) -> None:
    desk.only(turn.project, ann)
    for pair in pairs_of(comparison_of(turn)):
        with django_capture_on_commit_callbacks(execute=True):
            desk.pass_on(pair, ann, "unclear")
    assert state_of(turn) == "decide"
    assert people(turn).n == 0


def test_nobody_waits_for_opinions_on_a_retired_prompt(turn: Round, ann: User, ada: User) -> None:
    first, *others = pairs_of(comparison_of(turn))
    for pair in others:
        desk.rank(pair, ann, OLD)
    retire_prompt(prompt=first.prompt, by=ada)
    assert progress.advance(turn.pk) == "decide"


def test_what_a_member_who_leaves_had_in_hand_is_for_others(
    turn: Round, ann: User, ben: User
) -> None:
    first = pairs_of(comparison_of(turn))[0]
    desk.take(first, ann)
    hand_back(project=turn.project, user=ann)
    assert desk.states(first) == ["open"]


def test_who_is_forgotten_is_asked_for_anew_while_it_is_open_and_not_afterwards(
    turn: Round, ann: User, ada: User
) -> None:
    first, second, *_ = pairs_of(comparison_of(turn))
    desk.rank(first, ann, NEW)
    turn.project.memberships.filter(user=ann).delete()
    forget_person(project=turn.project, user=ann, by=ada)
    assert desk.states(first) == ["open"]
    ben = desk.seat(turn.project, "bea")
    desk.rank(second, ben, NEW)
    actions.close_comparing(round=turn, by=ada)
    turn.project.memberships.filter(user=ben).delete()
    forget_person(project=turn.project, user=ben, by=ada)
    assert desk.states(second) == ["closed"]
    assert people(turn).n == 0


def test_a_skip_that_is_answered_puts_a_pair_back_only_while_it_is_open(
    turn: Round, ann: User, ben: User, ada: User
) -> None:
    first, second, *_ = pairs_of(comparison_of(turn))
    early, later = (desk.pass_on(pair, ann, "harmful") for pair in (first, second))
    handle_skip(skip=early, do="put_back", by=ada)
    assert desk.states(first) == ["open"]
    actions.close_comparing(round=turn, by=ada)
    handle_skip(skip=later, do="put_back", by=ada)
    assert desk.states(second) == ["closed"]


def test_a_round_that_is_abandoned_asks_nobody(turn: Round, ada: User) -> None:
    actions.abandon_round(round=turn, by=ada)
    comparison = comparison_of(turn)
    assert comparison is not None
    assert comparison.state == "closed"
    assert {state for pair in pairs_of(comparison) for state in desk.states(pair)} == {"closed"}


# --- any two versions


@pytest.fixture
def versions(project: Project) -> dict[str, Any]:
    furnish(project, held_out=3)
    return {
        "project": project,
        "before": factories.make_version("tiny-base"),
        "after": factories.make_version(
            "everyday/policy-v1", kind="policy", project=project, number=1
        ),
        "reward": factories.make_version(
            "everyday/reward-v1", kind="reward", project=project, number=1
        ),
    }


def test_two_versions_answer_and_people_compare(
    versions: dict[str, Any], ann: User, ada: User, django_capture_on_commit_callbacks: Callbacks
) -> None:
    comparison = actions.start_comparison(**versions, prompts=3, by=ada)
    run = comparison.run
    inputs = {link.role: link.version.name for link in run.inputs.all()}
    assert inputs == {
        "policy": "everyday/policy-v1", "reference": "tiny-base", "reward": "everyday/reward-v1"
    }  # fmt: skip
    assert run.config["answers"] == 1
    assert comparing.look_after(comparison.pk) is None, "its run is not finished"
    end(run, lines=compared(run, gain=-1.0))
    assert comparing.look_after(comparison.pk) == "open"
    for pair in pairs_of(comparison):
        with django_capture_on_commit_callbacks(execute=True):
            desk.rank(pair, ann, NEW)
    comparison.refresh_from_db()
    assert (comparison.state, comparison.ended is not None) == ("closed", True)
    verdict = verdict_of(comparison)
    assert (verdict.people, verdict.reward) == (WinRate(wins=3), WinRate(losses=3))
    assert (verdict.alike, verdict.both, verdict.left) == (0, 3, 0)
    assert [one.outcome for one in judged(comparison)] == [1, 1, 1]


def test_the_sweep_takes_the_steps_of_which_no_message_told(
    versions: dict[str, Any], ann: User, ada: User
) -> None:
    comparison = actions.start_comparison(**versions, prompts=1, by=ada)
    end(comparison.run, lines=compared(comparison.run))
    sweep_rounds()
    desk.rank(pairs_of(comparison)[0], ann, OLD)
    sweep_rounds()
    comparison.refresh_from_db()
    assert comparison.state == "closed"


def test_prompts_that_were_compared_less_come_first(versions: dict[str, Any], ada: User) -> None:
    first = actions.start_comparison(**versions, prompts=2, by=ada)
    end(first.run, lines=compared(first.run))
    comparing.look_after(first.pk)
    actions.close_comparison(comparison=first, by=ada)
    second = actions.start_comparison(**versions, prompts=1, by=ada)
    assert not set(second.run.data["prompts"]) & set(first.run.data["prompts"])


def test_closing_one_that_is_being_written_stops_its_run(
    versions: dict[str, Any], ada: User
) -> None:
    comparison = actions.start_comparison(**versions, prompts=1, by=ada)
    actions.close_comparison(comparison=comparison, by=ada)
    assert Run.objects.get(pk=comparison.run_id).state == "stopped"
    with pytest.raises(Refused, match="closed already"):
        actions.close_comparison(comparison=comparison, by=ada)


@pytest.mark.parametrize(
    ("wish", "sentence"),
    [
        ({"prompts": 9}, "wants 9 prompts and the project has 3"),
        ({"prompts": 0}, "at least one prompt"),
        ({"opinions": 21}, "compare_opinions is 21; choose a value from 1 to 20"),
        ({"after": "before"}, "two different versions"),
        ({"before": "reward"}, "is no reference"),
    ],
)
def test_a_wrong_wish_is_refused_in_one_sentence(
    versions: dict[str, Any], ada: User, wish: dict[str, Any], sentence: str
) -> None:
    named = {name: versions.get(value, value) for name, value in wish.items()}
    with pytest.raises(Refused, match=sentence):
        actions.start_comparison(**{"prompts": 2, **versions, **named}, by=ada)
    assert not Run.objects.exists()
    assert not Comparison.objects.exists()


def test_the_same_two_are_compared_once_at_a_time_whichever_stands_first(
    versions: dict[str, Any], ada: User
) -> None:
    first = actions.start_comparison(**versions, prompts=1, by=ada)
    turned = versions | {"before": versions["after"], "after": versions["before"]}
    with pytest.raises(Refused, match="being compared already"):
        actions.start_comparison(**turned, prompts=1, by=ada)
    actions.close_comparison(comparison=first, by=ada)
    assert actions.start_comparison(**turned, prompts=1, by=ada).state == "writing"


# --- with the trainer itself


def test_from_two_models_to_the_queue_and_back(
    project: Project, tmp_path: Path, ann: User, ada: User,
    django_capture_on_commit_callbacks: Callbacks,
) -> None:  # fmt: skip
    """Both models write, the reward model scores, and ann says the opposite of it."""
    from labelhub.runs import launcher
    from tests.tiny import make_tiny, make_tiny_reward
    from trainer.manifests import write_manifest

    made = {
        "before": factories.make_version("tiny-base"),
        "after": factories.make_version("p1", kind="policy", project=project, number=1),
        "reward": factories.make_version("r1", kind="reward", project=project, number=1),
    }
    for n, (name, version) in enumerate(made.items()):
        folder = tmp_path / name
        folder = make_tiny_reward(folder) if name == "reward" else make_tiny(folder, seed=n)
        write_manifest(folder)
        version.folder = str(folder)
        version.sha256 = hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()
        version.save()
    for words in ("tell me red tea", "say good sun", "name blue sky"):
        factories.make_prompt(project, words, held_out=True)
    Project.objects.update(max_new_tokens=8)
    project.refresh_from_db()
    comparison = actions.start_comparison(project=project, prompts=3, by=ada, **made)
    with django_capture_on_commit_callbacks(execute=True):
        assert launcher.watch(comparison.run_id) == "finished"
    comparison.refresh_from_db()
    pairs = pairs_of(comparison)
    assert (comparison.state, len(pairs)) == ("open", 3)
    for pair in pairs:
        if pair.slots.exists():
            before, after = (one.sampling["score"] for one in pair.answers.order_by("n"))
            with django_capture_on_commit_callbacks(execute=True):
                desk.rank(pair, ann, OLD if after > before else NEW if before > after else TIE)
    comparison.refresh_from_db()
    assert comparison.state == "closed"
    verdict = verdict_of(comparison)
    assert verdict.people.n == verdict.reward.n == 3
    assert verdict.alike == 0
    assert verdict.people.wins == verdict.reward.losses
