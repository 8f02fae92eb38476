"""The pages of blind comparisons, and what a round's page says of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.test import Client
from django.urls import reverse

from labelhub.accounts.models import User
from labelhub.dashboard.comparisons import CompareForm
from labelhub.dashboard.standing import gates_of, standing_of
from labelhub.dashboard.verdicts import said_of
from labelhub.projects.models import Project
from labelhub.rounds.models import Comparison, Round
from labelhub.rounds.verdicts import verdict_of
from labelhub.runs import actions as run_actions
from tests import factories
from tests.labelhub.dashboard import world

pytestmark = pytest.mark.django_db
LIST = "/dashboard/everyday/comparisons/"


def comparing(project: Project, pairs: int, state: str = Round.State.COMPARE) -> Round:
    turn = world.decided(project)
    turn.config = turn.config | {"compare_prompts": pairs}
    turn.state = state
    turn.save()
    return turn


def page_of(client: Client, comparison: Comparison) -> str:
    found = client.get(reverse("dashboard:comparison", args=["everyday", comparison.pk]))
    assert found.status_code == 200
    return found.content.decode()


def test_a_round_waits_for_blind_opinions_and_tells_nothing_of_them(
    project: Project, ann: User, clients: dict[str, Client]
) -> None:
    turn = comparing(project, 3)
    comparison = world.compare_blind(turn, [(0.1, 0.7)] * 3, state="open")
    world.say(comparison, ann, [1])
    standing = standing_of(turn)
    assert [step.key for step in standing.steps][-2:] == ["compare", "decide"]
    assert [step.state for step in standing.steps][-2:] == ["person", "todo"]
    assert standing.sentence == ("Waits for annotators: 2 of 3 blind opinions are still wanted.")
    assert standing.now is not None
    assert (standing.now.figure, standing.now.share) == ("1 of 3", pytest.approx(1 / 3))
    assert standing.may == {"abandon", "mode", "close_comparing"}
    assert gates_of(standing.facts, 0)[-1].state == "todo"
    for text in (
        clients["ada"].get("/dashboard/everyday/rounds/1/").content.decode(),
        page_of(clients["ada"], comparison),
    ):
        assert "New answer 0" not in text
        assert "won" not in text
        assert "Close comparison" in text


def test_a_round_without_a_comparison_has_no_such_step(project: Project) -> None:
    turn = world.decided(project)
    standing = standing_of(turn)
    assert "compare" not in [step.key for step in standing.steps]
    assert len(gates_of(standing.facts, 0)) == 5


def test_all_opinions_in_step_mode_wait_for_the_admin(project: Project, ann: User) -> None:
    turn = comparing(project, 1)
    world.say(world.compare_blind(turn, [(0.1, 0.7)], state="open"), ann, [1])
    Round.objects.update(mode=Round.Mode.STEP)
    turn.refresh_from_db()
    standing = standing_of(turn)
    assert standing.sentence == "Every opinion is there. Waits for you: take the next step."
    assert "step" in standing.may
    assert "close_comparing" not in standing.may


@pytest.mark.parametrize(
    ("outcomes", "gate", "figure", "sentence"),
    [
        # 9 of 10: Wilson 59.6 to 98.2 %
        ([1] * 9 + [-1], "good", "90\u202f% (60 to 98)", "People prefer everyday/policy-v1"),
        # 5 of 10: 23.7 to 76.3 %
        ([1] * 4 + [0] * 2 + [-1] * 4, "unclear", "50\u202f% ±\u00a026", "It is not clear"),
        ([-1] * 10, "bad", "0\u202f% (0 to 28)", "People prefer tiny-base"),
    ],
)
def test_what_people_said_stands_before_the_decision(
    project: Project, ann: User, clients: dict[str, Client],
    outcomes: list[int], gate: str, figure: str, sentence: str,
) -> None:  # fmt: skip
    turn = comparing(project, 10, Round.State.DECIDE)
    comparison = world.compare_blind(turn, [(0.1, 0.7)] * 10)
    world.say(comparison, ann, outcomes)
    found = gates_of(standing_of(turn).facts, 0)[-1]
    assert (found.state, found.figure) == (gate, figure)
    text = clients["ada"].get("/dashboard/everyday/rounds/1/").content.decode()
    assert sentence in text
    apart = "likes everyday/policy-v1 better, people do not (yet)" in text
    assert apart == (gate != "good"), "the reward model prefers the new one ten times of ten"


def test_a_closed_comparison_shows_both_rates_and_the_answers(
    project: Project, ann: User, clients: dict[str, Client]
) -> None:
    turn = comparing(project, 3, Round.State.DECIDE)
    comparison = world.compare_blind(turn, [(0.1, 0.7), (0.7, 0.1), (0.1, 0.7)])
    world.say(comparison, ann, [1, 0])
    said = said_of(verdict_of(comparison))
    assert said is not None
    assert said.picture is not None
    assert [dot.name for dot in said.picture.dots] == [
        "People, blind (1 won, 1 tied, 0 lost)",
        "Reward model (2 won, 0 tied, 1 lost)",
    ]
    assert said.picture.rows[0][1] == "0.75"
    text = page_of(clients["ada"], comparison)
    for words in ("New answer 0", "newer won", "tie", "no opinion", "2 opinions on 3 pairs."):
        assert words in text
    assert "Close comparison" not in text


def test_late_opinions_are_not_counted(project: Project, ann: User, ben: User) -> None:
    turn = comparing(project, 1, Round.State.DECIDE)
    comparison = world.compare_blind(turn, [(0.1, 0.7)])
    world.say(comparison, ann, [1])
    factories.make_ranking(comparison.answer_sets.get(), ben, (1, 2))
    assert verdict_of(comparison).people.wins == 1


def test_the_list_says_what_came_of_each(
    project: Project, ann: User, clients: dict[str, Client]
) -> None:
    turn = comparing(project, 4, Round.State.DECIDE)
    world.say(world.compare_blind(turn, [(0.1, 0.7)] * 4), ann, [1] * 4)
    text = clients["ada"].get(LIST).content.decode()
    assert "everyday/policy-v1 against tiny-base" in text
    assert "People prefer everyday/policy-v1" in text


def test_an_empty_list_says_what_it_needs(project: Project, clients: dict[str, Client]) -> None:
    text = clients["ada"].get(LIST).content.decode()
    assert "Here the comparisons will stand" in text
    assert "It needs two versions" in text


def test_two_versions_are_chosen_and_compared(
    project: Project, var: Path, monkeypatch: pytest.MonkeyPatch, clients: dict[str, Client]
) -> None:
    monkeypatch.setattr(run_actions, "enqueue_on_commit", lambda *_args: None)
    world.live(project, world.decided(project).policy_out)
    for n in range(5):
        factories.make_prompt(project, f"Held {n}?", held_out=True)
    form = CompareForm(project)
    names = {name: form[name].initial for name in ("before", "after", "prompts", "opinions")}
    base = factories.make_version("tiny-base")
    policy = project.versions.get(kind="policy")
    assert names == {"before": base.pk, "after": policy.pk, "prompts": 6, "opinions": 1}
    sent = {name: form[name].initial for name in form.fields}
    sent |= {"reward": project.versions.get(kind="reward").pk, "source": "held_out", "seed": 3}
    answer = clients["ada"].post(LIST + "start/", sent)
    made = Comparison.objects.get()
    assert answer.headers["Location"] == f"{LIST}{made.pk}/"
    assert (made.before, made.after, made.run.seed) == (base, policy, 3)
    assert "Both versions are writing their answers" in page_of(clients["ada"], made)

    again = clients["ada"].post(LIST + "start/", sent)
    assert again.status_code == 400
    assert "being compared already" in again.content.decode()
    closed = clients["ada"].post(f"{LIST}{made.pk}/close/", follow=True).content.decode()
    assert "Nobody compared them" in closed


def test_a_comparison_of_another_project_is_not_there(
    project: Project, ada: User, clients: dict[str, Client]
) -> None:
    other = factories.make_project("other", admins=[ada])
    comparison = world.compare_blind(world.decided(other), [])
    assert clients["ada"].get(f"{LIST}{comparison.pk}/").status_code == 404
