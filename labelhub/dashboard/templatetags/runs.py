"""Words about runs in templates."""

from __future__ import annotations

from django import template

from labelhub.dashboard.forms_runs import role_words
from labelhub.dashboard.log import REMEDIES
from labelhub.runs.models import Run

register = template.Library()


@register.filter
def role(name: str) -> str:
    """`{{ link.role|role }}`: Reward model."""
    return role_words(name)


@register.filter
def remedy(run: Run) -> str:
    """`{{ run|remedy }}`: what to do about its failure; nothing for one of an unknown kind."""
    return str(REMEDIES.get(run.error_code, ""))
