"""What pages read about model versions."""

from __future__ import annotations

import pytest
from django.http import Http404

from labelhub.projects.models import Project
from labelhub.registry import queries
from labelhub.registry.models import Parent
from tests import factories
from tests.labelhub.dashboard import world

pytestmark = pytest.mark.django_db


def test_a_family_is_what_was_made_here_and_where_it_began(project: Project) -> None:
    world.decided(project)
    factories.make_version("unrelated-base")
    names = [version.name for version in queries.family_of(project)]
    assert names == ["everyday/policy-v1", "everyday/reward-v1", "tiny-base"]


def test_the_live_base_belongs_to_the_family_before_anything_was_made(project: Project) -> None:
    assert queries.family_of(project) == []
    base = world.live(project)
    assert queries.family_of(project) == [base]
    assert queries.live_version(project) == base


def test_a_project_sees_its_own_versions_and_all_bases(project: Project) -> None:
    other = factories.make_project("other")
    base = factories.make_version("tiny-base")
    theirs = factories.make_version("other/policy-v1", kind="policy", project=other, number=1)
    assert queries.get_version_or_404(project, base.pk) == base
    with pytest.raises(Http404):
        queries.get_version_or_404(project, theirs.pk)


def test_of_a_bases_children_only_the_projects_own_are_seen(project: Project) -> None:
    other = factories.make_project("other")
    base = factories.make_version("tiny-base")
    mine = factories.make_version("everyday/policy-v1", kind="policy", project=project, number=1)
    theirs = factories.make_version("other/policy-v1", kind="policy", project=other, number=1)
    for child in (mine, theirs):
        Parent.objects.create(child=child, parent=base, role="policy")
    assert [link.child for link in queries.children_in(project, base)] == [mine]
