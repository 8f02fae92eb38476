"""Every address of the dashboard for every role, taken from the table of addresses itself.

A new address is tested as soon as it stands there; what is new in it needs a value in `values`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client
from django.urls import URLPattern, reverse

from labelhub.accounts.models import AuditEntry, User
from labelhub.dashboard.urls import urlpatterns
from labelhub.projects.actions import create_invitation
from labelhub.projects.models import Membership, Project
from labelhub.prompts.models import AnswerSet
from labelhub.rankings.models import Gold
from labelhub.rankings.progress import store_report
from labelhub.runs.folder import run_folder
from tests import factories
from tests.labelhub.dashboard import world

pytestmark = pytest.mark.django_db
Clients = dict[str, Client]
HOUSE = {"home", "home-live", "new"}  # those that belong to no project
OF_A_PROJECT = sorted(
    {pattern.name for pattern in urlpatterns if pattern.name and pattern.name not in HOUSE}
)


@pytest.fixture
def values(project: Project, ada: User, ann: User) -> dict[str, Any]:
    """Something of ada's project for each kind of thing that an address names."""
    turn = world.decided(project)
    run = turn.runs.filter(stage="ppo").get()
    invitation, _secret = create_invitation(
        project=project, role="annotator", days=7, seats=1, note="", by=ada
    )
    ranked = factories.make_answer_set(project)
    factories.make_ranking(ranked, ann)
    known = factories.make_answer_set(project, purpose=AnswerSet.Purpose.GOLD)
    ids = [answer.pk for answer in known.answers.order_by("n")]
    gold = Gold.objects.create(
        answer_set=known, ranks={str(pk): n for n, pk in enumerate(ids, start=1)}
    )
    skip = ranked.skips.create(
        annotator=factories.make_user(), slot=ranked.slots.get(), reason="harmful"
    )
    store_report(project.pk)
    run_folder(run.pk).mkdir(parents=True, exist_ok=True)
    (run_folder(run.pk) / "spec.json").write_text("{}")
    return {
        "slug": project.slug,
        "number": turn.number,
        "run_id": run.pk,
        "version_id": turn.policy_out_id,
        "membership_id": Membership.objects.get(user=ann, project=project).pk,
        "user_id": ann.pk,
        "invitation_id": invitation.pk,
        "answer_set_id": ranked.pk,
        "gold_id": gold.pk,
        "comparison_id": world.compare_blind(turn, [(0.1, 0.7)], state="open").pk,
        "kind": "skips",
        "stage": "sft",
        "name": "spec.json",
        "row_id": skip.pk,
        "action": "retire",
    }


def parameters(name: str) -> list[str]:
    pattern: URLPattern = next(one for one in urlpatterns if one.name == name)
    return list(pattern.pattern.converters)


def address(name: str, values: dict[str, Any]) -> str:
    named = {one: values[one] for one in parameters(name)}
    return reverse(f"dashboard:{name}", kwargs=named)


def statuses(client: Client, where: str) -> set[int]:
    """What reading and sending give, less 405: most addresses know one of the two."""
    both = {client.get(where).status_code, client.post(where).status_code}
    assert both != {405}, where
    return both - {405}


def test_each_address_is_for_the_projects_admin_alone(
    values: dict[str, Any], clients: Clients, sign_in: Callable[[User], Client]
) -> None:
    reviewer = factories.make_user("rita")
    project = Project.objects.get(slug=values["slug"])
    Membership.objects.create(project=project, user=reviewer, role="reviewer")
    ritas = sign_in(reviewer)
    for name in OF_A_PROJECT:
        where = address(name, values)
        assert statuses(clients["ann"], where) == {403}, name
        assert statuses(ritas, where) == {403}, name
        assert statuses(clients["mallory"], where) == {404}, name


def test_without_signing_in_each_address_leads_to_the_sign_in(
    values: dict[str, Any], clients: Clients
) -> None:
    for name in OF_A_PROJECT:
        where = address(name, values)
        for response in (clients["nobody"].get(where), clients["nobody"].post(where)):
            assert response.status_code == 302, name
            assert response["Location"].startswith("/accounts/login/"), name


@pytest.mark.parametrize("name", OF_A_PROJECT)
def test_an_admin_gets_an_answer(name: str, values: dict[str, Any], clients: Clients) -> None:
    where = address(name, values)
    read = clients["ada"].get(where).status_code
    assert read in (200, 405)
    if read == 405:
        # A form sent empty is refused with a page, a button is pressed and leads on.
        assert clients["ada"].post(where).status_code in (302, 400, 404), where


def test_what_belongs_to_another_project_is_not_there(
    values: dict[str, Any], clients: Clients, ada: User
) -> None:
    other = factories.make_project("other", admins=[ada])
    with_ids = [
        name
        for name in OF_A_PROJECT
        if set(parameters(name)) - {"slug", "action", "kind", "stage", "name"}
    ]
    assert len(with_ids) > 10
    for name in with_ids:
        where = address(name, values | {"slug": other.slug})
        assert statuses(clients["ada"], where) == {404}, name


def test_to_read_changes_nothing(values: dict[str, Any], clients: Clients) -> None:
    """A link, a picture or a program that follows links must never do anything."""
    before = AuditEntry.objects.count()
    for name in OF_A_PROJECT:
        clients["ada"].get(address(name, values))
    assert AuditEntry.objects.count() == before
