"""My work: what I ranked, when and how, and which policies learned from it; and corrections.

Known rankings and repeats stand among the others and look like them: what training made of them is
told for a day as a whole, never for one ranking.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import groupby

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.paginator import Page, Paginator
from django.http import Http404, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_safe

from labelhub.accounts.http import PersonRequest
from labelhub.accounts.models import User
from labelhub.annotate.access import project_or_404
from labelhub.annotate.board import Turn, make_board
from labelhub.annotate.forms import RankingForm
from labelhub.annotate.orders import Order, letters_seen, order_of
from labelhub.annotate.said import Said, SaidOfCard, said
from labelhub.lib.errors import Refused
from labelhub.lib.markdown import render as markdown
from labelhub.projects.models import Guidelines, Project
from labelhub.rankings.actions import UNCHANGEABLE, correct_ranking
from labelhub.rankings.models import Ranking, RankingRevision
from labelhub.rankings.queries import (
    facts_of,
    history_of,
    progress_of,
    why_not_correctable,
)
from labelhub.registry.models import ModelVersion
from labelhub.runs.queries import touched_by, trained_by

PER_PAGE = 40
PROMPT_CHARACTERS = 110


@dataclass(frozen=True)
class Row:
    """One ranking in the list."""

    ranking: Ranking
    prompt: str
    order: Order


@dataclass(frozen=True)
class Day:
    """The rankings of one day, and the policies that learned from any of them."""

    date: date
    rows: Sequence[Row]
    policies: Sequence[ModelVersion]

    @property
    def is_today(self) -> bool:
        """Whether it is not over yet."""
        return self.date == timezone.localdate()


@dataclass(frozen=True)
class PlacedCard:
    """One answer of a ranking that stands, with what was said of it."""

    said: SaidOfCard
    html: SafeString


@dataclass(frozen=True)
class Earlier:
    """A ranking as it stood before it was corrected."""

    revision: RankingRevision
    said: Said
    guidelines: Guidelines | None


@dataclass(frozen=True)
class Work:
    """The context of annotate/ranking.html: one ranking, with its earlier versions."""

    ranking: Ranking
    turns: list[Turn]
    said: Said
    cards: list[PlacedCard]
    earlier: list[Earlier]
    why_not: str  # it can no longer be corrected; empty when it can

    @property
    def language(self) -> str:
        """The language of the conversation."""
        return self.ranking.answer_set.prompt.language


@login_required
@require_safe
@never_cache
def history(request: PersonRequest, slug: str) -> HttpResponse:
    """My rankings in this project, newest first."""
    project = project_or_404(request.user, slug)
    mine = history_of(request.user, project).select_related("guidelines").prefetch_related("items")
    page = Paginator(mine, PER_PAGE).get_page(request.GET.get("page"))
    context = {
        "project": project,
        "here": "history",
        "page": page,
        "days": _days(page),
        "progress": progress_of(request.user, project),
        "policies": policies_of(request.user, project),
    }
    return render(request, "annotate/history.html", context)


def policies_of(user: User, project: Project) -> list[ModelVersion]:
    """The policies that learned from this person's rankings, newest first."""
    _snapshots, versions = touched_by(project, user)
    return _policies(versions)


def _policies(versions: Iterable[ModelVersion]) -> list[ModelVersion]:
    found = {one for one in versions if one.kind == ModelVersion.Kind.POLICY}
    return sorted(found, key=lambda one: one.number, reverse=True)


def _days(page: Page[Ranking]) -> list[Day]:
    learned = trained_by([ranking.pk for ranking in page])
    days = groupby(page, key=lambda ranking: timezone.localdate(ranking.created))
    return [_day(when, list(rankings), learned) for when, rankings in days]


def _day(when: date, rankings: Sequence[Ranking], learned: dict[int, list[ModelVersion]]) -> Day:
    versions = (version for ranking in rankings for version in learned.get(ranking.pk, ()))
    return Day(when, [_row(ranking) for ranking in rankings], _policies(versions))


def _row(ranking: Ranking) -> Row:
    items = ranking.items.all()
    asked = " ".join(str(ranking.answer_set.prompt.messages[-1]["content"]).split())
    short = asked if len(asked) <= PROMPT_CHARACTERS else asked[: PROMPT_CHARACTERS - 1] + "…"
    ranks = {item.answer_id: item.rank for item in items}
    return Row(ranking, short, order_of(ranks, letters_seen(items)))


@login_required
@require_safe
@never_cache
def ranking(request: PersonRequest, slug: str, ranking_id: int) -> HttpResponse:
    """One of my rankings with its texts, what I said beside it, and how it stood before."""
    project = project_or_404(request.user, slug)
    work = _work(_own_ranking_or_404(request.user, project, ranking_id))
    context = {"project": project, "here": "history", "work": work}
    return render(request, "annotate/ranking.html", context)


def _own_ranking_or_404(user: User, project: Project, ranking_id: int) -> Ranking:
    found = (
        history_of(user, project)
        .select_related("guidelines", "slot__project", "slot__answer_set__prompt")
        .prefetch_related("items__answer", "revisions")
        .filter(pk=ranking_id)
        .first()
    )
    if found is None:
        raise Http404(_("You have no such ranking in this project: look at the list of your work."))
    return found


def _work(one: Ranking) -> Work:
    items = one.items.all()
    names = letters_seen(items)
    texts = {item.answer_id: markdown(item.answer.text) for item in items}
    stands = said(facts_of(one), names, one.project)
    why = why_not_correctable(one)
    versions = {version.pk: version for version in one.project.guidelines.all()}
    return Work(
        ranking=one,
        turns=[Turn(m["role"], markdown(m["content"])) for m in one.answer_set.prompt.messages],
        said=stands,
        cards=[PlacedCard(card, texts[card.answer_id]) for card in stands.cards],
        earlier=[
            Earlier(revision, before, versions.get(before.guidelines_id or 0))
            for revision in one.revisions.all()
            for before in [said(revision.facts, names, one.project)]
        ],
        why_not=str(UNCHANGEABLE[why]) if why else "",
    )


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
@never_cache
def correct(request: PersonRequest, slug: str, ranking_id: int) -> HttpResponse:
    """Reopen a ranking of today; POST puts the corrected one in its place and keeps the old one."""
    project = project_or_404(request.user, slug)
    one = _own_ranking_or_404(request.user, project, ranking_id)
    if request.method == "POST":
        return _corrected(request, one)
    if why := why_not_correctable(one):
        messages.info(request, str(UNCHANGEABLE[why]))
        return redirect("annotate:ranking", slug, ranking_id)
    return _board(request, one)


def _corrected(request: PersonRequest, one: Ranking) -> HttpResponse:
    form = RankingForm.of(one.slot, request.user, request.POST, mode="correct", given=one)
    if not form.is_valid():
        return _board(request, one, refusal=form.refusal, status=422)
    revision = form.cleaned_data["revision"] or 0
    try:
        correct_ranking(ranking_id=one.pk, revision=revision, by=request.user, **form.said())
    except Refused as refusal:
        return _board(request, one, refusal=refusal.message, status=refusal.status)
    messages.success(request, _("The corrected ranking stands; the one before it is kept."))
    return redirect("annotate:ranking", one.project.slug, one.pk)


def _board(
    request: PersonRequest, one: Ranking, *, refusal: str = "", status: int = 200
) -> HttpResponse:
    board = make_board(
        one.slot,
        request.user,
        mode="correct",
        action=reverse("annotate:correct", args=[one.project.slug, one.pk]),
        given=one,
        sent=request.POST if refusal else None,
        refusal=refusal,
    )
    return render(request, "annotate/board.html", {"board": board}, status=status)
