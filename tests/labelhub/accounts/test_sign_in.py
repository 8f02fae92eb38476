"""Signing in and out, and what a guesser meets."""

from __future__ import annotations

import pytest
from django.conf import settings
from django.test import Client
from django.urls import reverse

from labelhub.accounts.models import User
from tests.factories import PASSWORD

LOGIN = "/accounts/login/"


def sign_in(client: Client, name: str, password: str = PASSWORD, **more: str):  # type: ignore[no-untyped-def]
    return client.post(LOGIN, {"username": name, "password": password, **more})


def test_it_works(client: Client, ann: User) -> None:
    response = sign_in(client, "ann")
    assert response.status_code == 302
    assert response.url == "/"
    assert client.session["_auth_user_id"] == str(ann.pk)


def test_it_goes_on_to_the_page_that_was_asked_for(client: Client, ann: User) -> None:
    asked = reverse("annotate:projects")
    response = client.get(asked)
    assert response.url == f"{LOGIN}?next={asked}"
    assert sign_in(client, "ann", next=asked).url == asked


def test_it_never_sends_anybody_to_another_site(client: Client, ann: User) -> None:
    assert sign_in(client, "ann", next="https://evil.example/").url == "/"


def test_a_wrong_password_is_refused_on_the_same_page(client: Client, ann: User) -> None:
    response = sign_in(client, "ann", "wrong")
    assert response.status_code == 200
    assert 'role="alert"' in response.content.decode()
    assert "_auth_user_id" not in client.session


def test_the_tenth_wrong_password_closes_the_door(client: Client, ann: User) -> None:
    for _ in range(settings.AXES_FAILURE_LIMIT - 1):
        assert sign_in(client, "ann", "wrong").status_code == 200
    assert sign_in(client, "ann", "wrong").status_code == 429
    response = sign_in(client, "ann", PASSWORD)
    assert response.status_code == 429
    assert "quarter of an hour" in response.content.decode()


def test_a_simulated_annotator_cannot_sign_in(client: Client, db: None) -> None:
    from labelhub.accounts.actions import create_user

    create_user(username="sim", password=None, by=None, is_simulated=True)
    assert sign_in(client, "sim", "").status_code == 200
    assert "_auth_user_id" not in client.session


def test_a_new_browser_speaks_the_persons_language(client: Client, ann: User) -> None:
    ann.language = "zh-hans"
    ann.save()
    sign_in(client, "ann")
    assert client.cookies[settings.LANGUAGE_COOKIE_NAME].value == "zh-hans"


def test_signing_out_takes_a_post(clients: dict[str, Client]) -> None:
    assert clients["ann"].get(reverse("accounts:logout")).status_code == 405
    response = clients["ann"].post(reverse("accounts:logout"))
    assert response.url == LOGIN
    assert "_auth_user_id" not in clients["ann"].session


@pytest.mark.parametrize(("who", "door"), [("ann", "annotate:projects"), ("ada", "dashboard:home")])
def test_home_is_everybodys_own_door(
    clients: dict[str, Client], project: object, who: str, door: str
) -> None:
    assert clients[who].get("/").url == reverse(door)


def test_home_of_a_superuser_is_the_dashboard(client: Client, ann: User) -> None:
    ann.is_superuser = True
    ann.save()
    sign_in(client, "ann")
    assert client.get("/").url == reverse("dashboard:home")


def test_nobody_sees_home_without_signing_in(client: Client) -> None:
    assert client.get("/").url == f"{LOGIN}?next=/"
