"""The schema, the page to browse it, and a JSON answer for addresses that lead nowhere."""

from __future__ import annotations

from typing import Any

from csp.decorators import csp_update
from django.http import Http404
from django.utils.decorators import method_decorator
from django.utils.translation import gettext as _
from drf_spectacular.utils import extend_schema
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerSplitView
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response

from labelhub.api.base import ApiView


class ApiSchemaView(SpectacularAPIView):
    """OpenAPI 3, for this version of the API alone. It holds no secret, so anybody may read it."""

    authentication_classes: list[Any] = []
    permission_classes = (AllowAny,)


# Swagger UI sets style attributes and shows data: images. Only this page may; its scripts still
# have to come from files of our own.
@method_decorator(
    csp_update({"style-src": ["'unsafe-inline'"], "img-src": ["data:"]}), name="dispatch"
)
class ApiDocsView(SpectacularSwaggerSplitView):
    """The page to browse the schema, with files from our own server."""

    url_name = "api:schema"
    authentication_classes: list[Any] = []
    permission_classes = (AllowAny,)

    @extend_schema(exclude=True)
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """The page, or with ?script its script."""
        response: Response = super().get(request, *args, **kwargs)  # type: ignore[no-untyped-call]
        # The script carries a CSRF token: no page of another origin may include it.
        response["Cross-Origin-Resource-Policy"] = "same-origin"
        return response


@extend_schema(exclude=True)
class ApiNowhere(ApiView):
    """What no route matches is a 404 of the API's own shape, not a page."""

    permission_classes = (AllowAny,)

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        """Whatever the method: there is nothing here."""
        raise Http404(_("There is no such address in the API; see /api/v1/docs/."))
