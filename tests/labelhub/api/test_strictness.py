"""What cannot be stored or understood is a 400 with one sentence, never a 500."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from tests.labelhub.api.world import World

POSTS = ["/api/v1/prompts/", "/api/v1/snapshots/", "/api/v1/runs/"]
BAD_BODIES = {
    "no JSON": b"{",
    "empty": b"",
    "a number": b"1",
    "a text": b'"x"',
    "nothing": b"null",
    "a list": b"[]",
    "an empty object": b"{}",
    "NaN": b'{"project": "everyday", "config": {"lr": NaN}}',
    "infinite": b'{"project": "everyday", "config": {"lr": 1e999}}',
    "a NUL in a value": b'{"project": "every\\u0000day"}',
    "a NUL in a key": b'{"project": "everyday", "config": {"a\\u0000": 1}}',
    "half a surrogate pair": b'{"project": "everyday", "config": {"a": "\\ud800"}}',
    "no UTF-8": b'{"project": "\xff"}',
    "nested without end": b'{"project": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "nested too deep": b'{"project": "everyday", "config": {"a": ' + b"[" * 40 + b"]" * 40 + b"}}",
    "a number of 5000 digits": b'{"project": "everyday", "seed": ' + b"9" * 5000 + b"}",
    "a project that is a number": b'{"project": 1}',
    "a project that is a list": b'{"project": ["everyday"]}',
    "a field that is unknown": b'{"project": "everyday", "projekt": 1}',
}


@pytest.mark.parametrize("address", POSTS)
@pytest.mark.parametrize("what", BAD_BODIES)
def test_a_bad_body_is_refused(world: World, hub: Client, address: str, what: str) -> None:
    response = hub.post(address, BAD_BODIES[what], content_type="application/json")
    assert response.status_code == 400, response.content
    assert response.json()["code"] in {"invalid", "parse_error"}
    assert response.json()["detail"].endswith(".")


BAD_RUNS: dict[str, tuple[dict[str, Any], str]] = {
    "stage is unknown": ({"stage": "dream"}, "stage"),
    "stage is a number": ({"stage": 5}, "stage"),
    "config is a list": ({"config": []}, "config"),
    "inputs is a text": ({"inputs": "smollm2"}, "inputs"),
    "a version is a number": ({"inputs": {"policy": 3}}, "inputs.policy"),
    "a version is unknown": ({"inputs": {"policy": "no/such-v1"}}, "inputs.policy"),
    "prompts is no list": ({"prompts": 3}, "prompts"),
    "prompts are none": ({"prompts": []}, "prompts"),
    "a prompt is a text": ({"prompts": ["1"]}, "prompts.0"),
    "a prompt is true": ({"prompts": [True]}, "prompts.0"),
    "a prompt is too large": ({"prompts": [2**63]}, "prompts.0"),
    "a prompt is unknown": ({"prompts": [2**63 - 1]}, "prompts"),
    "a snapshot is unknown": (
        {"stage": "reward", "inputs": {"base": "tiny-base"}, "prompts": None, "snapshot": 987_654},
        "snapshot",
    ),
    "a snapshot is negative": ({"snapshot": -1}, "snapshot"),
    "seed is a text": ({"seed": "0"}, "seed"),
    "seed has a fraction": ({"seed": 0.5}, "seed"),
    "seed is too large": ({"seed": 2**64}, "seed"),
}


@pytest.mark.parametrize("what", BAD_RUNS)
def test_a_bad_run_names_its_field(world: World, hub: Client, what: str) -> None:
    change, field = BAD_RUNS[what]
    right = {"inputs": {"policy": "tiny-base"}, "prompts": [world.prompt.pk]}
    body = {"project": "everyday", "stage": "generate", **right, **change}
    body = {name: value for name, value in body.items() if value is not None}
    response = hub.post("/api/v1/runs/", body, content_type="application/json")
    assert response.status_code == 400
    assert list(response.json()["errors"]) == [field]
    assert response.json()["detail"].startswith(f"{field}: ")


@pytest.mark.parametrize(
    "address",
    [
        "/api/v1/prompts/?held_out=perhaps",
        "/api/v1/prompts/?language=%00",
        "/api/v1/prompts/?project=%00",
        "/api/v1/prompts/?langage=en",
        "/api/v1/runs/?state=tired",
        "/api/v1/versions/?kind=5",
        "/api/v1/projects/?project=everyday",
        "/api/v1/runs/{run}/events/?after=soon",
        "/api/v1/runs/{run}/events/?after=9223372036854775808",
        "/api/v1/runs/{run}/events/?limit=0",
    ],
)
def test_a_bad_filter_is_refused_and_not_ignored(world: World, hub: Client, address: str) -> None:
    response = hub.get(address.format(run=world.stopped.pk))
    assert response.status_code == 400
    assert response.json()["errors"]


@pytest.mark.parametrize(
    "address",
    [
        "/api/v1/runs/99999999999999999999999/",
        "/api/v1/snapshots/99999999999999999999999/rankings.jsonl",
        "/api/v1/versions/99999999999999999999999/",
        "/api/v1/prompts/?page=0",
        "/api/v1/prompts/?page=x",
        "/api/v1/prompts/?page=99999999999999999999999",
    ],
)
def test_a_number_beyond_all_rows_is_not_found(world: World, hub: Client, address: str) -> None:
    assert hub.get(address).status_code == 404


def test_a_body_of_another_kind_is_refused(world: World, hub: Client) -> None:
    response = hub.post("/api/v1/runs/", {"project": "everyday"})
    assert response.status_code == 415
    assert response.json()["code"] == "unsupported_media_type"


def test_a_body_over_the_limit_is_refused_before_it_is_parsed(world: World, hub: Client) -> None:
    body = b" " * (20 * 1024 * 1024 + 1)
    response = hub.post("/api/v1/runs/", body, content_type="application/json")
    assert response.status_code == 413
    assert response.json()["detail"] == "The body is longer than 20 MiB: send it in parts."
