"""Reads about known rankings: those that are there, and ranked sets that could become one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from django.db.models import Count, Exists, OuterRef, Prefetch, Q, QuerySet
from django.http import Http404
from django.utils.translation import gettext as _

from labelhub.projects.models import Project
from labelhub.prompts.models import Answer, AnswerSet
from labelhub.rankings.consensus import ranked_pairs
from labelhub.rankings.models import Gold, Ranking

Purpose = AnswerSet.Purpose


@dataclass(frozen=True, slots=True)
class Known:
    """A known ranking with its answers from best to worst."""

    gold: Gold
    tiers: list[list[Answer]]
    given: int  # how many people ranked it

    @property
    def is_tutorial(self) -> bool:
        return self.gold.answer_set.purpose == Purpose.TUTORIAL


def known_rankings(project: Project, *, retired: bool = False) -> list[Known]:
    """The project's known rankings: the tutorial in its order, then gold, newest first."""
    rows = (
        Gold.objects.filter(answer_set__prompt__project=project, answer_set__retired=retired)
        .select_related("answer_set__prompt", "created_by")
        .prefetch_related(Prefetch("answer_set__answers", Answer.objects.order_by("n")))
        .annotate(given=Count("answer_set__rankings"))
        .order_by("-answer_set__purpose", "place", "-pk")
    )
    return [Known(gold, tiers_of(gold), gold.given) for gold in rows]


def tiers_of(gold: Gold) -> list[list[Answer]]:
    """The answers by their known place, best first."""
    answers = list(gold.answer_set.answers.all())
    places = sorted({int(rank) for rank in gold.ranks.values()})
    return [[one for one in answers if gold.ranks.get(str(one.pk)) == place] for place in places]


def get_gold_or_404(project: Project, gold_id: int) -> Gold:
    """One known ranking of this project."""
    found = (
        Gold.objects.filter(pk=gold_id, answer_set__prompt__project=project)
        .select_related("answer_set__prompt")
        .first()
    )
    if found is None:
        raise Http404(_("There is no such known ranking in this project."))
    return found


def candidates(project: Project) -> QuerySet[AnswerSet]:
    """Ranked sets that could become known: decided ones first, then those with most opinions."""
    decided = Ranking.objects.filter(answer_set=OuterRef("pk"), adjudicates=True)
    return (
        AnswerSet.objects.filter(prompt__project=project, purpose=Purpose.RANK)
        .select_related("prompt")
        .annotate(
            opinions=Count("rankings", filter=Q(rankings__adjudicates=False)),
            decided=Exists(decided),
        )
        .filter(Q(opinions__gt=0) | Q(decided=True))
        .order_by("-decided", "-opinions", "-pk")
    )


def get_candidate_or_404(project: Project, answer_set_id: int) -> AnswerSet:
    """One set of this project that people ranked."""
    found = candidates(project).filter(pk=answer_set_id).first()
    if found is None:
        raise Http404(_("Nobody has ranked such a set in this project."))
    return found


def proposed_ranks(answer_set: AnswerSet) -> Mapping[int, int]:
    """The reviewer's decision by answer id, else what the opinions have in common."""
    rankings = list(answer_set.rankings.prefetch_related("items").order_by("-adjudicates", "pk"))
    orders = [{item.answer_id: item.rank for item in one.items.all()} for one in rankings]
    if rankings and rankings[0].adjudicates:
        return orders[0]
    return ranked_pairs(orders)


def became_known(answer_set: AnswerSet) -> bool:
    """Whether a known ranking of the same texts to the same prompt is there already."""
    texts = sorted(answer_set.answers.values_list("sha256", flat=True))
    others = AnswerSet.objects.filter(
        prompt=answer_set.prompt_id,
        purpose__in=[Purpose.GOLD, Purpose.TUTORIAL],
        retired=False,
        gold__isnull=False,
    )
    return any(sorted(one.answers.values_list("sha256", flat=True)) == texts for one in others)
