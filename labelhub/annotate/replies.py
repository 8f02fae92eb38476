"""What a form gets back: the next page, or the same one with a sentence. For a script: JSON.

The script of the board sends a ranking by itself, so that one that meets no line can wait in the
browser. It asks for JSON, and for the next set only while somebody stands at the board to take it.
"""

from __future__ import annotations

from django.contrib import messages
from django.http import HttpResponse, JsonResponse
from django.shortcuts import render
from django.utils.translation import gettext as _

from labelhub.accounts.http import PersonRequest
from labelhub.annotate.access import to_next
from labelhub.annotate.board import make_board
from labelhub.assignments.models import Slot
from labelhub.assignments.queries import queue_counts
from labelhub.projects.models import Project


def wants_json(request: PersonRequest) -> bool:
    """Whether a script asks, not a form of the page."""
    return "application/json" in request.headers.get("Accept", "")


def done(request: PersonRequest, project: Project, said: str) -> HttpResponse:
    """Say what was done and go on to the next set."""
    if not wants_json(request):
        messages.success(request, said)
        return to_next(request, project)
    if "stay" in request.POST:
        return JsonResponse({"said": said, "next": None})
    address = to_next(request, project)["Location"]
    # The next page may have been fetched before this: its script puts the figures right.
    counts = queue_counts(project, request.user)
    figures = {"done": counts.mine_total, "wanted": counts.mine_total + counts.left_for_me}
    progress = {**figures, "words": _("%(done)s of %(wanted)s") % figures}
    return JsonResponse({"said": said, "next": address, "progress": progress})


def refused(request: PersonRequest, slot: Slot, refusal: str, *, status: int) -> HttpResponse:
    """Show the same page with one sentence; everything that was sent stands in it again."""
    if wants_json(request):
        return JsonResponse({"error": refusal}, status=status)
    again = make_board(slot, request.user, sent=request.POST, refusal=refusal)
    return render(request, "annotate/board.html", {"board": again}, status=status)
