"""Blind comparisons of any two versions: those that there were, one of them, and a new one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django import forms
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.paginator import Paginator
from django.db.models import F
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST, require_safe

from labelhub.accounts.http import PersonRequest
from labelhub.dashboard.verdicts import Said, said_of
from labelhub.dashboard.views import find
from labelhub.lib.errors import Refused
from labelhub.projects.models import Project
from labelhub.registry import queries as registry
from labelhub.registry.models import ModelVersion
from labelhub.rounds import actions
from labelhub.rounds.models import Comparison
from labelhub.rounds.queries import prompt_counts
from labelhub.rounds.rules import RoundConfig
from labelhub.rounds.verdicts import (
    Verdict,
    comparisons_of,
    get_comparison_or_404,
    judged,
    verdict_of,
)

LISTED, PAIRS_SHOWN = 20, 20
State, Kind = Comparison.State, ModelVersion.Kind


class CompareForm(forms.Form):
    """Which two versions answer, who scores, and how many are asked about how many prompts."""

    before = forms.ModelChoiceField(
        ModelVersion.objects.none(), label=gettext_lazy("The older version"), empty_label=None
    )
    after = forms.ModelChoiceField(
        ModelVersion.objects.none(), label=gettext_lazy("The newer version"), empty_label=None
    )
    reward = forms.ModelChoiceField(
        ModelVersion.objects.none(),
        label=gettext_lazy("Reward model"),
        help_text=gettext_lazy("It scores the same answers, beside the people."),
        empty_label=None,
    )
    prompts = forms.IntegerField(
        label=gettext_lazy("Prompts"),
        help_text=gettext_lazy("40 tell 50 % from 66 %; 150 tell it from 58 %."),
        min_value=1,
        max_value=int(RoundConfig.BOUNDS["compare_prompts"][1]),
        initial=40,
    )
    opinions = forms.IntegerField(
        label=gettext_lazy("Opinions on each"),
        min_value=1,
        max_value=int(RoundConfig.BOUNDS["compare_opinions"][1]),
        initial=1,
    )
    source = forms.ChoiceField(
        label=gettext_lazy("Which prompts"),
        choices=[
            ("held_out", gettext_lazy("held out, nothing trained on them")),
            ("free", gettext_lazy("those that training uses")),
        ],
        initial="held_out",
    )
    seed = forms.IntegerField(label=gettext_lazy("Seed"), min_value=0, max_value=2**31 - 1)

    def __init__(self, project: Project, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("initial", first_values(project))
        super().__init__(*args, **kwargs)
        rewards = registry.versions_of(project).filter(kind=Kind.REWARD)
        for name, versions in (
            ("before", writers(project)), ("after", writers(project)), ("reward", rewards)
        ):  # fmt: skip
            self.fields[name].queryset = versions  # type: ignore[attr-defined]

    def wish(self) -> dict[str, Any]:
        """What `start_comparison` takes."""
        data = dict(self.cleaned_data)
        return data | {"held_out": data.pop("source") == "held_out"}


def writers(project: Project) -> Any:
    """The versions that can answer: the project's own, newest first, and then the bases."""
    able = registry.seen_by(project).filter(kind__in=registry.WRITERS)
    return able.order_by(F("project").asc(nulls_last=True), "-pk")


def first_values(project: Project) -> dict[str, Any]:
    """The newest policy against the live one or its elder, on as many prompts as there are."""
    newest = registry.versions_of(project).filter(kind=Kind.POLICY).first()
    live = registry.live_version(project)
    if live is not None and live == newest:
        link = newest.parent_links.filter(role="policy").first()
        live = link.parent if link else None
    held_out = prompt_counts(project).held_out
    return {
        "before": live.pk if live else None,
        "after": newest.pk if newest else None,
        "prompts": min(project.compare_prompts or 40, held_out or 40),
        "opinions": project.compare_opinions,
        "seed": project.comparisons.count(),
    }


# --- all of them


@dataclass(frozen=True)
class Listed:
    """A comparison in the list; what came of it is read for closed ones."""

    comparison: Comparison
    verdict: Verdict
    said: Said | None


def comparisons_page(
    request: PersonRequest, project: Project, form: CompareForm | None = None, status: int = 200
) -> HttpResponse:
    """The list and the form; `form` is one that was sent with mistakes."""
    page = Paginator(comparisons_of(project), LISTED).get_page(request.GET.get("page"))
    verdicts = [verdict_of(one) for one in page.object_list]
    context = {
        "project": project,
        "tab": "comparisons",
        "page": page,
        "listed": [Listed(one.comparison, one, said_of(one)) for one in verdicts],
        "form": form or CompareForm(project),
        "can_begin": registry.versions_of(project).filter(kind=Kind.REWARD).exists()
        and writers(project).count() > 1,
    }
    return render(request, "dashboard/comparisons.html", context, status=status)


@login_required
@require_safe
@never_cache
def comparisons(request: PersonRequest, slug: str) -> HttpResponse:
    """Every comparison of the project, and a form to begin one."""
    return comparisons_page(request, find(request, slug))


@login_required
@require_POST
def start(request: PersonRequest, slug: str) -> HttpResponse:
    """Let two versions answer, and people compare."""
    project = find(request, slug)
    form = CompareForm(project, request.POST)
    if form.is_valid():
        try:
            comparison = actions.start_comparison(project=project, by=request.user, **form.wish())
        except Refused as refusal:
            form.add_error(None, refusal.message)
        else:
            messages.success(request, _("Both versions are asked to answer; then people compare."))
            return redirect("dashboard:comparison", slug, comparison.pk)
    return comparisons_page(request, project, form, status=400)


# --- one


def _comparison(project: Project, comparison_id: int) -> dict[str, Any]:
    found = get_comparison_or_404(project, comparison_id)
    verdict = verdict_of(found)
    closed = found.state == State.CLOSED
    pairs = judged(found) if closed else []
    return {
        "project": project,
        "tab": "comparisons",
        "comparison": found,
        "verdict": verdict,
        "said": said_of(verdict),
        "share": verdict.done / verdict.wanted if verdict.wanted else None,
        "pairs": pairs[:PAIRS_SHOWN],
        "pairs_total": len(pairs),
        "may_close": not closed,
        "is_live": not closed,
    }


@login_required
@require_safe
@never_cache
def comparison(request: PersonRequest, slug: str, comparison_id: int) -> HttpResponse:
    """How far it is; once it is closed, both win rates and the answers side by side."""
    context = _comparison(find(request, slug), comparison_id)
    return render(request, "dashboard/comparison.html", context)


@login_required
@require_safe
@never_cache
def comparison_live(request: PersonRequest, slug: str, comparison_id: int) -> HttpResponse:
    """The moving part of a comparison's page alone."""
    context = _comparison(find(request, slug), comparison_id)
    return render(request, "dashboard/_comparison.html", context)


@login_required
@require_POST
def close(request: PersonRequest, slug: str, comparison_id: int) -> HttpResponse:
    """Ask nobody any more."""
    found = get_comparison_or_404(find(request, slug), comparison_id)
    try:
        actions.close_comparison(comparison=found, by=request.user)
    except Refused as refusal:
        messages.error(request, refusal.message)
    else:
        messages.success(request, _("The comparison is closed: this is what people said."))
    return redirect("dashboard:comparison", slug, comparison_id)
