"""My figures: one's own and nobody else's, and no hint of which set was a check."""

from __future__ import annotations

import re

import pytest
from django.test import Client
from django.urls import reverse

from labelhub.accounts.models import User
from labelhub.assignments.models import Slot
from labelhub.projects.models import Membership, Project
from labelhub.prompts.models import AnswerSet
from labelhub.rankings.models import Gold
from labelhub.rankings.progress import store_report
from tests import factories

pytestmark = pytest.mark.django_db
Clients = dict[str, Client]
ADDRESS = "/annotate/everyday/me/"
BEST_FIRST, REVERSED = (1, 2, 3, 4), (4, 3, 2, 1)


def words_of(page: str) -> str:
    """The page's own part as it is read."""
    main = page[page.index("<main") : page.index("</main>")]
    return re.sub(r"[ \n]+", " ", re.sub(r"<[^>]+>", " ", main))


def read(client: Client) -> str:
    response = client.get(ADDRESS)
    assert response.status_code == 200
    return words_of(response.content.decode())


def share_sets(project: Project, *orders: tuple[User, tuple[int, ...]], count: int = 20) -> None:
    for _ in range(count):
        answer_set = factories.make_answer_set(project)
        for person, ranks in orders:
            factories.make_ranking(answer_set, person, ranks)


def check(project: Project, by: User, ranks: tuple[int, ...]) -> None:
    """A known ranking that this person was given."""
    answer_set = factories.make_answer_set(project, purpose=AnswerSet.Purpose.GOLD)
    Gold.objects.create(
        answer_set=answer_set,
        ranks={str(one.pk): one.n + 1 for one in answer_set.answers.all()},
    )
    ranking = factories.make_ranking(answer_set, by, ranks)
    Slot.objects.filter(pk=ranking.slot_id).update(kind=Slot.Kind.GOLD)


@pytest.fixture
def three(project: Project, ann: User, ben: User) -> User:
    """ann and ben agree, cleo orders everything the other way round; all of it is counted."""
    cleo = factories.make_user("cleo")
    Membership.objects.create(project=project, user=cleo, role="annotator")
    share_sets(project, (ann, BEST_FIRST), (ben, BEST_FIRST), (cleo, REVERSED))
    store_report(project.pk)
    return cleo


def test_the_address_is_that_of_the_project_and_names_nobody() -> None:
    assert reverse("annotate:me", args=["everyday"]) == ADDRESS


def test_i_see_my_own_figures(three: User, clients: Clients) -> None:
    page = read(clients["ann"])
    assert "Agreement with others 50\u202f%" in page
    assert "n = 20 shared sets" in page


def test_another_person_sees_other_figures_under_the_same_address(
    three: User, clients: Clients, sign_in: object
) -> None:
    page = read(sign_in(three))  # type: ignore[operator]
    assert "Agreement with others 0\u202f%" in page
    assert "That does not make you wrong" in page


def test_nobody_elses_name_or_figure_is_on_my_page(three: User, clients: Clients) -> None:
    page = clients["ann"].get(ADDRESS).content.decode()
    for name in ("ben", "cleo"):
        assert not re.search(rf"\b{name}\b", page), name
    assert "Reliability" not in page
    # Of the project's pairs 33 % are ordered alike; cleo agrees in none.
    assert "33\u202f%" not in page
    assert "Agreement with others 0" not in words_of(page)


def test_no_query_shows_somebody_elses_figures(three: User, clients: Clients) -> None:
    plain = clients["ann"].get(ADDRESS).content
    for query in (f"user={three.pk}", "user=cleo", f"user_id={three.pk}", "annotator=cleo"):
        assert words_of(clients["ann"].get(f"{ADDRESS}?{query}").content.decode()) == words_of(
            plain.decode()
        )


def test_a_stranger_finds_no_such_project(three: User, clients: Clients) -> None:
    assert clients["mallory"].get(ADDRESS).status_code == 404


def test_without_signing_in_the_page_leads_to_the_sign_in(three: User, clients: Clients) -> None:
    response = clients["nobody"].get(ADDRESS)
    assert response.status_code == 302
    assert response["Location"].startswith("/accounts/login/")


def test_nobody_has_a_page_in_a_simulated_project(project: Project, clients: Clients) -> None:
    Project.objects.filter(pk=project.pk).update(is_simulated=True)
    assert clients["ann"].get(ADDRESS).status_code == 404


def test_it_is_a_page_to_read(three: User, clients: Clients) -> None:
    assert clients["ann"].post(ADDRESS).status_code == 405


def test_before_the_first_ranking_it_says_what_will_stand_there(
    project: Project, clients: Clients
) -> None:
    page = read(clients["ann"])
    assert "Your figures will stand here" in page
    assert "It takes 20 more rankings until they say something." in page


def test_who_was_not_counted_yet_is_told_to_look_again(
    project: Project, ann: User, clients: Clients
) -> None:
    share_sets(project, (ann, BEST_FIRST))
    assert "They are being counted: look again in a few minutes." in read(clients["ann"])


def test_too_few_sets_say_how_many_are_missing(
    project: Project, ann: User, ben: User, clients: Clients
) -> None:
    share_sets(project, (ann, BEST_FIRST), (ben, BEST_FIRST), count=7)
    store_report(project.pk)
    assert "too few needs 13 more shared sets" in read(clients["ann"])


# --- checks


def test_nine_known_rankings_leave_no_trace(project: Project, ann: User, clients: Clients) -> None:
    share_sets(project, (ann, BEST_FIRST), count=20)
    store_report(project.pk)
    before = read(clients["ann"])
    for _ in range(9):
        check(project, ann, BEST_FIRST)
    store_report(project.pk)
    after = read(clients["ann"])
    assert "known" not in after
    # What changed is how many rankings there are, which ann can count herself.
    assert (
        re.sub(r"\d+", "", after).split("What was counted")[0]
        == (re.sub(r"\d+", "", before).split("What was counted")[0])
    )


def test_ten_known_rankings_give_a_figure_without_their_number(
    project: Project, ann: User, clients: Clients
) -> None:
    for _ in range(10):
        check(project, ann, REVERSED)
    store_report(project.pk)
    page = read(clients["ann"])
    assert "τ-b with known rankings −1" in page
    assert "known rankings n =" not in page
    assert "10 known" not in page
    assert "On sets whose order is known, yours often differs." in page


def test_the_eleventh_known_ranking_moves_nothing(
    project: Project, ann: User, clients: Clients
) -> None:
    for _ in range(10):
        check(project, ann, BEST_FIRST)
    store_report(project.pk)
    tile = re.compile(r"τ-b with known rankings (.*?) rank correlation")
    before = tile.search(read(clients["ann"]))
    check(project, ann, REVERSED)
    store_report(project.pk)
    after = tile.search(read(clients["ann"]))
    assert before is not None
    assert after is not None
    assert before[1] == after[1]
