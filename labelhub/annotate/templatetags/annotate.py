"""What the annotators' pages ask about the person and the project in front of them."""

from __future__ import annotations

from typing import Any

from django import template
from django.utils.translation import gettext as _

from labelhub.accounts.models import User
from labelhub.annotate.access import may_review
from labelhub.lib.figures import fixed
from labelhub.projects.models import Project
from labelhub.rankings.tutorial import has_tutorial

register = template.Library()

MINUTE, HOUR = 60, 3600


@register.inclusion_tag("annotate/_nav.html", takes_context=True)
def project_nav(context: template.RequestContext, project: Project, here: str) -> dict[str, Any]:
    """`{% project_nav project "history" %}`: the ways to a project's pages, for this person."""
    user = context["user"]
    return {
        "project": project,
        "here": here,
        "has_tutorial": has_tutorial(project),
        "may_review": isinstance(user, User) and may_review(user, project),
    }


@register.filter
def time_spent(milliseconds: int) -> str:
    """`72000|time_spent` is “1 min 12 s”: what a person needs to know, and no more digits."""
    return seconds_spent(milliseconds / 1000)


@register.filter
def seconds_spent(seconds: float) -> str:
    """The same for seconds."""
    whole = round(seconds)
    if whole < MINUTE:
        return _("%(seconds)d s") % {"seconds": whole}
    minutes, rest = divmod(whole, MINUTE)
    if whole < HOUR:
        return _("%(minutes)d min %(seconds)d s") % {"minutes": minutes, "seconds": rest}
    hours, minutes = divmod(minutes, MINUTE)
    return _("%(hours)d h %(minutes)d min") % {"hours": hours, "minutes": minutes}


@register.filter
def tau(value: float) -> str:
    """A rank correlation with two digits and a true minus."""
    return fixed(value + 0.0, 2)
