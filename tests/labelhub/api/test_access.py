"""Who may knock at which door: every route and method, asked by everybody.

ada steers the project, ben annotates in it, mallory has nothing to do with it.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.http import HttpResponseBase
from django.test import Client
from django.urls import reverse

from labelhub.accounts.models import User
from labelhub.api.urls import urlpatterns
from tests.labelhub.api.world import World

CALLERS = ["ada", "ben", "mallory", "ada's read", "ada's run", "ada's write", "ben's all"]
# The status for each of CALLERS. Nobody, and dead tokens, get 401 wherever the API is not open.
TABLE = {
    ("projects", "get"): [200, 200, 200, 200, 403, 403, 200],
    ("project", "get"): [200, 200, 404, 200, 403, 403, 200],
    ("project-consensus", "get"): [200, 403, 404, 200, 403, 403, 403],
    ("project-sft", "get"): [200, 403, 404, 200, 403, 403, 403],
    ("prompts", "get"): [200, 200, 200, 200, 403, 403, 200],
    ("prompts", "post"): [200, 403, 404, 403, 403, 200, 403],
    ("snapshots", "get"): [200, 200, 200, 200, 403, 403, 200],
    ("snapshots", "post"): [201, 403, 404, 403, 201, 403, 403],
    ("snapshot", "get"): [200, 200, 404, 200, 403, 403, 200],
    ("snapshot-rankings", "get"): [200, 403, 404, 200, 403, 403, 403],
    ("snapshot-pairs", "get"): [200, 403, 404, 200, 403, 403, 403],
    ("corpora", "get"): [200, 200, 200, 200, 403, 403, 200],
    ("corpora", "post"): [201, 403, 404, 403, 201, 403, 403],
    ("stages", "get"): [200, 200, 200, 200, 403, 403, 200],
    ("runs", "get"): [200, 200, 200, 200, 403, 403, 200],
    ("runs", "post"): [201, 403, 404, 403, 201, 403, 403],
    ("run", "get"): [200, 200, 404, 200, 403, 403, 200],
    ("run-stop", "post"): [200, 403, 404, 403, 200, 403, 403],
    ("run-resume", "post"): [200, 403, 404, 403, 200, 403, 403],
    ("run-events", "get"): [200, 403, 404, 200, 403, 403, 403],
    ("rounds", "get"): [200, 200, 200, 200, 403, 403, 200],
    ("round", "get"): [200, 200, 404, 200, 403, 403, 200],
    ("comparisons", "get"): [200, 200, 200, 200, 403, 403, 200],
    ("comparisons", "post"): [201, 403, 404, 403, 201, 403, 403],
    ("comparison", "get"): [200, 403, 404, 200, 403, 403, 403],
    ("comparison-close", "post"): [200, 403, 404, 403, 200, 403, 403],
    ("versions", "get"): [200, 200, 200, 200, 403, 403, 200],
    ("version", "get"): [200, 200, 404, 200, 403, 403, 200],
}
# The schema holds no secret.
OPEN = {("schema", "get"), ("docs", "get")}
METHODS = ["get", "post", "put", "patch", "delete"]
LISTS = ["projects", "prompts", "snapshots", "runs", "rounds", "versions"]


def request_of(world: World, name: str, method: str) -> tuple[str, dict[str, Any] | str | None]:
    """An address and a body that are right in all but, perhaps, who sends them."""
    pk = {
        "snapshot": world.snapshot.pk,
        "snapshot-rankings": world.snapshot.pk,
        "snapshot-pairs": world.pairs.pk,
        "run": world.waiting.pk,
        "run-stop": world.waiting.pk,
        "run-resume": world.stopped.pk,
        "run-events": world.stopped.pk,
        "round": world.round.pk,
        "version": world.policy.pk,
        "comparison": world.comparison.pk,
        "comparison-close": world.comparison.pk,
    }
    slug = world.project.slug
    of_project = name == "project" or name.startswith("project-")
    arguments = [slug] if of_project else [pk[name]] if name in pk else []
    bodies = {
        "prompts": {
            "project": slug,
            "prompts": [{"messages": [{"role": "user", "content": "A fresh question?"}]}],
        },
        "snapshots": {"project": slug},
        "comparisons": {
            "project": slug,
            "before": world.base.name,
            "after": world.policy.name,
            "reward": world.reward.name,
            "prompts": 1,
        },
        "runs": {
            "project": slug,
            "stage": "generate",
            "inputs": {"policy": world.policy.name},
            "prompts": [world.prompt.pk],
        },
    }
    address = reverse(f"api:{name}", args=arguments)
    if (name, method) == ("corpora", "post"):
        return f"{address}?project={slug}&name=tale", "Once upon a time.\n"
    return address, bodies.get(name) if method == "post" else None


def send(caller: Client, method: str, address: str, body: object = None) -> HttpResponseBase:
    """Send a JSON body, a text, or none."""
    if body is None:
        return getattr(caller, method)(address)
    if isinstance(body, str):
        return getattr(caller, method)(address, body, content_type="text/plain")
    return getattr(caller, method)(address, json.dumps(body), content_type="application/json")


def routes() -> set[tuple[str, str]]:
    """Every name and method that the API answers to."""
    return {
        (pattern.name, method)
        for pattern in urlpatterns
        for method in METHODS
        if pattern.name != "nowhere" and hasattr(pattern.callback.view_class, method)
    }


def test_the_table_names_every_route() -> None:
    assert routes() == set(TABLE) | OPEN


@pytest.mark.parametrize(("name", "method"), sorted(TABLE))
@pytest.mark.parametrize("who", CALLERS)
def test_each_caller_gets_what_is_due(
    world: World, callers: dict[str, Client], who: str, name: str, method: str
) -> None:
    address, body = request_of(world, name, method)
    response = send(callers[who], method, address, body)
    due = TABLE[name, method][CALLERS.index(who)]
    assert response.status_code == due, getattr(response, "content", b"")
    if due >= 400:
        assert set(response.json()) == {"detail", "code"}


@pytest.mark.parametrize("who", ["nobody", "expired", "revoked", "unknown"])
def test_who_has_no_living_token_is_told_how_to_come_back(
    world: World, callers: dict[str, Client], who: str
) -> None:
    for name, method in TABLE:
        response = send(callers[who], method, *request_of(world, name, method))
        assert (name, response.status_code) == (name, 401)
        assert response["WWW-Authenticate"] == "Bearer"


def test_the_schema_is_open_to_all(callers: dict[str, Client]) -> None:
    for name, _ in OPEN:
        for caller in callers.values():
            assert caller.get(reverse(f"api:{name}")).status_code == 200


def test_a_stranger_sees_empty_lists(world: World, callers: dict[str, Client]) -> None:
    for name in LISTS:
        address = reverse(f"api:{name}")
        assert callers["mallory"].get(address).json()["count"] == 0
        assert callers["ada"].get(address).json()["count"] > 0


def test_a_strangers_filter_on_the_project_finds_no_project(
    world: World, callers: dict[str, Client]
) -> None:
    for name in LISTS[1:]:
        address = reverse(f"api:{name}") + "?project=everyday"
        assert callers["mallory"].get(address).status_code == 404
        assert callers["ben"].get(address).status_code == 200


def test_a_browser_must_send_its_csrf_token_to_write(world: World, ada: User) -> None:
    browser = Client(enforce_csrf_checks=True)
    browser.force_login(ada, backend="django.contrib.auth.backends.ModelBackend")
    address, body = request_of(world, "run-stop", "post")
    assert send(browser, "post", address, body).status_code == 403


def test_a_token_of_somebody_who_left_is_dead(world: World, hub: Client, ada: User) -> None:
    ada.is_active = False
    ada.save()
    assert hub.get(reverse("api:projects")).status_code == 401


def test_an_unknown_address_answers_in_json(hub: Client) -> None:
    for address in ["/api/v1/", "/api/v1/nonsense/", "/api/v1/runs/abc/"]:
        for method in ("get", "post"):
            response = send(hub, method, address)
            assert response.status_code == 404
            assert "no such address" in response.json()["detail"]


def test_an_address_without_its_slash_is_sent_on(hub: Client) -> None:
    response = hub.get("/api/v1/projects?page=1")
    assert (response.status_code, response["Location"]) == (301, "/api/v1/projects/?page=1")


def test_a_method_that_is_not_offered_is_refused_with_a_sentence(world: World, hub: Client) -> None:
    response = hub.delete(reverse("api:run", args=[world.waiting.pk]))
    assert response.status_code == 405
    assert response.json()["code"] == "method_not_allowed"
