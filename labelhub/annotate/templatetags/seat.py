"""One's own seat in a project, as the desk shows it."""

from __future__ import annotations

from typing import Any

from django import template
from django.template.context import RequestContext

from labelhub.assignments.queries import own_held_slots
from labelhub.projects.models import Project
from labelhub.projects.queries import is_last_admin, membership_of

register = template.Library()


@register.inclusion_tag("annotate/_seat.html", takes_context=True)
def own_seat(context: RequestContext, project: Project) -> dict[str, Any]:
    """`{% own_seat project %}`: hand back, pause, go on, leave."""
    request = context["request"]
    seat = membership_of(request.user, project)
    return {
        "request": request,
        "csrf_token": context.get("csrf_token"),
        "project": project,
        "seat": seat,
        "held": own_held_slots(request.user, project).count(),
        "is_last_admin": seat is not None and is_last_admin(seat),
    }
