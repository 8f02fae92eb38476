"""Lower rooms know nothing of rounds; rounds listen to them."""

from __future__ import annotations

from typing import Any

from django.dispatch import receiver

from labelhub.lib.queue import enqueue_on_commit
from labelhub.rankings.models import Ranking
from labelhub.rankings.signals import ranking_submitted, slots_closed
from labelhub.rounds.models import Comparison, Round, RoundRun
from labelhub.rounds.progress import work_done
from labelhub.rounds.rules import SCORE
from labelhub.rounds.tasks import advance_round, look_after_comparison, take_in_scores
from labelhub.rounds.verdicts import open_opinions
from labelhub.runs.signals import run_ended


@receiver(run_ended)
def _run_ended(run_id: int, **_: Any) -> None:
    for comparison in Comparison.objects.filter(run_id=run_id, round__isnull=True):
        enqueue_on_commit(look_after_comparison, comparison.pk)
    for link in RoundRun.objects.filter(run_id=run_id):
        # The ranking does not wait for the scores, so they move no round.
        task = take_in_scores if link.stage == SCORE else advance_round
        enqueue_on_commit(task, run_id if link.stage == SCORE else link.round_id)


@receiver(ranking_submitted)
def _ranking_submitted(ranking_id: int, **_: Any) -> None:
    ranking = Ranking.objects.get(pk=ranking_id)
    _look_again([ranking.answer_set_id])


@receiver(slots_closed)
def _slots_closed(answer_set_ids: list[int], **_: Any) -> None:
    _look_again(answer_set_ids)


def _look_again(answer_set_ids: list[int]) -> None:
    """Whichever way the wish for the last opinion ended, what waited for it goes on."""
    asking = [Round.State.RANK, Round.State.COMPARE]
    waiting = Round.objects.filter(answer_sets__in=answer_set_ids, state__in=asking)
    for turn in waiting.distinct():
        if work_done(turn):
            enqueue_on_commit(advance_round, turn.pk)
    alone = Comparison.objects.filter(
        answer_sets__in=answer_set_ids, state=Comparison.State.OPEN, round__isnull=True
    )
    for comparison in alone.distinct():
        if not open_opinions(comparison):
            enqueue_on_commit(look_after_comparison, comparison.pk)
