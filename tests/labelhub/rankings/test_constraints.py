"""Each promise about rankings is kept by the database itself: here each is broken once."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.db import IntegrityError, models, transaction
from django.db.models import ProtectedError

from labelhub.accounts.models import User
from labelhub.projects.models import Project
from labelhub.prompts.models import AnswerSet
from labelhub.rankings.models import Flag, Gold, Ranking, RankingItem, RankingRevision, Skip
from tests.factories import make_answer_set, make_ranking, make_slot
from tests.labelhub.constraints import names_of, refused_by

pytestmark = pytest.mark.django_db
Break = Callable[[AnswerSet, User], object]


def second_opinion(answer_set: AnswerSet, ann: User) -> None:
    first = make_ranking(answer_set, ann)
    first.slot.__class__.objects.update(holder=None)  # so that the slot's own promise is no help
    make_ranking(answer_set, ann)


def more_active_than_there(answer_set: AnswerSet, ann: User) -> None:
    make_ranking(answer_set, ann, duration_ms=1000, active_ms=1001)


def item(**changes: object) -> Break:
    """Change the item of the first answer in a sound ranking."""

    def change(answer_set: AnswerSet, ann: User) -> None:
        ranking = make_ranking(answer_set, ann)
        ranking.items.filter(position=0).update(**changes)

    return change


def one_answer_twice(answer_set: AnswerSet, ann: User) -> None:
    ranking = make_ranking(answer_set, ann)
    first = ranking.items.first()
    RankingItem.objects.create(ranking=ranking, answer=first.answer, rank=1, position=7)


def skip_twice(answer_set: AnswerSet, ann: User) -> None:
    slot = make_slot(answer_set)
    for reason in ("unclear", "expert"):
        Skip.objects.create(slot=slot, answer_set=answer_set, annotator=ann, reason=reason)


def flag_twice(answer_set: AnswerSet, ann: User) -> None:
    for _ in range(2):
        Flag.objects.create(answer=answer_set.answers.first(), annotator=ann)


def one_revision_twice(answer_set: AnswerSet, ann: User) -> None:
    ranking = make_ranking(answer_set, ann)
    for _ in range(2):
        RankingRevision.objects.create(ranking=ranking, n=1, facts={})


BROKEN: dict[tuple[type[models.Model], str], Break] = {
    (Ranking, "one_ranking_per_annotator_and_set"): second_opinion,
    (Ranking, "active_within_duration"): more_active_than_there,
    (RankingItem, "answer_once_per_ranking"): one_answer_twice,
    (RankingItem, "position_once_per_ranking"): item(position=1),
    (RankingItem, "rank_1_to_9"): item(rank=0),
    (RankingItem, "position_0_to_8"): item(position=9),
    (RankingItem, "gap_1_to_3"): item(gap=4),
    (RankingItem, "likert_1_to_7"): item(likert=8),
    (RankingRevision, "revision_once_per_ranking"): one_revision_twice,
    (Skip, "one_skip_per_set"): skip_twice,
    (Flag, "one_flag_per_annotator"): flag_twice,
}


def test_every_constraint_is_broken_here() -> None:
    assert names_of(Ranking, RankingItem, RankingRevision, Gold, Skip, Flag) == set(BROKEN)


@pytest.mark.parametrize(("model", "name"), BROKEN, ids=lambda one: str(one))
def test_the_database_refuses(
    model: type[models.Model], name: str, project: Project, ann: User
) -> None:
    answer_set = make_answer_set(project)
    refused_by(model, name, lambda: BROKEN[model, name](answer_set, ann))


@pytest.mark.parametrize("changes", [{"rank": 10}, {"gap": 0}, {"likert": 0}])
def test_the_other_ends_of_the_ranges(changes: dict, project: Project, ann: User) -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        item(**changes)(make_answer_set(project), ann)


def test_one_slot_holds_one_ranking(project: Project, ann: User, ben: User) -> None:
    anns = make_ranking(make_answer_set(project), ann)
    bens = make_ranking(make_answer_set(project), ben)
    with pytest.raises(IntegrityError, match="slot"), transaction.atomic():
        Ranking.objects.filter(pk=bens.pk).update(slot=anns.slot)


def test_one_submit_key_stores_one_ranking(project: Project, ann: User, ben: User) -> None:
    anns = make_ranking(make_answer_set(project), ann)
    bens = make_ranking(make_answer_set(project), ben)
    with pytest.raises(IntegrityError, match="idempotency_key"), transaction.atomic():
        Ranking.objects.filter(pk=bens.pk).update(idempotency_key=anns.idempotency_key)


def test_one_set_has_one_known_ranking(project: Project) -> None:
    answer_set = make_answer_set(project, purpose=AnswerSet.Purpose.GOLD)
    Gold.objects.create(answer_set=answer_set, ranks={})
    with pytest.raises(IntegrityError, match="answer_set"), transaction.atomic():
        Gold.objects.create(answer_set=answer_set, ranks={})


def test_what_a_ranking_speaks_of_cannot_be_removed(project: Project, ann: User) -> None:
    ranking = make_ranking(make_answer_set(project), ann)
    for row in (ranking.slot, ranking.answer_set, ranking.project, ann, ranking.guidelines):
        with pytest.raises(ProtectedError):
            row.delete()
