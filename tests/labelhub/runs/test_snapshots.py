"""Snapshots: what goes in, what it counts, and what came of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from labelhub.accounts.models import User
from labelhub.lib.errors import Refused
from labelhub.projects.models import Project
from labelhub.rankings.models import Ranking
from labelhub.rankings.queries import usable_rankings
from labelhub.registry.models import ModelVersion, Parent
from labelhub.runs import actions, launcher
from labelhub.runs.actions import take_snapshot
from labelhub.runs.folder import run_folder
from labelhub.runs.models import Run, RunInput, Snapshot
from labelhub.runs.queries import snapshot_lines, touched_by, trained_by
from tests.factories import make_answer_set, make_project, make_ranking, make_version

pytestmark = pytest.mark.django_db


@pytest.fixture
def shared(project: Project, ann: User, ben: User) -> list[Ranking]:
    """One set that ann and ben ranked."""
    answer_set = make_answer_set(project)
    return [make_ranking(answer_set, ann), make_ranking(answer_set, ben, [4, 3, 2, 1])]


@pytest.fixture
def weighed(project: Project, ben: User, monkeypatch: pytest.MonkeyPatch) -> None:
    """The project weighs its annotators, and ben counts half; of ann nothing is known."""
    project.weigh_annotators = True
    project.save()
    monkeypatch.setattr(actions, "reliability", lambda _project: {ben.pk: 0.5})


def snapshot_of(project: Project) -> Snapshot:
    return take_snapshot(project=project, rankings=usable_rankings(project), by=None)


def text_of(rows: list[dict[str, object]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


# --- taking one


def test_it_holds_the_rankings_and_the_hash_of_their_lines(
    project: Project, shared: list[Ranking]
) -> None:
    snapshot = snapshot_of(project)
    assert list(snapshot.rankings.order_by("pk")) == shared
    assert snapshot.count == 2
    lines = list(snapshot_lines(snapshot))
    assert [line["weight"] for line in lines] == [1.0, 1.0]
    assert snapshot.sha256 == hashlib.sha256(text_of(lines)).hexdigest()


def test_what_it_holds_is_frozen_and_nothing_else(
    project: Project, shared: list[Ranking], ann: User
) -> None:
    snapshot_of(project)
    later = make_ranking(make_answer_set(project), ann)
    frozen = Ranking.objects.filter(frozen_at__isnull=False)
    assert set(frozen) == set(shared)
    assert Ranking.objects.get(pk=later.pk).frozen_at is None


def test_rankings_of_another_project_stay_out(
    project: Project, shared: list[Ranking], ann: User
) -> None:
    make_ranking(make_answer_set(make_project("elsewhere", annotators=[ann])), ann)
    snapshot = take_snapshot(project=project, rankings=Ranking.objects.all(), by=None)
    assert set(snapshot.rankings.all()) == set(shared)


def test_of_nothing_there_is_no_snapshot(project: Project) -> None:
    with pytest.raises(Refused, match="no ranking yet"):
        snapshot_of(project)
    assert not Snapshot.objects.exists()


# --- weights


@pytest.mark.usefixtures("weighed")
def test_each_ranking_keeps_what_its_annotator_counted_then(
    project: Project, shared: list[Ranking], monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = snapshot_of(project)
    monkeypatch.setattr(actions, "reliability", lambda _project: {})
    assert [line["weight"] for line in snapshot_lines(snapshot)] == [1.0, 0.5]
    assert snapshot.sha256 == hashlib.sha256(text_of(list(snapshot_lines(snapshot)))).hexdigest()


def test_all_count_the_same_unless_the_project_weighs_them(
    project: Project,
    shared: list[Ranking],
    ben: User,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(actions, "reliability", lambda _project: {ben.pk: 0.5})
    assert [line["weight"] for line in snapshot_lines(snapshot_of(project))] == [1.0, 1.0]


@pytest.mark.usefixtures("weighed", "shared")
def test_the_trainer_reads_the_weights(project: Project, var: Path) -> None:
    snapshot = snapshot_of(project)
    run = Run.objects.create(project=project, stage="reward")
    RunInput.objects.create(run=run, role="base", version=make_version())
    RunInput.objects.create(run=run, role="rankings", snapshot=snapshot)
    launcher.prepare_folder(run)
    written = (run_folder(run.pk) / "data" / "rankings.jsonl").read_bytes()
    assert [json.loads(line)["weight"] for line in written.splitlines()] == [1.0, 0.5]
    assert hashlib.sha256(written).hexdigest() == snapshot.sha256


# --- what came of it


@pytest.fixture
def lineage(project: Project, shared: list[Ranking], ben: User) -> dict[str, object]:
    """ann and ben → reward 1 → policy 1 → policy 2; ben alone → reward 2, and no policy yet."""
    base = make_version()
    first = snapshot_of(project)
    second = take_snapshot(project=project, rankings=Ranking.objects.filter(annotator=ben), by=None)
    reward, other = (version(project, "reward", n, base) for n in (1, 2))
    for snapshot, output in ((first, reward), (second, other)):
        run = Run.objects.create(project=project, stage="reward", output=output)
        RunInput.objects.create(run=run, role="rankings", snapshot=snapshot)
    policy = version(project, "policy", 1, base, reward)
    newer = version(project, "policy", 2, policy)
    version(project, "policy", 3, base)
    return {"snapshots": [first, second], "made": [reward, other, policy, newer]}


def version(project: Project, kind: str, n: int, *parents: ModelVersion) -> ModelVersion:
    made = make_version(f"everyday/{kind}-v{n}", kind=kind, project=project, number=n)
    for parent in parents:
        Parent.objects.create(child=made, parent=parent, role=parent.kind)
    return made


def test_a_persons_rankings_are_followed_to_every_descendant(
    project: Project, lineage: dict[str, list], ann: User, ben: User, ada: User
) -> None:
    first, second = lineage["snapshots"]
    reward, other, policy, newer = lineage["made"]
    assert touched_by(project, ann) == ([first], [reward, policy, newer])
    assert touched_by(project, ben) == ([first, second], [reward, other, policy, newer])
    assert touched_by(project, ada) == ([], [])


def test_other_projects_are_not_looked_at(lineage: dict[str, list], ann: User) -> None:
    assert touched_by(make_project("elsewhere", annotators=[ann]), ann) == ([], [])


def test_each_ranking_knows_the_policies_that_it_trained(
    project: Project, lineage: dict[str, list], shared: list[Ranking], ann: User
) -> None:
    _reward, _other, policy, newer = lineage["made"]
    untouched = make_ranking(make_answer_set(project), ann)
    found = trained_by([*(one.pk for one in shared), untouched.pk])
    assert found == {one.pk: [policy, newer] for one in shared}
    assert trained_by([]) == {}


def test_many_rankings_are_followed_in_few_questions(
    lineage: dict[str, list], shared: list[Ranking], django_assert_max_num_queries: Callable
) -> None:
    # Items, runs, the policies, and for each of two snapshots one for each generation.
    with django_assert_max_num_queries(10):
        trained_by([one.pk for one in shared])
