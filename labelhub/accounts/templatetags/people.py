"""What the frame of every page asks about the person in front of it."""

from __future__ import annotations

from django import template
from django.contrib.auth.models import AnonymousUser

from labelhub.accounts import queries
from labelhub.accounts.models import User

register = template.Library()


@register.simple_tag
def steers_any_project(user: User | AnonymousUser) -> bool:
    """`{% steers_any_project user as steers %}`: whether the dashboard is for this person."""
    return isinstance(user, User) and queries.steers_any_project(user)
