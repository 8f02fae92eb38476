"""From the browser's form to the stored ranking, and what is refused on the way."""

from __future__ import annotations

import uuid
from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone

from labelhub.accounts.models import User
from labelhub.assignments.models import Slot
from labelhub.projects.models import Project
from labelhub.rankings.models import Ranking, RankingItem
from labelhub.rankings.rules import all_weak_orders
from tests import factories
from tests.labelhub.annotate.pages import (
    board_url,
    claimed,
    filled,
    form_of,
    letters_of,
    rank,
    refusal_of,
)


@pytest.fixture
def slot(project: Project, ann: User) -> Slot:
    factories.make_answer_set(project, slots=1)
    return claimed(project, ann)


def stored() -> dict[int, int]:
    return dict(RankingItem.objects.values_list("answer", "rank"))


def test_it_stores_the_order_with_its_tie(
    clients: dict[str, Client], slot: Slot, ann: User
) -> None:
    letters = letters_of(clients["ann"].get(board_url(slot)))
    rank(clients["ann"], slot, {"C": 1, "A": 2, "D": 2, "B": 3})
    assert stored() == {letters["C"]: 1, letters["A"]: 2, letters["D"]: 2, letters["B"]: 3}
    ranking = Ranking.objects.get()
    assert (ranking.annotator, ranking.late, ranking.is_simulated) == (ann, False, False)
    positions = dict(RankingItem.objects.values_list("answer", "position"))
    assert positions == {pk: i for i, pk in enumerate(letters.values())}


def test_all_75_weak_orders_of_four_come_through(
    clients: dict[str, Client], project: Project, ann: User
) -> None:
    orders = list(all_weak_orders(4))
    assert len(orders) == 75
    sent = {}
    for order in orders:
        factories.make_answer_set(project, slots=1)
        slot = claimed(project, ann)
        page = clients["ann"].get(board_url(slot))
        assert clients["ann"].post(board_url(slot), filled(page, order)).status_code == 302
        sent.update(zip(letters_of(page).values(), order, strict=True))
    assert stored() == sent


def test_places_with_holes_mean_the_same_order(clients: dict[str, Client], slot: Slot) -> None:
    letters = letters_of(clients["ann"].get(board_url(slot)))
    rank(clients["ann"], slot, {"A": 2, "B": 4, "C": 4, "D": 3})
    assert stored() == dict(zip(letters.values(), (1, 3, 3, 2), strict=True))


def test_then_comes_the_next_set(clients: dict[str, Client], slot: Slot) -> None:
    factories.make_answer_set(slot.project, slots=1)
    following = Slot.objects.exclude(pk=slot.pk).get()
    response = rank(clients["ann"], slot, (1, 2, 3, 4))
    assert response.url == board_url(following)
    assert "Your ranking is saved." in clients["ann"].get(response.url).content.decode()


def test_after_the_last_one_comes_the_page_that_says_so(
    clients: dict[str, Client], slot: Slot
) -> None:
    assert rank(clients["ann"], slot, (1, 2, 3, 4)).url == "/annotate/everyday/next/"


def test_a_double_click_is_one_ranking(clients: dict[str, Client], slot: Slot) -> None:
    form = filled(clients["ann"].get(board_url(slot)), (1, 2, 3, 4))
    for _ in range(2):
        assert clients["ann"].post(board_url(slot), form).status_code == 302
    assert Ranking.objects.count() == 1


def test_the_second_of_two_tabs_is_told_and_loses_nothing(
    clients: dict[str, Client], slot: Slot
) -> None:
    tabs = [clients["ann"].get(board_url(slot)) for _ in range(2)]
    assert clients["ann"].post(board_url(slot), filled(tabs[0], (1, 2, 3, 4))).status_code == 302
    response = clients["ann"].post(board_url(slot), filled(tabs[1], (4, 3, 2, 1)))
    assert response.status_code == 409
    assert "already" in refusal_of(response)
    again = form_of(response)
    assert [again[f"rank-{pk}"] for pk in letters_of(tabs[1]).values()] == ["4", "3", "2", "1"]
    assert list(stored().values()) != [4, 3, 2, 1]
    assert Ranking.objects.count() == 1


def test_a_half_filled_form_names_the_cards_and_keeps_the_rest(
    clients: dict[str, Client], slot: Slot
) -> None:
    page = clients["ann"].get(board_url(slot))
    sent = filled(page, {"A": 2, "B": "", "C": 1, "D": ""}) | {"active_ms": "5000"}
    response = clients["ann"].post(board_url(slot), sent)
    assert response.status_code == 422
    assert refusal_of(response) == (
        "Cards B and D have no place yet: give them one, then submit again."
    )
    assert not Ranking.objects.exists()
    again, letters = form_of(response), letters_of(response)
    assert again[f"rank-{letters['A']}"] == "2"
    assert again[f"rank-{letters['C']}"] == "1"
    for field in ("key", "token", "opened", "active_ms"):
        assert again[field] == sent[field]
    completed = again | {f"rank-{letters['B']}": "3", f"rank-{letters['D']}": "3"}
    assert clients["ann"].post(board_url(slot), completed).status_code == 302
    assert Ranking.objects.count() == 1


@pytest.mark.parametrize("place", ["0", "5", "-1", "1.5", "best", "１", "9" * 30])
def test_a_place_that_is_none_is_refused(
    clients: dict[str, Client], slot: Slot, place: str
) -> None:
    response = rank(clients["ann"], slot, {"A": place, "B": 1, "C": 1, "D": 1})
    if place == "１":  # full-width one, as Chinese keyboards write it: the same number
        assert response.status_code == 302
        return
    assert response.status_code == 422
    assert refusal_of(response)
    assert not Ranking.objects.exists()


def test_a_lease_that_ran_out_is_no_reason_to_lose_work(
    clients: dict[str, Client], slot: Slot
) -> None:
    form = filled(clients["ann"].get(board_url(slot)), (1, 2, 3, 4))
    Slot.objects.update(lease_until=timezone.now() - timedelta(minutes=1))
    assert clients["ann"].post(board_url(slot), form).status_code == 302
    assert Ranking.objects.get().late


def test_even_if_somebody_else_holds_it_by_now(
    clients: dict[str, Client], slot: Slot, ann: User, ben: User
) -> None:
    form = filled(clients["ann"].get(board_url(slot)), (1, 2, 3, 4))
    factories.hold(slot, ben)
    assert clients["ann"].post(board_url(slot), form).status_code == 302
    assert rank(clients["ben"], slot, (1, 1, 1, 1)).status_code == 302
    assert list(Ranking.objects.order_by("pk").values_list("annotator", "late")) == [
        (ann.pk, True),
        (ben.pk, False),
    ]


def test_a_page_whose_texts_are_not_the_stored_ones_is_refused(
    clients: dict[str, Client], slot: Slot
) -> None:
    form = filled(clients["ann"].get(board_url(slot)), (1, 2, 3, 4))
    answer = slot.answer_set.answers.first()
    form[f"sha-{answer.pk}"] = factories.sha256("another text")
    response = clients["ann"].post(board_url(slot), form)
    assert response.status_code == 409
    assert "other texts" in refusal_of(response)
    assert not Ranking.objects.exists()


@pytest.mark.parametrize("key", ["", "not-a-key"])
def test_a_damaged_form_says_what_to_do(clients: dict[str, Client], slot: Slot, key: str) -> None:
    form = filled(clients["ann"].get(board_url(slot)), (1, 2, 3, 4)) | {"key": key}
    response = clients["ann"].post(board_url(slot), form)
    assert response.status_code == 422
    assert "reload the page" in refusal_of(response)


@pytest.mark.parametrize(
    ("duration", "active", "kept"),
    [("60000", "40000", (60_000, 40_000)), ("60000", "90000", (60_000, 60_000))],
)
def test_active_time_is_kept_and_never_longer_than_the_whole(
    clients: dict[str, Client], slot: Slot, duration: str, active: str, kept: tuple[int, int]
) -> None:
    form = filled(clients["ann"].get(board_url(slot)), (1, 2, 3, 4))
    clients["ann"].post(board_url(slot), form | {"duration_ms": duration, "active_ms": active})
    ranking = Ranking.objects.get()
    assert (ranking.duration_ms, ranking.active_ms) == kept


def test_without_script_the_server_measures(clients: dict[str, Client], slot: Slot) -> None:
    form = filled(clients["ann"].get(board_url(slot)), (1, 2, 3, 4))
    form["opened"] = str(int(form["opened"]) - 30_000)
    clients["ann"].post(board_url(slot), form)
    ranking = Ranking.objects.get()
    assert 30_000 <= ranking.duration_ms < 60_000
    assert ranking.active_ms == ranking.duration_ms


def test_a_token_that_was_never_given_out_opens_nothing(
    clients: dict[str, Client], slot: Slot
) -> None:
    form = filled(clients["ann"].get(board_url(slot)), (1, 2, 3, 4))
    for token in (str(uuid.uuid4()), "", "junk"):
        response = clients["ann"].post(board_url(slot), form | {"token": token})
        assert response.status_code == 404
    assert not Ranking.objects.exists()


def test_somebody_elses_token_opens_nothing(clients: dict[str, Client], slot: Slot) -> None:
    form = filled(clients["ann"].get(board_url(slot)), (1, 2, 3, 4))
    for who in ("ben", "ada", "mallory"):
        assert clients[who].post(board_url(slot), form).status_code == 404
    assert clients["nobody"].post(board_url(slot), form).url.startswith("/accounts/login/")
    assert not Ranking.objects.exists()


def test_it_takes_the_proof_of_origin(slot: Slot, ann: User) -> None:
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(ann, backend="django.contrib.auth.backends.ModelBackend")
    form = filled(strict.get(board_url(slot)), (1, 2, 3, 4))
    without = {name: value for name, value in form.items() if name != "csrfmiddlewaretoken"}
    response = strict.post(board_url(slot), without)
    assert response.status_code == 403
    assert "send it again" in response.content.decode()
    assert strict.post(board_url(slot), form).status_code == 302
