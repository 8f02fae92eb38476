"""Each promise about runs is kept by the database itself: here each is broken once."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.db import models
from django.utils import timezone

from labelhub.accounts.models import User
from labelhub.projects.models import Project
from labelhub.runs.models import Corpus, Run, RunEvent, RunInput, Snapshot, SnapshotItem
from tests.factories import make_answer_set, make_ranking, make_version
from tests.labelhub.constraints import names_of, refused_by

pytestmark = pytest.mark.django_db
Break = Callable[[Project, User], object]


def a_ranking_twice(project: Project, ann: User) -> None:
    ranking = make_ranking(make_answer_set(project), ann)
    snapshot = Snapshot.objects.create(project=project, count=2)
    for _ in range(2):
        SnapshotItem.objects.create(snapshot=snapshot, ranking=ranking)


def an_unknown_state(project: Project, ann: User) -> None:
    Run.objects.create(project=project, stage="ppo", state="asleep")


def an_unknown_stage(project: Project, ann: User) -> None:
    Run.objects.create(project=project, stage="dream")


def two_policies(project: Project, ann: User) -> None:
    run = Run.objects.create(project=project, stage="ppo")
    for name in ("one", "other"):
        RunInput.objects.create(run=run, role="policy", version=make_version(name))


def an_unknown_kind(project: Project, ann: User) -> None:
    Snapshot.objects.create(project=project, count=1, kind="dreams")


def winners_of_no_run(project: Project, ann: User) -> None:
    Snapshot.objects.create(project=project, count=1, kind="winners")


def an_input_of_nothing(project: Project, ann: User) -> None:
    RunInput.objects.create(run=Run.objects.create(project=project, stage="ppo"), role="policy")


def an_input_of_two_things(project: Project, ann: User) -> None:
    run = Run.objects.create(project=project, stage="ppo")
    snapshot = Snapshot.objects.create(project=project, count=1)
    RunInput.objects.create(run=run, role="policy", version=make_version(), snapshot=snapshot)


def a_text(project: Project | None, **fields: int) -> None:
    Corpus.objects.create(project=project, name="tale", **{"files": 1, "size": 9, **fields})


def a_name_twice(project: Project, ann: User) -> None:
    a_text(project)
    a_text(project)


def a_name_twice_in_the_house(project: Project, ann: User) -> None:
    a_text(None)
    a_text(None)


def an_empty_text(project: Project, ann: User) -> None:
    a_text(project, size=0)


def a_line_twice(project: Project, ann: User) -> None:
    run = Run.objects.create(project=project, stage="ppo")
    for _ in range(2):
        RunEvent.objects.create(run=run, attempt=1, offset=80, at=timezone.now(), kind="metric")


BROKEN: dict[tuple[type[models.Model], str], Break] = {
    (SnapshotItem, "ranking_once_per_snapshot"): a_ranking_twice,
    (Run, "run_state_known"): an_unknown_state,
    (Run, "run_stage_known"): an_unknown_stage,
    (RunInput, "run_role_once"): two_policies,
    (RunInput, "run_input_is_one_thing"): an_input_of_two_things,
    (Snapshot, "snapshot_kind_known"): an_unknown_kind,
    (Snapshot, "snapshot_of_winners_names_their_run"): winners_of_no_run,
    (Corpus, "corpus_name_once_per_project"): a_name_twice,
    (Corpus, "corpus_name_once_in_house"): a_name_twice_in_the_house,
    (Corpus, "corpus_holds_something"): an_empty_text,
    (RunEvent, "event_once_per_offset"): a_line_twice,
}


def test_every_constraint_is_broken_here() -> None:
    assert names_of(Snapshot, SnapshotItem, Corpus, Run, RunInput, RunEvent) == set(BROKEN)


@pytest.mark.parametrize(("model", "name"), BROKEN, ids=lambda one: str(one))
def test_the_database_refuses(
    model: type[models.Model], name: str, project: Project, ann: User
) -> None:
    refused_by(model, name, lambda: BROKEN[model, name](project, ann))


def test_an_input_is_something(project: Project, ann: User) -> None:
    name = "run_input_is_one_thing"
    refused_by(RunInput, name, lambda: an_input_of_nothing(project, ann))


def test_many_deleted_rankings_may_leave_their_places_in_a_snapshot(project: Project) -> None:
    snapshot = Snapshot.objects.create(project=project, count=2)
    for _ in range(2):
        SnapshotItem.objects.create(snapshot=snapshot, ranking=None)
    assert snapshot.items.count() == 2
