"""Pages for annotators: my projects, the next set, the board. All of it works as plain forms.

Every view begins by finding the project among those that the person may annotate. What is sent is
proved by the slot's lease token, not by who holds the slot now: late but honest work comes from
people who hold it no more.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from labelhub.accounts.http import PersonRequest
from labelhub.accounts.models import User
from labelhub.annotate.board import letters, make_board, shown_answers
from labelhub.annotate.forms import RankingForm, SkipForm
from labelhub.assignments import actions as assignments
from labelhub.assignments.models import Slot
from labelhub.assignments.queries import (
    QueueCounts,
    get_own_slot_or_404,
    get_slot_or_404,
    queue_counts,
)
from labelhub.lib.errors import Refused
from labelhub.lib.markdown import render as markdown
from labelhub.projects.models import Guidelines, Project
from labelhub.projects.queries import current_guidelines, get_project_or_404, visible_projects
from labelhub.rankings import actions as rankings


@dataclass(frozen=True)
class Desk:
    """One project as its annotator sees it: the context of projects.html and next.html."""

    project: Project
    counts: QueueCounts
    guidelines: Guidelines | None = None

    @property
    def wanted(self) -> int:
        """How many sets this person's progress is counted against."""
        return self.counts.mine_total + self.counts.left_for_me

    @property
    def has_work(self) -> bool:
        """Whether there is something to rank now."""
        return self.counts.left_for_me > 0 and not self.project.paused

    @property
    def guidelines_html(self) -> SafeString:
        """The guidelines as they are read."""
        return markdown(self.guidelines.text if self.guidelines else "")


@login_required
@require_safe
@never_cache
def projects(request: PersonRequest) -> HttpResponse:
    """Show my projects, those with work first; a single one with work needs no choice."""
    mine = visible_projects(request.user).filter(is_simulated=False)
    desks = [Desk(project, queue_counts(project, request.user)) for project in mine]
    desks.sort(key=lambda desk: not desk.has_work)
    working = [desk for desk in desks if desk.has_work]
    first = working[0] if len(working) == 1 else None
    rest = [desk for desk in desks if desk is not first]
    return render(request, "annotate/projects.html", {"first": first, "desks": rest})


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
@never_cache
def next_set(request: PersonRequest, slug: str) -> HttpResponse:
    """POST takes the next set and shows it; GET says what waits, behind one button."""
    project = _project_or_404(request.user, slug)
    if request.method == "POST":
        return _to_next(request, project)
    desk = Desk(project, queue_counts(project, request.user), current_guidelines(project))
    return render(request, "annotate/next.html", {"desk": desk})


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
@never_cache
def board(request: PersonRequest, slug: str, slot_id: int) -> HttpResponse:
    """Show the ranking board; POST submits the order and goes on to the next set."""
    project = _project_or_404(request.user, slug)
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
    form = RankingForm(request.POST, letters=letters(shown_answers(slot, request.user)))
    if not form.is_valid():
        return _board_again(request, slot, form.refusal, status=422)
    duration_ms, active_ms = form.times(time.time_ns() // 1_000_000)
    try:
        rankings.submit_ranking(
            slot_id=slot.pk,
            token=form.cleaned_data["token"],
            ranks=form.ranks,
            idempotency_key=form.cleaned_data["key"],
            duration_ms=duration_ms,
            active_ms=active_ms,
            by=request.user,
            sha256=form.hashes,
        )
    except Refused as refusal:
        return _board_again(request, slot, refusal.message, status=refusal.status)
    messages.success(request, _("Your ranking is saved."))
    return _to_next(request, project)


@login_required
@require_POST
def skip(request: PersonRequest, slug: str, slot_id: int) -> HttpResponse:
    """Pass a set on, with the reason why, and go on to the next."""
    project = _project_or_404(request.user, slug)
    slot = _proved_slot_or_404(request, project, slot_id)
    form = SkipForm(request.POST)
    if not form.is_valid():
        return _board_again(request, slot, form.refusal, status=422)
    try:
        rankings.skip(slot_id=slot.pk, by=request.user, **form.cleaned_data)
    except Refused as refusal:
        return _board_again(request, slot, refusal.message, status=refusal.status)
    messages.success(request, _("The set was passed on."))
    return _to_next(request, project)


@login_required
@require_POST
def renew(request: PersonRequest, slug: str, slot_id: int) -> HttpResponse:
    """Keep the lease of somebody who is at work (the page's script calls this)."""
    _project_or_404(request.user, slug)
    try:
        end = assignments.renew_lease(
            slot_id=slot_id, token=request.POST.get("token", ""), by=request.user
        )
    except Refused as refusal:
        return JsonResponse({"error": refusal.message}, status=refusal.status)
    return JsonResponse({"seconds_left": int((end - timezone.now()).total_seconds())})


@login_required
@require_POST
def release(request: PersonRequest, slug: str, slot_id: int) -> HttpResponse:
    """Give a set back, since its page was left (the browser sends this as it goes)."""
    _project_or_404(request.user, slug)
    assignments.release(slot_id=slot_id, token=request.POST.get("token", ""), by=request.user)
    return HttpResponse(status=204)


def _project_or_404(user: User, slug: str) -> Project:
    """Find a project that people annotate; what simulated annotators rank is never offered."""
    project = get_project_or_404(user, slug)
    if project.is_simulated:
        raise Http404(_("This project is ranked by simulated annotators."))
    return project


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


def _to_next(request: PersonRequest, project: Project) -> HttpResponse:
    try:
        slot = assignments.claim_next(project=project, by=request.user)
    except Refused as refusal:
        messages.error(request, refusal.message)
        slot = None
    if slot is None:
        return redirect("annotate:next", project.slug)
    return redirect("annotate:board", project.slug, slot.pk)


def _board_again(request: PersonRequest, slot: Slot, refusal: str, *, status: int) -> HttpResponse:
    """Show the same page with one sentence; everything that was sent stands in it again."""
    again = make_board(slot, request.user, sent=request.POST.dict(), refusal=refusal)
    return render(request, "annotate/board.html", {"board": again}, status=status)
