"""Importing prompts, holding some out, and keeping the answers to one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from labelhub.accounts.models import AuditEntry, User
from labelhub.lib.errors import Refused
from labelhub.projects.models import Project
from labelhub.prompts.actions import (
    create_answer_set,
    hold_out,
    import_prompts,
    restore_prompt,
    retire_prompt,
)
from labelhub.prompts.models import Answer, AnswerSet, Prompt
from labelhub.prompts.queries import answer_lines, answers_of, prompt_lines, usable_prompts
from tests.factories import make_answer_set, make_project, make_prompt, make_version
from tests.labelhub.constraints import names_of, refused_by

pytestmark = pytest.mark.django_db
FIXTURES = Path(__file__).resolve().parents[3] / "labelhub" / "prompts" / "fixtures"


def line(text: str, **more: object) -> str:
    return json.dumps({"prompt": [{"role": "user", "content": text}], **more})


# --- import


def test_it_adds_prompts(project: Project, ada: User) -> None:
    lines = [line("Why?", language="en", topic="doubt"), '{"prompt": "How?"}']
    report = import_prompts(project=project, lines=lines, by=ada)
    assert (report.added, report.duplicates, report.refused) == (2, 0, [])
    why, how = Prompt.objects.all()
    assert why.messages == [{"role": "user", "content": "Why?"}]
    assert (why.language, why.topic) == ("en", "doubt")
    assert how.messages == [{"role": "user", "content": "How?"}]
    assert how.language == project.language


@pytest.mark.parametrize("language", ["en", "zh"])
def test_it_reads_the_demo_prompts(project: Project, ada: User, language: str) -> None:
    text = (FIXTURES / f"demo_prompts.{language}.jsonl").read_bytes()
    report = import_prompts(project=project, lines=text.splitlines(), by=ada)
    assert report.refused == []
    assert report.added == len(text.splitlines()) == Prompt.objects.count()


def test_the_same_prompt_is_kept_once(project: Project, ada: User) -> None:
    import_prompts(project=project, lines=[line("Why?")], by=ada)
    again = [line("  Why?\r\n"), line("How?"), line("How?")]
    report = import_prompts(project=project, lines=again, by=ada)
    assert (report.added, report.duplicates) == (1, 2)
    assert Prompt.objects.count() == 2


def test_another_project_may_have_the_same_prompt(project: Project, ada: User) -> None:
    for one in (project, make_project()):
        assert import_prompts(project=one, lines=[line("Why?")], by=ada).added == 1


def test_a_bad_line_is_refused_and_the_others_come_in(project: Project, ada: User) -> None:
    lines = [
        line("Why?"),
        "{not json",
        "",
        '["a list"]',
        '{"prompt": [{"role": "user", "content": "Why?"}, {"role": "human", "content": "?"}]}',
        '{"text": "no prompt"}',
        line("How?", topic="t" * 41),
        line("Who?"),
    ]
    report = import_prompts(project=project, lines=lines, by=ada)
    assert report.added == 2
    assert report.refused == [
        (2, "The line is not valid JSON: write one object a line."),
        (4, "The line must be a JSON object in braces."),
        (5, "Message 2 has the role “human”: use system, user or assistant."),
        (6, "A prompt must be a list of messages, each with role and content."),
        (7, "“topic” must be text of at most 40 characters."),
    ]


def test_an_import_leaves_a_line_in_the_audit_log(project: Project, ada: User) -> None:
    import_prompts(project=project, lines=[line("Why?"), line("Why?"), "x"], by=ada)
    details = AuditEntry.objects.get(action="prompts.import").details
    assert details == {"added": 1, "duplicates": 1, "refused": 1}


# --- held out


def test_it_holds_out_a_number(project: Project, ada: User) -> None:
    for _ in range(10):
        make_prompt(project)
    held = hold_out(project=project, fraction_or_count=3, seed=1, by=ada)
    assert len(held) == 3
    assert set(held) == set(Prompt.objects.filter(held_out=True))
    again = hold_out(project=project, fraction_or_count=3, seed=2, by=ada)
    assert set(again) == set(held)


def test_it_holds_out_a_share(project: Project) -> None:
    for _ in range(10):
        make_prompt(project)
    make_prompt(project, retired=True)
    assert len(hold_out(project=project, fraction_or_count=0.2, seed=1)) == 2
    assert len(hold_out(project=project, fraction_or_count=0.5, seed=1)) == 5


def test_the_seed_chooses(project: Project) -> None:
    prompts = [make_prompt(project) for _ in range(40)]
    chosen = []
    for seed in (1, 1, 2):
        Prompt.objects.update(held_out=False)
        chosen.append(set(hold_out(project=project, fraction_or_count=10, seed=seed)))
    assert chosen[0] == chosen[1] != chosen[2]
    assert chosen[0] < set(prompts)


def test_it_holds_out_nothing_that_a_stage_may_have_seen(project: Project) -> None:
    seen = make_answer_set(project).prompt
    fresh = [make_prompt(project) for _ in range(3)]
    assert set(hold_out(project=project, fraction_or_count=3, seed=0)) == set(fresh)
    with pytest.raises(Refused, match=r"too few prompts .* \(0 of the 1 wanted\)"):
        hold_out(project=project, fraction_or_count=4, seed=0)
    seen.refresh_from_db()
    assert seen.held_out is False


def test_it_looks_at_one_language_when_asked(project: Project) -> None:
    for language in ("en", "zh-hans") * 3:
        make_prompt(project, language=language)
    held = hold_out(project=project, fraction_or_count=2, seed=0, language="zh-hans")
    assert {one.language for one in held} == {"zh-hans"}


@pytest.mark.parametrize("value", [-1, -0.5, 2.5])
def test_a_senseless_share_is_refused(project: Project, value: float) -> None:
    with pytest.raises(Refused, match="Hold out a share"):
        hold_out(project=project, fraction_or_count=value, seed=0)


# --- answers


def test_answers_are_numbered_as_they_come(project: Project) -> None:
    version = make_version()
    answer_set = create_answer_set(
        prompt=make_prompt(project),
        answers=[
            {"version": version, "text": "Yes.", "seed": 7, "logprob": -3.5, "tokens": 2},
            {"version": version, "text": "N\x00o", "finished": False, "sampling": {"top_k": 0}},
        ],
    )
    yes, no = answer_set.answers.order_by("n")
    assert (yes.n, yes.text, yes.seed, yes.logprob, yes.tokens, yes.finished) == (
        0,
        "Yes.",
        7,
        -3.5,
        2,
        True,
    )
    assert (no.n, no.text, no.finished, no.sampling) == (1, "N\ufffdo", False, {"top_k": 0})
    assert answer_set.purpose == AnswerSet.Purpose.RANK
    # printf 'Yes.' | sha256sum
    assert yes.sha256 == "5f9a2b795615ba6a3d5455fd5624d773fbca5bcd16249c421fd37411dc9837da"


@pytest.mark.parametrize("count", [0, 1, 10])
def test_a_set_has_two_to_nine_answers(project: Project, count: int) -> None:
    answers = [{"version": make_version(), "text": "Yes."}] * count
    with pytest.raises(Refused, match=f"2 to 9 answers, not {count}"):
        create_answer_set(prompt=make_prompt(project), answers=answers)
    assert not AnswerSet.objects.exists()


def test_a_retired_prompt_is_drawn_no_more(project: Project, ada: User) -> None:
    prompt = make_prompt(project)
    retire_prompt(prompt=prompt, by=ada)
    assert not usable_prompts(project).exists()


def test_a_prompt_may_ask_for_a_skill(project: Project, ada: User) -> None:
    line = {"prompt": "Is it measles?", "skill": " medicine "}
    import_prompts(project=project, lines=[line, {"prompt": "Hello?"}], by=ada)
    assert dict(Prompt.objects.values_list("skill", "messages__0__content")) == {
        "medicine": "Is it measles?",
        "": "Hello?",
    }
    report = import_prompts(project=project, lines=[line | {"skill": "x" * 41}], by=ada)
    assert "“skill” must be text of at most 40 characters" in report.refused[0][1]


def test_a_retired_prompt_can_be_restored(project: Project, ada: User) -> None:
    prompt = make_prompt(project)
    retire_prompt(prompt=prompt, by=ada)
    restore_prompt(prompt=prompt, by=ada)
    assert list(usable_prompts(project)) == [prompt]


# --- reads


def test_lines_for_the_trainer_have_ids_as_text(project: Project) -> None:
    prompt = make_prompt(project, "Why?")
    messages = [{"role": "user", "content": "Why?"}]
    assert list(prompt_lines([prompt])) == [{"id": str(prompt.pk), "prompt": messages}]
    answer_set = make_answer_set(project, prompt=prompt, answers=["So.", "No idea."])
    first, second = answer_lines(answers_of([answer_set]))
    assert first == {
        "id": str(answer_set.answers.get(n=0).pk),
        "prompt_id": str(prompt.pk),
        "prompt": messages,
        "text": "So.",
        "logprob": None,
        "tokens": 1,
        "finished": True,
    }
    assert second["text"] == "No idea."


# --- what the database promises


def test_a_prompt_stands_once_in_a_project(project: Project) -> None:
    make_prompt(project, "Why?")
    refused_by(Prompt, "prompt_once_per_project", lambda: make_prompt(project, "Why?"))


def test_the_purpose_of_a_set_is_known(project: Project) -> None:
    refused_by(
        AnswerSet, "answer_set_purpose_known", lambda: make_answer_set(project, purpose="fun")
    )


def test_a_repeat_has_an_original_and_nothing_else_has(project: Project) -> None:
    first = make_answer_set(project)
    for purpose, original in (("repeat", None), ("rank", first), ("gold", first)):
        refused_by(
            AnswerSet,
            "only_a_repeat_has_an_original",
            lambda purpose=purpose, original=original: AnswerSet.objects.create(
                prompt=first.prompt, purpose=purpose, original=original
            ),
        )
    again = AnswerSet.objects.create(prompt=first.prompt, purpose="repeat", original=first)
    assert list(first.copies.all()) == [again]


def test_a_number_stands_once_in_a_set(project: Project) -> None:
    second = make_answer_set(project).answers.filter(n=1)
    refused_by(Answer, "answer_n_once_per_set", lambda: second.update(n=0))


def test_every_constraint_of_this_room_is_broken_above() -> None:
    assert {name for _model, name in names_of(Prompt, AnswerSet, Answer)} == {
        "prompt_once_per_project",
        "answer_set_purpose_known",
        "only_a_repeat_has_an_original",
        "answer_n_once_per_set",
    }
