"""One order of several people's for every ranked set, with what each of them said beside it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from django.db.models import Prefetch

from labelhub.assignments.models import Slot
from labelhub.projects.models import Project
from labelhub.prompts.models import AnswerSet
from labelhub.rankings import consensus
from labelhub.rankings.models import Ranking
from labelhub.rankings.quality import latest

_CHUNK = 100


def consensus_lines(project: Project) -> Iterator[dict[str, Any]]:
    """One line a ranked set: what follows from its opinions by both methods, and the opinions.

    Annotators appear by number. The reliabilities are those of the newest report; who has none yet
    is believed as the prior says. A reviewer's decision stands beside, it is no opinion. Reads a
    hundred sets at a time.
    """
    found = latest(project)
    known = {one.user_id: one.reliability for one in found.people} if found else {}
    mine = Ranking.objects.filter(is_simulated=project.is_simulated).exclude(
        slot__kind=Slot.Kind.TUTORIAL
    )
    ranked = AnswerSet.objects.filter(
        prompt__project=project,
        purpose=AnswerSet.Purpose.RANK,
        pk__in=mine.filter(project=project).values("answer_set"),
    )
    last = 0
    while chunk := list(
        ranked.filter(pk__gt=last)
        .order_by("pk")
        .select_related("prompt")
        .prefetch_related(
            "answers", Prefetch("rankings", mine.order_by("pk").prefetch_related("items"))
        )[:_CHUNK]
    ):
        yield from _consensus_of(chunk, known)
        last = chunk[-1].pk


def _consensus_of(chunk: list[AnswerSet], known: Mapping[int, float]) -> Iterator[dict[str, Any]]:
    opinions: dict[int, list[dict[str, int]]] = defaultdict(list)
    for one in chunk:
        for ranking in one.rankings.all():
            if not ranking.adjudicates:
                opinions[ranking.annotator_id].append(_ranks(ranking))
    held = {who: known.get(who, consensus.UNKNOWN) for who in opinions}
    scores = consensus.bradley_terry(opinions, held=held).scores
    for one in chunk:
        yield _consensus_line(one, scores, held)


def _consensus_line(
    one: AnswerSet, scores: Mapping[str, float], held: Mapping[int, float]
) -> dict[str, Any]:
    given = [ranking for ranking in one.rankings.all() if not ranking.adjudicates]
    decision = next((ranking for ranking in one.rankings.all() if ranking.adjudicates), None)
    answers = sorted(one.answers.all(), key=lambda answer: answer.n)
    own = {key: scores[key] for answer in answers if (key := str(answer.pk)) in scores}
    return {
        "answer_set": str(one.pk),
        "prompt": one.prompt.messages,
        "answers": [{"id": str(answer.pk), "text": answer.text} for answer in answers],
        "ranked_pairs": consensus.ranked_pairs([_ranks(ranking) for ranking in given]),
        "bradley_terry": {
            "ranks": consensus.ranks_of(own),
            "scores": {key: round(score, 4) for key, score in own.items()},
        },
        "rankings": [
            {
                "annotator": str(ranking.annotator_id),
                "reliability": round(held[ranking.annotator_id], 4),
                "ranks": _ranks(ranking),
            }
            for ranking in given
        ],
        "decision": decision
        and {"annotator": str(decision.annotator_id), "ranks": _ranks(decision)},
    }


def _ranks(ranking: Ranking) -> dict[str, int]:
    items = sorted(ranking.items.all(), key=lambda item: item.answer_id)
    return {str(item.answer_id): item.rank for item in items}
