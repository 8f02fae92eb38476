"""Every page for every role: ada steers, ann may not, mallory sees nothing, nobody must sign in."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import translation

from labelhub.accounts.models import User
from labelhub.dashboard.log import ALERTS, REMEDIES
from labelhub.projects.models import Project
from labelhub.rounds.models import Round
from labelhub.runs.models import Run
from tests import factories
from tests.labelhub.dashboard import world
from trainer.config import CONFIGS

pytestmark = pytest.mark.django_db
Clients = dict[str, Client]
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def turn(project: Project) -> Round:
    return world.decided(project)


def addresses(turn: Round) -> list[str]:
    """Every page of the dashboard that belongs to one project."""
    slug = turn.project.slug
    run = turn.runs.filter(stage="ppo").get()
    assert turn.policy_out is not None
    names = ("project", "project-live", "people", "prompts", "guidelines", "versions", "runs")
    return [
        *(reverse(f"dashboard:{name}", args=[slug]) for name in names),
        reverse("dashboard:round", args=[slug, turn.number]),
        reverse("dashboard:round-live", args=[slug, turn.number]),
        reverse("dashboard:run", args=[slug, run.pk]),
        reverse("dashboard:run-live", args=[slug, run.pk]),
        reverse("dashboard:version", args=[slug, turn.policy_out.pk]),
        reverse("dashboard:version", args=[slug, turn.policy_in.pk]),
    ]


@pytest.mark.parametrize(("who", "status"), [("ada", 200), ("ann", 403), ("mallory", 404)])
def test_each_page_is_for_the_projects_admin(
    who: str, status: int, turn: Round, clients: Clients
) -> None:
    for address in [*addresses(turn), "/dashboard/", "/dashboard/live/"]:
        assert clients[who].get(address).status_code == status, address


def test_without_signing_in_each_page_leads_to_the_sign_in(turn: Round, clients: Clients) -> None:
    for address in [*addresses(turn), "/dashboard/", "/dashboard/live/"]:
        response = clients["nobody"].get(address)
        assert response.status_code == 302, address
        assert response["Location"].startswith("/accounts/login/")


def test_what_belongs_to_another_project_is_not_there(
    turn: Round, clients: Clients, ada: User
) -> None:
    other = factories.make_project("other", admins=[ada])
    run = turn.runs.first()
    assert run is not None
    assert turn.policy_out is not None
    for address in (
        reverse("dashboard:round", args=[other.slug, turn.number]),
        reverse("dashboard:run", args=[other.slug, run.pk]),
        reverse("dashboard:version", args=[other.slug, turn.policy_out.pk]),
    ):
        assert clients["ada"].get(address).status_code == 404, address


def test_a_base_does_not_show_what_others_made_from_it(
    turn: Round, clients: Clients, ada: User
) -> None:
    other = factories.make_project("other", admins=[ada])
    page = (
        clients["ada"]
        .get(reverse("dashboard:version", args=[other.slug, turn.policy_in.pk]))
        .content.decode()
    )
    assert "everyday/policy-v1" not in page


def test_pages_only_read(turn: Round, clients: Clients) -> None:
    for address in addresses(turn):
        assert clients["ada"].post(address).status_code == 405, address


def test_the_home_page_says_where_each_loop_stands(turn: Round, clients: Clients) -> None:
    page = clients["ada"].get("/dashboard/").content.decode()
    assert "Waits for your decision: promote the new policy or reject it." in page
    assert "+0.6 ±\u00a00.2" in page


def test_the_round_shows_the_gain_with_its_interval_and_both_answers(
    turn: Round, clients: Clients
) -> None:
    page = clients["ada"].get(reverse("dashboard:round", args=["everyday", 1])).content.decode()
    for words in (
        "+0.6 ±\u00a00.2",
        "n = 64 held-out prompts",
        "68\u202f% ±\u00a03",
        "I do not know.",
        "Let us see together!",
        "What now?",
        "Length alone",
        "the whole interval lies above 0",
    ):
        assert words in page, words


def test_the_curves_of_a_run_are_drawn_while_it_runs(project: Project, clients: Clients) -> None:
    turn = world.make_round(project)
    run = world.make_run(turn, "ppo", config={"kl_budget": 12.0}, step=2, total=14, eta_seconds=120)
    for step, (reward, kl) in enumerate([(0.0, 0.0), (0.3, 2.5)], start=1):
        world.tell(
            run, "metric", step, total=14, reward=reward, reward_std=1.0, kl=kl, odd_one=step
        )
    for name, args in (("run", [run.pk]), ("round", [turn.number])):
        page = clients["ada"].get(reverse(f"dashboard:{name}", args=["everyday", *args]))
        text = page.content.decode()
        assert "budget 12" in text
        assert "step 2 of 14" in text
        assert "about 2 min left" in text
        assert text.count('class="band tone-a"') == 1
    run_page = clients["ada"].get(reverse("dashboard:run", args=["everyday", run.pk]))
    assert "odd_one" in run_page.content.decode(), "a figure without a name for people is drawn too"


@pytest.mark.parametrize("state", [Run.State.RUNNING, Run.State.FINISHED])
def test_what_an_ended_run_measured_once_is_no_curve(
    project: Project, clients: Clients, state: str
) -> None:
    """While it runs, the first point of a curve is drawn."""
    run = world.make_run(world.make_round(project), "bestofn", state, step=18, total=18)
    world.tell(run, "metric", 16, total=18, length=12.9)
    for step in (17, 18):
        world.tell(run, "metric", step, total=18, loss=1.0)
    page = clients["ada"].get(reverse("dashboard:run", args=["everyday", run.pk]))
    text = page.content.decode()
    assert "Loss" in text
    assert ("Length of an answer" in text) == (state == Run.State.RUNNING)


def test_a_run_says_by_which_method_it_learns_from_rankings(
    project: Project, clients: Clients
) -> None:
    turn = world.make_round(project)
    for config, words in (({}, "(DPO)"), ({"method": "rloo"}, "(RLOO)")):
        run = world.make_run(turn, "prefer", config=config)
        page = clients["ada"].get(reverse("dashboard:run", args=["everyday", run.pk]))
        assert words in page.content.decode()
    assert CONFIGS["prefer"]().method == "dpo"


@pytest.mark.parametrize(
    ("language", "kind"),
    [("en", "The disk is full. What was saved before is kept."), ("zh-hans", "磁盘已满。")],
)
def test_a_failed_run_says_why_in_the_readers_language_and_in_the_trainers_words(
    project: Project, clients: Clients, language: str, kind: str
) -> None:
    turn = world.make_round(project)
    said = "The disk is full: free some space."
    run = world.make_run(turn, "ppo", Run.State.FAILED, error=said, error_code="disk")
    world.tell(run, "failed", code="disk", message=said)
    for address in (
        reverse("dashboard:run", args=["everyday", run.pk]),
        reverse("dashboard:round", args=["everyday", turn.number]),
        reverse("dashboard:project", args=["everyday"]),
    ):
        page = clients["ada"].get(address, HTTP_ACCEPT_LANGUAGE=language).content.decode()
        assert kind in page
        assert f'<p lang="en" class="trainer-words">{said}</p>' in page
        assert (f'<span lang="en" class="trainer-words">{said}</span>' in page) == (
            "/runs/" in address
        )


def test_an_alarm_is_told_in_the_readers_language_too(project: Project, clients: Clients) -> None:
    turn = world.make_round(project)
    run = world.make_run(turn, "ppo")
    world.tell(run, "alert", 3, code="length_drift", message="Answers went from 9 to 20 tokens.")
    address = reverse("dashboard:round", args=["everyday", turn.number])
    page = clients["ada"].get(address, HTTP_ACCEPT_LANGUAGE="zh-hans").content.decode()
    assert "第 3 步：回答长度的变化超过一半。" in page
    assert '<span lang="en" class="trainer-words">Answers went from 9 to 20 tokens.</span>' in page


def test_every_alarm_of_the_trainer_has_its_words() -> None:
    """Found where they are raised: a code beside a sentence."""
    source = "\n".join(path.read_text() for path in (ROOT / "trainer").rglob("*.py"))
    named = re.findall(r'"alert",[^)]*?code="(\w+)"', source) + re.findall(
        r'Alarm\("(\w+)"|^ +"(reward_\w+|no_heldout)",$', source, flags=re.MULTILINE
    )
    codes = {one if isinstance(one, str) else "".join(one) for one in named}
    assert codes == set(ALERTS)


def test_answers_are_text_and_never_markup(turn: Round, clients: Clients) -> None:
    prompt = factories.make_prompt(turn.project, "<b>bold?</b>", held_out=True)
    world.compare(turn, prompt, "<script>alert(1)</script>", "<img src=x>", None, None)
    page = clients["ada"].get(reverse("dashboard:round", args=["everyday", 1])).content.decode()
    assert "<script>alert" not in page
    assert "<img src=x>" not in page
    assert "&lt;b&gt;bold?" in page


MARK = 'class="tag simulated"'


def test_simulated_work_is_marked_on_every_page_that_shows_it(
    project: Project, clients: Clients
) -> None:
    Project.objects.filter(pk=project.pk).update(is_simulated=True)
    project.refresh_from_db()
    turn = world.decided(project)
    for address in [*addresses(turn), "/dashboard/"]:
        if not address.endswith("/everyday/live/"):
            assert MARK in clients["ada"].get(address).content.decode(), address


def test_peoples_work_bears_no_such_mark(turn: Round, clients: Clients) -> None:
    for address in [*addresses(turn), "/dashboard/"]:
        assert MARK not in clients["ada"].get(address).content.decode(), address


def test_simulated_members_are_marked_apart_from_people(project: Project, clients: Clients) -> None:
    robot = factories.make_user("robot", is_simulated=True)
    project.memberships.create(user=robot, role="annotator")
    page = clients["ada"].get(reverse("dashboard:people", args=["everyday"])).content.decode()
    assert page.count(MARK) == 1


def test_what_annotators_flagged_is_seen_by_the_admin(
    project: Project, clients: Clients, ann: User
) -> None:
    answer = factories.make_answer_set(
        project, answers=["My number is 555-0100."] * 2
    ).answers.first()
    assert answer is not None
    answer.flags.create(annotator=ann, note="A telephone number.")
    page = clients["ada"].get(reverse("dashboard:project", args=["everyday"])).content.decode()
    assert "My number is 555-0100." in page
    assert "A telephone number." in page


# --- empty pages


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("project", "Here the loop will stand"),
        ("runs", "Here the runs will stand"),
        ("versions", "Here the family of models will stand"),
        ("prompts", "Here the prompts will stand"),
    ],
)
def test_an_empty_page_says_what_will_stand_there(
    name: str, words: str, project: Project, clients: Clients
) -> None:
    page = clients["ada"].get(reverse(f"dashboard:{name}", args=["everyday"])).content.decode()
    assert words in page


def test_an_empty_project_says_how_to_begin(project: Project, clients: Clients) -> None:
    address = reverse("dashboard:project", args=["everyday"])
    assert "add_model" in clients["ada"].get(address).content.decode(), "no base is there"
    base = factories.make_version("tiny-base")
    assert "Begin with tiny-base" in clients["ada"].get(address).content.decode()
    world.live(project, base)
    assert "There are no prompts yet" in clients["ada"].get(address).content.decode()
    factories.make_prompt(project)
    page = clients["ada"].get(address).content.decode()
    assert "no gain could be measured" in page, "nothing is held out"
    assert "Start round 1" in page


def test_a_new_round_says_what_each_part_will_show(project: Project, clients: Clients) -> None:
    turn = world.make_round(project, Round.State.GENERATE)
    world.make_run(turn, "generate", Run.State.QUEUED)
    page = clients["ada"].get(reverse("dashboard:round", args=["everyday", 1])).content.decode()
    assert "Here the curves will stand" in page
    assert "will answer the same held-out prompts" in page
    assert "not measured yet" in page
    assert not re.search(r"\bnan\b", page, re.IGNORECASE)


def test_a_house_without_projects_invites_its_administrator(sign_in: object, db: None) -> None:
    root = factories.make_user("root", is_superuser=True)
    page = sign_in(root).get("/dashboard/").content.decode()  # type: ignore[operator]
    assert "Here your projects will stand" in page
    assert reverse("dashboard:new") in page


# --- the living parts


def test_the_living_part_is_the_part_that_the_page_includes(turn: Round, clients: Clients) -> None:
    for name, args in (("round", [1]), ("run", [turn.runs.filter(stage="ppo").get().pk])):
        page = clients["ada"].get(reverse(f"dashboard:{name}", args=["everyday", *args]))
        part = clients["ada"].get(reverse(f"dashboard:{name}-live", args=["everyday", *args]))
        assert "<html" not in part.content.decode()
        assert without_tokens(part.content.decode()) in without_tokens(page.content.decode())


def without_tokens(html: str) -> str:
    return "\n".join(
        line for line in html.splitlines() if "csrfmiddlewaretoken" not in line
    ).strip()


def test_a_page_asks_again_only_while_something_may_change(
    project: Project, clients: Clients
) -> None:
    turn = world.make_round(project)
    run = world.make_run(turn, "ppo")
    address = reverse("dashboard:run", args=["everyday", run.pk])
    assert "data-live-on" in clients["ada"].get(address).content.decode()
    Run.objects.filter(pk=run.pk).update(state=Run.State.FINISHED)
    page = clients["ada"].get(address).content.decode()
    assert "data-live-on" not in page
    assert 'data-live-state="off"' in page


def test_no_page_has_inline_script_or_style(turn: Round, clients: Clients) -> None:
    for address in addresses(turn):
        page = clients["ada"].get(address).content.decode()
        assert " style=" not in page, address
        assert " onclick=" not in page, address
        assert "<script>" not in page, address


def test_the_number_of_queries_does_not_grow_with_what_is_listed(
    turn: Round, clients: Clients, django_assert_max_num_queries: object
) -> None:
    for n in range(12):
        prompt = factories.make_prompt(turn.project, held_out=True)
        world.compare(turn, prompt, f"b{n}", f"a{n}", 0.1, 0.2)
        turn.project.memberships.create(user=factories.make_user(f"m{n}"), role="annotator")
    with django_assert_max_num_queries(45):  # type: ignore[operator]
        clients["ada"].get(reverse("dashboard:round", args=["everyday", 1]))
    with django_assert_max_num_queries(45):  # type: ignore[operator]
        clients["ada"].get(reverse("dashboard:project", args=["everyday"]))


# --- a run that failed


@pytest.mark.parametrize("code", Run.Failure.values)
def test_every_failure_says_what_to_do_in_both_languages(code: str) -> None:
    said = []
    for language in ("en", "zh-hans"):
        with translation.override(language):
            said.append(str(REMEDIES[code]))
    assert said[0].isascii()
    assert not said[1].isascii()


@pytest.mark.parametrize(("code", "main"), [("diverged", "Do it again"), ("disk", "Resume")])
def test_a_failed_run_offers_first_what_can_help(
    turn: Round, clients: Clients, code: str, main: str
) -> None:
    run = world.make_run(turn, "ppo", Run.State.FAILED, error="It broke.", error_code=code)
    page = clients["ada"].get(reverse("dashboard:run", args=["everyday", run.pk])).content.decode()
    assert str(REMEDIES[code]) in page
    (button,) = re.findall(r'class="btn main"[^>]*>([^<]*)', page)
    assert button.startswith(main)
    assert page.count("Do it again with changes") == 1


# --- a model version


def test_a_version_shows_its_figures_and_its_card_as_text_and_not_as_markup(
    turn: Round, clients: Clients
) -> None:
    version = factories.make_version(
        "everyday/reward-v7", kind="reward", project=turn.project, number=7,
        metrics={"pair_accuracy": 0.66, "ece_calibrated": None, "stage": "reward"},
        card="# Reward model\n\n- **right** on\nheld-out pairs <script>alert(1)</script>\n",
    )  # fmt: skip
    page = clients["ada"].get(reverse("dashboard:version", args=["everyday", version.pk]))
    text = page.content.decode()
    assert [(row.key, row.figure) for row in page.context["figures"]] == [
        ("pair_accuracy", "66\u202f%")
    ]
    assert "<strong>right</strong> on\nheld-out pairs &lt;script&gt;" in text
    assert "maybe" not in text
