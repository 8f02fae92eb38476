"""What the database promises of comparisons: each is broken once; and who meets at one moment."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.db import models
from django.utils import timezone

from labelhub.accounts.models import User
from labelhub.lib.errors import Refused
from labelhub.projects.models import Project
from labelhub.rounds import actions, comparing
from labelhub.rounds.estimates import WinRate
from labelhub.rounds.models import Comparison
from labelhub.rounds.verdicts import verdict_of
from labelhub.runs import actions as run_actions
from labelhub.runs.models import Run
from tests import factories
from tests.labelhub.constraints import names_of, refused_by
from tests.labelhub.race import race, raised
from tests.labelhub.rankings import desk
from tests.labelhub.rounds.turns import compared, end, furnish

Break = Callable[[Comparison], object]


def made(project: Project, **fields: Any) -> Comparison:
    """A comparison of the base with the project's first policy."""
    versions = {
        "before": factories.make_version("tiny-base"),
        "after": factories.make_version("p1", kind="policy", project=project, number=1),
    }
    run = Run.objects.create(project=project, stage="evaluate")
    return Comparison.objects.create(project=project, run=run, **(versions | fields))


def turned(one: Comparison) -> None:
    made(one.project, before=one.after, after=one.before)


def change(**values: object) -> Break:
    return lambda one: Comparison.objects.filter(pk=one.pk).update(**values)


BROKEN: dict[tuple[type[models.Model], str], Break] = {
    (Comparison, "comparison_state_known"): change(state="half"),
    (Comparison, "comparison_of_two_versions"): change(after=models.F("before")),
    (Comparison, "comparison_opinions_1_to_20"): change(opinions=0),
    (Comparison, "only_a_closed_comparison_has_ended"): change(state="closed"),
    (Comparison, "one_open_comparison_per_pair"): turned,
}


def test_every_constraint_is_broken_here() -> None:
    assert names_of(Comparison) == set(BROKEN)


@pytest.mark.django_db
@pytest.mark.parametrize(("model", "name"), BROKEN)
def test_the_database_refuses(model: type[models.Model], name: str, project: Project) -> None:
    comparison = made(project)
    refused_by(model, name, lambda: BROKEN[model, name](comparison))


@pytest.mark.django_db
def test_the_same_two_may_be_compared_again_once_that_is_closed(project: Project) -> None:
    made(project, state="closed", ended=timezone.now())
    assert made(project).state == "writing"


# --- at the same moment


@pytest.fixture
def ready(project: Project, var: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr(run_actions, "enqueue_on_commit", lambda *_args: None)
    furnish(project, held_out=8)
    return {
        "project": project,
        "before": factories.make_version("tiny-base"),
        "after": factories.make_version("p1", kind="policy", project=project, number=1),
        "reward": factories.make_version("r1", kind="reward", project=project, number=1),
    }


@pytest.mark.django_db(transaction=True)
def test_of_many_clicks_one_begins_a_comparison(ready: dict[str, Any], ada: User) -> None:
    results = race(lambda _n: actions.start_comparison(**ready, prompts=2, by=ada), range(6))
    refused = raised(results)
    assert [type(one) for one in refused] == [Refused] * 5
    assert Comparison.objects.count() == Run.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_of_many_sweeps_one_takes_the_answers_in(ready: dict[str, Any], ada: User) -> None:
    comparison = actions.start_comparison(**ready, prompts=4, by=ada)
    end(comparison.run, lines=compared(comparison.run))
    results = race(lambda _n: comparing.look_after(comparison.pk), range(6))
    assert raised(results) == []
    assert sorted(results, key=str) == [None] * 5 + ["open"]
    assert comparison.answer_sets.count() == 4


@pytest.mark.django_db(transaction=True)
def test_closing_meets_the_last_opinions_and_what_counts_is_what_is_frozen(
    ready: dict[str, Any], ada: User
) -> None:
    comparison = actions.start_comparison(**ready, prompts=8, by=ada)
    end(comparison.run, lines=compared(comparison.run))
    comparing.look_after(comparison.pk)
    pairs = list(comparison.answer_sets.order_by("pk"))
    people = [desk.seat(ready["project"], f"person-{n}") for n in range(8)]
    slots = [desk.take(pair, person) for pair, person in zip(pairs, people, strict=True)]
    doing: list[Callable[[], object]] = [
        lambda slot=slot, who=who: desk.submit(slot, who, (2, 1))
        for slot, who in zip(slots, people, strict=True)
    ]
    doing.append(lambda: actions.close_comparison(comparison=comparison, by=ada))
    *submitted, closed = race(lambda do: do(), doing)
    assert raised(submitted) == [], "honest work is never refused"
    comparison.refresh_from_db()
    assert comparison.state == "closed"
    frozen = ready["project"].rankings.filter(frozen_at__isnull=False).count()
    # The last opinion closes a comparison, too: whoever comes after it is told so.
    assert raised([closed]) == [] or (type(closed) is Refused and frozen == 8)
    assert ready["project"].rankings.count() == 8
    assert verdict_of(comparison).people == WinRate(wins=frozen)
