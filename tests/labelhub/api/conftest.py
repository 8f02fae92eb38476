"""What the API's tests look at: a project with one of everything, and programs with tokens."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

import pytest
from django.test import Client
from django.utils import timezone

from labelhub.accounts.actions import create_token
from labelhub.accounts.models import User
from labelhub.projects.models import Project
from tests.labelhub.api.world import World, make_world

ALL_SCOPES = ("read", "run", "write")


@pytest.fixture
def world(project: Project, ann: User, ada: User) -> World:
    """One of everything, in the project that ada steers."""
    return make_world(project, ann, ada)


@pytest.fixture
def program() -> Callable[..., Client]:
    """`program(ada, "read")` is a program with a token of ada's that has these scopes."""

    def start(
        user: User, *scopes: str, expires: datetime | None = None, revoked: bool = False
    ) -> Client:
        token, secret = create_token(
            user=user, name="program", scopes=list(scopes), by=user, expires=expires
        )
        if revoked:
            token.revoked = timezone.now()
            token.save()
        return Client(headers={"Authorization": f"Bearer {secret}"})

    return start


@pytest.fixture
def callers(
    clients: dict[str, Client], ada: User, ben: User, program: Callable[..., Client]
) -> dict[str, Client]:
    """Everybody who may knock: people in browsers, and programs with tokens of many kinds."""
    past = timezone.now() - timedelta(seconds=1)
    return {
        **{name: clients[name] for name in ("ada", "ben", "mallory", "nobody")},
        **{f"ada's {scope}": program(ada, scope) for scope in ALL_SCOPES},
        "ben's all": program(ben, *ALL_SCOPES),
        "expired": program(ada, *ALL_SCOPES, expires=past),
        "revoked": program(ada, *ALL_SCOPES, revoked=True),
        "unknown": Client(headers={"Authorization": "Bearer lh_no-such-token"}),
    }


@pytest.fixture
def hub(ada: User, program: Callable[..., Client]) -> Client:
    """A program that may do whatever ada may."""
    return program(ada, *ALL_SCOPES)
