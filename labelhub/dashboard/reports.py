"""What waits for an admin's eye: sets that were passed on, flagged answers, and held-back sets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.db import transaction
from django.http import Http404, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST, require_safe

from labelhub.accounts.http import PersonRequest
from labelhub.accounts.models import User
from labelhub.assignments import actions as assignments
from labelhub.assignments.queries import held_back
from labelhub.dashboard.views import find
from labelhub.lib.errors import Refused
from labelhub.projects.models import Project
from labelhub.prompts.actions import retire_prompt
from labelhub.prompts.models import AnswerSet
from labelhub.rankings.actions import handle_flag, handle_skip
from labelhub.rankings.models import Flag, Skip
from labelhub.rankings.reports import (
    get_flag_or_404,
    get_skip_or_404,
    latest_handled,
    open_flags,
    passed_on,
)

SHOWN = 50


@login_required
@require_safe
@never_cache
def reports(request: PersonRequest, slug: str) -> HttpResponse:
    """All that waits, the most pressing first, and what was handled last."""
    project = find(request, slug)
    leaks = held_back(project).prefetch_related("answers")
    passed = passed_on(project)
    context = {
        "project": project,
        "tab": "reports",
        "waiting": [one for one in passed if one.waits],
        "passed": [one for one in passed if not one.waits],
        "flags": open_flags(project)[:SHOWN],
        "leaks": leaks[:SHOWN],
        "handled": latest_handled(project),
    }
    return render(request, "dashboard/reports.html", context)


Do = Callable[[Any, User], object]


def _put_back(skip: Skip, by: User) -> None:
    handle_skip(skip=skip, do="put_back", by=by)


def _retire_skipped(skip: Skip, by: User) -> None:
    handle_skip(skip=skip, do="retire", by=by)


def _flag_done(flag: Flag, by: User) -> None:
    handle_flag(flag=flag, by=by)


def _retire_flagged(flag: Flag, by: User) -> None:
    retire_prompt(prompt=flag.answer.answer_set.prompt, by=by)
    handle_flag(flag=flag, by=by)


def _let_go(answer_set: AnswerSet, by: User) -> None:
    assignments.release_held_back(answer_set=answer_set, by=by)


def _retire_held_back(answer_set: AnswerSet, by: User) -> None:
    retire_prompt(prompt=answer_set.prompt, by=by)


def _get_held_back_or_404(project: Project, answer_set_id: int) -> AnswerSet:
    found = held_back(project).filter(pk=answer_set_id).first()
    if found is None:
        raise Http404(_("No such set is held back in this project."))
    return found


_RETIRED = gettext_lazy("The prompt is retired: nobody is asked about it any more.")
# Buttons by the kind of report: what finds the row, and what each does and says afterwards.
ACTIONS: dict[str, tuple[Callable[[Project, int], Any], dict[str, tuple[Do, Any]]]] = {
    "skips": (
        get_skip_or_404,
        {
            "put-back": (_put_back, gettext_lazy("Done: the set stays with the others.")),
            "retire": (_retire_skipped, _RETIRED),
        },
    ),
    "flags": (
        get_flag_or_404,
        {
            "done": (_flag_done, gettext_lazy("The flag is handled.")),
            "retire": (_retire_flagged, _RETIRED),
        },
    ),
    "leaks": (
        _get_held_back_or_404,
        {
            "put-back": (_let_go, gettext_lazy("The set is in the queue now.")),
            "retire": (_retire_held_back, _RETIRED),
        },
    ),
}


@login_required
@require_POST
def act_on_report(
    request: PersonRequest, slug: str, kind: str, row_id: int, action: str
) -> HttpResponse:
    """One of the buttons of the page."""
    project = find(request, slug)
    get, buttons = ACTIONS.get(kind, (None, {}))
    if get is None or action not in buttons:
        raise Http404(_("There is no such action."))
    row = get(project, row_id)
    do, done = buttons[action]
    try:
        with transaction.atomic():
            do(row, request.user)
    except Refused as refusal:
        messages.error(request, refusal.message)
    else:
        messages.success(request, str(done))
    return redirect("dashboard:reports", slug)
