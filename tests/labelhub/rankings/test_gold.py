"""Known rankings: made from a ranked set or from texts, imported, retired."""

from __future__ import annotations

import json
from typing import Any

import pytest

from labelhub.accounts.models import AuditEntry, User
from labelhub.assignments.models import Slot
from labelhub.lib.errors import Refused
from labelhub.projects.models import Project
from labelhub.prompts.models import AnswerSet, Prompt
from labelhub.rankings.actions import import_gold, make_gold, retire_gold
from labelhub.rankings.models import Gold
from labelhub.rankings.queries import gold_in
from tests.factories import make_answer_set, make_project, make_prompt, make_slot, make_version
from tests.labelhub.rankings.desk import answer_ids, ranks_of, states, take

pytestmark = pytest.mark.django_db
Purpose = AnswerSet.Purpose
LINE = {"prompt": "Capital of Peru?", "answers": ["Lima.", "Quito.", "No."], "ranks": [1, 3, 2]}


def by_text(gold: Gold) -> dict[str, int]:
    """The known ranks by the answers' texts."""
    texts = dict(gold.answer_set.answers.values_list("pk", "text"))
    return {texts[int(pk)]: rank for pk, rank in gold.ranks.items()}


# --- from a set that was ranked


def test_it_is_a_copy_that_touches_nothing_else(project: Project, ada: User) -> None:
    source = make_answer_set(project, version=make_version("m1"), slots=1)
    source.answers.filter(n=0).update(logprob=-2.5, seed=7, finished=False, sampling={"t": 1})
    gold = make_gold(
        project=project, by=ada, answer_set=source, ranks=ranks_of(source, (3, 9, 3, 1))
    )
    known = gold.answer_set
    assert known.pk != source.pk
    assert (known.purpose, known.prompt) == (Purpose.GOLD, source.prompt)
    assert by_text(gold) == {"Answer 0": 2, "Answer 1": 3, "Answer 2": 2, "Answer 3": 1}
    first = known.answers.get(n=0)
    assert (first.version.name, first.logprob, first.seed) == ("m1", -2.5, 7)
    assert (first.finished, first.sampling) == (False, {"t": 1})
    assert states(source) == ["open"]
    assert states(known) == []


def test_it_says_who_made_it_and_why(project: Project, ada: User) -> None:
    gold = make_gold(
        project=project,
        by=ada,
        answer_set=make_answer_set(project),
        ranks=[1, 2, 3, 4],
        explanation="  The first is right.\x00 ",
    )
    assert (gold.created_by, gold.explanation) == (ada, "The first is right.\ufffd")
    entry = AuditEntry.objects.get(action="gold.make")
    assert entry.details == {"answer_set": gold.answer_set_id, "tutorial": False}


def test_the_tutorial_keeps_the_order_in_which_it_was_made(project: Project, ada: User) -> None:
    lessons = [
        make_gold(
            project=project,
            by=ada,
            answer_set=make_answer_set(project),
            ranks=[1, 2, 3, 4],
            tutorial=True,
        )
        for _ in range(3)
    ]
    assert [one.place for one in lessons] == [0, 1, 2]
    assert {one.answer_set.purpose for one in lessons} == {Purpose.TUTORIAL}
    assert list(gold_in(project)) == lessons


# --- from texts


def test_texts_need_no_model(project: Project, ada: User) -> None:
    prompt = make_prompt(project)
    gold = make_gold(
        project=project, by=ada, prompt=prompt, texts=["Yes.", "I am ChatGPT."], ranks=[1, 2]
    )
    answers = list(gold.answer_set.answers.order_by("n"))
    assert [(one.text, one.version, one.names_model) for one in answers] == [
        ("Yes.", None, False),
        ("I am ChatGPT.", None, True),
    ]


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"texts": "Yes."}, "must be a list of texts"),
        ({"texts": ["Yes.", " "]}, "Answer 2 is no text"),
        ({"texts": ["Yes.", 5]}, "Answer 2 is no text"),
        ({"texts": ["Yes.", "x\x00"]}, "Answer 2 is no text"),
        ({"texts": ["x" * 50_001, "No."]}, "Answer 1 is longer than 50000 characters"),
        ({"texts": ["Yes.", "Yes."]}, "the same text"),
        ({"texts": ["Yes."], "ranks": [1]}, "at least one answer above another"),
        ({"texts": [str(n) for n in range(10)], "ranks": list(range(1, 11))}, "2 to 9 answers"),
        ({"ranks": [1]}, "one place for each of its 2 answers"),
        ({"ranks": [1, 2, 3]}, "one place for each of its 2 answers"),
        ({"ranks": [0, 1]}, "a whole number from 1"),
        ({"ranks": [True, 2]}, "a whole number from 1"),
        ({"ranks": "12"}, "one place for each"),
        ({"ranks": None}, "one place for each"),
        ({"ranks": [1, 1]}, "at least one answer above another"),
        ({"explanation": "x" * 5001}, "at most 5000 characters"),
    ],
)
def test_what_cannot_be_known_is_refused(
    project: Project, ada: User, given: dict[str, Any], sentence: str
) -> None:
    whole = {"texts": ["Yes.", "No."], "ranks": [1, 2]} | given
    with pytest.raises(Refused, match=sentence) as refused:
        make_gold(project=project, by=ada, prompt=make_prompt(project), **whole)
    assert refused.value.status == 400
    assert not Gold.objects.exists()
    assert not AnswerSet.objects.exists()


def test_a_rank_for_an_answer_of_another_set_is_refused(project: Project, ada: User) -> None:
    source, other = make_answer_set(project), make_answer_set(project)
    with pytest.raises(Refused, match="one place for each of its 4 answers"):
        make_gold(project=project, by=ada, answer_set=source, ranks=ranks_of(other, (1, 2, 3, 4)))


def test_another_projects_prompt_is_refused(project: Project, ada: User) -> None:
    elsewhere = make_answer_set(make_project())
    with pytest.raises(Refused, match="prompt of this project"):
        make_gold(project=project, by=ada, answer_set=elsewhere, ranks=[1, 2, 3, 4])
    with pytest.raises(Refused, match="prompt of this project"):
        make_gold(project=project, by=ada, texts=["Yes.", "No."], ranks=[1, 2])


# --- retired


def test_a_retired_one_is_given_to_nobody(
    project: Project, ada: User, ann: User, ben: User
) -> None:
    source = make_answer_set(project)
    gold = make_gold(project=project, by=ada, answer_set=source, ranks=[1, 2, 3, 4])
    held = take(gold.answer_set, ann, kind=Slot.Kind.GOLD)
    make_slot(gold.answer_set, kind=Slot.Kind.GOLD)
    retire_gold(gold=gold, by=ada)
    assert gold.answer_set.retired is True
    assert list(gold_in(project)) == []
    held.refresh_from_db()
    assert (held.state, held.holder) == ("held", ann)
    assert sorted(states(gold.answer_set, Slot.Kind.GOLD)) == ["closed", "held"]
    assert AuditEntry.objects.filter(action="gold.retire").count() == 1


# --- imported


def test_a_line_becomes_a_known_ranking(project: Project, ada: User) -> None:
    line = LINE | {"explanation": "Lima is the capital.", "skill": "geography", "language": "en"}
    report = import_gold(project=project, lines=[json.dumps(line)], by=ada)
    assert (report.added, report.duplicates, report.refused) == (1, 0, [])
    gold = Gold.objects.get()
    assert by_text(gold) == {"Lima.": 1, "Quito.": 3, "No.": 2}
    assert gold.explanation == "Lima is the capital."
    prompt = Prompt.objects.get()
    assert (prompt.messages[0]["content"], prompt.skill) == ("Capital of Peru?", "geography")
    assert AuditEntry.objects.get(action="gold.import").details["added"] == 1


def test_it_joins_the_prompt_that_is_there(project: Project, ada: User) -> None:
    import_gold(project=project, lines=[LINE, LINE | {"answers": ["1", "2", "3"]}], by=ada)
    assert Prompt.objects.count() == 1
    assert Gold.objects.count() == 2


def test_the_same_again_is_counted_and_left(project: Project, ada: User) -> None:
    turned = LINE | {"answers": LINE["answers"][::-1], "ranks": [2, 3, 1]}
    report = import_gold(project=project, lines=[LINE, "", LINE, turned], by=ada)
    assert (report.added, report.duplicates) == (1, 2)
    report = import_gold(project=project, lines=[LINE | {"tutorial": True}, LINE], by=ada)
    assert (report.added, report.duplicates) == (1, 1)
    assert set(Gold.objects.values_list("answer_set__purpose", flat=True)) == {
        Purpose.GOLD,
        Purpose.TUTORIAL,
    }


def test_one_that_was_retired_can_come_back(project: Project, ada: User) -> None:
    import_gold(project=project, lines=[LINE], by=ada)
    retire_gold(gold=Gold.objects.get(), by=ada)
    assert import_gold(project=project, lines=[LINE], by=ada).added == 1
    assert gold_in(project).count() == 1


def test_bad_lines_are_refused_by_number_and_the_others_added(project: Project, ada: User) -> None:
    lines = [
        "{",
        LINE | {"ranks": [1, 1, 1]},
        LINE | {"answers": None},
        LINE | {"tutorial": "yes"},
        LINE | {"prompt": ""},
        {"prompt": "No answers?", "ranks": [1, 2]},
        LINE,
    ]
    report = import_gold(project=project, lines=lines, by=ada)
    assert report.added == 1
    assert [number for number, _sentence in report.refused] == [1, 2, 3, 4, 5, 6]
    assert "not valid JSON" in report.refused[0][1]
    assert "true or false" in report.refused[3][1]
    # A refused line leaves nothing behind, not even its prompt.
    assert Prompt.objects.count() == AnswerSet.objects.count() == 1


def test_the_factory_and_the_import_speak_of_the_same_ids(project: Project, ada: User) -> None:
    import_gold(project=project, lines=[LINE], by=ada)
    gold = Gold.objects.get()
    assert [int(pk) for pk in gold.ranks] == answer_ids(gold.answer_set)
