"""Pages for project admins. Each view opens with the line that finds and permits.

A page's live part is the same partial that the page includes, served alone: without script the
page is complete, and a reload brings it up to date.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from django.contrib.auth.decorators import login_required
from django.core.exceptions import PermissionDenied
from django.core.paginator import Paginator
from django.http import Http404, HttpResponse
from django.shortcuts import render
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from labelhub.accounts.http import PersonRequest
from labelhub.dashboard import forms, forms_runs, pictures, report_pictures
from labelhub.dashboard.log import NEEDS_CHANGES, log_line
from labelhub.dashboard.report_words import report_rows
from labelhub.dashboard.standing import Standing, gates_of, how_far, standing_of
from labelhub.dashboard.verdicts import said_of
from labelhub.lib.markdown import render as markdown
from labelhub.projects.models import Project
from labelhub.projects.queries import (
    Role,
    administered_projects,
    current_guidelines,
    get_project_or_404,
    visible_projects,
)
from labelhub.registry import queries as registry
from labelhub.registry.models import ModelVersion
from labelhub.rounds import queries as rounds
from labelhub.rounds.models import Round
from labelhub.runs import queries as runs_read
from labelhub.runs import stages
from labelhub.runs.folder import kept_files
from labelhub.runs.models import Run
from labelhub.runs.rules import output_kind

PAIRS_SHOWN = 8


def find(request: PersonRequest, slug: str) -> Project:
    """The project that this person administers: 404 for a stranger, 403 for an annotator."""
    return get_project_or_404(request.user, slug, role=Role.ADMIN)


# --- all projects


def _home(request: PersonRequest) -> dict[str, Any]:
    projects = list(administered_projects(request.user).order_by("is_simulated", "name"))
    if not projects and not request.user.is_superuser:
        if visible_projects(request.user).exists():
            raise PermissionDenied(_("The dashboard is for project admins."))
        raise Http404(_("There is no such page."))
    entries = [(project, _standing(project)) for project in projects]
    return {"entries": entries, "is_live": any(s and s.tone != "done" for _p, s in entries)}


def _standing(project: Project) -> Standing | None:
    current = rounds.current_round(project)
    return standing_of(current) if current else None


@login_required
@require_safe
@never_cache
def home(request: PersonRequest) -> HttpResponse:
    """Every project that one steers, and where its loop stands."""
    return render(request, "dashboard/home.html", _home(request))


@login_required
@require_safe
@never_cache
def home_live(request: PersonRequest) -> HttpResponse:
    """The list of projects alone."""
    return render(request, "dashboard/_home.html", _home(request))


# --- one project


def _project(project: Project) -> dict[str, Any]:
    current = rounds.current_round(project)
    standing = standing_of(current) if current else None
    return {
        "project": project,
        "tab": "project",
        "standing": standing,
        "members": rounds.members_work(project, current),
        "outcomes": rounds.outcomes(project),
        "flags": rounds.flags_of(project),
        "live_version": registry.live_version(project),
        "is_live": standing is not None and standing.tone != "done",
    }


def project_page(
    request: PersonRequest,
    project: Project,
    form: forms.StartRoundForm | None = None,
    status: int = 200,
) -> HttpResponse:
    """The project's page; `form` is a start form that was sent with mistakes."""
    context = _project(project)
    standing = context["standing"]
    context["counts"] = counts = rounds.prompt_counts(project)
    context["next_number"] = standing.round.number + 1 if standing else 1
    if standing is None or not rounds.is_open(standing.round):
        last = standing.round if standing else None
        initial = forms.first_values(project, last, counts)
        context["start_form"] = form or forms.StartRoundForm(initial=initial)
    context["bases"] = registry.bases(project) if context["live_version"] is None else []
    return render(request, "dashboard/project.html", context, status=status)


@login_required
@require_safe
@never_cache
def project(request: PersonRequest, slug: str) -> HttpResponse:
    """Where the loop stands, what it waits for, who works on it, what came of earlier rounds."""
    return project_page(request, find(request, slug))


@login_required
@require_safe
@never_cache
def project_live(request: PersonRequest, slug: str) -> HttpResponse:
    """The moving part of the project's page alone."""
    return render(request, "dashboard/_project.html", _project(find(request, slug)))


# --- prompts, guidelines


def prompts_page(
    request: PersonRequest,
    project: Project,
    form: forms.ImportPromptsForm | None = None,
    hold_form: forms.HoldOutForm | None = None,
    report: Any = None,
    status: int = 200,
) -> HttpResponse:
    """The prompts; `report` tells what an import did, the forms may be ones with mistakes."""
    context = {
        "project": project,
        "tab": "prompts",
        "counts": rounds.prompt_counts(project),
        "page": _page(request, project.prompts.order_by("-id"), 20),
        "form": form or forms.ImportPromptsForm(initial={"language": project.language}),
        "hold_form": hold_form or forms.HoldOutForm(initial={"language": project.language}),
        "report": report,
    }
    return render(request, "dashboard/prompts.html", context, status=status)


@login_required
@require_safe
def prompts(request: PersonRequest, slug: str) -> HttpResponse:
    """The project's prompts, how many are held out, and a form to bring more."""
    return prompts_page(request, find(request, slug))


def guidelines_page(
    request: PersonRequest,
    project: Project,
    form: forms.GuidelinesForm | None = None,
    status: int = 200,
) -> HttpResponse:
    """The guidelines; `form` is one that was sent with mistakes."""
    current = current_guidelines(project)
    context = {
        "project": project,
        "tab": "guidelines",
        "current": current,
        "versions": project.guidelines.select_related("created_by").order_by("-version"),
        "form": form or forms.GuidelinesForm(initial={"text": current.text if current else ""}),
    }
    return render(request, "dashboard/guidelines.html", context, status=status)


@login_required
@require_safe
def guidelines(request: PersonRequest, slug: str) -> HttpResponse:
    """The guidelines in force, the older ones, and a form to publish new ones."""
    return guidelines_page(request, find(request, slug))


# --- one round


def _round(project: Project, number: int) -> dict[str, Any]:
    turn = rounds.get_round_or_404(project, number)
    standing = standing_of(turn)
    facts = standing.facts
    reward, ppo = facts.runs.get("reward"), facts.runs.get("ppo")
    alerts = runs_read.alerts_of(facts.runs.values())
    of_ppo = sum(alert.run_id == ppo.pk for alert in alerts) if ppo else 0
    # Who is asked to compare answers blind may be the one who looks at this page.
    is_asked = turn.state == Round.State.COMPARE
    pairs = [] if is_asked else rounds.compared(turn, PAIRS_SHOWN)
    return {
        "project": project,
        "tab": "project",
        "round": turn,
        "standing": standing,
        "gates": gates_of(facts, of_ppo),
        "alerts": [log_line(alert) for alert in alerts],
        "gain_picture": report_pictures.gain_picture(facts.gain),
        "accuracy_picture": report_pictures.accuracy_picture(reward.report) if reward else None,
        "curves": _round_curves(reward, ppo),
        "pairs": pairs,
        "is_asked": is_asked,
        "said": said_of(facts.verdict),
        "pairs_total": rounds.comparisons(turn),
        "samples": runs_read.samples_of(ppo) if ppo and not pairs else [],
        "runs": rounds.runs_in(turn),
        "is_live": rounds.is_open(turn),
    }


def _round_curves(reward: Run | None, ppo: Run | None) -> list[Any]:
    """What the training of this round looks like: the policy's curves first."""
    curves: list[Any] = []
    if ppo is not None:
        names = ("reward", "kl", "length", "entropy")
        curves += pictures.curves_of(ppo, runs_read.metric_series(ppo), names)
    if reward is not None:
        figures = runs_read.metric_series(reward)
        curves += pictures.curves_of(reward, figures, ("pair_accuracy", "loss"))
    return curves


@login_required
@require_safe
@never_cache
def round_page(request: PersonRequest, slug: str, number: int) -> HttpResponse:
    """One round: its strip, its curves, whether it got better, answers before and after."""
    return render(request, "dashboard/round.html", _round(find(request, slug), number))


@login_required
@require_safe
@never_cache
def round_live(request: PersonRequest, slug: str, number: int) -> HttpResponse:
    """The moving part of a round's page alone."""
    return render(request, "dashboard/_round.html", _round(find(request, slug), number))


# --- one run


def _run(project: Project, run_id: int) -> dict[str, Any]:
    run = runs_read.get_run_or_404(project, run_id)
    turn = Round.objects.filter(round_runs__run=run).first()
    figures = runs_read.metric_series(run)
    progress = runs_read.progress_of(run)
    # The others measure once, at their end: a list of figures says more than curves of one point.
    trains = run.stage not in (Run.Stage.GENERATE, Run.Stage.SCORE, Run.Stage.EVALUATE)
    kinds = stages.facts(run.stage).kinds
    return {
        "project": project,
        "tab": "runs",
        "run": run,
        "round": turn,
        "progress": progress,
        "how_far": how_far(run, progress),
        "curves": pictures.curves_of(run, figures) if trains else [],
        "other_curves": pictures.other_curves_of(run, figures) if trains else [],
        "figures": report_rows(run.report),
        "report_pictures": _pictures_of(run),
        "samples": runs_read.samples_of(run),
        "log": [log_line(event) for event in runs_read.log_of(run)],
        "attempts": runs_read.attempts_of(run),
        "inputs": runs_read.inputs_of(run),
        "rows_read": [
            (forms_runs.role_words(role, kinds.get(role, "")), numbers)
            for role, numbers in sorted(run.data.items())
        ],
        "makes": _makes(run),
        "config": sorted(run.config.items()),
        "files": kept_files(run.pk),
        "starts": forms_runs.start_links(project, run),
        "may_keep_winners": run.stage == Run.Stage.BESTOFN and run.state == Run.State.FINISHED,
        "winners": [
            (kept, forms_runs.start_links(project, kept)) for kept in run.winners.order_by("pk")
        ],
        "may_stop": run.state in (Run.State.QUEUED, Run.State.RUNNING),
        "may_resume": run.state in (Run.State.STOPPED, Run.State.FAILED),
        "resume_is_vain": run.state == Run.State.FAILED and run.error_code in NEEDS_CHANGES,
        "is_live": runs_read.is_living(run),
    }


def _makes(run: Run) -> str:
    """The kind of version that the run leaves; "" for a stage that leaves none."""
    kind = output_kind(run.stage, run.config)
    return str(ModelVersion.Kind(kind).label) if kind else ""


@login_required
@require_safe
@never_cache
def run(request: PersonRequest, slug: str, run_id: int) -> HttpResponse:
    """One run: how far it is, its curves, what it reads, what happened."""
    return render(request, "dashboard/run.html", _run(find(request, slug), run_id))


@login_required
@require_safe
@never_cache
def run_live(request: PersonRequest, slug: str, run_id: int) -> HttpResponse:
    """The moving part of a run's page alone."""
    return render(request, "dashboard/_run.html", _run(find(request, slug), run_id))


@login_required
@require_safe
def runs(request: PersonRequest, slug: str) -> HttpResponse:
    """Every run of the project, newest first."""
    project = find(request, slug)
    narrowed = forms_runs.filters(request.GET)
    listed = runs_read.runs_of(project).filter(**narrowed).select_related("round_run__round")
    context = {
        "project": project,
        "tab": "runs",
        "page": _page(request, listed, 30),
        "narrowed": narrowed,
        "query": urlencode(narrowed),
        "stages": Run.Stage.choices,
        "states": Run.State.choices,
    }
    return render(request, "dashboard/runs.html", context)


# --- model versions


@login_required
@require_safe
def versions(request: PersonRequest, slug: str) -> HttpResponse:
    """The project's model versions and what each was made from."""
    project = find(request, slug)
    family = registry.family_of(project)
    context = {
        "project": project,
        "tab": "versions",
        "family": family,
        "tree": pictures.family_tree(family),
        "live": registry.live_pointer(project),
    }
    return render(request, "dashboard/versions.html", context)


@login_required
@require_safe
def version(request: PersonRequest, slug: str, version_id: int) -> HttpResponse:
    """One model version: parents, children, figures, hash and card."""
    project = find(request, slug)
    found = registry.get_version_or_404(project, version_id)
    made_by = Run.objects.filter(project=project, output=found).first()
    context = {
        "project": project,
        "tab": "versions",
        "version": found,
        "live": registry.live_pointer(project),
        "children": registry.children_in(project, found),
        "made_by": made_by,
        "report_pictures": _pictures_of(made_by, runs_read.newest_test_of(found, project)),
        # Where it was made here the run's report tells the intervals, too.
        "figures": report_rows(made_by.report if made_by else found.metrics),
        "card": markdown(found.card, breaks=False),
        "may_go_live": registry.is_writer(found),
        "starts": forms_runs.start_links(project, found),
    }
    return render(request, "dashboard/version.html", context)


def _pictures_of(*runs: Run | None) -> list[Any]:
    """The pictures of these runs' reports, their annotators by name."""
    return [
        one
        for run in runs
        if run
        for one in pictures.pictures_of(runs_read.report_with_names(run), run.stage)
    ]


def _page(request: PersonRequest, rows: Any, size: int) -> Any:
    """One page of a list; a page number that does not exist gives the nearest one."""
    return Paginator(rows, size).get_page(request.GET.get("page"))
