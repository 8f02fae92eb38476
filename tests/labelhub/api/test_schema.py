"""The schema is whole, its page works under the strict policy, and the document tells the truth."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.core.management import call_command
from django.test import Client

from labelhub.projects.models import Project
from labelhub.runs.models import Run
from tests.labelhub.api.test_access import TABLE
from tests.labelhub.api.world import World

DOCUMENT = Path(settings.BASE_DIR) / "docs" / "api.md"
TOKEN = "lh_secret-of-the-document"


@pytest.fixture(scope="module")
def schema(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The schema as the command writes it; a warning of its own fails the command."""
    file = tmp_path_factory.mktemp("schema") / "schema.json"
    call_command(
        "spectacular", "--validate", "--fail-on-warn", "--format=openapi-json", file=str(file)
    )
    return json.loads(file.read_text())


def test_the_schema_is_valid_and_has_every_route(schema: dict[str, Any]) -> None:
    operations = sum(len(methods) for methods in schema["paths"].values())
    assert operations == len(TABLE)


def test_every_operation_tells_its_scope_and_its_errors(schema: dict[str, Any]) -> None:
    for methods in schema["paths"].values():
        for operation in methods.values():
            assert "Token scope: `" in operation["description"]
            assert {"401", "403", "404"} <= set(operation["responses"])
            assert {"token": []} in operation["security"]


def test_the_scopes_of_writing_are_named(schema: dict[str, Any]) -> None:
    posts = {p: m["post"]["description"] for p, m in schema["paths"].items() if "post" in m}
    assert "Token scope: `write`" in posts.pop("/api/v1/prompts/")
    assert all("Token scope: `run`" in text for text in posts.values())


@pytest.mark.django_db
def test_only_the_page_to_browse_it_may_style_inline(client: Client) -> None:
    page = client.get("/api/v1/docs/")
    policy = page["Content-Security-Policy"]
    assert "style-src 'self' 'unsafe-inline'" in policy
    assert "img-src 'self' data:" in policy
    assert re.search(r"script-src 'self'( 'nonce-[^']*')?(;|$)", policy)
    schema_policy = client.get("/api/v1/schema/")["Content-Security-Policy"]
    assert "unsafe-inline" not in schema_policy


@pytest.mark.django_db
def test_the_page_has_its_script_apart_and_for_this_origin_alone(client: Client) -> None:
    page = client.get("/api/v1/docs/").content.decode()
    scripts = re.findall(r"<script([^>]*)>(.*?)</script>", page, re.DOTALL)
    assert len(scripts) == 3
    assert all("src=" in attributes and not body.strip() for attributes, body in scripts)
    assert "http://" not in page
    assert "https://" not in page
    script = client.get("/api/v1/docs/?script=")
    assert script["Content-Type"].startswith("application/javascript")
    assert script["Cross-Origin-Resource-Policy"] == "same-origin"
    assert '"/api/v1/schema/"' in script.content.decode().replace("\\u002D", "-")


def test_the_document_names_every_route(schema: dict[str, Any]) -> None:
    shown = dict(re.findall(r"^\| `(/api/v1/[^`]+)` \| ([A-Z, ]+) \|$", DOCUMENT.read_text(), re.M))
    true = {
        path: ", ".join(m.upper() for m in methods) for path, methods in schema["paths"].items()
    }
    assert shown == true


def commands() -> list[str]:
    """The lines with curl in the document."""
    blocks = re.findall(r"```sh\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if "curl " in line]


def replay(hub: Client, line: str) -> Any:
    """Send what the curl command would send."""
    said, _, curl = line.rpartition("| ")
    words = shlex.split(curl.replace("$HUB", "").replace("$TOKEN", TOKEN))
    assert words.pop(0) == "curl"
    address, headers, body, method = "", {}, None, "get"
    while words:
        word = words.pop(0)
        if word == "-H":
            name, _, value = words.pop(0).partition(": ")
            headers[name] = value
        elif word in {"-d", "--data-binary"}:
            data = words.pop(0)
            body = shlex.split(said)[1].replace("\\n", "\n") if data == "@-" else data
            method = "post"
        elif word == "-X":
            method = words.pop(0).lower()
        elif word == "-o":
            words.pop(0)
        elif word != "-s":
            address = word
    assert headers.pop("Authorization") == f"Bearer {TOKEN}"
    if body is None:
        return getattr(hub, method)(address)
    return hub.post(address, body, content_type=headers["Content-Type"])


def test_the_commands_of_the_document_work(world: World, hub: Client, project: Project) -> None:
    """In their order; only the numbers are those of this database."""
    run = Run.objects.create(project=project, stage="ppo")
    snapshot, pairs = world.snapshot, world.pairs
    numbers = {"runs/1/": f"runs/{run.pk}/", "snapshots/1/": f"snapshots/{snapshot.pk}/"}
    numbers["snapshots/2/"] = f"snapshots/{pairs.pk}/"
    numbers["comparisons/1/"] = f"comparisons/{world.comparison.pk}/"
    numbers["versions/1/"] = f"versions/{world.policy.pk}/"
    for old, new in (("1", snapshot.pk), ("2", pairs.pk)):
        numbers[f'"snapshot": {old}'] = f'"snapshot": {new}'
    assert len(commands()) > 10
    for line in commands():
        # In one pass: the number of one thing here may be that of another in the document.
        line = re.sub("|".join(numbers), lambda found: numbers[found[0]], line)
        response = replay(hub, line)
        assert response.status_code in {200, 201}, (line, response.content)
