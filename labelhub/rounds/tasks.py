"""Celery shells of the loop."""

from __future__ import annotations

import logging

from celery import shared_task

from labelhub.rounds import comparing, progress, scoring
from labelhub.rounds.models import Round
from labelhub.rounds.rules import ENDED

log = logging.getLogger(__name__)


@shared_task(name="labelhub.rounds.tasks.advance_round")
def advance_round(round_id: int) -> str | None:
    """Take a round's next step if it is due."""
    return progress.advance(round_id)


@shared_task(name="labelhub.rounds.tasks.look_after_comparison")
def look_after_comparison(comparison_id: int) -> str | None:
    """Take the next step of a comparison that belongs to no round, if it is due."""
    return comparing.look_after(comparison_id)


@shared_task(name="labelhub.rounds.tasks.take_in_scores")
def take_in_scores(run_id: int) -> int:
    """Write what a finished scoring run says about the sets that it read."""
    return scoring.take_in_scores(run_id)


@shared_task(name="labelhub.rounds.tasks.sweep_rounds", expires=30)
def sweep_rounds() -> int:
    """Look after every open round and comparison: a message may be lost. One stops no other."""
    moved = 0
    for round_id in Round.objects.exclude(state__in=ENDED).values_list("pk", flat=True):
        try:
            moved += progress.advance(round_id) is not None
        except Exception:
            log.exception("Round %s could not take its next step.", round_id)
    for run_id in scoring.waiting_scores():
        try:
            scoring.take_in_scores(run_id)
        except Exception:
            log.exception("The scores of run %s could not be taken in.", run_id)
    for comparison_id in comparing.waiting_comparisons():
        try:
            comparing.look_after(comparison_id)
        except Exception:
            log.exception("Comparison %s could not take its next step.", comparison_id)
    return moved
