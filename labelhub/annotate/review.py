"""Reviews: where opinions on a set differ, a reviewer decides. Whose opinion it was is not shown.

The decision is a ranking like any other, and the opinions stay beside it. The order of the opinions
says nothing (it is shuffled for each set), and the order suggested from them is not preset: who
wants to start from it says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.datastructures import MultiValueDict
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

from labelhub.accounts.http import PersonRequest
from labelhub.accounts.models import User
from labelhub.annotate import fields
from labelhub.annotate.access import reviewed_project_or_404
from labelhub.annotate.board import letters, make_board, shown_answers
from labelhub.annotate.orders import Order, order_of
from labelhub.annotate.said import Said, said
from labelhub.annotate.submission import proved_slot_or_404, submitted
from labelhub.assignments.actions import claim_review
from labelhub.assignments.models import Slot
from labelhub.assignments.queries import (
    get_own_slot_or_404,
    open_reviews,
    own_held_slots,
    seat_of,
)
from labelhub.assignments.rules import display_order
from labelhub.lib.errors import Refused
from labelhub.projects.models import Project
from labelhub.rankings.consensus import ranked_pairs
from labelhub.rankings.models import Ranking
from labelhub.rankings.queries import facts_of
from labelhub.rankings.rules import mean_tau
from labelhub.rankings.work import opinions_on


@dataclass(frozen=True)
class Opinion:
    """What one person said of the set; nothing here tells who it was."""

    number: int
    said: Said


class Opinions(Sequence[Opinion]):
    """The opinions on one set in a shuffled order, and what they come to together."""

    def __init__(self, opinions: Sequence[Opinion], suggested: dict[int, int], order: Order):
        self._opinions = tuple(opinions)
        self.suggested = suggested  # dense ranks by answer id
        self.order = order  # the same in letters
        ranks = [{card.answer_id: card.rank for card in one.said.cards} for one in opinions]
        self.agreement = mean_tau(ranks)  # None with one opinion, or where all is tied

    @overload
    def __getitem__(self, index: int) -> Opinion: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Opinion]: ...
    def __getitem__(self, index: int | slice) -> Opinion | Sequence[Opinion]:
        return self._opinions[index]

    def __len__(self) -> int:
        return len(self._opinions)

    @property
    def fields(self) -> dict[str, int]:
        """The suggested order by the names of the board's fields."""
        return {fields.rank(pk): rank for pk, rank in self.suggested.items()}


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
@never_cache
def review(request: PersonRequest, slug: str) -> HttpResponse:
    """Say how many sets wait for a decision; POST takes the next one."""
    project = reviewed_project_or_404(request.user, slug)
    if request.method == "POST":
        return _to_next(request, project)
    context = {
        "project": project,
        "here": "review",
        "waiting": reviews_waiting(request.user, project),
        "decided": Ranking.objects.filter(
            project=project, annotator=request.user, adjudicates=True
        ).count(),
    }
    return render(request, "annotate/review.html", context)


def reviews_waiting(user: User, project: Project) -> int:
    """How many sets this person could decide now, the one in hand included."""
    seat = seat_of(user, project)
    if seat is None:
        return 0
    held = own_held_slots(user, project, [Slot.Kind.REVIEW])
    return open_reviews(user, project, seat).count() + held.count()


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
@never_cache
def review_set(request: PersonRequest, slug: str, slot_id: int) -> HttpResponse:
    """One set with the opinions on it; POST stores the decision and goes on to the next.

    With `?start=suggested` the places are filled in from the opinions.
    """
    project = reviewed_project_or_404(request.user, slug)
    action = reverse("annotate:review-set", args=[slug, slot_id])
    if request.method == "POST":
        slot = proved_slot_or_404(request, project, slot_id, Slot.Kind.REVIEW)
        opinions = opinions_before(slot, request.user)
        kept = submitted(request, slot, mode="review", action=action, opinions=opinions)
        if not isinstance(kept, Ranking):
            return kept
        messages.success(request, _("Your decision is saved."))
        return _to_next(request, project)
    try:
        slot = _own_slot_or_404(request, project, slot_id)
    except Http404:
        messages.info(request, _("That set went back to the others: take the next one here."))
        return redirect("annotate:review", slug)
    if slot.state == Slot.State.DONE:
        messages.info(request, _("You have decided on that set already."))
        return redirect("annotate:review", slug)
    opinions = opinions_before(slot, request.user)
    start = request.GET.get("start") == "suggested"
    board = make_board(
        slot,
        request.user,
        mode="review",
        action=action,
        opinions=opinions,
        sent=_as_sent(opinions) if start else None,
    )
    return render(request, "annotate/board.html", {"board": board})


def _as_sent(opinions: Opinions) -> MultiValueDict[str, str]:
    return MultiValueDict({name: [str(rank)] for name, rank in opinions.fields.items()})


def _own_slot_or_404(request: PersonRequest, project: Project, slot_id: int) -> Slot:
    slot = get_own_slot_or_404(request.user, slot_id)
    if slot.project_id != project.pk or slot.kind != Slot.Kind.REVIEW:
        raise Http404(_("This is no set to decide on: go on from your project's page."))
    return slot


def _to_next(request: PersonRequest, project: Project) -> HttpResponse:
    try:
        slot = claim_review(project=project, by=request.user)
    except Refused as refusal:
        messages.error(request, refusal.message)
        slot = None
    if slot is None:
        return redirect("annotate:review", project.slug)
    return redirect("annotate:review-set", project.slug, slot.pk)


def opinions_before(slot: Slot, reviewer: User) -> Opinions:
    """The opinions on the slot's set as this reviewer sees them, in letters of the own board."""
    names = letters(shown_answers(slot, reviewer))
    rankings = {ranking.pk: ranking for ranking in opinions_on(slot.answer_set)}
    # Neither who spoke first nor whose name comes first may be told from the order.
    shuffled = display_order(slot.pk, reviewer.pk, rankings)
    opinions = [
        Opinion(number, said(facts_of(rankings[pk]), names, slot.project))
        for number, pk in enumerate(shuffled, start=1)
    ]
    orders = [
        {item.answer_id: item.rank for item in ranking.items.all()} for ranking in rankings.values()
    ]
    suggested = ranked_pairs(orders)
    return Opinions(opinions, suggested, order_of(suggested, names))
