"""Boards outside the queue: the tutorial's and the reviewers'. One way to take in their forms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.http import Http404, HttpResponse
from django.shortcuts import render
from django.utils.translation import gettext as _

from labelhub.accounts.http import PersonRequest
from labelhub.annotate.board import Mode, make_board
from labelhub.annotate.forms import RankingForm
from labelhub.assignments.actions import prove
from labelhub.assignments.models import Slot
from labelhub.assignments.queries import get_slot_or_404
from labelhub.lib.errors import Refused
from labelhub.projects.models import Project
from labelhub.rankings.actions import submit_ranking
from labelhub.rankings.models import Ranking


def proved_slot_or_404(request: PersonRequest, project: Project, slot_id: int, kind: str) -> Slot:
    """Find the slot of this kind that the form's token was given out for, whoever holds it now."""
    slot = get_slot_or_404(request.user, slot_id)
    if slot.project_id != project.pk or slot.kind != kind:
        raise Http404(_("These answers belong to another page: go back to your project."))
    try:
        prove(slot_id=slot_id, token=request.POST.get("token", ""), by=request.user)
    except Refused as refusal:
        raise Http404(refusal.message) from refusal
    return slot


def submitted(
    request: PersonRequest,
    slot: Slot,
    *,
    mode: Mode,
    action: str,
    opinions: Sequence[Any] | None = None,
) -> Ranking | HttpResponse:
    """Store what the form says; if that is refused, the same page with one sentence."""
    form = RankingForm.of(slot, request.user, request.POST, mode=mode)
    refusal, status = "", 422
    if form.is_valid():
        try:
            return submit_ranking(
                slot_id=slot.pk, token=form.cleaned_data["token"], by=request.user, **form.said()
            )
        except Refused as why:
            refusal, status = why.message, why.status
    board = make_board(
        slot,
        request.user,
        mode=mode,
        action=action,
        opinions=opinions,
        sent=request.POST,
        refusal=refusal or form.refusal,
    )
    return render(request, "annotate/board.html", {"board": board}, status=status)
