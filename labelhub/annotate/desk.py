"""The desk: my projects, and the page between two sets. All that one can do is found from here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from django.contrib.auth.decorators import login_required
from django.http import HttpResponse
from django.shortcuts import render
from django.utils.safestring import SafeString
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_safe

from labelhub.accounts.http import PersonRequest
from labelhub.accounts.models import User
from labelhub.annotate.access import may_review, project_or_404, to_next
from labelhub.annotate.guidelines import under_heading
from labelhub.annotate.history import policies_of
from labelhub.annotate.review import reviews_waiting
from labelhub.assignments.queries import QueueCounts, Seat, queue_counts, seat_of
from labelhub.projects.models import Guidelines, Project
from labelhub.projects.queries import current_guidelines, visible_projects
from labelhub.rankings.tutorial import Standing, has_tutorial, standing_of
from labelhub.registry.models import ModelVersion


@dataclass(frozen=True)
class Desk:
    """One project as its annotator sees it: the context of projects.html and next.html."""

    project: Project
    counts: QueueCounts
    guidelines: Guidelines | None
    policies: Sequence[ModelVersion]  # that learned from this person's rankings, newest first
    tutorial: Standing | None  # while it is still to be passed
    reviews: int  # sets that wait for this person's decision
    paused: bool = False  # the person's own pause, or one that an admin began for them

    @property
    def wanted(self) -> int:
        """How many sets this person's progress is counted against."""
        return self.counts.mine_total + self.counts.left_for_me

    @property
    def has_work(self) -> bool:
        """Whether there is something to rank now, or to learn before."""
        if self.project.paused or self.paused:
            return False
        return self.counts.left_for_me > 0 or self.tutorial is not None

    @property
    def guidelines_html(self) -> SafeString:
        """The guidelines as they are read."""
        return under_heading(self.guidelines.text if self.guidelines else "", level=1)


def desk_of(project: Project, user: User) -> Desk:
    """What this person finds in the project."""
    seat = seat_of(user, project)
    return Desk(
        project=project,
        counts=queue_counts(project, user),
        guidelines=current_guidelines(project),
        policies=policies_of(user, project)[:3],
        tutorial=_tutorial_before(project, user, seat),
        reviews=reviews_waiting(user, project) if may_review(user, project) else 0,
        paused=seat is not None and seat.paused,
    )


def _tutorial_before(project: Project, user: User, seat: Seat | None) -> Standing | None:
    """The tutorial, if it has to be passed before the first real set."""
    if seat is None or seat.qualified or not has_tutorial(project, user):
        return None
    return standing_of(user, project)


@login_required
@require_safe
@never_cache
def projects(request: PersonRequest) -> HttpResponse:
    """Show my projects, those with work first; a single one with work needs no choice."""
    mine = visible_projects(request.user).filter(is_simulated=False)
    desks = [desk_of(project, request.user) for project in mine]
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
    project = project_or_404(request.user, slug)
    if request.method == "POST":
        return to_next(request, project)
    context = {"project": project, "here": "next", "desk": desk_of(project, request.user)}
    return render(request, "annotate/next.html", context)
