"""People of a project: invited, changed, paused, given work by name, removed and forgotten."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from labelhub.accounts.models import AuditEntry, User
from labelhub.assignments.models import Slot
from labelhub.projects.actions import create_invitation, pause_member
from labelhub.projects.models import Invitation, Membership, Project
from labelhub.rankings.models import Flag, Ranking, Skip
from labelhub.runs.actions import take_snapshot
from tests import factories

pytestmark = pytest.mark.django_db
Clients = dict[str, Client]
INVITE = {"role": "annotator", "days": 7, "seats": 2, "note": "For the lab"}
SEAT = {"role": "annotator", "languages": "en, zh", "skills": "medicine"}


def where(name: str, *args: Any) -> str:
    return reverse(f"dashboard:{name}", args=["everyday", *args])


def send(client: Client, name: str, *args: Any, data: dict[str, Any] | None = None) -> Any:
    return client.post(where(name, *args), data or {}, follow=True)


def said(response: Any) -> list[str]:
    return [str(message) for message in response.context["messages"]]


def text(response: Any) -> str:
    return str(response.content.decode())


def seat(name: str) -> Membership:
    return Membership.objects.get(user__username=name, project__slug="everyday")


def held_by(project: Project, user: User) -> Slot:
    slot = factories.make_slot(factories.make_answer_set(project))
    return factories.hold(slot, user)


# --- invitations


def test_a_link_is_shown_once_and_seats_somebody(project: Project, clients: Clients) -> None:
    page = text(send(clients["ada"], "invite", data=INVITE))
    link = re.search(r'value="http://testserver(/join/[^"]+/)"', page)
    assert link is not None
    again = text(clients["ada"].get(where("people")))
    assert "/join/" not in again, "it is shown this once"
    assert "For the lab" in again
    assert "0 of 2" in again
    clients["mallory"].post(link[1])
    assert seat("mallory").role == "annotator"
    assert "1 of 2" in text(clients["ada"].get(where("people")))


def test_no_cache_keeps_the_page_with_the_link(project: Project, clients: Clients) -> None:
    response = clients["ada"].post(where("invite"), INVITE)
    assert "no-store" in response["Cache-Control"]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"role": "king"}, "role"),
        ({"days": "400"}, "days"),
        ({"days": ""}, "days"),
        ({"seats": "0"}, "seats"),
        ({"seats": "501"}, "seats"),
        ({"seats": "two"}, "seats"),
        ({"role": "admin", "seats": "2"}, "seats"),
        ({"note": "x" * 121}, "note"),
        ({"note": "a\x00b"}, "note"),
    ],
)
def test_a_bad_invitation_is_named_at_its_field(
    change: dict[str, str], field: str, project: Project, clients: Clients
) -> None:
    response = send(clients["ada"], "invite", data=INVITE | change)
    assert response.status_code == 400
    assert list(response.context["invitation_form"].errors) == [field]
    assert not Invitation.objects.exists()


def test_nobody_is_invited_to_what_simulated_annotators_rank(
    project: Project, clients: Clients
) -> None:
    Project.objects.update(is_simulated=True)
    assert "Make a link" not in text(clients["ada"].get(where("people")))
    response = send(clients["ada"], "invite", data=INVITE)
    assert response.status_code == 409
    assert not Invitation.objects.exists()


def test_a_revoked_link_is_dead(project: Project, ada: User, clients: Clients) -> None:
    invitation, secret = create_invitation(
        project=project, role="annotator", days=7, seats=1, note="", by=ada
    )
    send(clients["ada"], "revoke-invitation", invitation.pk)
    assert clients["mallory"].post(f"/join/{secret}/").status_code == 410
    page = text(clients["ada"].get(where("people")))
    assert "revoked" in page
    assert "Revoke invitation" not in page, "no button is left"


def test_the_list_says_what_became_of_each_link(
    project: Project, ada: User, clients: Clients
) -> None:
    for change in ({"used": 1}, {"expires": timezone.now() - timedelta(days=1)}):
        invitation, _secret = create_invitation(
            project=project, role="reviewer", days=7, seats=1, note="", by=ada
        )
        Invitation.objects.filter(pk=invitation.pk).update(**change)
    page = text(clients["ada"].get(where("people")))
    assert ">used<" in page
    assert ">expired<" in page


# --- adding and changing


def test_somebody_with_an_account_is_added(
    project: Project, mallory: User, clients: Clients
) -> None:
    send(clients["ada"], "add-member", data={"username": "mallory", "role": "reviewer"})
    assert seat("mallory").role == "reviewer"


def test_a_name_without_an_account_is_told_of_links(project: Project, clients: Clients) -> None:
    response = send(clients["ada"], "add-member", data={"username": "zoe", "role": "annotator"})
    assert response.status_code == 400
    assert "invite the person by a link" in text(response)


def test_a_member_is_changed(project: Project, clients: Clients) -> None:
    send(clients["ada"], "change-member", seat("ann").pk, data=SEAT | {"qualified": "on"})
    anns = seat("ann")
    assert (anns.languages, anns.skills) == (["en", "zh"], ["medicine"])
    assert anns.qualified_at is not None
    page = text(clients["ada"].get(where("people")))
    assert "en, zh" in page
    assert "medicine" in page


def test_the_form_shows_what_is_and_sent_as_it_stands_changes_nothing(
    project: Project, clients: Clients
) -> None:
    Membership.objects.filter(user__username="ann").update(
        languages=["zh"], skills=["law", "civil law"], role="reviewer", qualified_at=timezone.now()
    )
    before = Membership.objects.filter(user__username="ann").values().get()
    form = clients["ada"].get(where("member", seat("ann").pk)).context["form"]
    sent = {name: form[name].value() for name in form.fields}
    send(clients["ada"], "change-member", seat("ann").pk, data=sent)
    assert Membership.objects.filter(user__username="ann").values().get() == before


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"role": "king"}, "role"),
        ({"languages": "English"}, "languages"),
        ({"skills": "x" * 41}, "skills"),
        ({"skills": "a\x00b"}, "skills"),
    ],
)
def test_a_bad_change_is_named_at_its_field(
    change: dict[str, str], field: str, project: Project, clients: Clients
) -> None:
    response = send(clients["ada"], "change-member", seat("ann").pk, data=SEAT | change)
    assert response.status_code == 400
    assert list(response.context["form"].errors) == [field]
    assert seat("ann").languages == []


def test_the_last_admin_keeps_her_role(project: Project, clients: Clients) -> None:
    response = send(clients["ada"], "change-member", seat("ada").pk, data=SEAT)
    assert response.status_code == 409
    assert "last admin" in text(response)
    assert seat("ada").role == "admin"


def test_who_gives_up_the_admin_role_is_led_out(
    project: Project, clients: Clients, ann: User
) -> None:
    Membership.objects.filter(user=ann).update(role="admin")
    response = send(clients["ada"], "change-member", seat("ada").pk, data=SEAT)
    assert response.request["PATH_INFO"] == "/annotate/"


# --- pause and remove


def test_a_pause_hands_back_what_is_held(project: Project, ann: User, clients: Clients) -> None:
    slot = held_by(project, ann)
    reserved = factories.make_slot(factories.make_answer_set(project), reserved_for=ann)
    assert said(send(clients["ada"], "pause-member", seat("ann").pk)) == [
        "ann gets no more work for now."
    ]
    slot.refresh_from_db()
    reserved.refresh_from_db()
    assert (slot.state, slot.holder, reserved.reserved_for) == ("open", None, None)
    assert seat("ann").paused_by_admin
    assert "paused since" in text(clients["ada"].get(where("member", seat("ann").pk)))
    send(clients["ada"], "resume-member", seat("ann").pk)
    assert seat("ann").paused_at is None


def test_to_remove_takes_the_seat_and_leaves_the_work(
    project: Project, ann: User, clients: Clients
) -> None:
    slot = held_by(project, ann)
    factories.make_ranking(factories.make_answer_set(project), ann)
    response = send(clients["ada"], "remove-member", seat("ann").pk)
    assert said(response) == ["ann is no member any more."]
    assert not Membership.objects.filter(user=ann).exists()
    assert Ranking.objects.filter(annotator=ann).count() == 1
    slot.refresh_from_db()
    assert slot.state == Slot.State.OPEN
    assert "No longer here, but their work is" in text(response)
    assert where("person-data", ann.pk) in text(response)


def test_the_last_admin_is_not_removed(project: Project, clients: Clients) -> None:
    page = text(clients["ada"].get(where("member", seat("ada").pk)))
    assert "Yes, remove" not in page
    response = send(clients["ada"], "remove-member", seat("ada").pk)
    assert "last admin" in said(response)[0]
    assert seat("ada").role == "admin"


# --- work by name


@pytest.fixture
def queue(project: Project) -> list[Slot]:
    """Three sets in English and one in Chinese, of two topics, open to everybody."""
    kinds = [("en", "poems"), ("en", "sums"), ("en", "poems"), ("zh", "poems")]
    prompts = [factories.make_prompt(project, language=code, topic=topic) for code, topic in kinds]
    sets = [factories.make_answer_set(project, prompt=prompt) for prompt in prompts]
    return [factories.make_slot(one) for one in sets]


def named(queue: list[Slot]) -> list[bool]:
    rows = Slot.objects.in_bulk([slot.pk for slot in queue])
    return [rows[slot.pk].reserved_for_id is not None for slot in queue]


@pytest.mark.parametrize(
    ("asked", "whose"),
    [
        ({"count": 2}, [True, True, False, False]),
        ({"count": 500}, [True, True, True, True]),
        ({"count": 9, "topic": "poems"}, [True, False, True, True]),
        ({"count": 9, "topic": "poems", "language": "en"}, [True, False, True, False]),
        ({"count": 1, "language": "zh"}, [False, False, False, True]),
    ],
)
def test_sets_wait_for_one_person(
    asked: dict[str, Any], whose: list[bool], queue: list[Slot], clients: Clients
) -> None:
    response = send(clients["ada"], "assign", seat("ann").pk, data=asked)
    assert named(queue) == whose
    n = sum(whose)
    assert said(response) == [f"{n} set waits for ann." if n == 1 else f"{n} sets wait for ann."]


def test_what_waits_can_be_opened_again(queue: list[Slot], clients: Clients) -> None:
    send(clients["ada"], "assign", seat("ann").pk, data={"count": 2})
    assert said(send(clients["ada"], "unassign", seat("ann").pk)) == [
        "2 sets are open to everybody again."
    ]
    assert not any(named(queue))


def test_when_nothing_fits_the_form_says_so(queue: list[Slot], clients: Clients) -> None:
    send(clients["ada"], "assign", seat("ann").pk, data={"count": 9})
    response = send(clients["ada"], "assign", seat("ann").pk, data={"count": 9})
    assert response.status_code == 409
    assert "No open set of this kind is left" in text(response)


def test_who_has_paused_is_given_no_work(queue: list[Slot], ada: User, clients: Clients) -> None:
    pause_member(membership=seat("ann"), by=ada)
    response = send(clients["ada"], "assign", seat("ann").pk, data={"count": 1})
    assert response.status_code == 400
    assert "not paused" in text(response)
    assert not any(named(queue))


@pytest.mark.parametrize(
    "asked", [{}, {"count": 0}, {"count": 501}, {"count": 1, "language": "fr"}, {"count": "all"}]
)
def test_a_bad_wish_assigns_nothing(
    asked: dict[str, Any], queue: list[Slot], clients: Clients
) -> None:
    assert send(clients["ada"], "assign", seat("ann").pk, data=asked).status_code == 400
    assert not any(named(queue))


# --- deleting a person's data


@pytest.fixture
def work(project: Project, ann: User, ben: User, ada: User) -> Ranking:
    """ann ranked a set that a snapshot holds, skipped one, flagged an answer; ben ranked, too."""
    answer_set = factories.make_answer_set(project)
    ranking = factories.make_ranking(answer_set, ann)
    factories.make_ranking(answer_set, ben)
    take_snapshot(project=project, rankings=Ranking.objects.all(), by=ada)
    other = factories.make_answer_set(project, slots=1)
    Skip.objects.create(answer_set=other, slot=other.slots.get(), annotator=ann, reason="unclear")
    answer = answer_set.answers.first()
    assert answer is not None
    Flag.objects.create(answer=answer, annotator=ann)
    return ranking


def test_first_it_says_what_is_there_and_what_was_made_of_it(
    work: Ranking, ann: User, project: Project, clients: Clients
) -> None:
    page = text(clients["ada"].get(where("person-data", ann.pk)))
    snapshot = project.snapshots.get()
    assert f"Snapshot {snapshot.pk} of" in page
    assert snapshot.sha256[:12] in page
    assert "Type ann to confirm" in page
    assert Ranking.objects.filter(annotator=ann).exists(), "to look deletes nothing"


def test_the_name_must_be_typed(work: Ranking, ann: User, clients: Clients) -> None:
    for name in ("", "Ann", "ben", "ann and ben"):
        response = send(clients["ada"], "person-data", ann.pk, data={"name": name})
        assert response.status_code == 400, name
        assert Ranking.objects.filter(annotator=ann).exists()


def test_it_deletes_what_the_person_said_and_nobody_elses(
    work: Ranking, ann: User, ben: User, clients: Clients
) -> None:
    response = send(clients["ada"], "person-data", ann.pk, data={"name": "ann"})
    page = text(response)
    assert response.status_code == 200
    assert "is deleted" in page
    assert "Snapshot" in page, "the list outlives what it speaks of"
    for model in (Ranking, Skip, Flag):
        assert not model.objects.filter(annotator=ann).exists(), model
    assert Ranking.objects.filter(annotator=ben).count() == 1
    assert not Membership.objects.filter(user=ann).exists(), "the membership ends, too"
    assert User.objects.filter(pk=ann.pk, is_active=True).exists(), "the account stays"
    forgotten = AuditEntry.objects.get(action="person.forget")
    assert (forgotten.actor_name, forgotten.details["rankings"]) == ("ada", 1)
    assert clients["ada"].get(where("person-data", ann.pk)).status_code == 404


def test_it_works_for_somebody_who_left_before(work: Ranking, ann: User, clients: Clients) -> None:
    Membership.objects.filter(user=ann).delete()
    send(clients["ada"], "person-data", ann.pk, data={"name": "ann"})
    assert not Ranking.objects.filter(annotator=ann).exists()


def test_the_last_admins_data_cannot_go_with_her_seat(
    project: Project, ada: User, clients: Clients
) -> None:
    factories.make_ranking(factories.make_answer_set(project), ada)
    response = send(clients["ada"], "person-data", ada.pk, data={"name": "ada"})
    assert response.status_code == 409
    assert Ranking.objects.filter(annotator=ada).exists()
    assert seat("ada").role == "admin"


def test_of_strangers_and_of_work_elsewhere_nothing_is_told(
    project: Project, mallory: User, clients: Clients, ada: User
) -> None:
    assert clients["ada"].get(where("person-data", mallory.pk)).status_code == 404
    other = factories.make_project("other", annotators=[mallory], admins=[ada])
    factories.make_ranking(factories.make_answer_set(other), mallory)
    assert clients["ada"].get(where("person-data", mallory.pk)).status_code == 404
    assert clients["ada"].get(f"/dashboard/other/people/data/{mallory.pk}/").status_code == 200


def test_many_members_take_no_more_queries(
    project: Project, clients: Clients, django_assert_max_num_queries: Callable[..., Any]
) -> None:
    for n in range(20):
        project.memberships.create(user=factories.make_user(f"m{n}"), role="annotator")
    with django_assert_max_num_queries(20):
        clients["ada"].get(where("people"))
