"""What leaves the house: lines for the trainer, agreement for admins, progress for a person."""

from __future__ import annotations

import json

import pytest

from labelhub.accounts.models import User
from labelhub.assignments.models import Slot
from labelhub.projects.models import Project
from labelhub.rankings import queries
from labelhub.rankings.models import Ranking
from labelhub.rankings.queries import (
    agreement_in,
    export_lines,
    history_of,
    progress_of,
    sft_lines,
)
from tests.factories import (
    hold,
    make_answer_set,
    make_project,
    make_prompt,
    make_ranking,
    make_user,
    make_version,
)

pytestmark = pytest.mark.django_db


def test_a_line_is_that_of_the_contract(project: Project, ann: User) -> None:
    prompt = make_prompt(project, "Why is the sky blue?")
    answer_set = make_answer_set(project, prompt=prompt, answers=["Dust.", "Light scatters."])
    make_ranking(answer_set, ann, [2, 1])
    first, second = (str(one.pk) for one in answer_set.answers.order_by("n"))
    assert list(export_lines(Ranking.objects.all())) == [
        {
            "prompt": [{"role": "user", "content": "Why is the sky blue?"}],
            "answers": [
                {"id": first, "text": "Dust."},
                {"id": second, "text": "Light scatters."},
            ],
            "ranks": {first: 2, second: 1},
            "annotator": str(ann.pk),
            "weight": 1.0,
        }
    ]


def test_gaps_are_given_where_somebody_gave_them(project: Project, ann: User) -> None:
    ranking = make_ranking(make_answer_set(project), ann, [1, 2, 2, 3])
    ranking.items.filter(rank=2, answer__n=1).update(gap=3)
    (line,) = export_lines(Ranking.objects.all())
    assert line["gaps"] == [None, 3]


def test_weights_are_given_where_somebody_gave_them(project: Project, ann: User, ben: User) -> None:
    answer_set = make_answer_set(project)
    anns = make_ranking(answer_set, ann)
    make_ranking(answer_set, ben)
    lines = export_lines(Ranking.objects.all(), {anns.pk: 0.25})
    assert [line["weight"] for line in lines] == [0.25, 1.0]


def test_what_is_said_beside_the_order_never_reaches_the_reward_model(
    project: Project, ann: User
) -> None:
    ranking = make_ranking(
        make_answer_set(project), ann, ideal_answer="Say this instead.", all_bad=True
    )
    ranking.items.update(likert=7, critique="Too long.", attributes=["rude"])
    (line,) = export_lines(Ranking.objects.all())
    assert set(line) == {"prompt", "answers", "ranks", "annotator", "weight"}


def test_no_line_tells_who_or_what_wrote_it(project: Project) -> None:
    cid = make_user("cid-with-a-name")
    version = make_version("a-model-with-a-name")
    make_ranking(make_answer_set(project, version=version), cid)
    text = json.dumps(list(export_lines(Ranking.objects.all())))
    assert "cid" not in text
    assert "a-model" not in text


def test_lines_come_oldest_first_from_a_list_or_a_query(
    project: Project, ann: User, ben: User
) -> None:
    answer_set = make_answer_set(project)
    rankings = [make_ranking(answer_set, ann), make_ranking(answer_set, ben, [4, 3, 2, 1])]
    expected = [str(ann.pk), str(ben.pk)]
    for given in (Ranking.objects.order_by("-pk"), rankings[::-1]):
        assert [line["annotator"] for line in export_lines(given)] == expected


def test_many_rankings_are_read_in_few_queries(
    project: Project,
    ann: User,
    monkeypatch: pytest.MonkeyPatch,
    django_assert_num_queries: object,
) -> None:
    for _ in range(7):
        make_ranking(make_answer_set(project, answers=2), ann)
    monkeypatch.setattr(queries, "_CHUNK", 3)
    # One for the rankings, then four (items, answers, sets, prompts) for each chunk of 3, 3 and 1.
    with django_assert_num_queries(1 + 3 * 4):  # type: ignore[operator]
        assert len(list(export_lines(Ranking.objects.all()))) == 7


# --- ideal answers


def test_an_ideal_answer_is_a_pair_for_fine_tuning(project: Project, ann: User, ben: User) -> None:
    answer_set = make_answer_set(project, prompt=make_prompt(project, "Why is the sky blue?"))
    make_ranking(answer_set, ann, ideal_answer="It scatters blue light.")
    make_ranking(answer_set, ben, [1, 1, 1, 1], ideal_answer="Rayleigh.")
    make_ranking(make_answer_set(project), ann)
    asked = [{"role": "user", "content": "Why is the sky blue?"}]
    assert list(sft_lines(project)) == [
        {"prompt": asked, "answer": "It scatters blue light.", "annotator": str(ann.pk)},
        {"prompt": asked, "answer": "Rayleigh.", "annotator": str(ben.pk)},
    ]


def test_nothing_held_out_simulated_or_learnt_is_fine_tuned_on(project: Project, ann: User) -> None:
    held_out = make_prompt(project, held_out=True)
    make_ranking(make_answer_set(project, prompt=held_out), ann, ideal_answer="A")
    robot = make_user("robot", is_simulated=True)
    make_ranking(make_answer_set(project), robot, ideal_answer="B")
    lesson = make_ranking(make_answer_set(project, purpose="tutorial"), ann, ideal_answer="C")
    Slot.objects.filter(pk=lesson.slot_id).update(kind=Slot.Kind.TUTORIAL)
    elsewhere = make_project("elsewhere", annotators=[ann])
    make_ranking(make_answer_set(elsewhere), ann, ideal_answer="D")
    assert list(sft_lines(project)) == []


# --- figures, and a person's own


def test_the_history_is_newest_first_and_gives_no_known_ranking_away(
    project: Project, ann: User, ben: User
) -> None:
    first = make_ranking(make_answer_set(project), ann)
    gold = make_ranking(make_answer_set(project, purpose="gold"), ann)
    Slot.objects.filter(pk=gold.slot_id).update(kind=Slot.Kind.GOLD)
    lesson = make_ranking(make_answer_set(project, purpose="tutorial"), ann)
    Slot.objects.filter(pk=lesson.slot_id).update(kind=Slot.Kind.TUTORIAL)
    make_ranking(first.answer_set, ben)
    make_ranking(make_answer_set(make_project("elsewhere", annotators=[ann])), ann)
    assert list(history_of(ann, project)) == [gold, first]


def test_agreement_is_counted_over_shared_sets(project: Project, ann: User, ben: User) -> None:
    shared, alone = make_answer_set(project), make_answer_set(project)
    make_ranking(shared, ann, [1, 2, 3, 4])
    make_ranking(shared, ben, [2, 1, 3, 3])  # swaps one pair, ties another
    make_ranking(alone, ann)
    assert agreement_in(Ranking.objects.filter(project=project)) == (4, 5)


def test_a_person_sees_how_far_they_are(project: Project, ann: User, ben: User) -> None:
    for seconds in (20, 40, 90):
        make_ranking(make_answer_set(project), ann, active_ms=seconds * 1000, duration_ms=100_000)
    make_ranking(make_answer_set(project), ben)
    make_answer_set(project, slots=1)
    hold(make_answer_set(project, slots=1).slots.get(), ann)
    progress = progress_of(ann, project)
    assert (progress.today, progress.total, progress.left) == (3, 3, 2)
    assert progress.seconds_each == 40
    assert progress.share == 0.6


def test_at_the_very_beginning_there_is_no_pace(project: Project, ann: User) -> None:
    make_answer_set(project, slots=1)
    progress = progress_of(ann, project)
    assert (progress.total, progress.left, progress.share) == (0, 1, 0.0)
    assert progress.seconds_each is None


def test_with_nothing_to_do_all_is_done(project: Project, ann: User) -> None:
    assert progress_of(ann, project).share == 1.0
