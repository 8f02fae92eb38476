"""My figures: what an annotator may know of the own work, and what to do otherwise.

Nobody else's figures are here, nor an address that could name somebody else. What is said of known
rankings and repeats moves in steps of ten and names no number, so that no set can be recognised by
it afterwards.
"""

from __future__ import annotations

from typing import Any

from django.contrib.auth.decorators import login_required
from django.http import HttpResponse
from django.shortcuts import render
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from labelhub.accounts.http import PersonRequest
from labelhub.annotate.access import project_or_404
from labelhub.rankings import shown
from labelhub.rankings.quality import NEEDED_RANKINGS, Person, figures_of
from labelhub.rankings.queries import progress_of
from labelhub.rankings.shown import Tile, tile


@login_required
@require_safe
@never_cache
def me(request: PersonRequest, slug: str) -> HttpResponse:
    """One's own agreement, consistency and habits in a project."""
    project = project_or_404(request.user, slug)
    own = figures_of(project, request.user)
    context: dict[str, Any] = {"project": project, "here": "me", "own": own}
    if own is None:
        total = progress_of(request.user, project).total
        context |= {"total": total, "missing": max(0, NEEDED_RANKINGS - total)}
    else:
        context |= _figures(own)
    return render(request, "annotate/me.html", context)


def _figures(own: Person) -> dict[str, Any]:
    charts = [shown.agreement_picture("my-agreement", own.weeks, of_me=True)]
    plots = [shown.positions_picture("my-positions", own.positions, of_me=True)]
    return {
        "tiles": _tiles(own),
        "advice": shown.advice(own),
        "charts": [chart for chart in charts if chart is not None],
        "plots": [plot for plot in plots if plot is not None],
    }


def _tiles(own: Person) -> list[Tile]:
    """Checks come last, and only where there are enough of them to hide each."""
    titles = {
        "agreement": _("Agreement with others"),
        "tau_b": _("τ-b with others"),
    }
    names = ("agreement", "tau_b", "seconds", "hasty", "ties")
    tiles = [tile(name, own.figures[name], title=titles.get(name, "")) for name in names]
    checks = (
        tile(name, own.own_checks[name], count=False)
        for name in ("gold_tau", "repeat_pairs")
        if own.own_checks[name].enough
    )
    return [*tiles, *checks]
