"""Every door of the house."""

from __future__ import annotations

from django.http import HttpRequest, JsonResponse
from django.urls import URLPattern, URLResolver, include, path

from labelhub.accounts.views import home
from labelhub.lib.health import check


def healthz(request: HttpRequest) -> JsonResponse:
    """200 when database, broker and a worker answer, else 503; says which does not."""
    state = check()
    return JsonResponse(state, status=200 if state["ok"] else 503)


urlpatterns: list[URLPattern | URLResolver] = [
    path("", home, name="home"),
    path("healthz", healthz, name="healthz"),
    path("accounts/tokens/", include("labelhub.api.urls_tokens")),
    path("accounts/", include("labelhub.accounts.urls")),
    path("annotate/", include("labelhub.annotate.urls")),
    path("join/", include("labelhub.annotate.urls_join")),
    path("dashboard/", include("labelhub.dashboard.urls")),
    path("api/v1/", include("labelhub.api.urls")),
]
