"""What workers report about rankings."""

from __future__ import annotations

from labelhub.projects.models import Project
from labelhub.rankings.models import QualityReport
from labelhub.rankings.quality import build_report, rankings_in

# Older reports say nothing that the weeks in the newest one do not say.
KEPT = 20


def store_report(project_id: int) -> int | None:
    """Measure a project's rankings and keep what came out; returns the report's id."""
    project = Project.objects.filter(pk=project_id).first()
    if project is None:
        return None
    # Counted first: what is submitted meanwhile makes the report a little old, never too new.
    count = rankings_in(project)
    report = QualityReport.objects.create(
        project=project, rankings=count, figures=build_report(project)
    )
    old = QualityReport.objects.filter(project=project).order_by("-pk")[KEPT:]
    QualityReport.objects.filter(pk__in=list(old.values_list("pk", flat=True))).delete()
    return report.pk
