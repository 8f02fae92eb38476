"""The figures of a report as people read them."""

from __future__ import annotations

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import translation

from labelhub.accounts.models import User
from labelhub.dashboard.report_words import FIGURES, report_rows
from labelhub.projects.models import Project
from labelhub.runs.models import Run
from tests.labelhub.dashboard import world

THIN, NBSP = "\u202f", "\u00a0"
REPORT = {
    "stage": "reward", "pairs": 1412, "pair_accuracy": 0.684, "ci95": [0.658, 0.71],
    "annotator_agreement": None, "ece_calibrated": None, "by_gap": {}, "kendall_tau_b": 0.31625,
    "a_new_figure": 0.98765,
}  # fmt: skip


def test_each_figure_has_its_name_its_unit_and_its_interval() -> None:
    rows = [(row.key, row.title, row.figure) for row in report_rows(REPORT)]
    assert rows == [
        ("pair_accuracy", "held-out pairs in the right order", f"68{THIN}% ±{NBSP}3"),
        ("kendall_tau_b", "rank correlation (Kendall's τ-b)", "0.316"),
        ("pairs", "held-out pairs", f"1{THIN}412"),
        ("a_new_figure", "a_new_figure", "0.988"),
    ]


def test_a_gain_has_its_sign_and_the_interval_that_belongs_to_it() -> None:
    (row,) = report_rows({"gain": 0.6, "ci95_of_gain": [0.4, 0.8]})
    assert row.figure == f"+0.6 ±{NBSP}0.2"


def test_every_figure_is_told_in_chinese() -> None:
    with translation.override("zh-hans"):
        titles = {key: str(said.title) for key, said in FIGURES.items()}
    same_word = {key for key, title in titles.items() if title.isascii()}
    assert same_word == set()


@pytest.mark.django_db
def test_a_picture_names_annotators_and_keeps_the_number_of_who_is_gone(
    project: Project, ann: User, clients: dict[str, Client]
) -> None:
    part = {"pair_accuracy": 0.7, "ci95": [0.5, 0.9], "pairs": 9}
    run = world.make_run(
        world.make_round(project), "reward", Run.State.FINISHED,
        report={"by_annotator": {str(ann.pk): part, "987654": part}},
    )  # fmt: skip
    page = clients["ada"].get(reverse("dashboard:run", args=["everyday", run.pk]))
    (picture,) = page.context["report_pictures"]
    assert {dot.name for dot in picture.dots} == {"ann", "987654"}


@pytest.mark.django_db
def test_a_stage_without_pictures_shows_its_figures_in_their_place(
    project: Project, clients: dict[str, Client]
) -> None:
    run = world.make_run(
        world.make_round(project), "generate", Run.State.FINISHED, report={"eos_rate": 0.75}
    )
    page = clients["ada"].get(reverse("dashboard:run", args=["everyday", run.pk])).content.decode()
    assert page.count("answers that come to their end") == 1
    assert f"75{THIN}%" in page
    assert "placeholder" not in page
