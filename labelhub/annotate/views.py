"""The ranking board and what is sent from it. All of it works as plain forms.

Every view begins by finding the project among those that the person may annotate. What is sent is
proved by the slot's lease token, not by who holds the slot now: late but honest work comes from
people who hold it no more.
"""

from __future__ import annotations

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST

from labelhub.accounts.http import PersonRequest
from labelhub.annotate.access import project_or_404
from labelhub.annotate.board import letters, make_board, shown_answers
from labelhub.annotate.forms import FlagForm, RankingForm, SkipForm
from labelhub.annotate.replies import done, refused, wants_json
from labelhub.assignments import actions as assignments
from labelhub.assignments.models import Slot
from labelhub.assignments.queries import (
    get_own_slot_or_404,
    get_slot_or_404,
)
from labelhub.lib.errors import Refused
from labelhub.projects.models import Project
from labelhub.rankings import actions as rankings


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
@never_cache
def board(request: PersonRequest, slug: str, slot_id: int) -> HttpResponse:
    """Show the ranking board; POST submits the order and goes on to the next set."""
    project = project_or_404(request.user, slug)
    if request.method == "POST":
        return _submit(request, project, _proved_slot_or_404(request, project, slot_id))
    try:
        slot = get_own_slot_or_404(request.user, slot_id)
    except Http404:
        # Given back when its page was left, perhaps by a reload; a stranger's slot looks the same.
        messages.info(request, _("That set went back to the queue. Your next one is ready here."))
        return redirect("annotate:next", slug)
    if slot.project_id != project.pk:
        raise Http404(_("These answers belong to another project."))
    if slot.state == Slot.State.DONE:
        messages.info(request, _("You have ranked that set already. Your next one is ready here."))
        return redirect("annotate:next", slug)
    return render(request, "annotate/board.html", {"board": make_board(slot, request.user)})


def _submit(request: PersonRequest, project: Project, slot: Slot) -> HttpResponse:
    form = RankingForm.of(slot, request.user, request.POST)
    if not form.is_valid():
        return refused(request, slot, form.refusal, status=422)
    try:
        rankings.submit_ranking(
            slot_id=slot.pk, token=form.cleaned_data["token"], by=request.user, **form.said()
        )
    except Refused as refusal:
        return refused(request, slot, refusal.message, status=refusal.status)
    return done(request, project, _("Your ranking is saved."))


@login_required
@require_POST
def skip(request: PersonRequest, slug: str, slot_id: int) -> HttpResponse:
    """Pass a set on, with the reason why, and go on to the next."""
    project = project_or_404(request.user, slug)
    slot = _proved_slot_or_404(request, project, slot_id)
    form = SkipForm(request.POST)
    if not form.is_valid():
        return refused(request, slot, form.refusal, status=422)
    try:
        rankings.skip(slot_id=slot.pk, by=request.user, **form.cleaned_data)
    except Refused as refusal:
        return refused(request, slot, refusal.message, status=refusal.status)
    return done(request, project, _("The set was passed on."))


@login_required
@require_POST
def flag(request: PersonRequest, slug: str, slot_id: int) -> HttpResponse:
    """Show one answer to the admins. The board stays as it is: its whole form comes along."""
    project = project_or_404(request.user, slug)
    slot = _proved_slot_or_404(request, project, slot_id)
    answers = shown_answers(slot, request.user)
    form = FlagForm(request.POST, letters=letters(answers))
    if not form.is_valid():
        return refused(request, slot, form.refusal, status=422)
    answer = next(one for one in answers if one.pk == form.cleaned_data["flag_answer"])
    rankings.flag_answer(answer=answer, note=form.cleaned_data["flag_note"], by=request.user)
    said = _("Card %(card)s is flagged: the admins will look at it.") % {"card": form.letter}
    if wants_json(request):
        return JsonResponse({"said": said})
    sent = request.POST.copy()
    for name in ("flag_answer", "flag_note"):
        sent.pop(name, None)
    again = make_board(slot, request.user, sent=sent, note=said)
    return render(request, "annotate/board.html", {"board": again})


@login_required
@require_POST
def renew(request: PersonRequest, slug: str, slot_id: int) -> HttpResponse:
    """Keep the lease of somebody who is at work (the page's script calls this)."""
    project_or_404(request.user, slug)
    try:
        end = assignments.renew_lease(
            slot_id=slot_id, token=request.POST.get("token", ""), by=request.user
        )
    except Refused as refusal:
        return JsonResponse({"error": refusal.message}, status=refusal.status)
    return JsonResponse({"seconds_left": int((end - timezone.now()).total_seconds())})


@login_required
@require_POST
def ahead(request: PersonRequest, slug: str, slot_id: int) -> HttpResponse:
    """Lend the set that comes after this one, too, so that its page can be fetched meanwhile."""
    project = project_or_404(request.user, slug)
    try:
        slot = assignments.claim_ahead(
            project=project,
            by=request.user,
            slot_id=slot_id,
            token=request.POST.get("token", ""),
        )
    except Refused as refusal:
        return JsonResponse({"error": refusal.message}, status=refusal.status)
    address = reverse("annotate:board", args=[project.slug, slot.pk]) if slot else None
    return JsonResponse({"next": address})


@login_required
@require_POST
def release(request: PersonRequest, slug: str, slot_id: int) -> HttpResponse:
    """Give a set back, since its page was left (the browser sends this as it goes)."""
    project_or_404(request.user, slug)
    assignments.release(slot_id=slot_id, token=request.POST.get("token", ""), by=request.user)
    return HttpResponse(status=204)


def _proved_slot_or_404(request: PersonRequest, project: Project, slot_id: int) -> Slot:
    """Find the slot that the form's token was given out for, whoever holds it by now."""
    slot = get_slot_or_404(request.user, slot_id)
    if slot.project_id != project.pk:
        raise Http404(_("These answers belong to another project."))
    try:
        assignments.prove(slot_id=slot_id, token=request.POST.get("token", ""), by=request.user)
    except Refused as refusal:
        raise Http404(refusal.message) from refusal
    return slot
