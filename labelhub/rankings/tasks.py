"""Celery shells: figures about a project's rankings are made by a worker, never by a page."""

from __future__ import annotations

from celery import shared_task

from labelhub.projects.models import Project
from labelhub.rankings import progress, quality


@shared_task(name="labelhub.rankings.tasks.measure_quality")
def measure_quality(project_id: int) -> int | None:
    """Make a new report; a project that is gone needs none."""
    return progress.store_report(project_id)


@shared_task(name="labelhub.rankings.tasks.sweep_quality", expires=300)
def sweep_quality() -> int:
    """Measure every project of which enough has changed since its last report."""
    count = 0
    for project in Project.objects.order_by("pk"):
        if quality.is_outdated(project, quality.newest_report(project)):
            measure_quality.apply_async((project.pk,), expires=600)
            count += 1
    return count
