"""Reads about people that need nothing above this room."""

from __future__ import annotations

from labelhub.accounts.models import User


def steers_any_project(user: User) -> bool:
    """Tell whether the dashboard is for this person: a superuser, or admin of some project.

    The memberships are reached through the relation's name: `projects` lies above this room.
    """
    return user.is_superuser or user.memberships.filter(role="admin").exists()
