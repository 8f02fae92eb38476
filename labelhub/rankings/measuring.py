"""What admins ask for about quality: new figures, now."""

from __future__ import annotations

from django.db import transaction

from labelhub.accounts.actions import audit
from labelhub.accounts.models import User
from labelhub.lib.queue import enqueue_on_commit
from labelhub.projects.models import Project
from labelhub.rankings import tasks


@transaction.atomic
def measure_quality(*, project: Project, by: User) -> None:
    """Let a worker measure the project's rankings without waiting for the next sweep."""
    audit(by=by, action="quality.measure", target=project)
    enqueue_on_commit(tasks.measure_quality, project.pk)
