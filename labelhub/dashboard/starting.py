"""Pages on which an admin starts any stage by hand, and brings or freezes what it learns from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpResponse, HttpResponseBase
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from labelhub.accounts.http import PersonRequest
from labelhub.accounts.models import User
from labelhub.dashboard.forms_runs import (
    ROLES,
    CorpusForm,
    PairsForm,
    RunForm,
    again,
    named,
    start_links,
)
from labelhub.dashboard.views import find
from labelhub.lib.errors import Refused
from labelhub.lib.streaming import file_response
from labelhub.projects.models import Project
from labelhub.rankings.queries import usable_rankings
from labelhub.runs import gathering, queries
from labelhub.runs.actions import start_run, take_snapshot
from labelhub.runs.folder import kept_file
from labelhub.runs.inputs import find_inputs
from labelhub.runs.models import Run, Snapshot
from labelhub.runs.stages import StageFacts, facts, reading

_CHUNK = 1 << 20


# --- a run


@login_required
@require_safe
def stages(request: PersonRequest, slug: str) -> HttpResponse:
    """What the trainer can do: choose one."""
    project = find(request, slug)
    entries = [(stage, _(facts(stage.value).about)) for stage in Run.Stage]
    context = {"project": project, "tab": "runs", "stages": entries}
    return render(request, "dashboard/run_stages.html", context)


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
@never_cache
def new_run(request: PersonRequest, slug: str, stage: str) -> HttpResponse:
    """The form of one stage; `?from=` fills it in as an earlier run had it.

    A field's own name in the query, such as `?input_base=`, fills in that field.
    """
    project = find(request, slug)
    if stage not in Run.Stage.values:
        raise Http404(_("There is no such stage."))
    if request.method != "POST":
        form = RunForm(project, stage, initial=_first_values(request, project, stage))
        return _new_run_page(request, project, stage, form)
    form = RunForm(project, stage, request.POST)
    run = _start(form, request) if form.is_valid() else None
    if run is None:
        return _new_run_page(request, project, stage, form, status=400)
    messages.success(request, _("Run %(n)d waits for a worker.") % {"n": run.pk})
    return redirect("dashboard:run", slug, run.pk)


def _first_values(request: PersonRequest, project: Project, stage: str) -> dict[str, Any]:
    asked = request.GET.get("from", "")
    if not (asked.isascii() and asked.isdigit()):
        try:
            return named(project, stage, request.GET)
        except Refused as refusal:
            raise Http404(refusal.message) from None
    run = queries.get_run_or_404(project, int(asked))
    return again(run) if run.stage == stage else {}


def _start(form: RunForm, request: PersonRequest) -> Run | None:
    """Start what the form asks for, or write into it why not."""
    seed = form.cleaned_data["seed"]
    try:
        found = find_inputs(form.project, form.stage, form.inputs(), seed)
        return start_run(
            project=form.project,
            stage=form.stage,
            config=form.config(),
            inputs=found.things,
            data=found.rows,
            seed=seed,
            by=request.user,
        )
    except Refused as refusal:
        form.refuse(refusal)
        return None


def _new_run_page(
    request: PersonRequest, project: Project, stage: str, form: RunForm, status: int = 200
) -> HttpResponse:
    told = facts(stage)
    context = {
        "project": project,
        "tab": "runs",
        "stage": Run.Stage(stage),
        "about": _(told.about),
        "needs": _sets_of(told) if len(told.needs) > 1 else [],
        "form": form,
    }
    return render(request, "dashboard/run_new.html", context, status=status)


def _sets_of(told: StageFacts) -> list[tuple[str, dict[str, Any]]]:
    """The sets of inputs that a stage can run on, each with the settings that it takes."""
    found = []
    for names in told.needs:
        way = reading(told.stage, names)
        said = ", ".join(str(ROLES[name][0]) for name in names)
        found.append((said, way.settings if way else {}))
    return found


@login_required
@require_safe
def run_file(request: PersonRequest, slug: str, run_id: int, name: str) -> HttpResponseBase:
    """A file of a run's folder to keep: its spec, or what it wrote besides weights."""
    run = queries.get_run_or_404(find(request, slug), run_id)
    path = kept_file(run.pk, name)
    if path is None:
        raise Http404(_("There is no such file in this run."))
    response = file_response(request, _chunks(path), f"run-{run.pk}-{name}")
    if path.suffix == ".json":
        response["Content-Type"] = "application/json"
    return response


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            yield chunk


# --- what runs learn from


def _data_page(
    request: PersonRequest,
    project: Project,
    pairs: PairsForm | None = None,
    corpus: CorpusForm | None = None,
    status: int = 200,
) -> HttpResponse:
    snapshots = list(queries.snapshots_of(project).select_related("created_by")[:100])
    corpora = queries.corpora_of(project).select_related("created_by")
    context = {
        "project": project,
        "tab": "data",
        "snapshots": [(one, start_links(project, one)) for one in snapshots],
        "at_hand": gathering.texts_at_hand(),
        "corpora": [(one, start_links(project, one)) for one in corpora],
        "pairs_form": pairs or PairsForm(),
        "corpus_form": corpus or CorpusForm(),
    }
    return render(request, "dashboard/data.html", context, status=status)


@login_required
@require_safe
@never_cache
def data(request: PersonRequest, slug: str) -> HttpResponse:
    """Snapshots of rankings and pairs, texts, and forms to make more."""
    return _data_page(request, find(request, slug))


@login_required
@require_POST
def take(request: PersonRequest, slug: str, kind: str) -> HttpResponse:
    """Freeze the project's rankings, its ideal answers, or the answers put first."""
    project = find(request, slug)
    try:
        snapshot = _taken(project, kind, request.user)
    except Refused as refusal:
        messages.error(request, refusal.message)
    else:
        _say_taken(request, snapshot)
    return redirect("dashboard:data", slug)


def _taken(project: Project, kind: str, by: User) -> Snapshot:
    if kind == Snapshot.Kind.RANKINGS:
        return take_snapshot(project=project, rankings=usable_rankings(project), by=by)
    if kind in (Snapshot.Kind.IDEAL, Snapshot.Kind.BEST):
        return gathering.take_pairs(project=project, kind=kind, by=by)
    raise Http404(_("There is no such action."))


def _say_taken(request: PersonRequest, snapshot: Snapshot) -> None:
    words = _("Snapshot %(n)d holds %(count)d lines.")
    messages.success(request, words % {"n": snapshot.pk, "count": snapshot.count})


@login_required
@require_POST
def bring_pairs(request: PersonRequest, slug: str) -> HttpResponse:
    """Keep pairs from a file or as they were pasted."""
    project = find(request, slug)
    form = PairsForm(request.POST, request.FILES)
    if form.is_valid():
        try:
            lines = form.cleaned_data["lines"]
            snapshot = gathering.import_pairs(project=project, lines=lines, by=request.user)
        except Refused as refusal:
            form.add_error(None, refusal.message)
        else:
            _say_taken(request, snapshot)
            return redirect("dashboard:data", slug)
    return _data_page(request, project, pairs=form, status=400)


@login_required
@require_POST
def bring_named(request: PersonRequest, slug: str, name: str) -> HttpResponse:
    """Copy a text that lies on this machine under a name of its own."""
    find(request, slug)
    try:
        corpus = gathering.bring_named(name, by=request.user)
    except Refused as refusal:
        if refusal.status == 404:
            raise Http404(refusal.message) from None
        messages.error(request, refusal.message)
    else:
        messages.success(request, _("%(name)s is there.") % {"name": corpus.name})
    return redirect("dashboard:data", slug)


@login_required
@require_POST
def bring_text(request: PersonRequest, slug: str) -> HttpResponse:
    """Keep files of text under a name."""
    project = find(request, slug)
    form = CorpusForm(request.POST, request.FILES)
    if form.is_valid():
        files = [gathering.TextFile(one.name, one.file) for one in form.cleaned_data["texts"]]
        try:
            corpus = gathering.add_corpus(
                project=project, name=form.cleaned_data["name"], files=files, by=request.user
            )
        except Refused as refusal:
            form.add_error(None, refusal.message)
        else:
            messages.success(request, _("%(name)s is there.") % {"name": corpus.name})
            return redirect("dashboard:data", slug)
    return _data_page(request, project, corpus=form, status=400)
