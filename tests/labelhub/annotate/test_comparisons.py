"""A blind comparison at the annotator's desk: a set of two like any other."""

from __future__ import annotations

import re

import pytest
from django.test import Client

from labelhub.accounts.models import User
from labelhub.projects.models import Project
from labelhub.prompts.models import Answer, AnswerSet
from labelhub.rounds.models import Comparison
from labelhub.rounds.verdicts import verdict_of
from tests import factories
from tests.labelhub.annotate.pages import board_url, filled
from tests.labelhub.dashboard import world

pytestmark = pytest.mark.django_db


@pytest.fixture
def comparison(project: Project) -> Comparison:
    turn = world.decided(project)
    comparison = world.compare_blind(turn, [(0.1234, 0.8765)], state="open")
    Answer.objects.filter(answer_set__comparisons=comparison).update(seed=77123)
    return comparison


TOLD_APART = r"[0-9a-f]{8}-[0-9a-f-]{27}|[0-9a-f]{64}|\d+|(?:value|nonce)=\"[^\"]*\""


def frame_of(page: str) -> list[str]:
    """What is left of a page when its numbers, hashes, tokens and the order of cards are gone."""
    return sorted(re.sub(TOLD_APART, "", page).split())


def test_the_board_tells_nothing_of_the_comparison(
    comparison: Comparison, project: Project, ann: User, clients: dict[str, Client]
) -> None:
    pair = comparison.answer_sets.get()
    ordinary = factories.make_answer_set(
        project, prompt=pair.prompt, answers=["Old answer 0", "New answer 0"], slots=1
    )
    pages = []
    for answer_set in (pair, ordinary):
        slot = factories.hold(answer_set.slots.get(), ann)
        pages.append(clients["ann"].get(board_url(slot)).content.decode())
        slot.delete()
    blind = pages[0]
    for secret in ("policy-v1", "tiny-base", "0.1234", "0.8765", "77123"):
        assert secret not in blind, secret
    assert frame_of(blind) == frame_of(pages[1]), "a set to rank looks the same"


def test_a_tie_is_an_answer_and_all_may_be_bad(
    comparison: Comparison, ann: User, clients: dict[str, Client]
) -> None:
    pair: AnswerSet = comparison.answer_sets.get()
    slot = factories.hold(pair.slots.get(), ann)
    sent = filled(clients["ann"].get(board_url(slot)), (1, 1))
    answer = clients["ann"].post(board_url(slot), sent | {"all_bad": "on"})
    assert answer.status_code == 302
    ranking = pair.rankings.get()
    assert (ranking.all_bad, verdict_of(comparison).people.ties) == (True, 1)
