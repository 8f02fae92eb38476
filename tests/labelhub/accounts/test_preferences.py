"""Language and theme are plain form posts that lead back to where they were asked."""

from __future__ import annotations

import pytest
from django.conf import settings
from django.test import Client
from django.urls import reverse

from labelhub.accounts.models import User


def prefer(client: Client, **fields: str):  # type: ignore[no-untyped-def]
    return client.post(reverse("accounts:preferences"), fields)


@pytest.mark.parametrize(("sent", "kept"), [("dark", "dark"), ("light", "light"), ("system", "")])
def test_a_theme_is_remembered(clients: dict[str, Client], ann: User, sent: str, kept: str) -> None:
    ann.theme = "dark"
    ann.save()
    assert prefer(clients["ann"], theme=sent, next="/annotate/").url == "/annotate/"
    ann.refresh_from_db()
    assert ann.theme == kept
    page = clients["ann"].get("/annotate/").content.decode()
    assert ("data-theme" in page) == bool(kept)
    assert not kept or f'data-theme="{kept}"' in page


def test_a_language_is_remembered_and_leaves_the_theme_alone(
    clients: dict[str, Client], ann: User
) -> None:
    ann.theme = "dark"
    ann.save()
    prefer(clients["ann"], language="zh-hans", next="/annotate/")
    ann.refresh_from_db()
    assert (ann.language, ann.theme) == ("zh-hans", "dark")
    assert '<html lang="zh-hans"' in clients["ann"].get("/annotate/").content.decode()


def test_a_visitor_can_choose_a_language_too(clients: dict[str, Client]) -> None:
    login = reverse("accounts:login")
    response = prefer(clients["nobody"], language="zh-hans", next=login)
    assert response.url == login
    assert response.cookies[settings.LANGUAGE_COOKIE_NAME].value == "zh-hans"


@pytest.mark.parametrize("fields", [{"language": "xx"}, {"theme": "pink"}])
def test_an_unknown_wish_changes_nothing_and_says_so(
    clients: dict[str, Client], ann: User, fields: dict[str, str]
) -> None:
    response = prefer(clients["ann"], next="/annotate/", **fields)
    assert settings.LANGUAGE_COOKIE_NAME not in response.cookies
    ann.refresh_from_db()
    assert (ann.language, ann.theme) == ("", "")
    assert "There is no such language or theme" in clients["ann"].get("/annotate/").content.decode()


@pytest.mark.parametrize("back", ["https://evil.example/", "//evil.example/", ""])
def test_it_leads_back_to_our_own_pages_only(clients: dict[str, Client], back: str) -> None:
    assert prefer(clients["ann"], theme="dark", next=back).url == "/"


def test_it_takes_a_post(clients: dict[str, Client]) -> None:
    assert clients["ann"].get(reverse("accounts:preferences")).status_code == 405
