"""The settings of a project, and the switch that pauses all of it."""

from __future__ import annotations

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST

from labelhub.accounts.http import PersonRequest
from labelhub.dashboard.forms_settings import SettingsForm, first_values
from labelhub.dashboard.views import find
from labelhub.lib.errors import Refused
from labelhub.projects.actions import change_settings
from labelhub.projects.models import Project


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
@never_cache
def settings(request: PersonRequest, slug: str) -> HttpResponse:
    """Show what the project wants; POST changes it."""
    project = find(request, slug)
    if request.method != "POST":
        return _page(request, project, SettingsForm(initial=first_values(project)))
    form = SettingsForm(request.POST)
    if not form.is_valid():
        return _page(request, project, form, status=400)
    try:
        change_settings(project=project, by=request.user, **form.values())
    except Refused as refusal:
        form.add_error(None, refusal.message)
        return _page(request, project, form, status=refusal.status)
    messages.success(request, _("The settings are saved."))
    return redirect("dashboard:settings", slug)


def _page(
    request: PersonRequest, project: Project, form: SettingsForm, status: int = 200
) -> HttpResponse:
    context = {"project": project, "tab": "settings", "form": form}
    return render(request, "dashboard/settings.html", context, status=status)


@login_required
@require_POST
def switch(request: PersonRequest, slug: str, *, paused: bool) -> HttpResponse:
    """Pause the project, or let its work go on."""
    project = find(request, slug)
    change_settings(project=project, by=request.user, paused=paused)
    said = _("The project is paused: nobody is given new work.") if paused else _("It goes on.")
    messages.success(request, said)
    return redirect("dashboard:settings", slug)
