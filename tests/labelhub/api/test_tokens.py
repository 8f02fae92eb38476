"""The page where people make tokens for their programs."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone

from labelhub.accounts.models import ApiToken, AuditEntry, User
from labelhub.projects.models import Project

PAGE = "/accounts/tokens/"
WANTED = {"name": "nightly export", "scopes": ["read", "run"], "days": "30"}


def test_the_secret_is_shown_once_and_works(project: Project, clients: dict[str, Client]) -> None:
    page = clients["ada"].post(PAGE, WANTED)
    secret = re.findall(r"lh_[\w-]{40,}", page.content.decode())[0]
    assert "no-store" in page["Cache-Control"]
    program = Client(headers={"Authorization": f"Bearer {secret}"})
    assert program.get("/api/v1/projects/").json()["count"] == 1
    assert secret not in clients["ada"].get(PAGE).content.decode()
    token = ApiToken.objects.get()
    assert (token.name, token.scopes, token.user.username) == (
        "nightly export",
        ["read", "run"],
        "ada",
    )
    assert secret not in str(list(AuditEntry.objects.values()))


@pytest.mark.parametrize(("days", "ends"), [("30", 30), ("365", 365), ("", None)])
def test_a_token_ends_when_it_was_told_to(
    project: Project, clients: dict[str, Client], days: str, ends: int | None
) -> None:
    clients["ada"].post(PAGE, WANTED | {"days": days})
    expires = ApiToken.objects.get().expires
    if ends is None:
        assert expires is None
    else:
        assert expires is not None
        left = expires - timezone.now()
        assert timedelta(days=ends, minutes=-1) < left <= timedelta(days=ends)


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": ""},
        {"name": "a\0b"},
        {"name": "x" * 81},
        {"scopes": []},
        {"scopes": ["everything"]},
        {"days": "-1"},
    ],
)
def test_a_wrong_form_makes_nothing_and_says_why(
    project: Project, clients: dict[str, Client], wrong: dict[str, object]
) -> None:
    page = clients["ada"].post(PAGE, WANTED | wrong)
    assert page.status_code == 400
    assert 'class="wrong"' in page.content.decode()
    assert not ApiToken.objects.exists()


def test_a_revoked_token_stops_working_at_once(
    project: Project, clients: dict[str, Client], ada: User, program: Callable[..., Client]
) -> None:
    reader = program(ada, "read")
    assert reader.get("/api/v1/projects/").status_code == 200
    address = f"{PAGE}{ApiToken.objects.get().pk}/revoke/"
    page = clients["ada"].post(address, follow=True)
    assert "is ended" in page.content.decode()
    assert reader.get("/api/v1/projects/").status_code == 401


def test_nobody_ends_somebody_elses_token(
    project: Project, clients: dict[str, Client], ada: User, program: Callable[..., Client]
) -> None:
    program(ada, "read")
    token = ApiToken.objects.get()
    assert clients["mallory"].post(f"{PAGE}{token.pk}/revoke/").status_code == 404
    assert "program" not in re.sub(
        r"<p.*?</p>|<div class=.hint.*?</div>",
        "",
        clients["mallory"].get(PAGE).content.decode(),
        flags=re.S,
    )
    token.refresh_from_db()
    assert token.revoked is None


def test_who_is_not_signed_in_is_sent_to_the_door(db: None, clients: dict[str, Client]) -> None:
    for response in (clients["nobody"].get(PAGE), clients["nobody"].post(f"{PAGE}1/revoke/")):
        assert response.status_code == 302
        assert response["Location"].startswith("/accounts/login/")


def test_a_token_opens_no_page(project: Project, ada: User, program: Callable[..., Client]) -> None:
    assert program(ada, "read", "run", "write").get(PAGE).status_code == 302
