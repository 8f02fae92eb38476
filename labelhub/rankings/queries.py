"""Reads about rankings: the lines that the trainer reads, agreement, and a person's own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from statistics import median
from typing import Any

from django.db.models import Exists, OuterRef, Q, QuerySet, prefetch_related_objects
from django.utils import timezone

from labelhub.accounts.models import User
from labelhub.assignments.models import Slot
from labelhub.assignments.queries import queue_counts
from labelhub.projects.models import Project
from labelhub.prompts.models import AnswerSet
from labelhub.rankings import rules
from labelhub.rankings.models import Flag, Gold, Ranking, Skip
from labelhub.rankings.rules import Feedback, ItemFeedback

# Django fetches the answers of a chunk by “id = 1 OR id = 2 …”, of which SQLite takes fewer than
# 1000: 100 rankings of at most 9 answers.
_CHUNK = 100
_LATEST = 20  # rankings from which a person's pace is taken


def usable_rankings(project: Project) -> QuerySet[Ranking]:
    """What a stage may train on: one voice for each person and set, or the reviewer's decision.

    Opinions on sets that are to be ranked; of a set on which a reviewer decided, the decision
    alone. Known rankings, repeats, comparisons and held-out prompts never enter, and people's and
    simulated rankings never mix. What is left out here stays stored, and can be exported.
    """
    decided = Ranking.objects.filter(answer_set=OuterRef("answer_set"), adjudicates=True)
    return Ranking.objects.filter(
        Q(adjudicates=True) | ~Exists(decided),
        project=project,
        answer_set__purpose=AnswerSet.Purpose.RANK,
        answer_set__prompt__held_out=False,
        is_simulated=project.is_simulated,
    )


def export_lines(
    rankings: QuerySet[Ranking] | Iterable[Ranking], weights: Mapping[int, float] | None = None
) -> Iterator[dict[str, Any]]:
    """The lines of rankings.jsonl, oldest first; ids are strings, models and names are left out.

    `weights` says by ranking id what one counts in training; the others count 1. Facts only: which
    pairs they make is for the trainer to say. Reads a few hundred rankings at a time, so a hundred
    thousand of them need no more memory.
    """
    known = weights or {}
    for ranking in _loaded(rankings):
        yield _line(ranking, known.get(ranking.pk, 1.0))


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


def _line(ranking: Ranking, weight: float) -> dict[str, Any]:
    items = sorted(ranking.items.all(), key=lambda item: item.answer.n)
    line: dict[str, Any] = {
        "prompt": ranking.answer_set.prompt.messages,
        "answers": [{"id": str(item.answer_id), "text": item.answer.text} for item in items],
        "ranks": {str(item.answer_id): item.rank for item in items},
        "annotator": str(ranking.annotator_id),
        "weight": weight,
    }
    gaps = rules.gaps_of((item.rank, item.gap) for item in items)
    if any(gap is not None for gap in gaps):
        line["gaps"] = gaps
    return line


def sft_lines(project: Project) -> Iterator[dict[str, Any]]:
    """The ideal answers that people wrote, as pairs for fine-tuning, oldest first.

    They never enter a reward model. Those to held-out prompts are left out: nothing trains there.
    """
    written = Ranking.objects.filter(
        project=project, is_simulated=project.is_simulated, answer_set__prompt__held_out=False
    )
    return ideal_lines(written.exclude(slot__kind=Slot.Kind.TUTORIAL))


def ideal_lines(rankings: QuerySet[Ranking]) -> Iterator[dict[str, Any]]:
    """The ideal answers that were written with these rankings, as pairs, oldest first."""
    rows = (
        rankings.exclude(ideal_answer="")
        .order_by("pk")
        .values_list("answer_set__prompt__messages", "ideal_answer", "annotator_id")
    )
    for messages, answer, annotator in rows.iterator(chunk_size=_CHUNK):
        yield {"prompt": messages, "answer": answer, "annotator": str(annotator)}


def best_lines(rankings: QuerySet[Ranking]) -> Iterator[dict[str, Any]]:
    """The answers that these rankings put first, as pairs for fine-tuning, oldest ranking first.

    Each answer stands once, however many put it first. Of several tied best all are taken; a
    ranking whose answers all tie says nothing about any, and a blank answer teaches nothing.
    """
    taken: set[int] = set()
    for ranking in _loaded(rankings):
        items = sorted(ranking.items.all(), key=lambda item: item.answer.n)
        if len({item.rank for item in items}) < 2:
            continue
        for item in items:
            if item.rank == 1 and item.answer_id not in taken and item.answer.text.strip():
                taken.add(item.answer_id)
                yield {"prompt": ranking.answer_set.prompt.messages, "answer": item.answer.text}


# --- one person's rankings


def history_of(user: User, project: Project) -> QuerySet[Ranking]:
    """What a person ranked in a project, newest first; the tutorial is left out.

    Known rankings and repeats stand among the others and look like them.
    """
    return (
        Ranking.objects.filter(project=project, annotator=user)
        .exclude(slot__kind=Slot.Kind.TUTORIAL)
        .select_related("answer_set__prompt", "project", "slot")
        .order_by("-pk")
    )


def why_not_correctable(ranking: Ranking) -> str:
    """Empty when its annotator may still correct a ranking; else "tutorial", "frozen", "not_today".

    A known ranking or a repeat is never frozen itself. It closes when the person's others of the
    same time do, so that nobody can tell it from them.
    """
    if ranking.slot.kind == Slot.Kind.TUTORIAL:
        return "tutorial"
    if ranking.frozen_at is not None or _froze_beside(ranking):
        return "frozen"
    today = timezone.localdate()
    return "" if timezone.localdate(ranking.created) == today else "not_today"


def _froze_beside(ranking: Ranking) -> bool:
    if ranking.slot.kind not in (Slot.Kind.GOLD, Slot.Kind.REPEAT):
        return False
    others = Ranking.objects.filter(project=ranking.project_id, annotator=ranking.annotator_id)
    return others.filter(frozen_at__gte=ranking.created).exists()


def feedback_of(ranking: Ranking) -> Feedback:
    """What the annotator said beside the order."""
    return Feedback(
        all_bad=ranking.all_bad,
        refusal_right=ranking.refusal_right,
        ideal_answer=ranking.ideal_answer,
        items={
            item.answer_id: ItemFeedback(
                likert=item.likert,
                attributes=tuple(item.attributes),
                critique=item.critique,
                spans=rules.spans_from_json(item.spans),
            )
            for item in ranking.items.all()
        },
    )


_FACTS = (
    *("guidelines_id", "duration_ms", "active_ms", "late"),
    *("all_bad", "refusal_right", "ideal_answer"),
)
_ITEM_FACTS = (
    *("answer_id", "rank", "position", "gap"),
    *("likert", "attributes", "critique", "spans"),
)


def facts_of(ranking: Ranking) -> dict[str, Any]:
    """All that can change in a ranking and its items, by the names of the columns, as JSON."""
    items = sorted(ranking.items.all(), key=lambda item: item.position)
    return {
        "idempotency_key": str(ranking.idempotency_key),
        **{name: getattr(ranking, name) for name in _FACTS},
        "items": [{name: getattr(item, name) for name in _ITEM_FACTS} for item in items],
    }


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


# --- for admins


def gold_in(project: Project) -> QuerySet[Gold]:
    """The known rankings that are given to people, the tutorial's in its order."""
    return (
        Gold.objects.filter(answer_set__prompt__project=project, answer_set__retired=False)
        .select_related("answer_set__prompt", "created_by")
        .order_by("answer_set__purpose", "place", "pk")
    )


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
