"""The page Quality: how well people agree, with names, which only admins of the project see."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpResponse, HttpResponseBase
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST, require_safe

from labelhub.accounts.http import PersonRequest
from labelhub.accounts.models import User
from labelhub.dashboard.views import find
from labelhub.lib.streaming import chunks_of, file_response
from labelhub.projects.models import Project
from labelhub.rankings import shown
from labelhub.rankings.measuring import measure_quality
from labelhub.rankings.quality import Person, Quality, figures_of, latest, rankings_in
from labelhub.rankings.shown import Tile, tile, value_words
from labelhub.rankings.verdicts import consensus_lines

TILES = (
    *("agreement", "tau_b", "kendall_w", "alpha"),
    *("gold_tau", "repeat_pairs", "seconds", "hasty"),
)
# W and α of one person are those of the sets that this person ranked with others.
PERSON_TILES = tuple(shown.MEASURES)
COLUMNS: dict[str, Any] = {
    "agreement": gettext_lazy("Agreement"),
    "tau_b": gettext_lazy("τ-b"),
    "gold_tau": gettext_lazy("Known τ-b"),
    "repeat_pairs": gettext_lazy("Consistency"),
    "seconds": gettext_lazy("Time"),
    "hasty": gettext_lazy("Under 8 s"),
}


@dataclass(frozen=True)
class Row:
    """One annotator in the table."""

    user: User
    has_left: bool
    rankings: int
    cells: list[Tile]
    # The place in which the best card stands too often, and how often; empty if there is none.
    leaning: str
    reliability: str
    weight: str


def _quality(request: PersonRequest, project: Project) -> dict[str, Any]:
    found = latest(project)
    # Set by the button: the report that was there when new figures were asked for.
    asked_after = request.GET.get("after", "")
    return {
        "project": project,
        "tab": "quality",
        "found": found,
        "rankings": rankings_in(project),
        "is_live": asked_after.isdigit() and int(asked_after) == (found.pk if found else 0),
        "asked_after": asked_after if asked_after.isdigit() else "",
        **(_figures(project, found) if found else {}),
    }


def _figures(project: Project, found: Quality) -> dict[str, Any]:
    whole = found.project
    users = User.objects.in_bulk([one.user_id for one in found.people])
    members = set(project.memberships.values_list("user_id", flat=True))
    people = [
        _row(users[one.user_id], one, members) for one in found.people if one.user_id in users
    ]
    named = [
        (users[one.user_id].username, one.figures["agreement"])
        for one in found.people
        if one.user_id in users
    ]
    charts = [
        shown.agreement_picture("quality-agreement", whole.weeks),
        shown.correlation_picture("quality-correlation", whole.weeks),
    ]
    plots = [
        shown.positions_picture("quality-positions", whole.positions),
        shown.people_picture("quality-people", named),
    ]
    return {
        "tiles": [tile(name, whole.figures[name]) for name in TILES],
        "uniform": tile("agreement", found.uniform["agreement"]),
        "charts": [chart for chart in charts if chart is not None],
        "plots": [plot for plot in plots if plot is not None],
        "people": sorted(people, key=lambda row: row.user.username.lower()),
        "columns": list(COLUMNS.values()),
    }


def _row(user: User, one: Person, members: set[int]) -> Row:
    known = one.figures["agreement"].enough or one.figures["gold_tau"].enough
    return Row(
        user=user,
        has_left=user.pk not in members,
        rankings=one.rankings,
        cells=[tile(name, one.figures[name]) for name in COLUMNS],
        leaning=_leaning(one),
        reliability=f"{one.reliability:.2f}" if known else "",
        weight=f"{one.weight:.2f}" if known else "",
    )


def _leaning(one: Person) -> str:
    chance = 1 / len(one.positions) if one.positions else 0.0
    high = [
        (figure.value or 0.0, n, figure)
        for n, figure in enumerate(one.positions, start=1)
        if figure.enough and figure.low is not None and figure.low > chance
    ]
    if not high:
        return ""
    _value, n, figure = max(high, key=lambda found: found[:2])
    return _("%(n)d (%(share)s)") % {"n": n, "share": value_words(figure, "percent")}


@login_required
@require_safe
@never_cache
def quality(request: PersonRequest, slug: str) -> HttpResponse:
    """Agreement, consistency and habits, of all and of each annotator."""
    project = find(request, slug)
    return render(request, "dashboard/quality.html", _quality(request, project))


@login_required
@require_safe
@never_cache
def quality_live(request: PersonRequest, slug: str) -> HttpResponse:
    """The figures alone, while new ones are being made."""
    project = find(request, slug)
    return render(request, "dashboard/_quality.html", _quality(request, project))


@login_required
@require_safe
@never_cache
def person(request: PersonRequest, slug: str, user_id: int) -> HttpResponse:
    """One annotator's figures week by week, for admins."""
    project = find(request, slug)
    user = User.objects.filter(pk=user_id).first()
    own = figures_of(project, user) if user else None
    if own is None:
        raise Http404(_("Nothing is counted of this person in this project."))
    charts = [shown.agreement_picture("person-agreement", own.weeks)]
    plots = [shown.positions_picture("person-positions", own.positions)]
    context = {
        "project": project,
        "tab": "quality",
        "person": user,
        "own": own,
        "tiles": [tile(name, own.figures[name]) for name in PERSON_TILES],
        "charts": [chart for chart in charts if chart is not None],
        "plots": [plot for plot in plots if plot is not None],
    }
    return render(request, "dashboard/quality_person.html", context)


@login_required
@require_POST
def measure(request: PersonRequest, slug: str) -> HttpResponse:
    """Have the figures made anew."""
    project = find(request, slug)
    found = latest(project)
    measure_quality(project=project, by=request.user)
    messages.success(request, _("A worker is counting. The new figures appear here by themselves."))
    address = reverse("dashboard:quality", args=[slug])
    return redirect(f"{address}?after={found.pk if found else 0}")


@login_required
@require_safe
def consensus(request: PersonRequest, slug: str) -> HttpResponseBase:
    """One order for each ranked set, with the opinions that it follows from, as a file."""
    project = find(request, slug)
    chunks = chunks_of(consensus_lines(project))
    return file_response(request, chunks, f"{project.slug}-consensus.jsonl")
