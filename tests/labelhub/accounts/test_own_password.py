"""A one-time password opens one page only; a password of one's own ends that."""

from __future__ import annotations

import pytest
from django.test import Client
from django.urls import reverse

from labelhub.accounts.models import AuditEntry, User
from tests.factories import PASSWORD

NEW = "three quiet green boats"


@pytest.fixture
def newcomer(ann: User, clients: dict[str, Client]) -> Client:
    """Ann's browser; her password is still the one that was given out."""
    ann.must_change_password = True
    ann.save()
    return clients["ann"]


def change(client: Client, **fields: str):  # type: ignore[no-untyped-def]
    return client.post(reverse("accounts:password"), fields)


@pytest.mark.parametrize("page", ["home", "annotate:projects", "dashboard:home"])
def test_every_page_leads_to_the_new_password(newcomer: Client, page: str) -> None:
    assert newcomer.get(reverse(page)).url == reverse("accounts:password")


def test_it_is_not_asked_for_again(newcomer: Client, ann: User) -> None:
    page = newcomer.get(reverse("accounts:password")).content.decode()
    assert "old_password" not in page
    response = change(newcomer, new_password1=NEW, new_password2=NEW)
    assert response.url == reverse("home")
    ann.refresh_from_db()
    assert ann.check_password(NEW)
    assert not ann.must_change_password
    assert newcomer.get(reverse("annotate:projects")).status_code == 200, "still signed in"
    assert AuditEntry.objects.filter(action="user.change_password", actor=ann).count() == 1


@pytest.mark.parametrize(
    ("first", "second"), [(NEW, "another one entirely"), ("short", "short"), ("ann", "ann")]
)
def test_a_bad_one_changes_nothing(newcomer: Client, ann: User, first: str, second: str) -> None:
    response = change(newcomer, new_password1=first, new_password2=second)
    assert response.status_code == 422
    assert 'aria-invalid="true"' in response.content.decode()
    ann.refresh_from_db()
    assert ann.check_password(PASSWORD)
    assert ann.must_change_password


def test_signing_out_is_still_possible(newcomer: Client) -> None:
    assert newcomer.post(reverse("accounts:logout")).url == reverse("accounts:login")


def test_later_the_old_password_is_asked_for(clients: dict[str, Client], ann: User) -> None:
    response = change(clients["ann"], new_password1=NEW, new_password2=NEW)
    assert response.status_code == 422
    response = change(clients["ann"], old_password=PASSWORD, new_password1=NEW, new_password2=NEW)
    assert response.status_code == 302
    ann.refresh_from_db()
    assert ann.check_password(NEW)


def test_nobody_changes_a_password_without_signing_in(clients: dict[str, Client]) -> None:
    response = change(clients["nobody"], new_password1=NEW, new_password2=NEW)
    assert response.url.startswith(reverse("accounts:login"))
