"""Reviews: the opinions without their names, a suggestion that is not preset, and the decision."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from django.test import Client
from django.urls import reverse

from labelhub.accounts.models import User
from labelhub.annotate.review import opinions_before
from labelhub.assignments.models import Slot
from labelhub.projects.models import Membership, Project
from labelhub.prompts.models import AnswerSet
from labelhub.rankings.models import Ranking, RankingItem
from tests import factories
from tests.labelhub.annotate.pages import filled, form_of, letters_of, rank

URL = "/annotate/everyday/review/"
Asked = Callable[..., AnswerSet]


@pytest.fixture
def rita(project: Project) -> User:
    """Reviews."""
    rita = factories.make_user("rita")
    Membership.objects.create(project=project, user=rita, role=Membership.Role.REVIEWER)
    return rita


@pytest.fixture
def reviewer(rita: User, sign_in: Callable[..., Client]) -> Client:
    return sign_in(rita)


@pytest.fixture
def people(project: Project) -> list[User]:
    """Two annotators with names that stand nowhere else in a page."""
    people = [factories.make_user(name) for name in ("xanthippe", "zebulon")]
    for one in people:
        Membership.objects.create(project=project, user=one)
    return people


@pytest.fixture
def disputed(project: Project, people: list[User]) -> Asked:
    """`disputed([1, 2, 3, 4], [4, 3, 2, 1])` is a set with these opinions that waits."""

    def ask(*orders: list[int]) -> AnswerSet:
        answer_set = factories.make_answer_set(project)
        for person, order in zip(people, orders or ([1, 2, 3, 4], [4, 3, 2, 1]), strict=True):
            factories.make_ranking(answer_set, person, order)
        factories.make_slot(answer_set, kind=Slot.Kind.REVIEW)
        return answer_set

    return ask


def opened(client: Client) -> str:
    """Take the next set to decide on; returns the address of its board."""
    return client.post(URL).url


def test_it_says_how_many_sets_wait(reviewer: Client, disputed: Asked) -> None:
    assert "Nothing to decide" in reviewer.get(URL).content.decode()
    disputed()
    disputed()
    assert "On 2 sets the opinions differ" in reviewer.get(URL).content.decode()
    opened(reviewer)
    assert "On 2 sets" in reviewer.get(URL).content.decode(), "the one in hand included"


def test_the_opinions_stand_there_without_their_names(
    reviewer: Client, disputed: Asked, people: list[User]
) -> None:
    answer_set = disputed()
    item = RankingItem.objects.filter(ranking__annotator=people[0]).first()
    RankingItem.objects.filter(pk=item.pk).update(
        critique="It <b>invents</b> a city.", likert=2, gap=3
    )
    board = reviewer.get(opened(reviewer))
    page = board.content.decode()
    assert 'data-mode="review"' in page
    assert "Opinion 1" in page
    assert "Opinion 2" in page
    assert "It &lt;b&gt;invents&lt;/b&gt; a city." in page
    assert "grade 2 of 7" in page
    assert "is much better than" in page
    assert "They agree by −1.00 on average" in page
    for person in people:
        assert person.username not in page
    letter = {pk: name for name, pk in letters_of(board).items()}
    ids = answer_set.answers.order_by("n").values_list("pk", flat=True)
    shown = " › ".join(letter[pk] for pk in ids)
    assert f">{shown}</span>" in page, "in the letters of the reviewer's own cards"


def test_where_an_opinion_stands_says_nothing_of_whose_it_is(
    rita: User, disputed: Asked, people: list[User]
) -> None:
    """Twenty sets: that who spoke first is Opinion 1 in all or in none is as likely as 2⁻¹⁹."""
    first = 0
    for _ in range(20):
        answer_set = disputed([1, 2, 3, 4], [4, 3, 2, 1])
        spoke_first = answer_set.rankings.get(annotator=people[0])
        slot = factories.hold(answer_set.slots.get(kind="review"), rita)
        one = opinions_before(slot, rita)[0]
        ranks = {card.answer_id: card.rank for card in one.said.cards}
        first += ranks == dict(spoke_first.items.values_list("answer", "rank"))
    assert 0 < first < 20


def test_the_suggestion_is_not_preset(reviewer: Client, disputed: Asked) -> None:
    """Both put number 3 last; of the others each pair is even, so that they tie."""
    answer_set = disputed([1, 2, 3, 4], [3, 2, 1, 4])
    url = opened(reviewer)
    board = reviewer.get(url)
    places = {name: value for name, value in form_of(board).items() if name.startswith("rank-")}
    assert set(places.values()) == {""}
    assert "Start from this order" in board.content.decode()
    started = form_of(reviewer.get(f"{url}?start=suggested"))
    ids = list(answer_set.answers.order_by("n").values_list("pk", flat=True))
    assert [started[f"rank-{pk}"] for pk in ids] == ["1", "1", "1", "2"]


def test_the_decision_is_kept_beside_the_opinions(
    reviewer: Client, disputed: Asked, rita: User
) -> None:
    first, second = disputed(), disputed()
    url = opened(reviewer)
    board = reviewer.get(url)
    slot = Slot.objects.get(holder=rita)
    response = reviewer.post(url, filled(board, [1, 2, 2, 3]))
    decision = Ranking.objects.get(adjudicates=True)
    assert (decision.annotator, decision.answer_set_id) == (rita, slot.answer_set_id)
    assert decision.answer_set.rankings.count() == 3
    next_slot = Slot.objects.get(holder=rita, state=Slot.State.HELD)
    assert {slot.answer_set_id, next_slot.answer_set_id} == {first.pk, second.pk}
    assert response.url == reverse("annotate:review-set", args=["everyday", next_slot.pk])
    board = reviewer.get(response.url)
    assert reviewer.post(response.url, filled(board, [1, 2, 3, 4])).url == URL
    page = reviewer.get(URL).content.decode()
    assert "Nothing to decide" in page
    assert "You decided on 2 sets so far." in page
    assert reviewer.get(url).url == URL, "a set that is decided is not opened again"


def test_a_half_filled_decision_keeps_the_opinions_in_sight(
    reviewer: Client, disputed: Asked
) -> None:
    disputed()
    url = opened(reviewer)
    response = reviewer.post(url, filled(reviewer.get(url), {"A": 1}))
    assert response.status_code == 422
    page = response.content.decode()
    assert "Cards B, C and D have no place yet" in page
    assert "Opinion 2" in page
    places = [value for name, value in form_of(response).items() if name.startswith("rank-")]
    assert sorted(places) == ["", "", "", "1"]


def test_a_set_that_went_back_leads_to_the_next(
    reviewer: Client, disputed: Asked, rita: User
) -> None:
    disputed()
    url = opened(reviewer)
    slot = Slot.objects.get(holder=rita)
    token = {"token": str(slot.lease_token)}
    reviewer.post(reverse("annotate:release", args=["everyday", slot.pk]), token)
    assert reviewer.get(url).url == URL


def test_who_gave_an_opinion_does_not_decide_on_it(
    reviewer: Client, disputed: Asked, rita: User
) -> None:
    answer_set = disputed()
    factories.make_ranking(answer_set, rita)
    assert "Nothing to decide" in reviewer.get(URL).content.decode()
    assert opened(reviewer) == URL


def test_the_way_there_stands_on_the_desk_of_reviewers_alone(
    reviewer: Client, clients: dict[str, Client], disputed: Asked
) -> None:
    disputed()
    for url in ("/annotate/", "/annotate/everyday/next/"):
        assert "1 set waits for your decision" in reviewer.get(url).content.decode()
        assert "for your decision" not in clients["ann"].get(url).content.decode()
    assert URL in reviewer.get("/annotate/everyday/history/").content.decode()
    assert URL not in clients["ann"].get("/annotate/everyday/history/").content.decode()


def test_it_is_for_reviewers_and_admins(
    clients: dict[str, Client], reviewer: Client, disputed: Asked
) -> None:
    disputed()
    board = opened(reviewer)
    form = filled(reviewer.get(board), [1, 2, 3, 4])
    for url in (URL, board):
        assert clients["ann"].get(url).status_code == 403
        assert clients["ann"].post(url, form).status_code == 403
        assert clients["mallory"].get(url).status_code == 404
        assert clients["mallory"].post(url, form).status_code == 404
        assert clients["nobody"].get(url).url == f"/accounts/login/?next={url}"
    assert clients["ada"].get(URL).status_code == 200
    assert clients["ada"].get(board).url == URL, "another reviewer has it"
    assert clients["ada"].post(board, form).status_code == 404
    assert not Ranking.objects.filter(adjudicates=True).exists()


def test_an_opinion_of_the_queue_is_no_set_to_decide_on(
    clients: dict[str, Client], project: Project, ada: User
) -> None:
    slot = factories.hold(factories.make_answer_set(project, slots=1).slots.get(), ada)
    url = reverse("annotate:review-set", args=["everyday", slot.pk])
    assert clients["ada"].get(url).url == URL
    assert not re.search(r"Opinion \d", rank(clients["ada"], slot, [1, 2, 3, 4]).content.decode())
