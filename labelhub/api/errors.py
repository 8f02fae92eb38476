"""One shape for every error: {"detail": sentence, "code": reason, "errors": {field: [sentence]}?}.

`detail` alone is enough for a person; a program branches on the status and on `code`.
"""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ValidationError as ModelValidationError
from django.utils.translation import gettext as _
from rest_framework import exceptions, status
from rest_framework.response import Response
from rest_framework.views import exception_handler

from labelhub.lib.errors import Refused

ROOT = "non_field_errors"


class TooLarge(exceptions.APIException):
    """The body is longer than one request may carry."""

    status_code = status.HTTP_413_REQUEST_ENTITY_TOO_LARGE
    default_code = "too_large"


def handle(exc: Exception, context: dict[str, Any]) -> Response | None:
    """Turn what a view raised into the one shape; None (a 500) for what nobody foresaw."""
    if isinstance(exc, Refused):
        return _refusal(exc)
    if isinstance(exc, ModelValidationError):
        exc = exceptions.ValidationError(_fields_of(exc))
    response = exception_handler(exc, context)
    if response is None:
        return None
    if isinstance(exc, exceptions.ValidationError):
        response.data = _validation_body(exc.detail)
    elif isinstance(exc, exceptions.APIException):
        response.data = {"detail": str(exc.detail), "code": _code_of(exc)}
    else:
        response.data["code"] = "not_found" if response.status_code == 404 else "permission_denied"
    return response


def _refusal(exc: Refused) -> Response:
    return Response({"detail": exc.message, "code": exc.code}, status=exc.status)


def _code_of(exc: exceptions.APIException) -> str:
    return str(getattr(exc.detail, "code", None) or exc.default_code)


def _fields_of(exc: ModelValidationError) -> dict[str, list[str]]:
    return exc.message_dict if hasattr(exc, "error_dict") else {ROOT: exc.messages}


def _validation_body(detail: Any) -> dict[str, Any]:
    """Flatten nested errors to dotted names, and lead with the first sentence."""
    fields: dict[str, list[str]] = {}
    _collect(detail, "", fields)
    named = [
        sentence if name == ROOT else f"{name}: {sentence}"
        for name, sentences in fields.items()
        for sentence in sentences
    ]
    lead = named[0] if named else _("The request is not valid.")
    body: dict[str, Any] = {"detail": lead, "code": "invalid"}
    if set(fields) - {ROOT}:
        body["errors"] = fields
    return body


def _collect(detail: Any, name: str, into: dict[str, list[str]]) -> None:
    if isinstance(detail, dict):
        for key, inner in detail.items():
            at_root = key == ROOT and name
            _collect(inner, name if at_root else f"{name}.{key}".lstrip("."), into)
    elif isinstance(detail, list):
        for n, inner in enumerate(detail):
            plain = not isinstance(inner, dict | list)
            _collect(inner, name if plain else f"{name}.{n}".lstrip("."), into)
    else:
        into.setdefault(name or ROOT, []).append(str(detail))
