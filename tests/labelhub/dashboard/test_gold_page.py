"""Known rankings: made from ranked sets, imported line by line, retired."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import reverse

from labelhub.accounts.models import User
from labelhub.projects.models import Project
from labelhub.prompts.models import AnswerSet, Prompt
from labelhub.rankings.models import Gold, Ranking
from tests import factories

pytestmark = pytest.mark.django_db
Clients = dict[str, Client]
LINE = {"prompt": "What is 2 + 2?", "answers": ["Four.", "Five."], "ranks": [1, 2]}


def where(name: str, *args: Any) -> str:
    return reverse(f"dashboard:{name}", args=["everyday", *args])


def send(client: Client, name: str, *args: Any, data: dict[str, Any]) -> Any:
    return client.post(where(name, *args), data, follow=True)


def text(response: Any) -> str:
    return str(response.content.decode())


@pytest.fixture
def ranked(project: Project, ann: User, ben: User) -> AnswerSet:
    """ann and ben rank three answers differently; both find the first better than the last."""
    answer_set = factories.make_answer_set(project, answers=["A.", "B.", "C."])
    factories.make_ranking(answer_set, ann, [1, 2, 3])
    factories.make_ranking(answer_set, ben, [1, 3, 2])
    return answer_set


def fields(answer_set: AnswerSet, ranks: list[Any], **more: Any) -> dict[str, Any]:
    ids = answer_set.answers.order_by("n").values_list("pk", flat=True)
    return {f"rank-{pk}": rank for pk, rank in zip(ids, ranks, strict=True)} | more


def shown_places(client: Client, answer_set: AnswerSet) -> list[int]:
    form = client.get(where("gold-from", answer_set.pk)).context["form"]
    return [field.value() for _answer, field in form.cards()]


# --- from ranked sets


def test_what_the_opinions_have_in_common_is_proposed(ranked: AnswerSet, clients: Clients) -> None:
    assert shown_places(clients["ada"], ranked) == [1, 2, 2]


def test_a_reviewers_decision_is_proposed_before_all_opinions(
    ranked: AnswerSet, clients: Clients
) -> None:
    rita = factories.make_user("rita")
    factories.make_ranking(ranked, rita, [3, 2, 1], adjudicates=True)
    assert shown_places(clients["ada"], ranked) == [3, 2, 1]
    assert "that a reviewer decided" in text(clients["ada"].get(where("gold-from", ranked.pk)))


def test_a_ranked_set_becomes_gold(ranked: AnswerSet, ada: User, clients: Clients) -> None:
    send(
        clients["ada"],
        "gold-from",
        ranked.pk,
        data=fields(ranked, [2, 1, 2], explanation="B is right."),
    )
    gold = Gold.objects.get()
    texts = {str(one.pk): one.text for one in gold.answer_set.answers.all()}
    assert {texts[pk]: rank for pk, rank in gold.ranks.items()} == {"A.": 2, "B.": 1, "C.": 2}
    assert (gold.explanation, gold.created_by) == ("B is right.", ada)
    assert gold.answer_set.purpose == AnswerSet.Purpose.GOLD
    assert gold.answer_set_id != ranked.pk, "a copy: the set itself trains on"
    page = text(clients["ada"].get(where("gold")))
    assert "B is right." in page
    assert "already" in text(clients["ada"].get(where("gold-from", ranked.pk)))


def test_a_ranked_set_becomes_a_set_of_the_tutorial(ranked: AnswerSet, clients: Clients) -> None:
    send(clients["ada"], "gold-from", ranked.pk, data=fields(ranked, [1, 2, 3], tutorial="on"))
    assert Gold.objects.get().answer_set.purpose == AnswerSet.Purpose.TUTORIAL


@pytest.mark.parametrize(
    ("ranks", "status"),
    [([1, 2, 4], 400), ([1, 2, 0], 400), ([1, 2, ""], 400), ([1, 2, "x"], 400), ([1, 1, 1], 400)],
)
def test_places_that_rank_nothing_are_refused(
    ranks: list[Any], status: int, ranked: AnswerSet, clients: Clients
) -> None:
    response = send(clients["ada"], "gold-from", ranked.pk, data=fields(ranked, ranks))
    assert response.status_code == status
    assert not Gold.objects.exists()


def test_a_set_that_nobody_ranked_is_no_candidate(project: Project, clients: Clients) -> None:
    fresh = factories.make_answer_set(project)
    assert clients["ada"].get(where("gold-from", fresh.pk)).status_code == 404


def test_decided_sets_come_first_then_those_with_most_opinions(
    ranked: AnswerSet, project: Project, ann: User, clients: Clients
) -> None:
    once = factories.make_answer_set(project)
    factories.make_ranking(once, ann)
    decided = factories.make_answer_set(project)
    factories.make_ranking(decided, ann, adjudicates=True)
    page = clients["ada"].get(where("gold")).context["page"]
    assert [one.pk for one in page.object_list] == [decided.pk, ranked.pk, once.pk]
    assert [one.opinions for one in page.object_list] == [0, 2, 1]


# --- imported


def lines(*records: Any) -> str:
    return "\n".join(one if isinstance(one, str) else json.dumps(one) for one in records)


def test_known_rankings_are_imported(project: Project, clients: Clients) -> None:
    tutorial = LINE | {"tutorial": True, "explanation": "It is four.", "ranks": [2, 1]}
    send(clients["ada"], "import-gold", data={"text": lines(LINE, tutorial)})
    golds = Gold.objects.order_by("pk")
    assert [one.answer_set.purpose for one in golds] == ["gold", "tutorial"]
    assert golds[1].explanation == "It is four."
    assert Prompt.objects.filter(project=project).count() == 1, "the same prompt stands once"


def test_what_is_there_already_is_counted_and_left(project: Project, clients: Clients) -> None:
    send(clients["ada"], "import-gold", data={"text": lines(LINE)})
    response = send(clients["ada"], "import-gold", data={"text": lines(LINE, LINE)})
    assert [str(one) for one in response.context["messages"]] == [
        "0 known rankings are new.", "2 were there already."
    ]  # fmt: skip
    assert Gold.objects.count() == 1


def test_a_file_is_imported(project: Project, clients: Clients) -> None:
    file = SimpleUploadedFile("gold.jsonl", ("\ufeff" + lines(LINE)).encode())
    send(clients["ada"], "import-gold", data={"file": file})
    assert Gold.objects.count() == 1


def test_bad_lines_are_refused_by_number_and_the_others_are_there(
    project: Project, clients: Clients
) -> None:
    unranked = LINE | {"prompt": "What is 3 + 3?", "ranks": [1]}
    sent = lines(LINE, "{oops", unranked, LINE | {"answers": "no list"}, "")
    response = send(clients["ada"], "import-gold", data={"text": sent})
    page = text(response)
    assert "3 lines were refused:" in page
    for number in (2, 3, 4):
        assert f"Line {number}:" in page
    assert "{oops" in page, "what was typed stays, to be mended"
    assert Gold.objects.count() == 1


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({}, "Nothing to import"),
        ({"text": "  \n"}, "Nothing to import"),
        ({"file": SimpleUploadedFile("x", b"\xff\xfe\x00")}, "not UTF-8"),
    ],
)
def test_a_form_without_lines_is_refused(
    data: dict[str, Any], words: str, project: Project, clients: Clients
) -> None:
    response = send(clients["ada"], "import-gold", data=data)
    assert response.status_code == 400
    assert words in text(response)


# --- retired


def test_a_retired_one_is_given_to_nobody_and_still_seen(
    ranked: AnswerSet, clients: Clients
) -> None:
    send(clients["ada"], "gold-from", ranked.pk, data=fields(ranked, [1, 2, 3]))
    gold = Gold.objects.get()
    clients["ada"].post(where("retire-gold", gold.pk))
    gold.answer_set.refresh_from_db()
    assert gold.answer_set.retired
    page = text(clients["ada"].get(where("gold")))
    assert "1 retired known ranking" in page
    assert f"Retire known ranking {gold.pk}" not in page


def test_the_page_counts_the_people_who_ranked_it(
    ranked: AnswerSet, ann: User, clients: Clients
) -> None:
    send(clients["ada"], "gold-from", ranked.pk, data=fields(ranked, [1, 2, 3]))
    assert "ranked by 0 people" in text(clients["ada"].get(where("gold")))
    factories.make_ranking(Gold.objects.get().answer_set, ann)
    assert "ranked by 1 person" in text(clients["ada"].get(where("gold")))
    assert Ranking.objects.count() == 3


def test_an_empty_page_says_what_will_stand_there(project: Project, clients: Clients) -> None:
    page = text(clients["ada"].get(where("gold")))
    assert "Here the known rankings will stand" in page
    assert "Nobody has ranked anything yet." in page


def test_texts_are_text_and_never_markup(project: Project, ann: User, clients: Clients) -> None:
    prompt = factories.make_prompt(project, "<b>bold?</b>")
    texts = ["<script>alert(1)</script>", "<img src=x>"]
    ranked = factories.make_answer_set(project, prompt=prompt, answers=texts)
    factories.make_ranking(ranked, ann, [1, 2])
    send(clients["ada"], "gold-from", ranked.pk, data=fields(ranked, [1, 2]))
    for address in (where("gold"), where("gold-from", ranked.pk)):
        page = text(clients["ada"].get(address))
        for bad in ("<script>alert", "<img src=x>", "<b>bold"):
            assert bad not in page
