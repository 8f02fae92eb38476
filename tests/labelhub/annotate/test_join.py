"""Joining by a link: signed in, with a new account, and all the ways in which it is refused."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings
from django.test import Client
from django.utils import timezone

from labelhub.accounts.models import AuditEntry, User
from labelhub.projects.actions import create_invitation
from labelhub.projects.models import Invitation, Membership, Project
from tests import factories
from tests.labelhub.race import race, raised

pytestmark = pytest.mark.django_db
Clients = dict[str, Client]
GOOD = "five quiet green herons"


@pytest.fixture
def link(project: Project, ada: User) -> str:
    """The address of an invitation for two annotators."""
    return make_link(project, ada)


def make_link(project: Project, by: User, **asked: Any) -> str:
    defaults = {"role": "annotator", "days": 7, "seats": 2, "note": ""}
    _invitation, secret = create_invitation(project=project, by=by, **defaults | asked)
    return f"/join/{secret}/"


def account(name: str = "zoe", password: str = GOOD, again: str | None = None) -> dict[str, str]:
    return {
        "username": name,
        "password1": password,
        "password2": password if again is None else again,
    }


def text(response: Any) -> str:
    return str(response.content.decode())


def is_member(name: str) -> bool:
    return Membership.objects.filter(user__username=name, project__slug="everyday").exists()


# --- what is seen


def test_it_says_to_what_as_what_and_by_whom(link: str, clients: Clients) -> None:
    for who in ("mallory", "nobody"):
        page = text(clients[who].get(link))
        assert "Join Everyday" in page
        assert "ada invites you" in page
        assert "Your role: annotator." in page


def test_to_look_takes_no_seat(link: str, clients: Clients) -> None:
    for _ in range(3):
        assert clients["mallory"].get(link).status_code == 200
        assert clients["nobody"].head(link).status_code == 200
    assert Invitation.objects.get().used == 0
    assert not is_member("mallory")


def test_no_cache_keeps_the_page(link: str, clients: Clients) -> None:
    assert "no-store" in clients["nobody"].get(link)["Cache-Control"]


# --- joining


def test_who_is_signed_in_joins_by_one_button(link: str, clients: Clients) -> None:
    response = clients["mallory"].post(link)
    assert response["Location"] == "/annotate/everyday/next/"
    assert clients["mallory"].get(response["Location"]).status_code == 200
    assert Membership.objects.get(user__username="mallory").role == "annotator"


def test_a_member_is_led_on_even_by_a_used_link(
    project: Project, ada: User, clients: Clients
) -> None:
    link = make_link(project, ada, seats=1)
    clients["mallory"].post(link)
    page = clients["mallory"].get(link)
    assert page.status_code == 200
    assert "You belong to it already" in text(page)
    assert clients["mallory"].post(link).status_code == 302, "the button was pressed twice"
    assert Invitation.objects.get().used == 1


def test_a_new_admin_sees_the_dashboard_first(
    project: Project, ada: User, clients: Clients
) -> None:
    link = make_link(project, ada, role="admin", seats=1)
    response = clients["mallory"].post(link, follow=True)
    assert response.request["PATH_INFO"] == "/dashboard/"


def test_who_has_an_account_can_sign_in_and_comes_back(
    link: str, client: Client, mallory: User
) -> None:
    assert f"/accounts/login/?next={link}" in text(client.get(link))
    sent = {"username": "mallory", "password": factories.PASSWORD, "next": link}
    assert client.post("/accounts/login/", sent)["Location"] == link
    assert "Join the project" in text(client.get(link))


def test_a_new_account_is_made_on_the_way(link: str, client: Client) -> None:
    response = client.post(link, account("zoë"), headers={"accept-language": "zh-hans"})
    assert response["Location"] == "/annotate/everyday/next/"
    zoe = User.objects.get(username="zoë")
    assert client.session["_auth_user_id"] == str(zoe.pk)
    assert zoe.check_password(GOOD)
    assert not zoe.must_change_password, "the password is one of her own choice"
    assert not zoe.is_staff
    assert not zoe.is_superuser
    assert not zoe.is_simulated
    assert zoe.language == "zh-hans"
    assert is_member("zoë")
    assert AuditEntry.objects.get(action="project.join").actor == zoe


# --- accounts that cannot be made


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        ({}, "This field is required."),
        (account(name=""), "This field is required."),
        (account(name="two words"), "Enter a valid username."),
        (account(name="ANN"), "already exists"),
        (account(name="x" * 151), "at most 150 characters"),
        (account(password="short"), "at least 10 characters"),
        (account(password="password123"), "too common"),
        (account(name="zoe-the-great", password="zoe-the-great1"), "too similar to the username"),
        (account(again="something else"), "match"),
        (account(name="a\x00b"), "Null characters"),
    ],
)
def test_a_bad_account_is_not_made(
    sent: dict[str, str], words: str, link: str, client: Client, ann: User
) -> None:
    before = User.objects.count()
    response = client.post(link, sent)
    assert response.status_code == 422
    assert words in text(response)
    assert User.objects.count() == before
    assert Invitation.objects.get().used == 0
    assert "_auth_user_id" not in client.session


def test_a_password_is_never_sent_back(link: str, client: Client, ann: User) -> None:
    page = text(client.post(link, account(name="ann")))
    assert 'value="ann"' in page, "the name stays"
    assert GOOD not in page


def test_the_tenth_failed_try_closes_the_link_for_a_while(
    link: str, client: Client, clients: Clients, ann: User
) -> None:
    for _ in range(settings.AXES_FAILURE_LIMIT):
        assert client.post(link, account(name="ann")).status_code == 422
    response = client.post(link, account(name="zoe"))
    assert response.status_code == 429
    assert "quarter of an hour" in text(response)
    assert not User.objects.filter(username="zoe").exists()
    assert clients["mallory"].post(link).status_code == 302, "who is signed in guesses nothing"


def test_failed_tries_leave_neither_password_nor_secret_behind(
    link: str, client: Client, ann: User
) -> None:
    from axes.models import AccessAttempt, AccessFailureLog

    client.post(link, account(name="ann"))
    kept = str(list(AccessAttempt.objects.values())) + str(list(AccessFailureLog.objects.values()))
    assert "invitation" in kept
    assert GOOD not in kept
    assert link.split("/")[2] not in kept


def test_without_its_token_the_form_is_refused(link: str) -> None:
    strict = Client(enforce_csrf_checks=True)
    assert strict.post(link, account()).status_code == 403


# --- links that lead nowhere


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"expires": timezone.now() - timedelta(minutes=1)}, "This invitation has expired"),
        ({"used": 2}, "has been used already"),
        ({"revoked": timezone.now()}, "was withdrawn"),
    ],
)
@pytest.mark.parametrize("who", ["mallory", "nobody"])
def test_an_ended_link_says_so_in_one_sentence(
    values: dict[str, Any], words: str, who: str, link: str, clients: Clients
) -> None:
    Invitation.objects.update(**values)
    for response in (clients[who].get(link), clients[who].post(link, account())):
        assert response.status_code == 410
        assert words in text(response)
        assert "Everyday" not in text(response), "what ended tells nothing of the project"
    assert not User.objects.filter(username="zoe").exists()
    assert not is_member("mallory")


@pytest.mark.parametrize("secret", ["nonsense", "%00", "%ED%A0%80", "x" * 3000, "..%2F..%2Fetc"])
def test_an_unknown_link_says_to_check_it(secret: str, clients: Clients) -> None:
    for who in ("mallory", "nobody"):
        response = clients[who].get(f"/join/{secret}/")
        assert response.status_code == 404
    assert "whole link was copied" in text(clients["nobody"].get("/join/nonsense/"))
    assert clients["nobody"].post("/join/nonsense/", account()).status_code == 404
    assert not User.objects.filter(username="zoe").exists()


def test_a_simulated_project_cannot_be_joined(link: str, clients: Clients) -> None:
    Project.objects.update(is_simulated=True)
    response = clients["mallory"].post(link)
    assert (response.status_code, "simulated" in text(response)) == (410, True)
    assert not is_member("mallory")


# --- at the same moment


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("seats", [1, 2])
def test_two_who_want_one_name_get_one_account(
    seats: int, project: Project, ada: User, sign_in: Callable[..., Client]
) -> None:
    link = make_link(project, ada, seats=seats)
    responses = race(lambda browser: browser.post(link, account()), [Client(), Client()])
    assert raised(responses) == []
    statuses = sorted(response.status_code for response in responses)  # type: ignore[union-attr]
    assert statuses[0] == 302
    assert statuses[1] in (410, 422)
    assert User.objects.filter(username="zoe").count() == 1
    assert Invitation.objects.get().used == 1


@pytest.mark.django_db(transaction=True)
def test_of_two_new_people_one_takes_the_last_seat_and_one_gets_no_account(
    project: Project, ada: User
) -> None:
    link = make_link(project, ada, seats=1)
    pairs = [(Client(), "zoe"), (Client(), "yan")]
    responses = race(lambda pair: pair[0].post(link, account(pair[1])), pairs)
    assert raised(responses) == []
    assert sorted(one.status_code for one in responses) == [302, 410]  # type: ignore[union-attr]
    assert User.objects.filter(username__in=["zoe", "yan"]).count() == 1
