"""Each search of a claim steps into an index at one place; nothing is sorted, no table is read."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

import pytest
from django.db import connection
from django.db.models import QuerySet

from benchmarks._crowd import add_open_sets
from labelhub.accounts.models import User
from labelhub.assignments.actions import claim_next
from labelhub.assignments.models import Slot
from labelhub.assignments.queries import (
    expired,
    fit_for,
    open_reviews,
    pools_for,
    reserved_for,
    seat_of,
    stretches,
    top_band,
    unreserved,
)
from labelhub.projects.models import Project
from tests.factories import make_pool

pytestmark = pytest.mark.django_db
NOW = "2026-01-01T00:00:00Z"
Search = Callable[[User, Project], Iterable[QuerySet[Slot]]]


@pytest.fixture
def long_queue(project: Project) -> Project:
    """So long that PostgreSQL finds an index worth its while."""
    make_pool(project)
    add_open_sets(project, 4000)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")
    return project


def by_priority(user: User, project: Project) -> list[QuerySet[Slot]]:
    band, pools = top_band(pools_for(seat_of(user, project), project), None)
    return [fit_for(user, slots) for slots in stretches(pools, 2**30, band)]


def uniform(user: User, project: Project) -> list[QuerySet[Slot]]:
    pools = pools_for(seat_of(user, project), project)
    return [fit_for(user, slots) for slots in stretches(pools, 2**30)]


SEARCHES: dict[str, Search] = {
    "slot_next_open": by_priority,
    "slot_next_uniform": uniform,
    "slot_reserved": lambda user, project: [reserved_for(user, project)],
    "slot_to_review": lambda user, project: [open_reviews(user, project, seat_of(user, project))],
    "slot_lease_ends": lambda _user, project: [expired(NOW, project)],
}


SORTED_OR_READ = re.compile(
    r"TEMP B-TREE|AUTOMATIC|Sort|Seq Scan on assignments_slot|SCAN assignments_slot$", re.MULTILINE
)


@pytest.mark.parametrize("index", SEARCHES)
def test_a_search_is_one_step_into_its_index(long_queue: Project, ann: User, index: str) -> None:
    searches = list(SEARCHES[index](ann, long_queue))
    assert searches
    for search in searches:
        plan = search[:1].explain()
        assert index in plan
        assert not SORTED_OR_READ.search(plan)


def test_the_top_of_a_pool_is_the_first_entry_of_its_index(long_queue: Project, ann: User) -> None:
    (pool,) = pools_for(seat_of(ann, long_queue), long_queue)
    plan = unreserved().filter(pool=pool).order_by("-priority", "shuffle", "id")[:1].explain()
    assert "slot_next_open" in plan
    assert not SORTED_OR_READ.search(plan)
    assert top_band([pool], None) == (20, [pool])
    assert top_band([pool], 20) == (19, [pool])
    assert top_band([pool], 1) is None


def test_a_claim_asks_few_questions(
    long_queue: Project, ann: User, django_assert_max_num_queries: Callable
) -> None:
    with django_assert_max_num_queries(14):
        assert claim_next(project=long_queue, by=ann) is not None
