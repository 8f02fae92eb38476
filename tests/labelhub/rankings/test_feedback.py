"""What is said beside the order: kept as it was said, refused when it cannot be true."""

from __future__ import annotations

from typing import Any

import pytest

from labelhub.accounts.models import User
from labelhub.lib.errors import Refused
from labelhub.lib.markdown import plain
from labelhub.projects.models import Project
from labelhub.prompts.models import AnswerSet
from labelhub.rankings.actions import REASONS
from labelhub.rankings.models import Ranking
from labelhub.rankings.queries import feedback_of
from labelhub.rankings.rules import (
    BAD,
    GOOD,
    BadFeedback,
    Feedback,
    ItemFeedback,
    Span,
    checked_feedback,
    spans_from_json,
    spans_to_json,
)
from tests.factories import make_answer_set
from tests.labelhub.rankings.desk import about, answer_ids, rank

TEXT = "The capital of Peru is **Lima** & not Quito."
READ = "The capital of Peru is Lima & not Quito."


@pytest.fixture
def answer_set(project: Project) -> AnswerSet:
    project.attributes = [
        {"key": "hallucination", "label": "Made-up facts"},
        {"key": "rude", "label": "Rude"},
    ]
    project.save()
    return make_answer_set(project, answers=[TEXT, "Lima.", "Quito.", "No idea."], slots=2)


def lima(**changes: Any) -> Span:
    """“Lima” in the answer as it is read."""
    return Span(**({"start": 23, "end": 27, "quote": "Lima", "tag": GOOD} | changes))


# --- stored


@pytest.mark.django_db
def test_everything_that_was_said_is_stored(answer_set: AnswerSet, ann: User) -> None:
    first, second, *_rest = answer_ids(answer_set)
    said = Feedback(
        all_bad=True,
        refusal_right=True,
        ideal_answer="  Lima is the capital of Peru.\n",
        items={
            first: ItemFeedback(
                likert=7,
                attributes=("hallucination", "rude"),
                critique=" Says too much. ",
                spans=(lima(note=" Right. "), lima(start=34, end=39, quote="Quito", tag=BAD)),
            ),
            second: ItemFeedback(likert=1),
        },
    )
    ranking = Ranking.objects.get(pk=rank(answer_set, ann, feedback=said).pk)
    assert (ranking.all_bad, ranking.refusal_right) == (True, True)
    assert ranking.ideal_answer == "Lima is the capital of Peru."
    item = ranking.items.get(answer=first)
    assert (item.likert, item.attributes) == (7, ["hallucination", "rude"])
    assert item.critique == "Says too much."
    assert item.spans == [
        {"start": 23, "end": 27, "quote": "Lima", "tag": "good", "note": "Right."},
        {"start": 34, "end": 39, "quote": "Quito", "tag": "bad", "note": ""},
    ]
    assert ranking.items.get(answer=second).likert == 1
    other = ranking.items.get(answer__n=3)
    assert (other.likert, other.attributes, other.critique, other.spans) == (None, [], "", [])


@pytest.mark.django_db
def test_what_was_stored_can_be_shown_again(answer_set: AnswerSet, ann: User) -> None:
    first = answer_ids(answer_set)[0]
    item = ItemFeedback(likert=4, attributes=("rude",), critique="Hm.", spans=(lima(),))
    ranking = rank(answer_set, ann, feedback=Feedback(ideal_answer="Lima.", items={first: item}))
    shown = feedback_of(Ranking.objects.get(pk=ranking.pk))
    assert (shown.all_bad, shown.refusal_right, shown.ideal_answer) == (False, False, "Lima.")
    assert shown.items[first] == item
    assert set(shown.items) == set(answer_ids(answer_set))


@pytest.mark.django_db
def test_a_ranking_needs_no_feedback(answer_set: AnswerSet, ann: User) -> None:
    ranking = rank(answer_set, ann)
    assert (ranking.all_bad, ranking.refusal_right, ranking.ideal_answer) == (False, False, "")
    assert all(item.spans == item.attributes == [] for item in ranking.items.all())


@pytest.mark.django_db
def test_characters_that_no_database_keeps_refuse_nothing(answer_set: AnswerSet, ann: User) -> None:
    first = answer_ids(answer_set)[0]
    said = about(first, critique="a\x00b", spans=(lima(note="\ud800"),))
    ranking = rank(answer_set, ann, feedback=said)
    item = ranking.items.get(answer=first)
    assert (item.critique, item.spans[0]["note"]) == ("a\ufffdb", "\ufffd")


@pytest.mark.django_db
def test_marked_places_count_characters_of_the_answer_as_it_is_read(
    project: Project, ann: User
) -> None:
    text = "# Größe\n\n读 **好** <b>x</b> 😀 end"
    read = plain(text)
    start = read.index("😀")
    answer_set = make_answer_set(project, answers=[text, "B"])
    span = Span(start=start, end=start + 1, quote="😀", tag=GOOD)
    ranking = rank(
        answer_set, ann, (1, 2), feedback=about(answer_ids(answer_set)[0], spans=(span,))
    )
    (kept,) = ranking.items.get(answer__n=0).spans
    assert read[kept["start"] : kept["end"]] == "😀"


# --- refused


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ({"likert": 0}, "whole number from 1 to 7"),
        ({"likert": 8}, "whole number from 1 to 7"),
        ({"likert": 2.5}, "whole number from 1 to 7"),
        ({"likert": True}, "whole number from 1 to 7"),
        ({"attributes": ("kind",)}, "does not ask about “kind” any more"),
        ({"critique": "x" * 5001}, "longer than 5000 characters"),
        ({"spans": (lima(note="x" * 501),)}, "longer than 500 characters"),
        ({"spans": (lima(),) * 51}, "more than 50 marked places"),
        ({"spans": (lima(tag="ugly"),)}, "good or bad"),
        ({"spans": (lima(quote="lima"),)}, "“lima” is not where it was"),
        ({"spans": (lima(start=22),)}, "is not where it was"),
        ({"spans": (lima(start=27, end=27, quote=""),)}, "is not where it was"),
        ({"spans": (lima(start=-17, end=-13),)}, "is not where it was"),
        ({"spans": (lima(start=38, end=44, quote="o."),)}, "is not where it was"),
        ({"spans": (lima(start=25, end=29),)}, "is not where it was"),
    ],
)
def test_what_cannot_be_true_is_refused_and_nothing_is_stored(
    answer_set: AnswerSet, ann: User, said: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(Refused, match=sentence) as refused:
        rank(answer_set, ann, feedback=about(answer_ids(answer_set)[0], **said))
    assert (refused.value.status, refused.value.code) == (400, "bad_feedback")
    assert not Ranking.objects.exists()
    assert answer_set.slots.filter(state="held", holder=ann).count() == 1


@pytest.mark.django_db
def test_an_ideal_answer_has_an_end(answer_set: AnswerSet, ann: User) -> None:
    with pytest.raises(Refused, match="longer than 20000 characters"):
        rank(answer_set, ann, feedback=Feedback(ideal_answer="x" * 20_001))


@pytest.mark.django_db
def test_feedback_on_an_answer_of_another_set_is_refused(
    answer_set: AnswerSet, project: Project, ann: User
) -> None:
    elsewhere = answer_ids(make_answer_set(project))[0]
    with pytest.raises(Refused, match="not among these"):
        rank(answer_set, ann, feedback=about(elsewhere, likert=3, spans=(lima(),)))


# --- the rules alone


def test_places_are_counted_in_what_is_read_and_not_in_the_markup() -> None:
    said = about(1, spans=(lima(),))
    assert checked_feedback(said, read={1: READ}, attributes=()) == said
    with pytest.raises(BadFeedback):
        checked_feedback(said, read={1: TEXT}, attributes=())


def test_a_flag_given_twice_counts_once() -> None:
    said = about(1, attributes=("rude", "rude"))
    checked = checked_feedback(said, read={1: READ}, attributes=["rude"])
    assert checked.items[1].attributes == ("rude",)


def test_marked_places_go_to_json_and_back() -> None:
    spans = (lima(note="Yes."), lima(tag=BAD))
    assert spans_from_json(spans_to_json(spans)) == spans
    assert spans_from_json([]) == ()
    without_note = {"start": 0, "end": 1, "quote": "T", "tag": "good"}
    assert spans_from_json([without_note]) == (Span(0, 1, "T", "good"),)


@pytest.mark.parametrize(
    "rows",
    [
        None,
        {},
        "[]",
        [1],
        [{"start": 0, "end": 1, "quote": "T"}],
        [{"start": "0", "end": 1, "quote": "T", "tag": "good"}],
        [{"start": True, "end": 1, "quote": "T", "tag": "good"}],
        [{"start": 0, "end": 1, "quote": "T", "tag": "good", "note": 5}],
    ],
)
def test_what_is_no_list_of_places_is_refused(rows: object) -> None:
    with pytest.raises(BadFeedback) as bad:
        spans_from_json(rows)
    assert bad.value.reason == "span_form"


def test_every_reason_has_its_sentence() -> None:
    values = {"low": 1, "high": 7, "key": "k", "limit": 5, "quote": "q"}
    for reason, sentence in REASONS.items():
        assert "%" not in str(sentence) % values, reason
