"""Celery shells of the queue."""

from __future__ import annotations

import logging

from celery import shared_task

from labelhub.assignments import progress
from labelhub.projects.models import Project

log = logging.getLogger(__name__)


@shared_task(name="labelhub.assignments.tasks.refresh_priorities")
def refresh_priorities(project_id: int) -> int:
    """Write the priorities of one project's open slots anew."""
    return progress.refresh_priorities(project_id)


@shared_task(name="labelhub.assignments.tasks.sweep_priorities", expires=240)
def sweep_priorities() -> int:
    """Write the priorities of every project anew, since sets grow older. One stops no other."""
    changed = 0
    for project_id in Project.objects.filter(paused=False).values_list("pk", flat=True):
        try:
            changed += progress.refresh_priorities(project_id)
        except Exception:
            log.exception("The priorities of project %s could not be written.", project_id)
    return changed
