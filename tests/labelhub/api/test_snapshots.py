"""Snapshots: what is frozen, and that its lines are what the hash says."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.test import AsyncClient, Client

from labelhub.accounts.actions import create_token
from labelhub.accounts.models import User
from labelhub.api import streaming
from labelhub.projects.models import Project
from labelhub.rankings.models import Ranking
from labelhub.rankings.queries import export_lines
from labelhub.runs.folder import run_folder, write_lines
from labelhub.runs.models import Run, Snapshot
from tests import factories

ADDRESS = "/api/v1/snapshots/"


def freeze(hub: Client) -> Snapshot:
    response = hub.post(ADDRESS, {"project": "everyday"}, content_type="application/json")
    assert response.status_code == 201, response.content
    return Snapshot.objects.get(pk=response.json()["id"])


def body_of(response: object) -> bytes:
    return b"".join(response)  # type: ignore[call-overload]


@pytest.fixture
def three(project: Project, ann: User) -> list[Ranking]:
    """Three rankings, one of them with a tie."""
    orders = [[1, 2, 3, 4], [1, 1, 2, 3], [4, 3, 2, 1]]
    return [factories.make_ranking(factories.make_answer_set(project), ann, o) for o in orders]


def test_the_download_is_the_export_and_has_the_hash(three: list[Ranking], hub: Client) -> None:
    snapshot = freeze(hub)
    response = hub.get(f"{ADDRESS}{snapshot.pk}/rankings.jsonl")
    body = body_of(response)
    assert response["Content-Type"] == "application/x-ndjson"
    assert hashlib.sha256(body).hexdigest() == snapshot.sha256
    assert response["ETag"] == f'"{snapshot.sha256}"'
    expected = list(export_lines(Ranking.objects.order_by("pk")))
    assert [json.loads(line) for line in body.splitlines()] == expected
    assert [sorted(row["ranks"].values()) for row in expected][1] == [1, 1, 2, 3]


def test_batches_leave_no_seam(
    three: list[Ranking], hub: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = freeze(hub)
    monkeypatch.setattr(streaming, "BATCH", 2)
    chunks = list(streaming.snapshot_chunks(snapshot))
    assert [chunk.count(b"\n") for chunk in chunks] == [2, 1]
    assert hashlib.sha256(b"".join(chunks)).hexdigest() == snapshot.sha256


def test_an_asynchronous_server_streams_the_same_lines(
    three: list[Ranking], hub: Client, ada: User
) -> None:
    snapshot = freeze(hub)
    _, secret = create_token(user=ada, name="async", scopes=["read"], by=ada)

    async def download() -> bytes:
        headers = {"Authorization": f"Bearer {secret}"}
        address = f"{ADDRESS}{snapshot.pk}/rankings.jsonl"
        response = await AsyncClient().get(address, headers=headers)
        assert response.is_async
        return b"".join([chunk async for chunk in response.streaming_content])

    body = async_to_sync(download)()
    assert hashlib.sha256(body).hexdigest() == snapshot.sha256


def test_more_than_a_thousand_answers_are_no_trouble(
    project: Project, ann: User, hub: Client
) -> None:
    """SQLite takes no condition of 1000 parts."""
    for _ in range(112):
        factories.make_ranking(factories.make_answer_set(project, answers=9), ann)
    snapshot = freeze(hub)
    lines = body_of(hub.get(f"{ADDRESS}{snapshot.pk}/rankings.jsonl")).splitlines()
    assert len(lines) == 112


def test_who_has_it_already_is_not_sent_it_again(three: list[Ranking], hub: Client) -> None:
    address = f"{ADDRESS}{freeze(hub).pk}/rankings.jsonl"
    etag = hub.get(address)["ETag"]
    assert hub.get(address, headers={"If-None-Match": etag}).status_code == 304
    assert hub.get(address, headers={"If-None-Match": '"other"'}).status_code == 200


def test_later_rankings_do_not_enter_a_snapshot(
    three: list[Ranking], project: Project, ann: User, hub: Client
) -> None:
    snapshot = freeze(hub)
    factories.make_ranking(factories.make_answer_set(project), ann)
    lines = body_of(hub.get(f"{ADDRESS}{snapshot.pk}/rankings.jsonl")).splitlines()
    assert (len(lines), snapshot.count) == (3, 3)


def test_simulated_rankings_stay_out_of_a_project_of_people(
    three: list[Ranking], project: Project, hub: Client
) -> None:
    machine = factories.make_user("machine", is_simulated=True)
    factories.make_ranking(factories.make_answer_set(project), machine)
    assert set(freeze(hub).rankings.all()) == set(three)


def test_a_simulated_project_freezes_simulated_rankings(project: Project, hub: Client) -> None:
    project.is_simulated = True
    project.save()
    machine = factories.make_user("machine", is_simulated=True)
    ranking = factories.make_ranking(factories.make_answer_set(project), machine)
    assert list(freeze(hub).rankings.all()) == [ranking]


def test_nothing_held_out_or_compared_is_trained_on(
    three: list[Ranking], project: Project, ann: User, hub: Client
) -> None:
    held_out = factories.make_prompt(project, held_out=True)
    factories.make_ranking(factories.make_answer_set(project, prompt=held_out), ann)
    factories.make_ranking(factories.make_answer_set(project, purpose="compare"), ann)
    assert set(freeze(hub).rankings.all()) == set(three)


def test_without_a_ranking_there_is_nothing_to_freeze(project: Project, hub: Client) -> None:
    response = hub.post(ADDRESS, {"project": "everyday"}, content_type="application/json")
    assert response.status_code == 409
    assert response.json() == {
        "detail": "There is no ranking yet to take a snapshot of.",
        "code": "refused",
    }


def test_the_list_says_where_the_lines_are(three: list[Ranking], hub: Client) -> None:
    snapshot = freeze(hub)
    row = hub.get(ADDRESS + "?project=everyday").json()["results"][0]
    assert (row["sha256"], row["count"], row["created_by"]) == (snapshot.sha256, 3, "ada")
    assert row["rankings"] == f"http://testserver{ADDRESS}{snapshot.pk}/rankings.jsonl"


def test_winners_of_a_run_are_frozen_as_pairs(project: Project, hub: Client, var: Path) -> None:
    run = Run.objects.create(project=project, stage="bestofn", state="finished")
    winner = {"prompt": [{"role": "user", "content": "Why?"}], "answer": "So.", "id": "a"}
    write_lines(run_folder(run.pk) / "out" / "pairs.jsonl", [winner])

    def ask(**body: Any) -> Any:
        wanted = {"project": "everyday", **body}
        return hub.post(ADDRESS, wanted, content_type="application/json")

    response = ask(kind="winners", run=run.pk)
    assert (response.status_code, response.json()["source"]) == (201, run.pk)
    lines = b"".join(hub.get(f"{ADDRESS}{response.json()['id']}/pairs.jsonl").streaming_content)
    assert json.loads(lines) == {"prompt": winner["prompt"], "answer": "So."}
    for kind, number in (("winners", None), ("best", run.pk), ("winners", 9**9)):
        refused = ask(kind=kind, **({"run": number} if number else {}))
        assert (refused.status_code, list(refused.json()["errors"])) == (400, ["run"])
