"""What annotators reported is put back, retired or ticked off."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from labelhub.accounts.models import User
from labelhub.assignments.models import Slot
from labelhub.projects.models import Project
from labelhub.prompts.models import Answer, AnswerSet, Prompt
from labelhub.rankings.models import Flag, Skip
from tests import factories

pytestmark = pytest.mark.django_db
Clients = dict[str, Client]


@pytest.fixture
def page(project: Project) -> str:
    return reverse("dashboard:reports", args=[project.slug])


def press(client: Client, kind: str, row: Any, action: str) -> Any:
    args = ["everyday", kind, row.pk, action]
    return client.post(reverse("dashboard:act-on-report", args=args), follow=True)


def skipped(project: Project, by: User, reason: str, **more: Any) -> Skip:
    """A skip of a set whose slot was closed by it, as for something harmful."""
    answer_set = more.pop("answer_set", None) or factories.make_answer_set(project)
    slot = answer_set.slots.first() or factories.make_slot(answer_set, state=Slot.State.CLOSED)
    return Skip.objects.create(
        answer_set=answer_set, slot=slot, annotator=by, reason=reason, **more
    )


def flagged(project: Project, by: User, note: str = "") -> Flag:
    answer = factories.make_answer_set(project).answers.first()
    assert answer is not None
    return Flag.objects.create(answer=answer, annotator=by, note=note)


def text(response: Any) -> str:
    return str(response.content.decode())


def state(answer_set: AnswerSet) -> str:
    return Slot.objects.get(answer_set=answer_set).state


# --- what is seen


def test_what_waits_for_a_decision_comes_first(
    project: Project, ann: User, ben: User, clients: Clients, page: str
) -> None:
    skipped(project, ann, "language", note="Is this Dutch?")
    harmful = skipped(project, ann, "harmful", note="It tells how to hurt.")
    skipped(project, ben, "private", answer_set=harmful.answer_set)
    flagged(project, ben, "A telephone number.")
    response = clients["ada"].get(page)
    assert [one.answer_set for one in response.context["waiting"]] == [harmful.answer_set]
    assert len(response.context["waiting"][0].skips) == 2, "two reports of one set stand together"
    assert len(response.context["passed"]) == 1
    for words in (
        "It tells how to hurt.",
        "Is this Dutch?",
        "A telephone number.",
        "It is harmful",
    ):
        assert words in text(response)


def test_an_empty_page_says_what_will_stand_there(
    project: Project, clients: Clients, page: str
) -> None:
    assert "Nothing waits for you" in text(clients["ada"].get(page))


def test_notes_are_text_and_never_markup(
    project: Project, ann: User, clients: Clients, page: str
) -> None:
    skipped(project, ann, "harmful", note="<script>alert(1)</script>")
    flagged(project, ann, "<img src=x>")
    for bad in ("<script>alert", "<img src=x>"):
        assert bad not in text(clients["ada"].get(page))


def test_another_projects_reports_are_not_seen(
    project: Project, ann: User, ada: User, clients: Clients, page: str
) -> None:
    other = factories.make_project("other", annotators=[ann], admins=[ada])
    skipped(other, ann, "harmful", note="Elsewhere.")
    flagged(other, ann, "Elsewhere.")
    assert "Elsewhere." not in text(clients["ada"].get(page))


# --- what is done


def test_a_harmful_set_is_put_back(
    project: Project, ann: User, clients: Clients, page: str
) -> None:
    skip = skipped(project, ann, "harmful")
    press(clients["ada"], "skips", skip, "put-back")
    skip.refresh_from_db()
    assert skip.handled_at is not None
    assert state(skip.answer_set) == Slot.State.OPEN
    after = clients["ada"].get(page)
    assert after.context["waiting"] == []
    assert "Handled last" in text(after)


def test_a_harmful_set_is_retired_with_its_prompt(
    project: Project, ann: User, ben: User, clients: Clients
) -> None:
    skip = skipped(project, ann, "harmful")
    second = skipped(project, ben, "private", answer_set=skip.answer_set)
    press(clients["ada"], "skips", skip, "retire")
    assert Prompt.objects.get(pk=skip.answer_set.prompt_id).retired
    assert state(skip.answer_set) == Slot.State.CLOSED
    second.refresh_from_db()
    assert second.handled_at is not None, "what others said of it is answered with it"


def test_a_flag_is_done(project: Project, ann: User, clients: Clients, page: str) -> None:
    flag = flagged(project, ann)
    press(clients["ada"], "flags", flag, "done")
    flag.refresh_from_db()
    assert flag.handled_at is not None
    assert not flag.answer.answer_set.prompt.retired
    assert list(clients["ada"].get(page).context["flags"]) == []


def test_a_flagged_answers_prompt_is_retired(project: Project, ann: User, clients: Clients) -> None:
    flag = flagged(project, ann)
    press(clients["ada"], "flags", flag, "retire")
    flag.refresh_from_db()
    assert flag.handled_at is not None
    assert Prompt.objects.get(pk=flag.answer.answer_set.prompt_id).retired


@pytest.fixture
def leak(project: Project) -> AnswerSet:
    """A set that waits, since an answer in it names a model."""
    Project.objects.update(hold_back_leaks=True)
    answer_set = factories.make_answer_set(project, answers=["As ChatGPT I cannot.", "Yes."])
    Answer.objects.filter(answer_set=answer_set, n=0).update(names_model=True)
    return answer_set


def test_a_leak_is_shown_and_let_go(leak: AnswerSet, clients: Clients, page: str) -> None:
    assert "As ChatGPT I cannot." in text(clients["ada"].get(page))
    press(clients["ada"], "leaks", leak, "put-back")
    assert state(leak) == Slot.State.OPEN
    assert list(clients["ada"].get(page).context["leaks"]) == []


def test_a_leak_is_retired(leak: AnswerSet, clients: Clients, page: str) -> None:
    press(clients["ada"], "leaks", leak, "retire")
    leak.prompt.refresh_from_db()
    assert leak.prompt.retired
    assert not leak.slots.exists()
    assert list(clients["ada"].get(page).context["leaks"]) == []


def test_a_leak_is_not_let_go_twice(leak: AnswerSet, clients: Clients) -> None:
    press(clients["ada"], "leaks", leak, "put-back")
    assert press(clients["ada"], "leaks", leak, "put-back").status_code == 404
    assert leak.slots.count() == 1


@pytest.mark.parametrize(
    ("kind", "action"),
    [("skips", "done"), ("flags", "put-back"), ("leaks", "done"), ("others", "retire")],
)
def test_there_is_no_such_button(
    kind: str, action: str, project: Project, ann: User, clients: Clients
) -> None:
    skip = skipped(project, ann, "harmful")
    assert press(clients["ada"], kind, skip, action).status_code == 404
