"""Lower rooms know nothing of rounds; rounds listen to them."""

from __future__ import annotations

from typing import Any

from django.dispatch import receiver

from labelhub.lib.queue import enqueue_on_commit
from labelhub.rankings.models import Ranking
from labelhub.rankings.signals import ranking_submitted
from labelhub.rounds.models import Round
from labelhub.rounds.progress import work_done
from labelhub.rounds.tasks import advance_round
from labelhub.runs.signals import run_ended


@receiver(run_ended)
def _run_ended(run_id: int, **_: Any) -> None:
    for turn in Round.objects.filter(round_runs__run_id=run_id):
        enqueue_on_commit(advance_round, turn.pk)


@receiver(ranking_submitted)
def _ranking_submitted(ranking_id: int, **_: Any) -> None:
    ranking = Ranking.objects.get(pk=ranking_id)
    for turn in Round.objects.filter(answer_sets=ranking.answer_set_id, state=Round.State.RANK):
        if work_done(turn):
            enqueue_on_commit(advance_round, turn.pk)
