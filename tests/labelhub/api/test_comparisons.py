"""Blind comparisons for programs: what is told, when, and to whom."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from labelhub.accounts.models import User
from labelhub.rounds.models import Comparison
from tests import factories
from tests.labelhub.api.test_access import request_of, send
from tests.labelhub.api.world import World


def read(caller: Client, comparison: Comparison) -> dict[str, Any]:
    return caller.get(reverse("api:comparison", args=[comparison.pk])).json()


def test_the_verdict_is_told_once_it_is_closed(world: World, hub: Client, ann: User) -> None:
    pair = factories.make_answer_set(
        world.project, answers=["Old.", "New!"], purpose="compare", slots=1
    )
    for answer, score in zip(pair.answers.order_by("n"), (0.5, 0.1), strict=True):
        answer.sampling = {"score": score}
        answer.save()
    world.comparison.answer_sets.add(pair)
    before = read(hub, world.comparison)
    assert (before["state"], before["wanted"], before["done"]) == ("open", 1, 0)
    pair.slots.all().delete()
    factories.make_ranking(pair, ann, (2, 1))
    assert read(hub, world.comparison)["verdict"] is None

    closed = hub.post(reverse("api:comparison-close", args=[world.comparison.pk])).json()
    assert closed["state"] == "closed"
    assert closed["verdict"]["people"] == {
        "wins": 1, "ties": 0, "losses": 0, "win_rate": 1.0,
        "ci95": [pytest.approx(0.2065, abs=1e-4), 1.0], "advice": "unclear",
    }  # fmt: skip
    assert closed["verdict"]["reward"]["losses"] == 1
    again = hub.post(reverse("api:comparison-close", args=[world.comparison.pk]))
    assert (again.status_code, again.json()["detail"]) == (
        409,
        "This comparison is closed already.",
    )


def test_annotators_learn_nothing_of_them(world: World, callers: dict[str, Client]) -> None:
    address = reverse("api:comparisons")
    assert callers["ada"].get(address).json()["count"] == 1
    assert callers["ben"].get(address).json()["count"] == 0
    assert callers["ben"].get(address + "?project=everyday").status_code == 403


def test_what_begins_is_a_run_of_both_versions(world: World, hub: Client) -> None:
    made = send(hub, "post", *request_of(world, "comparisons", "post")).json()  # type: ignore[attr-defined]
    assert (made["state"], made["before"], made["after"]) == (
        "writing", "tiny-base", "everyday/policy-v1"
    )  # fmt: skip
    run = hub.get(reverse("api:run", args=[made["run"]])).json()
    assert run["stage"] == "evaluate"
    assert {name: run["inputs"][name] for name in ("policy", "reference", "reward")} == {
        "policy": "everyday/policy-v1", "reference": "tiny-base", "reward": "everyday/reward-v1"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("wish", "sentence"),
    [
        ({"after": "nobody"}, "after: There is no model version “nobody” in this project."),
        ({"after": "tiny-base"}, "Choose two different versions to compare."),
        ({"reward": "tiny-base"}, "tiny-base is no reward"),
        ({"opinions": 21}, "opinions: Ensure this value is less than or equal to 20."),
        ({"promts": 4}, "promts: There is no such field"),
    ],
)
def test_a_wrong_wish_is_refused_in_one_sentence(
    world: World, hub: Client, wish: dict[str, Any], sentence: str
) -> None:
    address, body = request_of(world, "comparisons", "post")
    assert isinstance(body, dict)
    answer = send(hub, "post", address, body | wish)
    assert answer.status_code == 400
    assert answer.json()["detail"].startswith(sentence)  # type: ignore[attr-defined]
