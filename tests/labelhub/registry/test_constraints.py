"""What the database promises about model versions: each promise is broken once."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.db import models

from labelhub.projects.models import Project
from labelhub.registry.models import LivePolicy, ModelVersion, Parent
from tests.factories import make_version
from tests.labelhub.constraints import names_of, refused_by

pytestmark = pytest.mark.django_db


def a_number_twice(project: Project) -> None:
    for name in ("one", "other"):
        make_version(name, kind="policy", project=project, number=1)


def a_policy_of_nobody(project: Project) -> None:
    make_version("stray", kind="policy")


def a_parent_twice(project: Project) -> None:
    base, child = make_version(), make_version("child", kind="sft", project=project)
    for _ in range(2):
        Parent.objects.create(child=child, parent=base, role="base")


def its_own_parent(project: Project) -> None:
    base = make_version()
    Parent.objects.create(child=base, parent=base, role="base")


BROKEN: dict[tuple[type[models.Model], str], Callable[[Project], None]] = {
    (ModelVersion, "version_number_once"): a_number_twice,
    (ModelVersion, "only_bases_may_have_no_project"): a_policy_of_nobody,
    (Parent, "parent_once_per_role"): a_parent_twice,
    (Parent, "no_version_is_its_own_parent"): its_own_parent,
}


def test_every_constraint_is_broken_here() -> None:
    assert names_of(ModelVersion, Parent, LivePolicy) == set(BROKEN)


@pytest.mark.parametrize(("model", "name"), BROKEN, ids=lambda one: str(one))
def test_the_database_refuses(model: type[models.Model], name: str, project: Project) -> None:
    refused_by(model, name, lambda: BROKEN[model, name](project))


@pytest.mark.parametrize("kind", ["base", "encoder", "sft", "reward", "policy"])
def test_a_project_may_own_versions_of_every_kind(kind: str, project: Project) -> None:
    assert make_version(f"own {kind}", kind=kind, project=project).project == project
