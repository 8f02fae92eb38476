"""Known rankings of a project: those that are there, new ones from ranked sets or from lines."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.paginator import Paginator
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from labelhub.accounts.http import PersonRequest
from labelhub.dashboard.forms_gold import GoldForm, ImportGoldForm
from labelhub.dashboard.views import find
from labelhub.lib.errors import Refused
from labelhub.lib.markdown import render as markdown
from labelhub.projects.models import Project
from labelhub.rankings import actions
from labelhub.rankings.known import (
    became_known,
    candidates,
    get_candidate_or_404,
    get_gold_or_404,
    known_rankings,
    proposed_ranks,
)

CANDIDATES_SHOWN = 20


def gold_page(
    request: PersonRequest,
    project: Project,
    form: ImportGoldForm | None = None,
    report: Any = None,
    status: int = 200,
) -> HttpResponse:
    """The known rankings; `report` tells what an import did, the form may have mistakes."""
    pages = Paginator(candidates(project), CANDIDATES_SHOWN)
    context = {
        "project": project,
        "tab": "gold",
        "known": known_rankings(project),
        "retired": known_rankings(project, retired=True),
        "page": pages.get_page(request.GET.get("page")),
        "form": form or ImportGoldForm(),
        "report": report,
    }
    return render(request, "dashboard/gold.html", context, status=status)


@login_required
@require_safe
@never_cache
def gold(request: PersonRequest, slug: str) -> HttpResponse:
    """Gold, the tutorial's sets, and ranked sets that could become either."""
    return gold_page(request, find(request, slug))


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
@never_cache
def gold_from(request: PersonRequest, slug: str, answer_set_id: int) -> HttpResponse:
    """Make a known ranking from a set that people ranked; their ranking is proposed."""
    project = find(request, slug)
    answer_set = get_candidate_or_404(project, answer_set_id)
    answers = list(answer_set.answers.order_by("n"))
    proposed = proposed_ranks(answer_set)
    data = request.POST if request.method == "POST" else None
    form = GoldForm(data, answers=answers, proposed=proposed)
    status = 200
    if data is not None:
        status = 400
        if form.is_valid():
            said = {name: form.cleaned_data[name] for name in ("explanation", "tutorial")}
            try:
                actions.make_gold(
                    project=project,
                    by=request.user,
                    answer_set=answer_set,
                    ranks=form.ranks,
                    **said,
                )
            except Refused as refusal:
                form.add_error(None, refusal.message)
                status = refusal.status
            else:
                messages.success(request, _("The known ranking is kept."))
                return redirect("dashboard:gold", slug)
    context = {
        "project": project,
        "tab": "gold",
        "answer_set": answer_set,
        "turns": [(_who(turn["role"]), turn["content"]) for turn in answer_set.prompt.messages],
        "cards": [(answer, markdown(answer.text), field) for answer, field in form.cards()],
        "is_known": became_known(answer_set),
        "form": form,
    }
    return render(request, "dashboard/gold_from.html", context, status=status)


def _who(role: str) -> str:
    """Who speaks, in words."""
    return {"user": _("Person"), "assistant": _("Assistant"), "system": _("Instruction")}.get(
        role, role
    )


@login_required
@require_POST
def import_gold(request: PersonRequest, slug: str) -> HttpResponse:
    """Import known rankings; lines that were refused are shown with their numbers."""
    project = find(request, slug)
    form = ImportGoldForm(request.POST, request.FILES)
    if not form.is_valid():
        return gold_page(request, project, form, status=400)
    report = actions.import_gold(project=project, lines=form.cleaned_data["lines"], by=request.user)
    told = ngettext("%(n)d known ranking is new.", "%(n)d known rankings are new.", report.added)
    messages.success(request, told % {"n": report.added})
    if report.duplicates:
        there = ngettext("%(n)d was there already.", "%(n)d were there already.", report.duplicates)
        messages.info(request, there % {"n": report.duplicates})
    if report.refused:
        # What was typed stays, so that the refused lines can be mended in place.
        return gold_page(request, project, form, report)
    return redirect("dashboard:gold", slug)


@login_required
@require_POST
def retire_gold(request: PersonRequest, slug: str, gold_id: int) -> HttpResponse:
    """Give a known ranking to nobody any more."""
    project = find(request, slug)
    actions.retire_gold(gold=get_gold_or_404(project, gold_id), by=request.user)
    messages.success(request, _("Nobody is given it any more; what people made of it stays."))
    return redirect("dashboard:gold", slug)
