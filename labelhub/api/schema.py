"""How the API describes itself: errors, filters, scopes and the token scheme of every route."""

from __future__ import annotations

from typing import Any, Literal, cast

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.plumbing import build_bearer_security_scheme_object
from rest_framework import serializers
from rest_framework.permissions import SAFE_METHODS

from labelhub.api.permissions import scope_needed


class ErrorSerializer(serializers.Serializer[Any]):
    """Every error has this shape."""

    detail = serializers.CharField(help_text="One sentence: what is wrong and what to do.")
    code = serializers.CharField(help_text="The reason in one word, for programs.")

    def get_fields(self) -> dict[str, Any]:
        """`errors` is a field here, though the framework has a property of that name."""
        by_field = serializers.DictField(
            child=serializers.ListField(child=serializers.CharField()),
            required=False,
            help_text="With status 400: the sentences by field; dots lead into nested values.",
        )
        return {**super().get_fields(), "errors": by_field}


class TokenScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """`Authorization: Bearer lh_…`, made at /accounts/tokens/."""

    target_class = "labelhub.api.authentication.TokenAuthentication"
    name = "token"

    def get_security_definition(self, auto_schema: AutoSchema) -> dict[str, Any]:
        """An HTTP bearer scheme."""
        scheme: dict[str, Any] = build_bearer_security_scheme_object(
            header_name="Authorization", token_prefix=self.target.keyword
        )
        return scheme


class ApiSchema(AutoSchema):
    """Adds what holds for every route, so that no view has to repeat it."""

    def get_override_parameters(self) -> list[Any]:
        """The view's filters, for the method that reads a list."""
        own = list(super().get_override_parameters())
        return [*own, self._filters()] if self.method == "GET" and self._filters().fields else own

    def _filters(self) -> serializers.Serializer[Any]:
        """What the view's query string may hold."""
        filters: serializers.Serializer[Any] = cast(Any, self.view).filters()
        return filters

    def get_description(self) -> str:  # type: ignore[override]
        """The view's text with the scope that a token needs."""
        text = super().get_description()
        return f"{text}\n\nToken scope: `{scope_needed(self.method, self.view)}`.".strip()

    def _get_response_bodies(
        self, direction: Literal["request", "response"] = "response"
    ) -> dict[str, Any]:
        bodies: dict[str, Any] = super()._get_response_bodies(direction)
        for code, text in self._errors().items():
            bodies.setdefault(code, self._error(code, text))
        return bodies

    def _error(self, code: str, text: str) -> dict[str, Any]:
        component = self.resolve_serializer(ErrorSerializer(), "response")
        return {"description": text, "content": {"application/json": {"schema": component.ref}}}

    def _errors(self) -> dict[str, str]:
        writes = self.method not in SAFE_METHODS
        found = {
            "401": "No token, or one that is unknown, expired or revoked.",
            "403": "The token lacks the scope, or your role in the project is too low.",
            "404": "Nothing of that name or number among your projects.",
        }
        if writes or self._filters().fields:
            found["400"] = "The request is not valid; `errors` says which field."
        if writes:
            found["409"] = "It cannot be done in the present state."
        return found
