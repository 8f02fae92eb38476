"""What pages read about runs."""

from __future__ import annotations

import pytest
from django.http import Http404

from labelhub.projects.models import Project
from labelhub.runs import queries
from labelhub.runs.models import Run
from labelhub.runs.progress import Line, record_events
from tests import factories
from tests.labelhub.dashboard import world


def test_of_a_repeated_step_the_later_line_counts() -> None:
    rows = [(1, {"kl": 0.0}), (2, {"kl": 1.0}), (1, {"kl": 0.5}), (3, {"kl": 2.0})]
    assert queries.series_from(rows) == {"kl": [(1, 0.5), (2, 1.0), (3, 2.0)]}


def test_what_is_no_finite_number_is_no_point() -> None:
    rows = [
        (1, {"a": None, "b": True, "c": "x", "d": float("nan"), "total": 9, "e": 1}),
        (None, {"e": 5}),
        (2, ["e"]),
    ]
    assert queries.series_from(rows) == {"e": [(1, 1.0)]}


def test_reports_may_miss_or_spoil_any_figure() -> None:
    report = {"a": 1, "b": {"c": 2.5}, "ci95": [0.1, None], "short": [1], "ok": [1, 2]}
    assert queries.number(report, "a") == 1.0
    assert queries.number(report, "b", "c") == 2.5
    assert queries.number(report, "a", "c") is None
    assert queries.number(report, "missing") is None
    assert [queries.interval(report, key) for key in ("ci95", "short", "none", "ok")] == [
        None,
        None,
        None,
        (1.0, 2.0),
    ]


@pytest.fixture
def run(project: Project) -> Run:
    return world.make_run(world.make_round(project), "ppo", attempt=2, step=3, total=4)


def test_progress_counts_steps(run: Run) -> None:
    run.eta_seconds = 60
    progress = queries.progress_of(run)
    assert (progress.share, progress.step, progress.total, progress.eta_seconds) == (0.75, 3, 4, 60)


def test_more_steps_than_a_column_can_count_are_cut_off_there(run: Run) -> None:
    """As many epochs as a setting may name, times their batches."""
    line = Line(0, {"t": 0.0, "kind": "metric", "step": 7, "total": 10**21, "loss": 1.0})
    record_events(run, [line, Line(90, {"t": 0.0, "kind": "sample", "step": float("inf")})])
    run.refresh_from_db()
    assert (run.step, run.total) == (7, 2**31 - 1)
    assert list(run.events.values_list("step", flat=True)) == [7, None]


def test_nothing_is_known_of_a_run_that_has_not_begun(run: Run) -> None:
    run.state, run.step, run.total = Run.State.QUEUED, 0, 0
    assert queries.progress_of(run).share is None


def test_a_finished_run_is_whole_and_has_no_time_left(run: Run) -> None:
    run.state, run.eta_seconds = Run.State.FINISHED, 99
    progress = queries.progress_of(run)
    assert (progress.share, progress.eta_seconds) == (1.0, None)


def test_attempts_say_how_each_ended(run: Run) -> None:
    world.tell(run, "started", attempt=1, device="cpu", threads=1)
    world.tell(run, "started", attempt=2, device="cpu", threads=1, resumed_from=2)
    second, first = queries.attempts_of(run)
    assert (first.outcome, second.outcome) == ("lost", "running")
    assert (first.resumed_from, second.resumed_from) == (None, 2)
    world.tell(run, "finished", attempt=2)
    run.state = Run.State.FINISHED
    assert queries.attempts_of(run)[0].outcome == "finished"


def test_samples_are_those_of_the_newest_step(run: Run) -> None:
    prompt = [{"role": "user", "content": "Hi?"}]
    world.tell(run, "sample", 1, samples=[{"prompt": prompt, "text": "old", "score": 0.1}])
    world.tell(run, "sample", 2, samples=[{"prompt": prompt, "text": "new"}, "damaged"])
    assert queries.samples_of(run) == [queries.Sample(2, "Hi?", "new", None)]


def test_an_alarm_that_a_resumed_run_repeats_counts_once(run: Run) -> None:
    for attempt in (1, 2):
        world.tell(run, "alert", 3, attempt=attempt, code="length_drift", message="Too long.")
    world.tell(run, "alert", 4, code="length_drift", message="Still.")
    assert [alert.step for alert in queries.alerts_of([run])] == [4, 3]


def test_the_log_leaves_out_figures_and_signs_of_life(run: Run) -> None:
    for kind in ("started", "metric", "heartbeat", "sample", "checkpoint", "alert"):
        world.tell(run, kind, 1)
    assert [event.kind for event in queries.log_of(run)] == ["alert", "checkpoint", "started"]


def test_events_are_read_on_from_an_offset(run: Run) -> None:
    for step in range(3):
        world.tell(run, "metric", step)
    assert [event.step for event in queries.events_after(run, -1)] == [0, 1, 2]
    assert [event.step for event in queries.events_after(run, 0)] == [1, 2]


def test_another_projects_run_is_not_there(run: Run) -> None:
    with pytest.raises(Http404):
        queries.get_run_or_404(factories.make_project("other"), run.pk)
