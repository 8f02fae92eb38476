"""What admins send: each view finds and permits, asks an action, says what happened and goes back.

An action that refuses says why in one sentence, which becomes a message; what was typed stays.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext
from django.views.decorators.http import require_http_methods, require_POST

from labelhub.accounts.http import PersonRequest
from labelhub.accounts.models import User
from labelhub.dashboard import forms, views
from labelhub.lib.errors import Refused
from labelhub.projects.actions import create_project, publish_guidelines
from labelhub.prompts.actions import hold_out, import_prompts
from labelhub.registry.actions import promote
from labelhub.registry.queries import get_version_or_404
from labelhub.rounds import actions
from labelhub.rounds import queries as rounds
from labelhub.rounds.models import Round
from labelhub.runs.actions import resume_run, stop_run
from labelhub.runs.gathering import take_winners
from labelhub.runs.models import Run
from labelhub.runs.queries import get_run_or_404


def _tell(request: PersonRequest, do: Callable[[], object], done: Any) -> bool:
    """Do it and say that it is done, or say why it was refused."""
    try:
        do()
    except Refused as refusal:
        messages.error(request, refusal.message)
        return False
    messages.success(request, str(done))
    return True


# --- rounds


@dataclass(frozen=True)
class Ask:
    """One button of a round: what it asks of the loop and what is said when that is done."""

    do: Callable[[Round, User], object]
    done: Any


ROUND_ACTIONS: dict[str, Ask] = {
    "step": Ask(
        lambda turn, by: actions.step_round(round=turn, by=by),
        gettext_lazy("The next step has begun."),
    ),
    "close-ranking": Ask(
        lambda turn, by: actions.close_ranking(round=turn, by=by),
        gettext_lazy("Ranking is closed; the reward model learns from what is there."),
    ),
    "close-comparing": Ask(
        lambda turn, by: actions.close_comparing(round=turn, by=by),
        gettext_lazy("The comparison is closed; the decision is yours."),
    ),
    "score": Ask(
        lambda turn, by: actions.ask_for_disagreement(round=turn, by=by),
        gettext_lazy("The reward model reads the open answers; what it is unsure of comes first."),
    ),
    "stop": Ask(
        lambda turn, by: actions.stop_round(round=turn, by=by),
        gettext_lazy("Stopping: the trainer saves a checkpoint first."),
    ),
    "resume": Ask(
        lambda turn, by: actions.resume_round(round=turn, by=by),
        gettext_lazy("It goes on from its last checkpoint."),
    ),
    "promote": Ask(
        lambda turn, by: actions.decide(round=turn, promote=True, by=by),
        gettext_lazy("Promoted: the new policy writes the next answers."),
    ),
    "reject": Ask(
        lambda turn, by: actions.decide(round=turn, promote=False, by=by),
        gettext_lazy("Rejected: the old policy stays live."),
    ),
    "abandon": Ask(
        lambda turn, by: actions.abandon_round(round=turn, by=by),
        gettext_lazy("The round is ended without a new policy."),
    ),
    "auto": Ask(
        lambda turn, by: actions.set_mode(round=turn, mode=Round.Mode.AUTO, by=by),
        gettext_lazy("The round now goes on by itself."),
    ),
    "by-step": Ask(
        lambda turn, by: actions.set_mode(round=turn, mode=Round.Mode.STEP, by=by),
        gettext_lazy("Each step of the round now waits for you."),
    ),
}


@login_required
@require_POST
def start(request: PersonRequest, slug: str) -> HttpResponse:
    """Start a round with the settings that were filled in."""
    project = views.find(request, slug)
    form = forms.StartRoundForm(request.POST)
    if form.is_valid():
        try:
            turn = actions.start_round(
                project=project,
                by=request.user,
                config=form.config(),
                mode=form.cleaned_data["mode"],
                seed=form.cleaned_data["seed"],
            )
        except Refused as refusal:
            current = rounds.current_round(project)
            if current is not None and rounds.is_open(current):
                # Sent twice, or somebody was faster: the page has no form to go back to.
                messages.error(request, refusal.message)
                return redirect("dashboard:project", slug)
            form.add_error(None, refusal.message)
        else:
            messages.success(request, _("Round %(n)d has begun.") % {"n": turn.number})
            return redirect("dashboard:round", slug, turn.number)
    return views.project_page(request, project, form, status=400)


@login_required
@require_POST
def act_on_round(request: PersonRequest, slug: str, number: int, action: str) -> HttpResponse:
    """One of the buttons of a round's page."""
    project = views.find(request, slug)
    turn = rounds.get_round_or_404(project, number)
    ask = ROUND_ACTIONS.get(action)
    if ask is None:
        raise Http404(_("There is no such action."))
    _tell(request, lambda: ask.do(turn, request.user), ask.done)
    return redirect("dashboard:round", slug, number)


# --- runs


RUN_ACTIONS: dict[str, tuple[Callable[[Run, User], object], Any]] = {
    "stop": (
        lambda run, by: stop_run(run=run, by=by),
        gettext_lazy("Stopping: the trainer saves a checkpoint first."),
    ),
    "resume": (
        lambda run, by: resume_run(run=run, by=by),
        gettext_lazy("It goes on from its last checkpoint."),
    ),
    "winners": (
        lambda run, by: take_winners(run=run, by=by),
        gettext_lazy("The winners are kept as a snapshot of pairs."),
    ),
}


@login_required
@require_POST
def act_on_run(request: PersonRequest, slug: str, run_id: int, action: str) -> HttpResponse:
    """Stop or resume one run, or keep its winners."""
    project = views.find(request, slug)
    run = get_run_or_404(project, run_id)
    if action not in RUN_ACTIONS:
        raise Http404(_("There is no such action."))
    do, done = RUN_ACTIONS[action]
    _tell(request, lambda: do(run, request.user), done)
    return redirect("dashboard:run", slug, run_id)


# --- prompts, guidelines, versions


@login_required
@require_POST
def bring_prompts(request: PersonRequest, slug: str) -> HttpResponse:
    """Import prompts; lines that were refused are shown with their numbers."""
    project = views.find(request, slug)
    form = forms.ImportPromptsForm(request.POST, request.FILES)
    if not form.is_valid():
        return views.prompts_page(request, project, form, status=400)
    try:
        report = import_prompts(project=project, lines=form.cleaned_data["lines"], by=request.user)
    except Refused as refusal:
        form.add_error(None, refusal.message)
        return views.prompts_page(request, project, form, status=refusal.status)
    added = ngettext("%(n)d prompt is new.", "%(n)d prompts are new.", report.added)
    messages.success(request, added % {"n": report.added})
    if report.refused:
        return views.prompts_page(request, project, report=report)
    return redirect("dashboard:prompts", slug)


@login_required
@require_POST
def keep_prompts(request: PersonRequest, slug: str) -> HttpResponse:
    """Hold prompts out of all training."""
    project = views.find(request, slug)
    form = forms.HoldOutForm(request.POST)
    if not form.is_valid():
        return views.prompts_page(request, project, hold_form=form, status=400)
    _tell(
        request,
        lambda: hold_out(
            project=project,
            fraction_or_count=form.cleaned_data["count"],
            seed=project.pk,
            language=form.cleaned_data["language"],
            by=request.user,
        ),
        _("From now on no stage trains on them."),
    )
    return redirect("dashboard:prompts", slug)


@login_required
@require_POST
def publish(request: PersonRequest, slug: str) -> HttpResponse:
    """Publish new guidelines as the next version."""
    project = views.find(request, slug)
    form = forms.GuidelinesForm(request.POST)
    if not form.is_valid():
        return views.guidelines_page(request, project, form, status=400)
    new = publish_guidelines(project=project, text=form.cleaned_data["text"], by=request.user)
    messages.success(
        request, _("Version %(n)d of the guidelines is in force.") % {"n": new.version}
    )
    return redirect("dashboard:guidelines", slug)


@login_required
@require_POST
def make_live(request: PersonRequest, slug: str, version_id: int) -> HttpResponse:
    """Let a version write the next answers: the first policy, or an older one again."""
    project = views.find(request, slug)
    version = get_version_or_404(project, version_id)
    _tell(
        request,
        lambda: promote(project=project, version=version, by=request.user),
        _("%(name)s writes the next answers.") % {"name": version.name},
    )
    return redirect("dashboard:versions", slug)


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def new_project(request: PersonRequest) -> HttpResponse:
    """Make a project: for administrators of the whole house."""
    if not request.user.is_superuser:
        raise PermissionDenied(_("Only an administrator may make projects."))
    form = forms.NewProjectForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        project = create_project(by=request.user, **form.cleaned_data)
        messages.success(
            request, _("%(name)s is there. Bring prompts first.") % {"name": project.name}
        )
        return redirect("dashboard:prompts", project.slug)
    status = 400 if form.is_bound else 200
    return render(request, "dashboard/new.html", {"form": form}, status=status)
