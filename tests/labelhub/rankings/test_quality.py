"""Figures of a project: from what they are made, and what they leave out."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone

from labelhub.accounts.models import AuditEntry, User
from labelhub.assignments.models import Slot
from labelhub.projects.models import Project
from labelhub.prompts.models import Answer, AnswerSet
from labelhub.rankings import facts as facts_module
from labelhub.rankings import quality, verdicts
from labelhub.rankings.actions import correct_ranking
from labelhub.rankings.measuring import measure_quality
from labelhub.rankings.models import Gold, QualityReport, Ranking
from labelhub.rankings.progress import KEPT, store_report
from labelhub.rankings.tasks import sweep_quality
from labelhub.rankings.verdicts import consensus_lines
from tests import factories

pytestmark = pytest.mark.django_db

BEST_FIRST, REVERSED = (1, 2, 3, 4), (4, 3, 2, 1)


def share_set(
    project: Project, orders: dict[User, Sequence[int]], *, days_ago: int = 0
) -> AnswerSet:
    """An answer set that these people ranked so."""
    answer_set = factories.make_answer_set(project)
    for person, ranks in orders.items():
        ranking = factories.make_ranking(answer_set, person, ranks)
        at(ranking, days_ago)
    return answer_set


def at(ranking: Ranking, days_ago: int) -> None:
    """Move a ranking into the past."""
    if days_ago:
        moment = timezone.now() - timedelta(days=days_ago)
        Ranking.objects.filter(pk=ranking.pk).update(created=moment)


def make_gold(project: Project, ranks: Sequence[int] = BEST_FIRST) -> AnswerSet:
    """A gold set with its known ranking."""
    answer_set = factories.make_answer_set(project, purpose=AnswerSet.Purpose.GOLD)
    answers = answer_set.answers.order_by("n")
    Gold.objects.create(
        answer_set=answer_set,
        ranks={str(one.pk): rank for one, rank in zip(answers, ranks, strict=True)},
    )
    return answer_set


def copy_of(answer_set: AnswerSet) -> AnswerSet:
    """The same answers once more, as a silent repeat has them."""
    copy = AnswerSet.objects.create(
        prompt=answer_set.prompt, purpose=AnswerSet.Purpose.REPEAT, original=answer_set
    )
    Answer.objects.bulk_create(
        Answer(answer_set=copy, n=one.n, text=one.text, sha256=one.sha256, version=one.version)
        for one in answer_set.answers.all()
    )
    return copy


def rank_as(kind: Slot.Kind, answer_set: AnswerSet, by: User, ranks: Sequence[int]) -> Ranking:
    """A ranking on a slot of this kind."""
    ranking = factories.make_ranking(answer_set, by, ranks)
    Slot.objects.filter(pk=ranking.slot_id).update(kind=kind)
    return ranking


def measured(project: Project) -> quality.Quality:
    """What a worker stores and a page reads."""
    store_report(project.pk)
    found = quality.latest(project)
    assert found is not None
    return found


def person(found: quality.Quality, user: User) -> quality.Person:
    return next(one for one in found.people if one.user_id == user.pk)


# --- agreement


def test_agreement_of_people_is_that_of_the_sets_they_share(
    project: Project, ann: User, ben: User
) -> None:
    # 15 sets alike and 5 reversed: ¾ of the pairs. A set of ann's alone adds nothing.
    for n in range(20):
        share_set(project, {ann: BEST_FIRST, ben: BEST_FIRST if n < 15 else REVERSED})
    share_set(project, {ann: BEST_FIRST})
    figures = measured(project).project.figures
    assert figures["agreement"].value == pytest.approx(0.75)
    assert figures["tau_b"].value == pytest.approx((15 - 5) / 20)
    assert figures["kendall_w"].value == pytest.approx(0.75)  # 1 where alike, 0 where reversed
    for name in ("agreement", "tau_b", "kendall_w", "alpha"):
        assert (figures[name].n, figures[name].enough) == (20, True), name


def test_too_few_shared_sets_say_how_many_are_missing(
    project: Project, ann: User, ben: User
) -> None:
    for _ in range(7):
        share_set(project, {ann: BEST_FIRST, ben: BEST_FIRST})
    figure = measured(project).project.figures["agreement"]
    assert (figure.enough, figure.n, figure.missing) == (False, 7, 13)


def test_a_project_without_rankings_has_figures_of_nothing(project: Project) -> None:
    found = measured(project)
    assert all(figure.value is None for figure in found.project.figures.values())
    assert (found.people, found.project.positions, found.project.weeks) == ([], [], [])


def test_each_person_is_compared_with_the_others(
    project: Project, ann: User, ben: User, ada: User
) -> None:
    for _ in range(20):
        share_set(project, {ann: BEST_FIRST, ben: BEST_FIRST, ada: REVERSED})
    found = measured(project)
    assert person(found, ann).figures["agreement"].value == 0.5
    assert person(found, ada).figures["agreement"].value == 0
    assert person(found, ada).reliability < 0.5 < person(found, ann).reliability
    assert person(found, ada).weight < 1 < person(found, ann).weight


def test_ties_on_both_sides_are_compared_by_their_middle_places(
    project: Project, ann: User, ben: User
) -> None:
    """The last of 1, 1, 1, 2 and the last of 1, 2, 3, 4 are both the last."""
    for _ in range(20):
        share_set(project, {ann: (1, 1, 1, 2), ben: BEST_FIRST})
    figures = measured(project).project.figures
    assert figures["agreement"].value == 1
    # Three of six pairs are tied by ann: 3 / √(3 · 6).
    assert figures["tau_b"].value == pytest.approx(3 / 18**0.5)


def test_a_reviewers_decision_and_the_tutorial_are_no_opinions(
    project: Project, ann: User, ben: User, ada: User
) -> None:
    answer_set = share_set(project, {ann: BEST_FIRST, ben: BEST_FIRST})
    decision = rank_as(Slot.Kind.REVIEW, answer_set, ada, REVERSED)
    Ranking.objects.filter(pk=decision.pk).update(adjudicates=True)
    lesson = factories.make_answer_set(project, purpose=AnswerSet.Purpose.TUTORIAL)
    for learner in (ann, ben):
        rank_as(Slot.Kind.TUTORIAL, lesson, learner, REVERSED)
        rank_as(Slot.Kind.TUTORIAL, copy_of(lesson), learner, REVERSED)
    found = measured(project)
    assert found.project.figures["agreement"].value == 1
    assert found.project.figures["agreement"].n == 1
    assert found.project.rankings == 2
    assert {one.user_id for one in found.people} == {ann.pk, ben.pk}


def test_simulated_rankings_stay_out_of_a_project_of_people(
    project: Project, ann: User, ben: User
) -> None:
    machine = factories.make_user("machine", is_simulated=True)
    share_set(project, {ann: BEST_FIRST, ben: BEST_FIRST, machine: REVERSED})
    found = measured(project)
    assert found.project.figures["agreement"].value == 1
    assert {one.user_id for one in found.people} == {ann.pk, ben.pk}


def test_another_projects_rankings_do_not_count(project: Project, ann: User, ben: User) -> None:
    other = factories.make_project("other", annotators=[ann, ben])
    share_set(other, {ann: BEST_FIRST, ben: REVERSED})
    assert measured(project).project.rankings == 0


def test_only_opinions_drawn_without_priority_are_unbiased(
    project: Project, ann: User, ben: User
) -> None:
    easy = share_set(project, {ann: BEST_FIRST, ben: BEST_FIRST})
    share_set(project, {ann: BEST_FIRST, ben: REVERSED})
    half = share_set(project, {ann: BEST_FIRST, ben: REVERSED})
    Slot.objects.filter(answer_set=easy).update(uniform=True)
    Slot.objects.filter(answer_set=half, holder=ann).update(uniform=True)
    found = measured(project)
    assert found.project.figures["agreement"].value == pytest.approx(1 / 3)
    assert found.uniform["agreement"].value == 1
    assert found.uniform["agreement"].n == 1


# --- known rankings and repeats


def test_accuracy_on_known_rankings(project: Project, ann: User) -> None:
    # 9 right, 1 reversed: 54 of 60 pairs, τ-b (9 − 1) / 10.
    for n in range(10):
        rank_as(Slot.Kind.GOLD, make_gold(project), ann, BEST_FIRST if n else REVERSED)
    figures = person(measured(project), ann).figures
    assert figures["gold_pairs"].value == pytest.approx(0.9)
    assert figures["gold_tau"].value == pytest.approx(0.8)
    assert (figures["gold_tau"].n, figures["gold_tau"].enough) == (10, True)


def test_who_ties_what_is_known_to_differ_is_half_right(project: Project, ann: User) -> None:
    rank_as(Slot.Kind.GOLD, make_gold(project), ann, (1, 1, 1, 1))
    figures = person(measured(project), ann).figures
    assert figures["gold_pairs"].value == 0.5
    assert figures["gold_tau"].value == 0


def test_known_ties_ask_for_nothing(project: Project, ann: User) -> None:
    # Known: a and b tie. Ann parts them and has the other five pairs right.
    rank_as(Slot.Kind.GOLD, make_gold(project, (1, 1, 2, 3)), ann, BEST_FIRST)
    assert person(measured(project), ann).figures["gold_pairs"].value == 1


def test_known_rankings_are_no_shared_sets(project: Project, ann: User, ben: User) -> None:
    gold = make_gold(project)
    for one in (ann, ben):
        rank_as(Slot.Kind.GOLD, gold, one, BEST_FIRST)
    assert measured(project).project.figures["agreement"].n == 0


def test_consistency_compares_a_person_with_nobody_else(
    project: Project, ann: User, ben: User
) -> None:
    first = share_set(project, {ann: BEST_FIRST, ben: REVERSED})
    rank_as(Slot.Kind.REPEAT, copy_of(first), ann, (1, 2, 4, 3))
    found = measured(project)
    # One of six pairs is swapped: 5/6, τ-b (5 − 1) / 6.
    assert person(found, ann).figures["repeat_pairs"].value == pytest.approx(5 / 6)
    assert person(found, ann).figures["repeat_tau"].value == pytest.approx(4 / 6)
    assert person(found, ben).figures["repeat_pairs"].n == 0


def test_a_check_that_was_corrected_counts_as_it_was_first_given(
    project: Project, ann: User
) -> None:
    ranking = rank_as(Slot.Kind.GOLD, make_gold(project), ann, REVERSED)
    answers = ranking.answer_set.answers.order_by("n")
    for revision, ranks in enumerate([(1, 2, 4, 3), BEST_FIRST], start=1):
        correct_ranking(
            ranking_id=ranking.pk,
            revision=revision,
            ranks={one.pk: rank for one, rank in zip(answers, ranks, strict=True)},
            idempotency_key=str(uuid.uuid4()),
            duration_ms=0,
            active_ms=0,
            by=ann,
        )
    assert person(measured(project), ann).figures["gold_pairs"].value == 0


# --- pace and positions


def test_pace_is_the_median_and_unknown_times_do_not_count(project: Project, ann: User) -> None:
    for seconds in (4, 20, 30, 0):
        factories.make_ranking(
            factories.make_answer_set(project), ann, duration_ms=60_000, active_ms=seconds * 1000
        )
    figures = person(measured(project), ann).figures
    assert (figures["seconds"].value, figures["seconds"].n) == (20, 3)
    assert figures["hasty"].value == pytest.approx(1 / 3)


def test_the_best_card_is_counted_where_it_stood_and_ties_share_it(
    project: Project, ann: User
) -> None:
    # Positions are the answers' numbers here: first, first, and a tie of first and last.
    for ranks in ((1, 2, 3, 4), (1, 2, 3, 3), (1, 2, 3, 1)):
        factories.make_ranking(factories.make_answer_set(project), ann, ranks)
    shares = [figure.value for figure in person(measured(project), ann).positions]
    assert shares == [pytest.approx(2.5 / 3), 0, 0, pytest.approx(0.5 / 3)]


def test_positions_are_those_of_the_most_usual_number_of_cards(project: Project, ann: User) -> None:
    for answers in (2, 3, 3):
        factories.make_ranking(factories.make_answer_set(project, answers=answers), ann)
    assert len(measured(project).project.positions) == 3


# --- over time


def test_each_week_has_figures_of_its_own(project: Project, ann: User, ben: User) -> None:
    for days_ago, order in ((14, REVERSED), (0, BEST_FIRST)):
        for _ in range(10):
            share_set(project, {ann: BEST_FIRST, ben: order}, days_ago=days_ago)
    weeks = measured(project).project.weeks
    assert [week.figures["agreement"].value for week in weeks] == [0, 1]
    assert all(week.figures["agreement"].enough for week in weeks)
    assert weeks[1].monday - weeks[0].monday == timedelta(days=14)


def test_a_week_begins_on_monday_by_the_clock_of_the_place() -> None:
    utc = datetime.fromisoformat
    assert facts_module.week_of(utc("2026-11-22T23:59:00+00:00")) == date(2026, 11, 16)
    assert facts_module.week_of(utc("2026-11-23T00:00:00+00:00")) == date(2026, 11, 23)
    with timezone.override("Asia/Shanghai"):
        assert facts_module.week_of(utc("2026-11-22T23:59:00+00:00")) == date(2026, 11, 23)


def test_only_the_newest_rankings_are_read(
    project: Project, ann: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(facts_module, "MOST", 3)
    for _ in range(5):
        share_set(project, {ann: BEST_FIRST})
    newest = Ranking.objects.order_by("-pk").values_list("pk", flat=True)[:3]
    assert {one.pk for one in facts_module.read_facts(project).given} == set(newest)


# --- what a person is told of checks


def test_what_a_person_is_told_of_checks_moves_in_tens(project: Project, ann: User) -> None:
    for n in range(14):
        rank_as(Slot.Kind.GOLD, make_gold(project), ann, BEST_FIRST if n < 10 else REVERSED)
        own = person(measured(project), ann).own_checks["gold_pairs"]
        assert (own.n, own.value) == ((0, None) if n < 9 else (10, 1)), n


def test_a_person_gets_nobody_elses_figures(
    project: Project, ann: User, ben: User, mallory: User
) -> None:
    share_set(project, {ann: BEST_FIRST, ben: REVERSED})
    measured(project)
    own = quality.figures_of(project, ann)
    assert own is not None
    assert own.user_id == ann.pk
    assert quality.figures_of(project, mallory) is None


# --- reliability as a weight


def test_reliability_has_the_mean_one_over_all_rankings(
    project: Project, ann: User, ben: User, ada: User
) -> None:
    for _ in range(20):
        share_set(project, {ann: BEST_FIRST, ben: BEST_FIRST, ada: REVERSED})
    for _ in range(20):
        share_set(project, {ann: BEST_FIRST})
    weights = quality.reliability(project)
    counts = {ann.pk: 40, ben.pk: 20, ada.pk: 20}
    assert sum(weights[who] * n for who, n in counts.items()) == pytest.approx(80)
    assert weights[ada.pk] < 0.2 < 1 < weights[ann.pk]


def test_known_rankings_alone_tell_whom_to_believe(project: Project, ann: User, ben: User) -> None:
    for _ in range(20):
        gold = make_gold(project)
        rank_as(Slot.Kind.GOLD, gold, ann, BEST_FIRST)
        rank_as(Slot.Kind.GOLD, gold, ben, REVERSED)
    weights = quality.reliability(project)
    assert weights[ben.pk] < weights[ann.pk]


def test_reliability_is_taken_from_the_report_while_it_holds(
    project: Project, ann: User, ben: User
) -> None:
    for _ in range(20):
        share_set(project, {ann: BEST_FIRST, ben: BEST_FIRST})
    report = QualityReport.objects.get(pk=store_report(project.pk))
    report.figures["people"][0]["weight"] = 0.25
    report.save()
    assert quality.reliability(project)[ann.pk] == 0.25
    for _ in range(20):
        share_set(project, {ann: BEST_FIRST})
    assert quality.reliability(project)[ann.pk] == pytest.approx(1)


def test_nobody_has_a_reliability_before_the_first_ranking(project: Project) -> None:
    assert quality.reliability(project) == {}


# --- the report


def test_a_report_is_json_and_comes_back_as_it_was(project: Project, ann: User, ben: User) -> None:
    share_set(project, {ann: BEST_FIRST, ben: REVERSED})
    told = quality.build_report(project)
    assert json.loads(json.dumps(told, allow_nan=False)) == told


def test_only_some_reports_are_kept(project: Project, ann: User) -> None:
    share_set(project, {ann: BEST_FIRST})
    for _ in range(KEPT + 3):
        store_report(project.pk)
    assert QualityReport.objects.count() == KEPT


def test_a_sweep_measures_what_has_changed_and_nothing_else(
    project: Project, ann: User, settings: Any
) -> None:
    factories.make_project("empty")
    share_set(project, {ann: BEST_FIRST})
    assert sweep_quality() == 1
    assert sweep_quality() == 0
    for _ in range(19):
        share_set(project, {ann: BEST_FIRST})
    assert sweep_quality() == 0
    share_set(project, {ann: BEST_FIRST})
    assert sweep_quality() == 1
    assert QualityReport.objects.filter(project=project).count() == 2


def test_deleted_rankings_make_a_report_old_as_well(project: Project, ann: User) -> None:
    for _ in range(25):
        share_set(project, {ann: BEST_FIRST})
    sweep_quality()
    Ranking.objects.filter(pk__in=list(Ranking.objects.values_list("pk", flat=True)[:20])).delete()
    assert sweep_quality() == 1


def test_an_admin_may_ask_for_new_figures(
    project: Project, ada: User, django_capture_on_commit_callbacks: Any
) -> None:
    with django_capture_on_commit_callbacks(execute=True):
        measure_quality(project=project, by=ada)
    assert QualityReport.objects.filter(project=project).count() == 1
    assert AuditEntry.objects.filter(action="quality.measure", actor=ada).exists()


def test_a_project_that_is_gone_needs_no_report() -> None:
    assert store_report(404) is None


# --- consensus


def test_a_line_holds_both_consensus_orders_and_every_opinion(
    project: Project, ann: User, ben: User, ada: User
) -> None:
    answer_set = share_set(project, {ann: (1, 2, 3, 4), ben: (1, 2, 3, 4), ada: (4, 3, 2, 1)})
    line = next(consensus_lines(project))
    ids = [str(one.pk) for one in answer_set.answers.order_by("n")]
    expected = dict(zip(ids, BEST_FIRST, strict=True))
    assert line["ranked_pairs"] == expected
    assert line["bradley_terry"]["ranks"] == expected
    assert [one["annotator"] for one in line["rankings"]] == [
        str(one.pk) for one in (ann, ben, ada)
    ]
    assert line["rankings"][2]["ranks"] == dict(zip(ids, REVERSED, strict=True))
    assert [one["id"] for one in line["answers"]] == ids
    assert line["decision"] is None


def test_a_decision_stands_beside_the_consensus_and_does_not_enter_it(
    project: Project, ann: User, ada: User
) -> None:
    answer_set = share_set(project, {ann: BEST_FIRST})
    decision = rank_as(Slot.Kind.REVIEW, answer_set, ada, REVERSED)
    Ranking.objects.filter(pk=decision.pk).update(adjudicates=True)
    line = next(consensus_lines(project))
    assert list(line["ranked_pairs"].values()) == list(BEST_FIRST)
    assert line["decision"]["annotator"] == str(ada.pk)
    assert list(line["decision"]["ranks"].values()) == list(REVERSED)


def test_whom_the_report_believes_decides_between_two(
    project: Project, ann: User, ben: User, ada: User
) -> None:
    for _ in range(30):
        share_set(project, {ann: BEST_FIRST, ben: BEST_FIRST, ada: REVERSED})
    share_set(project, {ann: BEST_FIRST, ada: REVERSED})
    store_report(project.pk)
    line = list(consensus_lines(project))[-1]
    assert list(line["ranked_pairs"].values()) == [1, 1, 1, 1]
    assert list(line["bradley_terry"]["ranks"].values()) == list(BEST_FIRST)


def test_each_ranked_set_has_one_line_in_however_many_pieces_they_are_read(
    project: Project, ann: User, ben: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verdicts, "_CHUNK", 4)
    sets = [share_set(project, {ann: BEST_FIRST, ben: REVERSED}).pk for _ in range(9)]
    factories.make_answer_set(project)  # nobody ranked it
    make_gold(project)
    assert [line["answer_set"] for line in consensus_lines(project)] == [str(pk) for pk in sets]
