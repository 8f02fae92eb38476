"""Celery shells. Each takes an id and may be delivered twice: the lease decides."""

from __future__ import annotations

from celery import shared_task
from django.db.models import Q
from django.utils import timezone

from labelhub.runs import launcher
from labelhub.runs.models import Run


@shared_task(name="labelhub.runs.tasks.watch_run")
def watch_run(run_id: int) -> str | None:
    """Start and watch the trainer of one run. `gpu` is the queue of whatever trains."""
    return launcher.watch(run_id)


@shared_task(name="labelhub.runs.tasks.sweep_runs", expires=30)
def sweep_runs() -> int:
    """Queue again what nobody watches: the broker was down, or a worker died."""
    unwatched = Q(lease_until__isnull=True) | Q(lease_until__lt=timezone.now())
    runs = Run.objects.filter(
        unwatched, state__in=[Run.State.QUEUED, Run.State.RUNNING, Run.State.STOPPING]
    )
    count = 0
    for run_id in runs.values_list("pk", flat=True):
        # A copy that waits behind a long run must not pile up with those of later sweeps.
        watch_run.apply_async((run_id,), expires=15)
        count += 1
    return count
