"""What admins send goes through the actions; who may not, changes nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import reverse

from labelhub.accounts.models import AuditEntry, User
from labelhub.assignments.models import Slot
from labelhub.projects.models import Project
from labelhub.registry.models import LivePolicy
from labelhub.rounds.models import Round
from labelhub.runs.models import Run
from tests import factories
from tests.labelhub.dashboard import world

pytestmark = pytest.mark.django_db
Clients = dict[str, Client]

SETTINGS = {
    "prompts": 2, "answers": 3, "steps": 5, "mode": "step", "overlap": 1, "max_new_tokens": 16,
    "temperature": 0.9, "episodes": 8, "kl_budget": 9, "heldout_prompts": 2, "reward_epochs": 1,
    "reward_ensemble": 2, "compare_prompts": 0, "compare_opinions": 1,
    "languages": "en, zh", "seed": 7,
}  # fmt: skip


@pytest.fixture
def ready(project: Project) -> Project:
    world.live(project)
    for n in range(4):
        factories.make_prompt(project, f"Train on {n}?")
    return project


def send(client: Client, name: str, *args: Any, data: dict[str, Any] | None = None) -> Any:
    address = reverse(f"dashboard:{name}", args=["everyday", *args])
    return client.post(address, data or {}, follow=True)


def said(response: Any) -> list[str]:
    return [str(message) for message in response.context["messages"]]


# --- who may send


@pytest.mark.parametrize(("who", "status"), [("ann", 403), ("mallory", 404)])
def test_others_may_send_nothing(who: str, status: int, ready: Project, clients: Clients) -> None:
    turn = world.decided(ready)
    run = turn.runs.filter(stage="ppo").get()
    for name, args in [
        ("start", []), ("act", [1, "promote"]), ("act", [1, "abandon"]),
        ("act-run", [run.pk, "stop"]), ("add-member", []), ("import-prompts", []),
        ("hold-out", []), ("publish-guidelines", []),
        ("make-live", [turn.policy_in_id]),
    ]:  # fmt: skip
        response = clients[who].post(reverse(f"dashboard:{name}", args=["everyday", *args]))
        assert response.status_code == status, name
        nobody = clients["nobody"].post(reverse(f"dashboard:{name}", args=["everyday", *args]))
        assert nobody.status_code == 302, name
    turn.refresh_from_db()
    assert turn.state == Round.State.DECIDE


def test_an_action_is_never_taken_by_a_link(ready: Project, clients: Clients) -> None:
    world.decided(ready)
    address = reverse("dashboard:act", args=["everyday", 1, "promote"])
    assert clients["ada"].get(address).status_code == 405


def test_a_form_without_its_token_is_refused(ready: Project, ada: User) -> None:
    world.decided(ready)
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(ada, backend="django.contrib.auth.backends.ModelBackend")
    address = reverse("dashboard:act", args=["everyday", 1, "promote"])
    assert strict.post(address).status_code == 403


# --- starting


def test_a_round_starts_with_the_settings_of_the_form(
    ready: Project, clients: Clients, ada: User
) -> None:
    response = send(clients["ada"], "start", data=SETTINGS)
    turn = Round.objects.get(project=ready)
    assert said(response) == ["Round 1 has begun."]
    assert response.request["PATH_INFO"] == "/dashboard/everyday/rounds/1/"
    assert turn.created_by == ada
    assert (turn.mode, turn.seed) == ("step", 7)
    assert turn.config["steps"] == 5
    assert turn.config["languages"] == ["en", "zh"]
    assert turn.runs.get().stage == "generate"


def test_a_form_that_is_sent_as_it_stands_starts_a_round(ready: Project, clients: Clients) -> None:
    page = clients["ada"].get(reverse("dashboard:project", args=["everyday"]))
    form = page.context["start_form"]
    sent = {name: form[name].value() for name in form.fields}
    assert sent["prompts"] == 4, "never more than there are"
    send(clients["ada"], "start", data=sent)
    assert Round.objects.filter(project=ready).count() == 1


def test_the_form_remembers_the_last_round(ready: Project, clients: Clients) -> None:
    turn = world.make_round(
        ready, Round.State.REJECTED, config=world.CONFIG | {"steps": 3, "prompts": 2}, seed=4
    )
    assert turn.number == 1
    form = clients["ada"].get(reverse("dashboard:project", args=["everyday"])).context["start_form"]
    assert form["steps"].value() == 3
    assert form["seed"].value() == 5, "another draw than last time"


def test_what_was_typed_stays_when_the_loop_refuses(ready: Project, clients: Clients) -> None:
    response = send(clients["ada"], "start", data=SETTINGS | {"prompts": 3000})
    assert response.status_code == 400
    page = response.content.decode()
    assert "wants 3000 prompts" in page
    assert 'value="3000"' in page
    assert not Round.objects.exists()


def test_a_setting_out_of_bounds_is_named_at_its_field(ready: Project, clients: Clients) -> None:
    response = send(clients["ada"], "start", data=SETTINGS | {"answers": 12, "overlap": 0})
    form = response.context["start_form"]
    assert response.status_code == 400
    assert set(form.errors) == {"answers", "overlap"}
    assert "<details" in response.content.decode()
    assert form.more_is_wrong(), "the field behind “more settings” must be seen"


def test_a_second_round_is_refused_while_one_is_open(ready: Project, clients: Clients) -> None:
    send(clients["ada"], "start", data=SETTINGS)
    response = send(clients["ada"], "start", data=SETTINGS)
    assert said(response) == ["A round is open already: decide it before the next one begins."]
    assert Round.objects.count() == 1


# --- the buttons of a round


def test_stop_and_resume(ready: Project, clients: Clients) -> None:
    turn = world.make_round(ready)
    run = world.make_run(turn, "ppo", Run.State.RUNNING)
    assert said(send(clients["ada"], "act", 1, "stop")) == [
        "Stopping: the trainer saves a checkpoint first."
    ]
    run.refresh_from_db()
    assert run.state == Run.State.STOPPING
    Run.objects.filter(pk=run.pk).update(state=Run.State.STOPPED)
    send(clients["ada"], "act", 1, "resume")
    run.refresh_from_db()
    assert run.state == Run.State.QUEUED


def test_promote_moves_the_live_pointer(ready: Project, clients: Clients, ada: User) -> None:
    turn = world.decided(ready)
    send(clients["ada"], "act", 1, "promote")
    turn.refresh_from_db()
    assert (turn.state, turn.decided_by) == (Round.State.PROMOTED, ada)
    assert LivePolicy.objects.get(project=ready).version == turn.policy_out
    assert AuditEntry.objects.filter(action="round.promote", actor=ada).count() == 1


def test_reject_leaves_the_old_policy_live(ready: Project, clients: Clients) -> None:
    turn = world.decided(ready)
    send(clients["ada"], "act", 1, "reject")
    turn.refresh_from_db()
    assert turn.state == Round.State.REJECTED
    assert LivePolicy.objects.get(project=ready).version == turn.policy_in


def test_closing_the_ranking_closes_what_is_open(
    ready: Project, clients: Clients, ann: User
) -> None:
    turn = world.make_round(ready, Round.State.RANK)
    sets = world.add_sets(turn, 2)
    world.rank(sets[:1], ann)
    send(clients["ada"], "act", 1, "close-ranking")
    assert Slot.objects.get(answer_set=sets[1]).state == Slot.State.CLOSED
    turn.refresh_from_db()
    assert turn.state == Round.State.REWARD


def test_the_next_step_is_taken_by_hand(ready: Project, clients: Clients, ann: User) -> None:
    turn = world.make_round(ready, Round.State.RANK, mode=Round.Mode.STEP)
    world.rank(world.add_sets(turn, 1), ann)
    send(clients["ada"], "act", 1, "step")
    turn.refresh_from_db()
    assert turn.state == Round.State.REWARD


def test_the_mode_can_be_changed_both_ways(ready: Project, clients: Clients) -> None:
    turn = world.make_round(ready)
    world.make_run(turn, "ppo")
    for action, mode in (("by-step", "step"), ("auto", "auto")):
        send(clients["ada"], "act", 1, action)
        turn.refresh_from_db()
        assert turn.mode == mode


def test_the_disputed_sets_can_be_asked_for_first(ready: Project, clients: Clients) -> None:
    turn = world.make_round(ready, Round.State.RANK)
    world.add_sets(turn, 1)
    page = clients["ada"].get(reverse("dashboard:round", args=[ready.slug, 1]))
    assert "Rank disputed sets first" not in page.content.decode()
    factories.make_version(
        f"{ready.slug}/reward-v9", kind="reward", project=ready, number=9,
        metrics={"ensemble": {"members": 4}},
    )  # fmt: skip
    page = clients["ada"].get(reverse("dashboard:round", args=[ready.slug, 1]))
    assert "Rank disputed sets first" in page.content.decode()
    send(clients["ada"], "act", 1, "score")
    run = Run.objects.get(stage="score")
    assert run.round_run.round == turn
    page = clients["ada"].get(reverse("dashboard:round", args=[ready.slug, 1]))
    assert "Rank disputed sets first" not in page.content.decode()


def test_a_round_can_be_abandoned(ready: Project, clients: Clients) -> None:
    turn = world.make_round(ready, Round.State.RANK)
    world.add_sets(turn, 1)
    send(clients["ada"], "act", 1, "abandon")
    turn.refresh_from_db()
    assert turn.state == Round.State.REJECTED


@pytest.mark.parametrize(
    ("action", "reason"),
    [
        ("promote", "There is nothing to decide yet."),
        ("resume", "Only a stopped or failed run can be resumed."),
        ("step", "The round's present stage is not complete yet."),
        ("close-ranking", "The round is not being ranked now."),
        ("score", "The round is not being ranked now."),
    ],
)
def test_a_refusal_is_told_in_its_own_words(
    action: str, reason: str, ready: Project, clients: Clients
) -> None:
    turn = world.make_round(ready)
    world.make_run(turn, "ppo")
    response = send(clients["ada"], "act", 1, action)
    assert said(response) == [reason]
    assert response.status_code == 200


def test_an_unknown_action_is_not_there(ready: Project, clients: Clients) -> None:
    turn = world.make_round(ready)
    run = world.make_run(turn, "ppo")
    assert send(clients["ada"], "act", 1, "explode").status_code == 404
    assert send(clients["ada"], "act-run", run.pk, "explode").status_code == 404


def test_a_run_is_stopped_from_its_own_page(ready: Project, clients: Clients) -> None:
    turn = world.make_round(ready)
    run = world.make_run(turn, "ppo")
    send(clients["ada"], "act-run", run.pk, "stop")
    run.refresh_from_db()
    assert run.state == Run.State.STOPPING


# --- prompts


def test_plain_lines_and_json_lines_are_imported_together(
    project: Project, clients: Clients
) -> None:
    text = "How do I boil an egg?\n\n" + json.dumps(
        {"prompt": [{"role": "user", "content": "Two\u2028lines?"}], "language": "en"},
        ensure_ascii=False,
    )
    response = send(clients["ada"], "import-prompts", data={"text": text, "language": "en"})
    assert said(response) == ["2 prompts are new."]
    said_by_user = {prompt.messages[-1]["content"] for prompt in project.prompts.all()}
    assert said_by_user == {"How do I boil an egg?", "Two\u2028lines?"}


def test_a_file_is_imported_with_its_byte_order_mark(project: Project, clients: Clients) -> None:
    file = SimpleUploadedFile(
        "p.txt", "\ufeffWhy is the sky blue?\r\n天为什么是蓝的？\r\n".encode()
    )
    send(clients["ada"], "import-prompts", data={"file": file, "language": "en"})
    said_by_user = {prompt.messages[-1]["content"] for prompt in project.prompts.all()}
    assert said_by_user == {"Why is the sky blue?", "天为什么是蓝的？"}


def test_refused_lines_are_shown_with_their_numbers(project: Project, clients: Clients) -> None:
    text = 'A good one?\n{"prompt": []}\n{"broken'
    response = send(clients["ada"], "import-prompts", data={"text": text, "language": "en"})
    page = response.content.decode()
    assert "2 lines were refused" in page
    assert "Line 2:" in page
    assert "Line 3:" in page
    assert project.prompts.count() == 1


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ({"text": "  \n "}, "Nothing to import"),
        ({"file": SimpleUploadedFile("p.txt", b"\xff\xfe\x00x")}, "not UTF-8"),
    ],
)
def test_a_useless_import_says_what_to_do(
    data: dict[str, Any], sentence: str, project: Project, clients: Clients
) -> None:
    response = send(clients["ada"], "import-prompts", data=data | {"language": "en"})
    assert response.status_code == 400
    assert sentence in response.content.decode()
    assert not project.prompts.exists()


def test_prompts_are_held_out_up_to_the_number_asked_for(ready: Project, clients: Clients) -> None:
    for _ in range(2):  # asking twice changes nothing
        send(clients["ada"], "hold-out", data={"count": 3, "language": "en"})
        assert ready.prompts.filter(held_out=True).count() == 3


def test_holding_out_more_than_there_are_is_refused(ready: Project, clients: Clients) -> None:
    response = send(clients["ada"], "hold-out", data={"count": 30, "language": "en"})
    assert "import more prompts or hold out fewer" in said(response)[0]


# --- people, guidelines, versions, projects


def test_a_member_is_seated_by_name(project: Project, clients: Clients, mallory: User) -> None:
    send(clients["ada"], "add-member", data={"username": "mallory", "role": "annotator"})
    assert project.memberships.get(user=mallory).role == "annotator"


@pytest.mark.parametrize(
    ("who", "sentence"),
    [("nobody-at-all", "There is no account of that name"), ("robot", "simulated annotator")],
)
def test_who_cannot_be_seated_is_refused_at_the_field(
    who: str, sentence: str, project: Project, clients: Clients
) -> None:
    factories.make_user("robot", is_simulated=True)
    response = send(clients["ada"], "add-member", data={"username": who, "role": "annotator"})
    assert response.status_code == 400
    assert sentence in response.content.decode()


def test_admins_cannot_lock_themselves_out(project: Project, clients: Clients, ada: User) -> None:
    response = send(clients["ada"], "add-member", data={"username": "ada", "role": "annotator"})
    assert response.status_code == 400
    assert project.memberships.get(user=ada).role == "admin"


def test_guidelines_are_published_as_a_new_version(project: Project, clients: Clients) -> None:
    send(clients["ada"], "publish-guidelines", data={"text": "Prefer short answers."})
    newest = project.guidelines.first()
    assert newest is not None
    assert (newest.version, newest.text) == (2, "Prefer short answers.")
    page = clients["ada"].get(reverse("dashboard:guidelines", args=["everyday"])).content.decode()
    assert "version 2 is in force" in page
    assert "Prefer the answer that helps more." in page, "the old version stays readable"


def test_empty_guidelines_are_refused(project: Project, clients: Clients) -> None:
    assert send(clients["ada"], "publish-guidelines", data={"text": " "}).status_code == 400
    assert project.guidelines.count() == 1


def test_a_first_policy_is_chosen(project: Project, clients: Clients) -> None:
    base = factories.make_version("tiny-base")
    send(clients["ada"], "make-live", base.pk)
    assert LivePolicy.objects.get(project=project).version == base


def test_a_reward_model_cannot_go_live(project: Project, clients: Clients) -> None:
    reward = factories.make_version("everyday/reward-v1", kind="reward", project=project, number=1)
    response = send(clients["ada"], "make-live", reward.pk)
    assert "cannot write answers" in said(response)[0]
    assert not LivePolicy.objects.exists()


NEW = {"name": "Poems", "slug": "", "language": "en", "answers_per_prompt": 4, "overlap": 1}


def test_only_an_administrator_makes_projects(
    project: Project, clients: Clients, sign_in: Callable[[User], Client]
) -> None:
    address = reverse("dashboard:new")
    assert clients["ada"].post(address, NEW).status_code == 403
    root = factories.make_user("root", is_superuser=True)
    assert sign_in(root).post(address, NEW)["Location"] == "/dashboard/poems/prompts/"
    assert Project.objects.get(slug="poems").memberships.get().user == root


@pytest.mark.parametrize(
    ("change", "field"),
    [({"slug": "everyday"}, "slug"), ({"slug": "new"}, "slug"), ({"name": "诗"}, "slug")],
)
def test_a_project_needs_a_short_name_of_its_own(
    change: dict[str, str], field: str, project: Project, sign_in: Callable[[User], Client]
) -> None:
    root = factories.make_user("root", is_superuser=True)
    response = sign_in(root).post(reverse("dashboard:new"), NEW | change)
    assert response.status_code == 400
    assert list(response.context["form"].errors) == [field]
