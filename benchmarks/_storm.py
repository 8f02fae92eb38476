"""A crowd that ranks in all kinds of weather, and a judge who asks the database what became of it.

Choices
- Everything is done through the actions that the pages call. Time is the one thing that is made: a
  lease "runs out" by an UPDATE of its end.
- What a person was told is written into a table beside the product's (`bench_said`), after each
  answer; the highest number of opinions ever wished for on a set into another (`bench_wish`),
  before the wish. The judge compares these with the product's tables by SQL and trusts no counter.
Not here: timing (`queue.py`).
"""

from __future__ import annotations

import random
import threading
import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from django.db import connection, connections
from django.utils import timezone

from benchmarks import _crowd
from labelhub.accounts.models import User
from labelhub.assignments.actions import (
    claim_ahead,
    claim_next,
    open_slots,
    release,
    release_expired,
)
from labelhub.assignments.models import Slot
from labelhub.lib.errors import Refused
from labelhub.projects.models import Project
from labelhub.prompts.models import Answer, AnswerSet
from labelhub.rankings.actions import skip, submit_ranking

OVERLAP, MOST = 2, 3  # opinions wished for at first, and at most
# How often each happens to a slot that somebody was given; otherwise it is simply ranked.
HABITS = {
    "double_click": 0.04,
    "two_tabs": 0.04,
    "too_late": 0.05,
    "walk_off": 0.02,
    "give_back": 0.03,
    "look_ahead": 0.03,
    "pass_on": 0.01,
}
_TABLES = (
    "CREATE TABLE bench_wish (answer_set_id bigint PRIMARY KEY, most integer NOT NULL)",
    "CREATE TABLE bench_said (key varchar(32) PRIMARY KEY, verdict varchar(20) NOT NULL)",
)
# Each is a number that must be 0, or (with an underscore in front) a fact about the storm.
_QUESTIONS = {
    # Sets on which more opinions were given in time, or are in hand, than were ever wished for.
    "over_assigned": """
        SELECT count(*) FROM (
          SELECT slot.answer_set_id FROM assignments_slot slot
          JOIN bench_wish wish ON wish.answer_set_id = slot.answer_set_id
          LEFT JOIN rankings_ranking ranking ON ranking.slot_id = slot.id
          WHERE slot.kind = 'opinion'
            AND (slot.state = 'held' OR (slot.state = 'done' AND NOT ranking.late))
          GROUP BY slot.answer_set_id, wish.most HAVING count(*) > wish.most) AS too_many""",
    # Rankings that somebody was told are saved, and that are not there or not whole.
    "lost": """
        SELECT count(*) FROM bench_said said
        LEFT JOIN rankings_ranking ranking
          ON replace(CAST(ranking.idempotency_key AS varchar(36)), '-', '') = said.key
        WHERE said.verdict = 'saved'
          AND (SELECT count(*) FROM rankings_rankingitem item WHERE item.ranking_id = ranking.id)
            <> (SELECT count(*) FROM prompts_answer answer
                WHERE answer.answer_set_id = ranking.answer_set_id)
           OR (said.verdict = 'saved' AND ranking.id IS NULL)""",
    # People with two opinions on one set.
    "doubled": """
        SELECT count(*) FROM (
          SELECT 1 FROM rankings_ranking
          GROUP BY answer_set_id, annotator_id HAVING count(*) > 1) AS twice""",
    # Rankings that stand though nobody was told so, or on a slot that is somebody else's.
    "unaccounted": """
        SELECT count(*) FROM rankings_ranking ranking
        JOIN assignments_slot slot ON slot.id = ranking.slot_id
        LEFT JOIN bench_said said
          ON replace(CAST(ranking.idempotency_key AS varchar(36)), '-', '') = said.key
        WHERE said.key IS NULL OR said.verdict <> 'saved' OR slot.state <> 'done'
           OR slot.holder_id IS NULL OR slot.holder_id <> ranking.annotator_id""",
    "_rankings": "SELECT count(*) FROM rankings_ranking",
    "_came_late_and_kept": "SELECT count(*) FROM rankings_ranking WHERE late",
    "_second_tabs_refused": "SELECT count(*) FROM bench_said WHERE verdict = 'already_ranked'",
    "_known_sets_and_repeats": """
        SELECT count(*) FROM rankings_ranking ranking
        JOIN assignments_slot slot ON slot.id = ranking.slot_id
        WHERE slot.kind IN ('gold', 'repeat')""",
    "_sets_with_another_wish": f"SELECT count(*) FROM bench_wish WHERE most <> {OVERLAP}",
    "_slots_closed_since_lowered": """
        SELECT count(*) FROM assignments_slot WHERE state = 'closed' AND kind = 'opinion'""",
}


def prepare(project: Project, sets: int) -> None:
    """Open the queue and the tables beside it."""
    first = AnswerSet.objects.order_by("-pk").values_list("pk", flat=True).first() or 0
    _crowd.add_open_sets(project, sets, slots=OVERLAP, answers=len(_crowd.TEXTS))
    with connection.cursor() as cursor:
        for table in _TABLES:
            cursor.execute(table)
        cursor.execute(
            f"INSERT INTO bench_wish SELECT id, {OVERLAP} FROM prompts_answerset WHERE id > %s",
            [first],
        )


def judge() -> dict[str, int]:
    """The answers of the database; facts about the storm have an underscore in front."""
    found: dict[str, int] = {}
    with connection.cursor() as cursor:
        for name, question in _QUESTIONS.items():
            cursor.execute(question)
            found[name] = cursor.fetchone()[0]
    return found


# --- people


class Person:
    """One annotator at work, with bad habits."""

    def __init__(self, project: Project, user: User, seed: int) -> None:
        self.project, self.user = project, user
        self.rng = random.Random(seed)
        self.overdue: list[Slot] = []  # pages that were left open when their lease ran out

    def work(self, go_on: Callable[[], bool]) -> None:
        """Rank until the queue is empty or it is time to go home."""
        while go_on():
            slot = claim_next(project=self.project, by=self.user)
            if slot is None:
                break
            getattr(self, self._habit())(slot)
            if len(self.overdue) > 2:
                self.rank(self.overdue.pop(0))
        while self.overdue:
            self.rank(self.overdue.pop())

    def _habit(self) -> str:
        drawn = self.rng.random()
        for habit, share in HABITS.items():
            if drawn < share:
                return habit
            drawn -= share
        return "rank"

    def rank(self, slot: Slot) -> None:
        """Submit a ranking, once."""
        self._submit(slot, uuid.uuid4(), self._ranks(slot))

    def double_click(self, slot: Slot) -> None:
        """Submit the same form twice at the same moment."""
        key, ranks = uuid.uuid4(), self._ranks(slot)
        _at_once(*[lambda: self._submit(slot, key, ranks)] * 2)

    def two_tabs(self, slot: Slot) -> None:
        """Open a second tab, which shows the same set, and submit both."""
        again = claim_next(project=self.project, by=self.user)
        tabs = [slot, again] if again else [slot]
        sent = [(tab, uuid.uuid4(), self._ranks(tab)) for tab in tabs]
        _at_once(*[lambda one=one: self._submit(*one) for one in sent])

    def too_late(self, slot: Slot) -> None:
        """Let the lease run out, and submit after a while all the same."""
        self._time_passes(slot)
        self.overdue.append(slot)

    def walk_off(self, slot: Slot) -> None:
        """Let the lease run out and never come back to it."""
        self._time_passes(slot)

    def give_back(self, slot: Slot) -> None:
        """Leave the page."""
        release(slot_id=slot.pk, token=slot.lease_token, by=self.user)

    def look_ahead(self, slot: Slot) -> None:
        """Have the next set fetched while ranking this one."""
        claim_ahead(project=self.project, by=self.user, slot_id=slot.pk, token=slot.lease_token)
        self.rank(slot)

    def pass_on(self, slot: Slot) -> None:
        """Skip it."""
        skip(slot_id=slot.pk, token=slot.lease_token, reason="other", note="", by=self.user)

    def _time_passes(self, slot: Slot) -> None:
        past = timezone.now() - timedelta(minutes=1)
        Slot.objects.filter(pk=slot.pk, lease_token=slot.lease_token).update(lease_until=past)
        release_expired()

    def _ranks(self, slot: Slot) -> dict[int, int]:
        answers = Answer.objects.filter(answer_set=slot.answer_set_id)
        return {pk: self.rng.randint(1, 2) for pk in answers.values_list("pk", flat=True)}

    def _submit(self, slot: Slot, key: uuid.UUID, ranks: dict[int, int]) -> None:
        try:
            submit_ranking(
                slot_id=slot.pk,
                token=slot.lease_token,
                ranks=ranks,
                idempotency_key=key,
                duration_ms=1000,
                active_ms=1000,
                by=self.user,
            )
            verdict = "saved"
        except Refused as refusal:
            verdict = refusal.code
        with connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO bench_said VALUES (%s, %s) ON CONFLICT DO NOTHING", [key.hex, verdict]
            )


def _at_once(*acts: Callable[[], None]) -> None:
    """Do all of it at the same moment: the first here, the others in threads of their own."""

    def aside(act: Callable[[], None]) -> None:
        try:
            act()
        finally:
            connections.close_all()

    threads = [threading.Thread(target=aside, args=(act,)) for act in acts[1:]]
    for thread in threads:
        thread.start()
    acts[0]()
    for thread in threads:
        thread.join()


# --- weather


def blow(project: Project, rng: random.Random, overlap: int) -> None:
    """Raise or lower the wish on some sets to `overlap`, and sweep up ended leases."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT min(answer_set_id), max(answer_set_id) FROM bench_wish")
        first, last = cursor.fetchone()
        some = sorted({rng.randint(first, last) for _ in range(20)})
        cursor.executemany(
            "UPDATE bench_wish SET most = %s WHERE answer_set_id = %s AND most < %s",
            [(overlap, one, overlap) for one in some],
        )
    sets = AnswerSet.objects.filter(pk__in=some).select_related("prompt")
    open_slots(project=project, answer_sets=sets, overlap=overlap)
    release_expired()


# --- what the processes of `queue.py` do


def roles() -> dict[str, Callable[..., Callable[..., Any]]]:
    """Each makes the function that is called with every line."""
    return {"judge": _judge, "storm": _storm, "weather": _weather}


def _judge(annotators: int) -> Callable[..., Any]:
    def run(word: str, submissions: str = "0") -> dict[str, int] | None:
        if word == "judge":
            return judge()
        project, _people = _crowd.make_project("storm", annotators)
        # More is open than will be ranked, so that nobody waits for the last sets.
        prepare(project, int(submissions) * 2 // 3 + 100)
        _crowd.settle()
        return None

    return run


def _storm(first: int, count: int, share: int) -> Callable[..., Any]:
    project = Project.objects.get(slug="storm")
    people = list(User.objects.order_by("pk")[first : first + count])

    def run(_word: str) -> None:
        begun = iter(range(share))
        rank_together(project, people, lambda: next(begun, None) is not None)

    return run


def rank_together(project: Project, people: list[User], go_on: Callable[[], bool]) -> None:
    """All these people at work at once; raises what went wrong with the first of them."""
    wrong: list[BaseException] = []

    def work(person: User) -> None:
        try:
            Person(project, person, seed=person.pk).work(lambda: not wrong and go_on())
        except BaseException as error:
            wrong.append(error)
            raise
        finally:
            connections.close_all()

    threads = [threading.Thread(target=work, args=(person,)) for person in people]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if wrong:
        raise wrong[0]


def _weather() -> Callable[..., Any]:
    project = Project.objects.get(slug="storm")
    calm = threading.Event()
    rng = random.Random(1)
    wrong: list[Exception] = []

    def keep_on() -> None:
        try:
            while not calm.wait(0.1):
                blow(project, rng, overlap=rng.randint(1, MOST))
        except Exception as error:  # noqa: BLE001 - told when it is asked to stop
            wrong.append(error)

    wind = threading.Thread(target=keep_on)

    def run(word: str) -> None:
        if word == "blow":
            wind.start()
        else:
            calm.set()
            wind.join()
        if wrong:
            raise wrong[0]

    return run
