"""The ideal answers as a file: what is in it, and how it comes."""

from __future__ import annotations

import json

import pytest
from asgiref.sync import async_to_sync
from django.test import AsyncClient, Client

from labelhub.accounts.actions import create_token
from labelhub.accounts.models import User
from labelhub.api import streaming
from labelhub.projects.models import Membership, Project
from tests import factories

ADDRESS = "/api/v1/projects/everyday/sft.jsonl"


@pytest.fixture
def written(project: Project, ann: User) -> list[str]:
    """Three ideal answers of ann's, and a ranking without one."""
    texts = ["Light scatters.", "光会散射。", "Two\nlines."]
    for text in [*texts, ""]:
        factories.make_ranking(factories.make_answer_set(project), ann, ideal_answer=text)
    return texts


def lines_of(response: object) -> list[dict[str, object]]:
    body = b"".join(response)  # type: ignore[call-overload]
    return [json.loads(line) for line in body.splitlines()]


def test_each_line_is_a_pair(written: list[str], hub: Client, ann: User) -> None:
    response = hub.get(ADDRESS)
    assert response["Content-Type"] == "application/x-ndjson"
    assert response["Content-Disposition"] == 'attachment; filename="everyday-sft.jsonl"'
    lines = lines_of(response)
    assert [line["answer"] for line in lines] == written
    assert {line["annotator"] for line in lines} == {str(ann.pk)}
    assert [message["role"] for message in lines[0]["prompt"]] == ["user"]  # type: ignore[attr-defined]


def test_batches_leave_no_seam(
    written: list[str], hub: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "BATCH", 2)
    assert [line["answer"] for line in lines_of(hub.get(ADDRESS))] == written


def test_an_asynchronous_server_streams_the_same_lines(written: list[str], ada: User) -> None:
    _, secret = create_token(user=ada, name="async", scopes=["read"], by=ada)

    async def download() -> list[bytes]:
        response = await AsyncClient().get(ADDRESS, headers={"Authorization": f"Bearer {secret}"})
        assert response.is_async
        return [chunk async for chunk in response.streaming_content]

    lines = b"".join(async_to_sync(download)()).splitlines()
    assert [json.loads(line)["answer"] for line in lines] == written


def test_before_the_first_one_the_file_is_empty(project: Project, hub: Client) -> None:
    assert lines_of(hub.get(ADDRESS)) == []


def test_a_reviewer_may_have_it(project: Project, written: list[str], ben: User) -> None:
    Membership.objects.filter(project=project, user=ben).update(role="reviewer")
    _, secret = create_token(user=ben, name="read", scopes=["read"], by=ben)
    response = Client(headers={"Authorization": f"Bearer {secret}"}).get(ADDRESS)
    assert [line["answer"] for line in lines_of(response)] == written
