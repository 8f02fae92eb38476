"""The driver meets a round that an interrupted command left open."""

from __future__ import annotations

import pytest

from labelhub.autopilot.driver import _open_round
from labelhub.projects.models import Project
from labelhub.registry.actions import promote
from labelhub.rounds.actions import abandon_round, start_round
from labelhub.rounds.models import Round
from labelhub.rounds.progress import current_run
from labelhub.runs.models import Run
from tests import factories


@pytest.fixture
def turn(project: Project) -> Round:
    """An open round whose answers are being written."""
    promote(project=project, version=factories.make_version(), by=None)
    for _ in range(2):
        factories.make_prompt(project)
    return start_round(project=project, by=None, config={"prompts": 2})


def test_an_open_round_goes_on_where_it_stood(turn: Round) -> None:
    said: list[str] = []
    assert _open_round(turn.project, said.append) == turn
    assert said == ["round 1 · going on with what was left open"]


def test_a_stopped_stage_is_resumed(turn: Round) -> None:
    run = current_run(turn)
    assert run is not None
    Run.objects.filter(pk=run.pk).update(state=Run.State.STOPPED)
    _open_round(turn.project, lambda line: None)
    run.refresh_from_db()
    assert run.state == Run.State.QUEUED


def test_an_ended_round_is_left_alone(turn: Round) -> None:
    abandon_round(round=turn, by=None)
    assert _open_round(turn.project, lambda line: None) is None
