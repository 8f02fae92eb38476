"""A small storm: late work, double clicks, second tabs and changing wishes lose and double nothing.

`./run bench queue` does the same a hundred thousand times.
"""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Iterator

import pytest
from django.db import connection, connections

from benchmarks import _crowd, _storm
from labelhub.assignments.models import Slot
from labelhub.projects.models import Project
from labelhub.rankings.models import Ranking

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(180)]

SUBMISSIONS, PEOPLE = 120, 6
# Rarer things in real life; here each happens to one slot in eight or so.
HABITS = dict.fromkeys(_storm.HABITS, 0.12)


@pytest.fixture
def storm(monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """A project after the storm, with what was said and wished beside it."""
    monkeypatch.setattr(_storm, "HABITS", HABITS)
    project, people = _crowd.make_project("storm", PEOPLE)
    _storm.prepare(project, SUBMISSIONS)
    calm, rng, begun = threading.Event(), random.Random(7), iter(range(SUBMISSIONS))
    wrong: list[Exception] = []

    def wind() -> None:
        overlaps = itertools.cycle([_storm.MOST, 1, _storm.OVERLAP])
        try:
            while not calm.wait(0.05):
                _storm.blow(project, rng, overlap=next(overlaps))
        except Exception as error:  # noqa: BLE001 - whatever it is, the test must see it
            wrong.append(error)
        finally:
            connections.close_all()

    blowing = threading.Thread(target=wind, daemon=True)
    blowing.start()
    try:
        _storm.rank_together(project, people, lambda: next(begun, None) is not None)
    finally:
        calm.set()
        blowing.join(30)
    assert wrong == []
    yield project
    with connection.cursor() as cursor:
        for table in ("bench_wish", "bench_said"):
            cursor.execute(f"DROP TABLE {table}")


def test_nothing_is_given_too_often_lost_or_doubled(storm: Project) -> None:
    verdict = _storm.judge()
    wrong = ("over_assigned", "lost", "doubled", "unaccounted")
    assert {name: verdict[name] for name in wrong} == dict.fromkeys(wrong, 0)
    # The storm was one: each of these happened.
    for name in ("_rankings", "_came_late_and_kept", "_second_tabs_refused"):
        assert verdict[name] > 0, name
    assert verdict["_sets_with_another_wish"] > 0

    # And the judge is not blind: what is wrong is found when it is there. (Doubled opinions cannot
    # be put there: the database refuses them.)
    ranking = Ranking.objects.filter(late=False, slot__kind=Slot.Kind.OPINION).first()
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE bench_wish SET most = 0 WHERE answer_set_id = %s", [ranking.answer_set_id]
        )
        cursor.execute("INSERT INTO bench_said VALUES (%s, 'saved')", ["0" * 32])
    Slot.objects.filter(pk=ranking.slot_id).update(holder=None)
    verdict = _storm.judge()
    assert (verdict["over_assigned"], verdict["lost"], verdict["unaccounted"]) == (1, 1, 1)
