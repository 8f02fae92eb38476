"""Runs, rounds and versions: start, stop, resume, follow, read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from labelhub.accounts.models import AuditEntry, User
from labelhub.projects.models import Project
from labelhub.rounds.models import Round
from labelhub.runs import launcher, rules
from labelhub.runs.models import Run, RunEvent
from tests import factories
from tests.labelhub.api.world import World
from tests.labelhub.runs.things import asked_of, make_things, sets_of_inputs
from trainer.config import input_kind

RUNS = "/api/v1/runs/"


def start(hub: Client, **body: Any) -> Any:
    return hub.post(RUNS, {"project": "everyday", **body}, content_type="application/json")


def test_a_run_is_started_with_all_that_was_asked(world: World, hub: Client) -> None:
    response = start(
        hub,
        stage="generate",
        config={"answers": 2},
        inputs={"policy": "everyday/policy-v1"},
        prompts=[world.prompt.pk, world.prompt.pk],
        seed=7,
    )
    shown = response.json()
    assert (response.status_code, shown["state"], shown["seed"]) == (201, "queued", 7)
    assert shown["config"] == {"answers": 2}
    assert shown["inputs"] == {"policy": "everyday/policy-v1"}
    run = Run.objects.get(pk=shown["id"])
    assert (run.data, run.created_by) == ({"prompts": [world.prompt.pk]}, world.waiting.created_by)
    assert AuditEntry.objects.filter(action="run.start", target=f"run:{run.pk}").exists()


@pytest.mark.parametrize(("stage", "roles", "config"), sets_of_inputs(), ids=str)
def test_every_stage_is_started_with_each_set_of_inputs(
    project: Project,
    ann: User,
    ada: User,
    hub: Client,
    var: Path,
    stage: str,
    roles: tuple[str, ...],
    config: dict[str, Any],
) -> None:
    inputs = asked_of(make_things(project, ann), stage, roles)
    response = start(hub, stage=stage, inputs=inputs, config=config, seed=3)
    assert response.status_code == 201, response.content
    shown = response.json()
    rows = {role for role in roles if input_kind(stage, role) in rules.ROW_KINDS}
    assert shown["inputs"] == {role: said for role, said in inputs.items() if role not in rows}
    assert set(shown["rows"]) == rows
    run = Run.objects.get(pk=shown["id"])
    assert (run.stage, run.state, run.created_by) == (stage, "queued", ada)
    spec = json.loads((launcher.prepare_folder(run) / "spec.json").read_text())
    assert (spec["stage"], spec["config"], spec["seed"]) == (stage, config, 3)
    assert set(spec["inputs"]) == set(roles)
    versions = {role for role in roles if input_kind(stage, role) in rules.VERSION_KINDS}
    assert spec["parents"] == {role: inputs[role] for role in versions}


def test_no_stage_is_started_by_who_does_not_administer(
    project: Project, ann: User, mallory: User, program: Callable[..., Client]
) -> None:
    things = make_things(project, ann)
    callers = [(program(ann, "run"), 403), (program(mallory, "run"), 404)]
    for stage, roles, config in sets_of_inputs():
        for caller, due in callers:
            inputs = asked_of(things, stage, roles)
            response = start(caller, stage=stage, inputs=inputs, config=config)
            assert (stage, response.status_code) == (stage, due)
    assert not Run.objects.filter(state="queued").exists()


def test_a_reward_run_reads_a_snapshot(world: World, hub: Client) -> None:
    body = {"inputs": {"base": "tiny-base"}, "snapshot": world.snapshot.pk}
    response = start(hub, stage="reward", **body)
    assert (response.status_code, response.json()["snapshot"]) == (201, world.snapshot.pk)


def test_a_score_run_reads_answers(world: World, hub: Client) -> None:
    answers = list(world.ranking.answer_set.answers.values_list("pk", flat=True))
    reward = factories.make_version("everyday/reward-v1", kind="reward", project=world.project)
    response = start(hub, stage="score", inputs={"reward": reward.name}, answers=answers)
    assert response.status_code == 201
    assert Run.objects.get(pk=response.json()["id"]).data == {"answers": sorted(answers)}


def test_a_score_run_reads_what_a_run_wrote(world: World, hub: Client) -> None:
    wrote = Run.objects.create(project=world.project, stage="generate", state="finished")
    reward = factories.make_version("everyday/reward-v1", kind="reward", project=world.project)
    response = start(hub, stage="score", inputs={"reward": reward.name}, answers={"run": wrote.pk})
    assert response.status_code == 201
    named = {"reward": reward.name, "answers": {"run": wrote.pk}}
    assert response.json()["inputs"] == named
    assert start(hub, stage="score", inputs=named).status_code == 201
    missing = start(hub, stage="score", inputs={"reward": reward.name}, answers={"run": 10**6})
    assert "no run 1000000" in missing.json()["errors"]["answers"][0]


def test_a_setting_that_the_trainer_does_not_know_is_refused_at_the_door(
    world: World, hub: Client
) -> None:
    inputs = {"policy": "tiny-base"}
    wanted = {"inputs": inputs, "prompts": [world.prompt.pk], "config": {"answerss": 3}}
    response = start(hub, stage="generate", **wanted)
    assert response.status_code == 400
    assert "unknown setting “answerss”" in response.json()["errors"]["config.answerss"][0]


def test_inputs_that_the_method_cannot_use_are_refused_at_the_door(
    world: World, hub: Client
) -> None:
    reward = factories.make_version("everyday/reward-v1", kind="reward", project=world.project)
    inputs = {"policy": "tiny-base", "reward": reward.name}
    response = start(hub, stage="prefer", inputs=inputs, snapshot=world.snapshot.pk)
    assert (response.status_code, response.json()["errors"]) == (
        400,
        {"inputs.reward": ["the method dpo does not read the input reward; leave it out."]},
    )
    wanted = {"config": {"method": "rloo", "batch_size": 6}, "prompts": [world.prompt.pk]}
    response = start(hub, stage="prefer", inputs=inputs, **wanted)
    assert (response.status_code, list(response.json()["errors"])) == (400, ["config.batch_size"])
    assert not Run.objects.filter(stage="prefer").exists()


@pytest.mark.parametrize(
    ("body", "field", "word"),
    [
        ({"stage": "reward"}, "inputs", "base, rankings"),
        ({"stage": "reward", "inputs": {"base": "tiny-base"}}, "inputs", "rankings"),
        ({"stage": "score", "inputs": {"base": "tiny-base"}}, "inputs.base", "answers, reward"),
        ({"stage": "generate", "snapshot": 1}, "snapshot", "policy, prompts"),
        ({"stage": "evaluate", "inputs": {"reward": "r"}}, "inputs", "rankings"),
        ({"stage": "pretrain", "inputs": {"text": "none"}}, "inputs.text", "none"),
        ({"stage": "pretrain", "inputs": {"text": 3}}, "inputs.text", "name"),
        ({"stage": "sft", "inputs": {"base": "tiny-base"}, "snapshot": 1}, "snapshot", "pairs"),
    ],
)
def test_a_run_with_too_little_or_the_wrong_to_read_is_refused_at_the_door(
    world: World, hub: Client, body: dict[str, Any], field: str, word: str
) -> None:
    response = start(hub, **body)
    assert response.status_code == 400
    assert word in response.json()["errors"][field][0]


def test_held_out_prompts_are_refused_for_training(world: World, hub: Client) -> None:
    reward = factories.make_version("everyday/reward-v1", kind="reward", project=world.project)
    held_out = factories.make_prompt(world.project, held_out=True)
    inputs = {"policy": "tiny-base", "reward": reward.name}
    wanted = [world.prompt.pk, held_out.pk]
    response = start(hub, stage="ppo", inputs=inputs, prompts=wanted)
    assert response.status_code == 400
    assert response.json()["errors"] == {
        "prompts": [f"These prompts are held out, no stage trains on them: {held_out.pk}."]
    }


def test_what_belongs_to_another_project_does_not_exist(
    world: World, hub: Client, mallory: User
) -> None:
    elsewhere = factories.make_project("elsewhere", admins=[mallory])
    prompt = factories.make_prompt(elsewhere)
    version = factories.make_version("elsewhere/policy-v1", kind="policy", project=elsewhere)
    own = {"prompts": [world.prompt.pk], "inputs": {"policy": "tiny-base"}}
    assert start(hub, stage="generate", **own).status_code == 201
    for other in ({"prompts": [prompt.pk]}, {"inputs": {"policy": version.name}}):
        assert start(hub, stage="generate", **{**own, **other}).status_code == 400
    assert hub.get(f"/api/v1/versions/{version.pk}/").status_code == 404


def test_a_waiting_run_stops_at_once_and_can_be_resumed(world: World, hub: Client) -> None:
    address = f"{RUNS}{world.waiting.pk}/"
    assert hub.post(f"{address}stop/").json()["state"] == "stopped"
    assert hub.post(f"{address}stop/").status_code == 409
    assert hub.post(f"{address}resume/").json()["state"] == "queued"
    assert hub.post(f"{address}resume/").json() == {
        "detail": "Only a stopped or failed run can be resumed.",
        "code": "refused",
    }


def test_the_list_filters(world: World, hub: Client) -> None:
    def found(query: str) -> set[int]:
        return {row["id"] for row in hub.get(RUNS + query).json()["results"]}

    waiting, stopped = world.waiting.pk, world.stopped.pk
    compared = world.project.runs.get(stage="evaluate").pk
    assert found("") == {waiting, stopped, compared}
    assert found("?state=stopped") == {stopped}
    assert found("?stage=generate&project=everyday") == {waiting}


def follow(hub: Client, run: Run, **query: int) -> Any:
    return hub.get(f"{RUNS}{run.pk}/events/", query).json()


def test_events_are_read_page_by_page(world: World, hub: Client) -> None:
    first = follow(hub, world.stopped, limit=2)
    assert [event["offset"] for event in first["events"]] == [0, 80]
    assert (first["next"], first["done"]) == (80, False)
    second = follow(hub, world.stopped, limit=2, after=first["next"])
    assert [event["offset"] for event in second["events"]] == [160]
    assert (second["next"], second["done"], second["state"]) == (160, True, "stopped")
    assert second["events"][0]["data"] == {"loss": 0.5}


def test_following_waits_at_its_place_for_events_to_come(world: World, hub: Client) -> None:
    nothing = follow(hub, world.waiting)
    assert (nothing["events"], nothing["next"], nothing["done"]) == ([], -1, False)
    RunEvent.objects.create(
        run=world.waiting, attempt=1, offset=0, at=timezone.now(), kind="started"
    )
    assert follow(hub, world.waiting, after=nothing["next"])["events"][0]["kind"] == "started"


def test_a_round_shows_its_runs_and_versions(world: World, hub: Client) -> None:
    shown = hub.get(f"/api/v1/rounds/{world.round.pk}/").json()
    assert (shown["number"], shown["state"], shown["policy_in"]) == (1, "planned", "tiny-base")
    assert shown["runs"] == [{"run": world.stopped.pk, "stage": "reward", "state": "stopped"}]


def test_a_version_shows_parents_metrics_and_its_run_but_no_folder(
    world: World, hub: Client
) -> None:
    response = hub.get(f"/api/v1/versions/{world.policy.pk}/")
    shown = response.json()
    assert shown["parents"] == [{"id": world.base.pk, "name": "tiny-base", "role": "policy"}]
    assert (shown["metrics"], shown["card"]) == ({"kl": 3.5}, "# Policy 1")
    assert shown["made_by"] == world.stopped.pk
    assert b"/srv/secret/place" not in response.content


def test_versions_filter_by_kind_and_include_the_bases(world: World, hub: Client) -> None:
    def found(query: str) -> set[str]:
        rows = hub.get(f"/api/v1/versions/{query}").json()["results"]
        return {row["name"] for row in rows}

    assert found("") == {"tiny-base", "everyday/policy-v1", "everyday/reward-v1"}
    assert found("?project=everyday&kind=policy") == {"everyday/policy-v1"}
    assert found("?kind=base") == {"tiny-base"}


def test_a_project_shows_role_guidelines_and_live_policy(
    world: World, callers: dict[str, Client]
) -> None:
    shown = callers["ben"].get("/api/v1/projects/everyday/").json()
    assert (shown["role"], shown["live"], shown["guidelines"]["version"]) == ("annotator", None, 1)
    assert callers["ada"].get("/api/v1/projects/").json()["results"][0]["role"] == "admin"


def test_an_admin_of_everything_is_an_admin_here(
    world: World, program: Callable[..., Client]
) -> None:
    root = factories.make_user("root", is_superuser=True)
    shown = program(root, "read").get("/api/v1/projects/everyday/").json()
    assert shown["role"] == "admin"


@pytest.mark.parametrize("name", ["runs", "rounds", "versions", "prompts", "snapshots"])
def test_a_longer_list_costs_no_more_queries(
    world: World, hub: Client, django_assert_max_num_queries: Any, name: str
) -> None:
    for n in range(2, 6):
        Run.objects.create(project=world.project, stage="ppo")
        factories.make_version(f"v{n}", kind="policy", project=world.project, number=n)
        factories.make_prompt(world.project)
        ended = {"state": "rejected", "policy_in": world.base, "reward_base": world.base}
        Round.objects.create(project=world.project, number=n, **ended)
    with django_assert_max_num_queries(8):
        assert hub.get(f"/api/v1/{name}/").status_code == 200
