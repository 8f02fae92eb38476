"""The tutorial: known rankings on the real board, a lesson after each, and the way to real work."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest
from django.http import HttpResponse
from django.test import Client
from django.urls import reverse

from labelhub.accounts.models import User
from labelhub.annotate.tutorial import nearness
from labelhub.assignments.models import Slot
from labelhub.projects.models import Membership, Project
from labelhub.prompts.models import AnswerSet
from labelhub.rankings.models import Gold, Ranking
from labelhub.rankings.tutorial import standing_of
from tests import factories
from tests.labelhub.annotate.pages import filled, form_of, letters_of

URL = "/annotate/everyday/tutorial/"
NEXT = "/annotate/everyday/next/"
KNOWN = [1, 2, 3, 4]


def make_lesson(
    project: Project, known: Sequence[int] = KNOWN, *, place: int = 0, why: str = "Because."
) -> Gold:
    """A tutorial set whose answers number 0 to 3 have these ranks."""
    lesson = factories.make_answer_set(project, purpose=AnswerSet.Purpose.TUTORIAL)
    answers = lesson.answers.order_by("n")
    return Gold.objects.create(
        answer_set=lesson,
        ranks={str(answer.pk): rank for answer, rank in zip(answers, known, strict=True)},
        explanation=why,
        place=place,
    )


@pytest.fixture
def lessons(project: Project) -> list[Gold]:
    return [make_lesson(project, place=place, why=f"*Reason* {place}.") for place in (0, 1)]


def begin(client: Client, **data: str) -> HttpResponse:
    """Ask for the next set of the tutorial, and open its board."""
    return client.post(URL, data, follow=True)


def answer(client: Client, board: HttpResponse, ranks: Sequence[int]) -> HttpResponse:
    """Submit this order on an open board: rank i belongs to the answer number i of the set."""
    slot = Slot.objects.get(pk=board.resolver_match.kwargs["slot_id"])
    numbers = dict(slot.answer_set.answers.values_list("pk", "n"))
    places = {letter: ranks[numbers[pk]] for letter, pk in letters_of(board).items()}
    url = reverse("annotate:tutorial-set", args=["everyday", slot.pk])
    return client.post(url, filled(board, places), follow=True)


def do_all(client: Client, *orders: Sequence[int], **data: str) -> HttpResponse:
    """Do one set for each of these orders; returns the last lesson."""
    page = begin(client, **data)
    for number, ranks in enumerate(orders):
        page = answer(client, begin(client) if number else page, ranks)
    return page


def qualified(user: User) -> bool:
    return Membership.objects.get(user=user).qualified_at is not None


def test_who_asks_for_work_is_led_here_first(
    clients: dict[str, Client], project: Project, lessons: list[Gold]
) -> None:
    factories.make_answer_set(project, slots=1)
    response = clients["ann"].post(NEXT)
    assert response.url == URL
    page = clients["ann"].get(NEXT).content.decode()
    assert "Before the first real set comes a tutorial of 2 sets" in page
    assert "Start ranking" not in page


def test_it_says_what_it_is_and_what_is_enough(
    clients: dict[str, Client], project: Project, lessons: list[Gold]
) -> None:
    page = clients["ann"].get(URL).content.decode()
    assert "you rank 2 sets whose right order is known" in page
    assert "agree with the known ones by at least 0.60 on average" in page
    assert "Start the tutorial" in page
    assert not Slot.objects.exists(), "looking takes nothing"


def test_the_board_is_the_real_one_and_gives_nothing_away(
    clients: dict[str, Client], project: Project, lessons: list[Gold]
) -> None:
    board = begin(clients["ann"])
    page = board.content.decode()
    assert 'data-mode="tutorial"' in page
    assert "Reason" not in page
    assert not re.search(r"<option[^>]* selected", page)


def test_who_is_near_enough_passes_and_gets_work(
    clients: dict[str, Client], project: Project, ann: User, lessons: list[Gold]
) -> None:
    """One set as known (tau-b 1) and one with a single pair turned (4/6 = .67): .83 on average."""
    factories.make_answer_set(project, slots=1)
    last = do_all(clients["ann"], KNOWN, [2, 1, 3, 4])
    assert qualified(ann)
    assert standing_of(ann, project).mean == pytest.approx(5 / 6)
    assert "To the result: passed" in last.content.decode()
    result = clients["ann"].get(URL).content.decode()
    assert "Passed: real work is waiting for you" in result
    assert "0.83" in result
    assert clients["ann"].post(NEXT).url == reverse(
        "annotate:board", args=["everyday", Slot.objects.get(kind="opinion").pk]
    )


def test_the_mark_itself_is_enough(
    clients: dict[str, Client], project: Project, ann: User, lessons: list[Gold]
) -> None:
    """Two pairs of six turned: 2/6. With a set as known the mean is exactly 2/3."""
    Project.objects.update(qualification_tau=2 / 3)
    do_all(clients["ann"], KNOWN, [2, 1, 4, 3])
    assert qualified(ann)


def test_who_is_not_near_enough_reads_why_and_tries_again(
    clients: dict[str, Client], project: Project, ann: User, lessons: list[Gold]
) -> None:
    do_all(clients["ann"], [4, 3, 2, 1], [4, 3, 2, 1])
    assert not qualified(ann)
    page = clients["ann"].get(URL).content.decode()
    assert "Not near enough yet" in page
    assert "−1.00" in page
    assert "Do the sets again" in page
    assert clients["ann"].post(URL).url == URL, "asked without a wish to begin anew"
    do_all(clients["ann"], KNOWN, KNOWN, again="yes")
    assert qualified(ann)
    assert Ranking.objects.filter(annotator=ann).count() == 4, "the first attempt stays"


def test_a_second_attempt_that_has_only_begun_decides_nothing(
    clients: dict[str, Client], project: Project, ann: User, lessons: list[Gold]
) -> None:
    do_all(clients["ann"], [4, 3, 2, 1], KNOWN)
    last = do_all(clients["ann"], KNOWN, again="yes")
    assert not qualified(ann)
    assert "Next set of the tutorial" in last.content.decode()
    standing = standing_of(ann, project)
    assert (len(standing.lessons), standing.sets, standing.complete) == (1, 2, False)


def test_a_lesson_shows_both_orders_and_why(
    clients: dict[str, Client], project: Project, lessons: list[Gold]
) -> None:
    board = begin(clients["ann"])
    letter = {pk: name for name, pk in letters_of(board).items()}
    ids = list(lessons[0].answer_set.answers.order_by("n").values_list("pk", flat=True))
    a, b, c, d = (letter[pk] for pk in ids)
    page = answer(clients["ann"], board, [2, 1, 3, 3]).content.decode()
    assert "Lesson 1 of 2" in page
    assert f"{a} › {b} › {c} › {d}</span>" in page
    assert f"{b} › {a} › {' = '.join(sorted([c, d]))}</span>" in page
    assert "<em>Reason</em> 0." in page
    assert f"{a} is better than {b}; you put {b} above." in page
    assert f"{c} is better than {d}; you tied them." in page
    assert page.count("<li>") == 2, "and no other pair differs"
    assert "known place 1, yours 2" in page
    # Six pairs: four alike, one turned, one tied by one side: (4 - 1) / sqrt(5 * 6) = .55
    assert "Agreement: 0.55" in page
    assert "Near in part" in page


def test_where_the_known_ranking_ties_a_difference_is_told_as_such(
    clients: dict[str, Client], project: Project
) -> None:
    gold = make_lesson(project, [1, 1, 2, 3])
    board = begin(clients["ann"])
    letter = {pk: name for name, pk in letters_of(board).items()}
    ids = list(gold.answer_set.answers.order_by("n").values_list("pk", flat=True))
    better, worse = letter[ids[1]], letter[ids[0]]
    page = answer(clients["ann"], board, [2, 1, 3, 4]).content.decode()
    first, second = sorted([better, worse])
    assert f"{first} and {second} are as good as each other; you put {better} above." in page
    assert page.count("<li>") == 1


def test_who_ties_everything_has_said_nothing(
    clients: dict[str, Client], project: Project, ann: User, lessons: list[Gold]
) -> None:
    do_all(clients["ann"], [1, 1, 1, 1], KNOWN)
    assert standing_of(ann, project).mean == 0.5
    assert not qualified(ann)


def test_a_half_filled_form_comes_back_with_the_rest(
    clients: dict[str, Client], project: Project, lessons: list[Gold]
) -> None:
    board = begin(clients["ann"])
    slot = Slot.objects.get()
    url = reverse("annotate:tutorial-set", args=["everyday", slot.pk])
    response = clients["ann"].post(url, filled(board, {"A": 1, "B": 2}))
    assert response.status_code == 422
    page = response.content.decode()
    assert "Cards C and D have no place yet" in page
    assert 'data-mode="tutorial"' in page
    sent = {letter: form_of(response)[f"rank-{pk}"] for letter, pk in letters_of(board).items()}
    assert sent == {"A": "1", "B": "2", "C": "", "D": ""}


def test_a_set_that_is_done_leads_to_its_lesson_and_the_other_way_round(
    clients: dict[str, Client], project: Project, lessons: list[Gold]
) -> None:
    board = begin(clients["ann"])
    slot = Slot.objects.get()
    set_url = reverse("annotate:tutorial-set", args=["everyday", slot.pk])
    lesson_url = reverse("annotate:lesson", args=["everyday", slot.pk])
    assert clients["ann"].get(lesson_url).url == set_url
    answer(clients["ann"], board, KNOWN)
    assert clients["ann"].get(set_url).url == lesson_url


def test_a_page_that_was_open_for_hours_is_still_taken(
    clients: dict[str, Client], project: Project, lessons: list[Gold]
) -> None:
    board = begin(clients["ann"])
    slot = Slot.objects.get()
    Slot.objects.update(state=Slot.State.CLOSED, lease_until=None, lease_token=None)
    url = reverse("annotate:tutorial-set", args=["everyday", slot.pk])
    assert clients["ann"].get(url).url == URL
    assert "Lesson 1 of 2" in answer(clients["ann"], board, KNOWN).content.decode()


def test_reviewers_and_admins_may_look_but_need_not(
    clients: dict[str, Client], project: Project, ada: User, lessons: list[Gold]
) -> None:
    factories.make_answer_set(project, slots=1)
    assert clients["ada"].get(URL).status_code == 200
    assert clients["ada"].post(NEXT).url.startswith("/annotate/everyday/slots/")


def test_a_project_without_one_says_so(clients: dict[str, Client], project: Project) -> None:
    assert "No tutorial here" in clients["ann"].get(URL).content.decode()
    assert clients["ann"].post(URL).url == URL


def test_it_is_for_members_alone(
    clients: dict[str, Client], project: Project, lessons: list[Gold]
) -> None:
    board = begin(clients["ann"])
    slot = Slot.objects.get()
    urls = [URL] + [
        reverse(f"annotate:{name}", args=["everyday", slot.pk])
        for name in ("tutorial-set", "lesson")
    ]
    for url in urls:
        assert clients["mallory"].get(url).status_code == 404
        assert clients["nobody"].get(url).url == f"/accounts/login/?next={url}"
    answer(clients["ann"], board, KNOWN)
    assert clients["ben"].get(urls[1]).url == URL, "it says what it says of any closed page"
    assert clients["ben"].get(urls[2]).status_code == 404
    forged = {**filled(board, [1, 2, 3, 4]), "key": "00000000-0000-4000-8000-000000000001"}
    assert clients["ben"].post(urls[1], forged).status_code == 404
    assert clients["mallory"].post(urls[1], forged).status_code == 404


def test_a_set_of_the_queue_has_no_lesson(
    clients: dict[str, Client], project: Project, ann: User
) -> None:
    ranking = factories.make_ranking(factories.make_answer_set(project), ann)
    url = reverse("annotate:lesson", args=["everyday", ranking.slot_id])
    assert clients["ann"].get(url).status_code == 404


@pytest.mark.parametrize(
    ("tau", "words"),
    [(1.0, "Just as known"), (0.67, "Near to"), (0.3, "Near in part"), (0.0, "Little"),
     (-0.2, "Rather the reverse"), (-1.0, "Rather the reverse")],
)  # fmt: skip
def test_nearness_in_words(tau: float, words: str) -> None:
    assert nearness(tau).startswith(words)
