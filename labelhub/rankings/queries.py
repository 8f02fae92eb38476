"""Reads about rankings: the lines that the trainer reads, agreement, and a person's progress."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from statistics import median
from typing import Any

from django.db.models import QuerySet, prefetch_related_objects

from labelhub.accounts.models import User
from labelhub.assignments.queries import queue_counts
from labelhub.projects.models import Project
from labelhub.rankings import rules
from labelhub.rankings.models import Flag, Ranking, Skip

# Django fetches the answers of a chunk by “id = 1 OR id = 2 …”, of which SQLite takes fewer than
# 1000: 100 rankings of at most 9 answers.
_CHUNK = 100
_LATEST = 20  # rankings from which a person's pace is taken


def export_lines(rankings: QuerySet[Ranking] | Iterable[Ranking]) -> Iterator[dict[str, Any]]:
    """The lines of rankings.jsonl, oldest first; ids are strings, models and names are left out.

    Facts only: which pairs they make is for the trainer to say. Reads a few hundred rankings at a
    time, so a hundred thousand of them need no more memory.
    """
    for ranking in _loaded(rankings):
        yield _line(ranking)


def _loaded(rankings: QuerySet[Ranking] | Iterable[Ranking]) -> Iterator[Ranking]:
    if isinstance(rankings, QuerySet):
        rankings = rankings.order_by("pk").iterator(chunk_size=_CHUNK)
    else:
        rankings = sorted(rankings, key=lambda one: one.pk)
    chunk: list[Ranking] = []
    for ranking in rankings:
        chunk.append(ranking)
        if len(chunk) == _CHUNK:
            yield from _with_items(chunk)
            chunk = []
    yield from _with_items(chunk)


def _with_items(chunk: list[Ranking]) -> list[Ranking]:
    prefetch_related_objects(chunk, "items__answer", "answer_set__prompt")
    return chunk


def _line(ranking: Ranking) -> dict[str, Any]:
    items = sorted(ranking.items.all(), key=lambda item: item.answer.n)
    line: dict[str, Any] = {
        "prompt": ranking.answer_set.prompt.messages,
        "answers": [{"id": str(item.answer_id), "text": item.answer.text} for item in items],
        "ranks": {str(item.answer_id): item.rank for item in items},
        "annotator": str(ranking.annotator_id),
        "weight": 1.0,
    }
    gaps = rules.gaps_of((item.rank, item.gap) for item in items)
    if any(gap is not None for gap in gaps):
        line["gaps"] = gaps
    return line


@dataclass(frozen=True, slots=True)
class Progress:
    """How far one annotator is in a project."""

    today: int
    total: int
    left: int  # answer sets that this person can still rank, the one in hand included
    seconds_each: float | None  # median active time of the latest rankings; None before the first

    @property
    def share(self) -> float:
        """Done of all that is there for this person, from 0 to 1; 1 when nothing is left."""
        return self.total / (self.total + self.left) if self.total + self.left else 1.0


def progress_of(user: User, project: Project) -> Progress:
    """What `user` has done, what is left, and the pace."""
    counts = queue_counts(project, user)
    latest = (
        Ranking.objects.filter(project=project, annotator=user)
        .order_by("-pk")
        .values_list("active_ms", flat=True)[:_LATEST]
    )
    times = [milliseconds / 1000 for milliseconds in latest]
    return Progress(
        today=counts.mine_today,
        total=counts.mine_total,
        left=counts.left_for_me,
        seconds_each=median(times) if times else None,
    )


def agreement_in(rankings: QuerySet[Ranking]) -> tuple[int, int]:
    """(pairs that two annotators order alike, pairs that both order), over shared answer sets."""
    rows = (
        rankings.order_by("answer_set_id", "pk")
        .values_list("answer_set_id", "pk", "items__answer_id", "items__rank")
        .iterator(chunk_size=2000)
    )
    alike = both = 0
    for _set, of_set in groupby(rows, key=lambda row: row[0]):
        orders = [
            {answer: rank for _, _, answer, rank in of_one}
            for _pk, of_one in groupby(of_set, key=lambda row: row[1])
        ]
        a, b = rules.mean_agreement(orders)
        alike, both = alike + a, both + b
    return alike, both


def harmful_skips(project: Project) -> QuerySet[Skip]:
    """Sets that somebody passed on because they are harmful or private; newest first."""
    return (
        Skip.objects.filter(answer_set__prompt__project=project, reason=Skip.Reason.HARMFUL)
        .select_related("annotator", "answer_set__prompt")
        .order_by("-pk")
    )


def flags_in(project: Project) -> QuerySet[Flag]:
    """Answers that annotators flagged; newest first."""
    return (
        Flag.objects.filter(answer__answer_set__prompt__project=project)
        .select_related("annotator", "answer__answer_set__prompt")
        .order_by("-pk")
    )
