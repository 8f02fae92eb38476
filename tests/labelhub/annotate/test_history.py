"""My work: the list, one ranking with its earlier versions, and corrections."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from django.http import HttpResponse
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from labelhub.accounts.models import User
from labelhub.annotate.templatetags.annotate import time_spent
from labelhub.assignments.models import Slot
from labelhub.projects.actions import publish_guidelines
from labelhub.projects.models import Project
from labelhub.prompts.models import AnswerSet
from labelhub.rankings.models import Ranking, RankingItem
from labelhub.registry.models import ModelVersion, Parent
from labelhub.runs.models import Run, RunInput, Snapshot, SnapshotItem
from tests import factories
from tests.labelhub.annotate.pages import filled, form_of, refusal_of

URL = "/annotate/everyday/history/"


def text(client: Client, url: str) -> str:
    return client.get(url).content.decode()


def make(project: Project, by: User, ranks: list[int] | None = None, **fields: Any) -> Ranking:
    """A ranking of an own set; of another kind than an opinion with `kind`."""
    kind = fields.pop("kind", "opinion")
    question = fields.pop("question", "")
    purposes = {"gold": AnswerSet.Purpose.GOLD, "tutorial": AnswerSet.Purpose.TUTORIAL}
    answer_set = factories.make_answer_set(
        project,
        prompt=factories.make_prompt(project, question) if question else None,
        purpose=purposes.get(kind, AnswerSet.Purpose.RANK),
    )
    ranking = factories.make_ranking(answer_set, by, ranks, **fields)
    if kind == "repeat":
        original = factories.make_answer_set(project, prompt=answer_set.prompt)
        AnswerSet.objects.filter(pk=answer_set.pk).update(purpose="repeat", original=original)
    Slot.objects.filter(pk=ranking.slot_id).update(kind=kind)
    return ranking


def train(project: Project, *rankings: Ranking, number: int) -> ModelVersion:
    """A policy that descends from a snapshot of these rankings, by way of a reward model."""
    snapshot = Snapshot.objects.create(project=project, sha256="0" * 64, count=len(rankings))
    SnapshotItem.objects.bulk_create(
        SnapshotItem(snapshot=snapshot, ranking=one) for one in rankings
    )
    Ranking.objects.filter(pk__in=[one.pk for one in rankings]).update(frozen_at=timezone.now())
    reward = factories.make_version(
        f"reward-{number}", kind="reward", project=project, number=number
    )
    policy = factories.make_version(
        f"policy-{number}", kind="policy", project=project, number=number
    )
    Parent.objects.create(child=policy, parent=reward, role="reward")
    run = Run.objects.create(project=project, stage="reward", state="finished", output=reward)
    RunInput.objects.create(run=run, role="rankings", snapshot=snapshot)
    return policy


def rewind(ranking: Ranking, **ago: float) -> None:
    Ranking.objects.filter(pk=ranking.pk).update(created=timezone.now() - timedelta(**ago))


def open_correction(client: Client, ranking: Ranking) -> tuple[str, HttpResponse]:
    url = reverse("annotate:correct", args=["everyday", ranking.pk])
    return url, client.get(url)


def corrected(client: Client, ranking: Ranking, places: list[int], **more: str) -> HttpResponse:
    """Reopen the ranking and send this order: place i belongs to the answer number i of the set."""
    url, board = open_correction(client, ranking)
    ids = ranking.answer_set.answers.order_by("n").values_list("pk", flat=True)
    fields = {f"rank-{pk}": place for pk, place in zip(ids, places, strict=True)}
    return client.post(url, {**form_of(board), **fields, **more})


def stands(ranking: Ranking) -> list[int]:
    """The ranks by the number of the answer."""
    items = RankingItem.objects.filter(ranking=ranking).order_by("answer__n")
    return list(items.values_list("rank", flat=True))


# --- the list


def test_it_lists_what_i_ranked(clients: dict[str, Client], project: Project, ann: User) -> None:
    publish_guidelines(project=project, text="Newer.", by=None)
    make(project, ann, [2, 1, 2, 3], question="Where is Oslo?", active_ms=72_000,
         duration_ms=90_000)  # fmt: skip
    page = text(clients["ann"], URL)
    assert "Where is Oslo?" in page
    assert "B › A = C › D</span>" in page
    assert "best first: B, A = C, D" in page
    assert "1 min 12 s" in page
    assert "guidelines v2" in page
    assert "Today" in page
    assert ">late<" not in page
    assert ">corrected<" not in page


def test_it_marks_what_came_late_and_what_was_corrected(
    clients: dict[str, Client], project: Project, ann: User
) -> None:
    make(project, ann, late=True, revision=2)
    page = text(clients["ann"], URL)
    assert ">late<" in page
    assert ">corrected<" in page


def test_it_shows_nobody_elses_and_not_the_tutorial(
    clients: dict[str, Client], project: Project, ann: User, ben: User
) -> None:
    theirs = make(project, ben, question="Whose is this?")
    lesson = make(project, ann, kind="tutorial", question="How does one learn?")
    page = text(clients["ann"], URL)
    assert "Nothing ranked yet" in page
    assert "Whose is this?" not in page
    for ranking in (theirs, lesson):
        for name in ("ranking", "correct"):
            url = reverse(f"annotate:{name}", args=["everyday", ranking.pk])
            assert clients["ann"].get(url).status_code == 404


def test_days_stand_apart_and_the_newest_first(
    clients: dict[str, Client], project: Project, ann: User
) -> None:
    older = make(project, ann, question="An older one?")
    make(project, ann, question="A newer one?")
    rewind(older, days=3)
    page = text(clients["ann"], URL)
    date = timezone.localdate(timezone.now() - timedelta(days=3)).isoformat()
    assert page.index("Today") < page.index("A newer one?") < page.index(f">{date}<")
    assert page.index(f">{date}<") < page.index("An older one?")


def test_it_is_paged(clients: dict[str, Client], project: Project, ann: User) -> None:
    for n in range(41):
        make(project, ann, question=f"Question number {n}?")
    page = text(clients["ann"], URL)
    assert "Page 1 of 2" in page
    assert "Question number 40?" in page
    assert "Question number 0?" not in page
    second = text(clients["ann"], f"{URL}?page=2")
    assert "Question number 0?" in second
    assert "Question number 1?" not in second


def test_a_long_list_costs_no_more_reads_than_a_short_one(
    clients: dict[str, Client], project: Project, ann: User, django_assert_max_num_queries: Any
) -> None:
    for _ in range(30):
        make(project, ann)
    text(clients["ann"], URL)
    with django_assert_max_num_queries(32):
        text(clients["ann"], URL)


def test_it_tells_which_policies_learned_from_a_day(
    clients: dict[str, Client], project: Project, ann: User, ben: User
) -> None:
    learned, other = make(project, ann), make(project, ann)
    rewind(learned, days=1)
    rewind(other, days=2)
    train(project, learned, make(project, ben), number=7)
    page = text(clients["ann"], URL)
    assert page.count("From this day learned:") == 1
    assert page.count("policy v7") == 2, "on top, and on that day"
    for url in ("/annotate/", "/annotate/everyday/next/"):
        assert "Your rankings trained" in text(clients["ann"], url)
        assert "policy v7" in text(clients["ann"], url)
    assert "policy v7" not in text(clients["ada"], "/annotate/")


@pytest.mark.parametrize("kind", ["gold", "repeat"])
@pytest.mark.parametrize("when", ["before training", "after training"])
def test_known_rankings_and_repeats_look_like_any_other(
    clients: dict[str, Client], project: Project, ann: User, kind: str, when: str
) -> None:
    """Row and page are the same but for ids, also once the others went into training."""
    plain = make(project, ann, question="The same question? 1")
    special = make(project, ann, question="The same question? 2", kind=kind)
    if when == "after training":
        train(project, plain, number=1)
    rows = re.findall(r"<li>.*?</li>", text(clients["ann"], URL), re.DOTALL)
    pages = [
        text(clients["ann"], reverse("annotate:ranking", args=["everyday", one.pk]))
        for one in (plain, special)
    ]

    def bare(html: str) -> str:
        html = re.sub(r'nonce="[^"]*"|name="csrfmiddlewaretoken" value="[^"]*"', "", html)
        return re.sub(r"\d+", "0", html)

    assert len(rows) == 2
    assert bare(rows[0]) == bare(rows[1])
    assert bare(pages[0]) == bare(pages[1])
    closed = "can no longer be corrected" in pages[1]
    assert closed == (when == "after training")


# --- one ranking


def test_a_ranking_stands_there_with_all_that_was_said(
    clients: dict[str, Client], project: Project, ann: User
) -> None:
    Project.objects.update(attributes=[{"key": "rude", "label": "It is rude"}])
    ranking = make(project, ann, [2, 1, 2, 3], ideal_answer="Say <hello>.", all_bad=True)
    RankingItem.objects.filter(ranking=ranking, rank=1).update(
        gap=2, likert=6, critique="Kind & short.", attributes=["rude", "gone_since"],
        spans=[{"start": 0, "end": 6, "quote": "Answer", "tag": "good", "note": "Yes."}],
    )  # fmt: skip
    page = text(clients["ann"], reverse("annotate:ranking", args=["everyday", ranking.pk]))
    assert "B is clearly better than A = C" in page
    assert "grade 6 of 7" in page
    assert "Kind &amp; short." in page
    assert "It is rude" in page
    assert "gone_since" in page
    assert '<q class="good" lang="en">Answer</q>' in page
    assert "Say &lt;hello&gt;." in page
    assert "no answer is usable" in page
    assert page.index("Answer 1</p>") < page.index("Answer 0</p>") < page.index("Answer 3</p>")


# --- corrections


def test_a_ranking_of_today_is_reopened_as_it_stands(
    clients: dict[str, Client], project: Project, ann: User
) -> None:
    ranking = make(project, ann, [2, 1, 2, 3])
    _url, board = open_correction(clients["ann"], ranking)
    page = board.content.decode()
    assert 'data-mode="correct"' in page
    form = form_of(board)
    ids = ranking.answer_set.answers.order_by("n").values_list("pk", flat=True)
    assert [form[f"rank-{pk}"] for pk in ids] == ["2", "1", "2", "3"]


def test_the_corrected_one_stands_and_the_old_one_is_kept_and_shown(
    clients: dict[str, Client], project: Project, ann: User
) -> None:
    ranking = make(project, ann, [1, 2, 3, 4])
    publish_guidelines(project=project, text="Newer.", by=None)
    response = corrected(clients["ann"], ranking, [4, 3, 2, 1])
    assert response.url == reverse("annotate:ranking", args=["everyday", ranking.pk])
    assert stands(ranking) == [4, 3, 2, 1]
    page = text(clients["ann"], response.url)
    assert "The corrected ranking stands; the one before it is kept." in page
    before = page[page.index("How it stood before") :]
    assert "A › B › C › D</span>" in before
    assert "version 1, until" in before
    assert "guidelines v1" in before
    assert ">D › C › B › A</span>" in page[: page.index("How it stood before")]
    assert "guidelines v2" in page[: page.index("How it stood before")]
    assert ">corrected<" in text(clients["ann"], URL)


def test_it_may_be_corrected_twice(clients: dict[str, Client], project: Project, ann: User) -> None:
    ranking = make(project, ann, [1, 2, 3, 4])
    corrected(clients["ann"], ranking, [4, 3, 2, 1])
    corrected(clients["ann"], ranking, [1, 1, 2, 2])
    assert stands(ranking) == [1, 1, 2, 2]
    page = text(clients["ann"], reverse("annotate:ranking", args=["everyday", ranking.pk]))
    assert page.index("version 1, until") < page.index("version 2, until")


def test_of_two_tabs_the_second_is_told_and_loses_nothing(
    clients: dict[str, Client], project: Project, ann: User
) -> None:
    ranking = make(project, ann, [1, 2, 3, 4])
    url, second = open_correction(clients["ann"], ranking)
    corrected(clients["ann"], ranking, [4, 3, 2, 1])
    response = clients["ann"].post(url, filled(second, [2, 1, 1, 1]))
    assert response.status_code == 409
    assert "changed meanwhile" in refusal_of(response)
    assert stands(ranking) == [4, 3, 2, 1]
    sent = form_of(response)
    places = [value for name, value in sent.items() if name.startswith("rank-")]
    assert sorted(places) == ["1", "1", "1", "2"]


def test_a_half_filled_correction_changes_nothing(
    clients: dict[str, Client], project: Project, ann: User
) -> None:
    ranking = make(project, ann, [1, 2, 3, 4])
    url, board = open_correction(clients["ann"], ranking)
    response = clients["ann"].post(url, filled(board, {"A": ""}))
    assert response.status_code == 422
    assert "Card A has no place yet" in refusal_of(response)
    assert stands(ranking) == [1, 2, 3, 4]


def test_one_of_yesterday_is_closed(
    clients: dict[str, Client], project: Project, ann: User
) -> None:
    ranking = make(project, ann)
    url, board = open_correction(clients["ann"], ranking)
    rewind(ranking, days=1)
    page = text(clients["ann"], reverse("annotate:ranking", args=["everyday", ranking.pk]))
    assert "Only rankings of today can be corrected." in page
    assert "Reopen and correct" not in page
    response = clients["ann"].get(url)
    assert response.url == reverse("annotate:ranking", args=["everyday", ranking.pk])
    response = clients["ann"].post(url, filled(board, [4, 3, 2, 1]))
    assert response.status_code == 409
    assert "Only rankings of today" in refusal_of(response)
    assert stands(ranking) == [1, 2, 3, 4]


def test_one_that_something_was_trained_on_is_closed(
    clients: dict[str, Client], project: Project, ann: User
) -> None:
    ranking = make(project, ann)
    train(project, ranking, number=1)
    page = text(clients["ann"], reverse("annotate:ranking", args=["everyday", ranking.pk]))
    assert "part of a snapshot for training" in page
    _url, board = open_correction(clients["ann"], ranking)
    assert board.status_code == 302


def test_it_is_for_the_person_alone(
    clients: dict[str, Client], project: Project, ann: User
) -> None:
    ranking = make(project, ann)
    _url, board = open_correction(clients["ann"], ranking)
    form = filled(board, [4, 3, 2, 1])
    one = reverse("annotate:ranking", args=["everyday", ranking.pk])
    correct = reverse("annotate:correct", args=["everyday", ranking.pk])
    for who in ("ben", "ada", "mallory"):
        assert clients[who].get(one).status_code == 404
        assert clients[who].get(correct).status_code == 404
        assert clients[who].post(correct, form).status_code == 404
    for url in (URL, one, correct):
        assert clients["nobody"].get(url).url == f"/accounts/login/?next={url}"
    assert clients["mallory"].get(URL).status_code == 404
    assert clients["ada"].get(URL).status_code == 200
    assert stands(ranking) == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("milliseconds", "words"),
    [(0, "0 s"), (59_400, "59 s"), (59_600, "1 min 0 s"), (72_000, "1 min 12 s"),
     (3_600_000, "1 h 0 min"), (7_380_000, "2 h 3 min")],
)  # fmt: skip
def test_time_in_words(milliseconds: int, words: str) -> None:
    assert time_spent(milliseconds) == words
