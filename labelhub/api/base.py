"""What all views of the API share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from django.utils.translation import gettext as _
from rest_framework import generics
from rest_framework.exceptions import ValidationError
from rest_framework.parsers import BaseParser
from rest_framework.permissions import BasePermission
from rest_framework.response import Response
from rest_framework.serializers import BaseSerializer

from labelhub.accounts.models import ApiToken, User
from labelhub.api import errors
from labelhub.api.fields import Filters
from labelhub.api.parsers import StrictJSONParser
from labelhub.api.permissions import ScopeAllows
from labelhub.api.schema import ApiSchema


class ApiView(generics.GenericAPIView[Any]):
    """Strict bodies, scopes, one shape of errors, a schema that documents them."""

    permission_classes: Sequence[type[BasePermission]] = (ScopeAllows,)
    parser_classes: Sequence[type[BaseParser]] = (StrictJSONParser,)
    schema = ApiSchema()
    # The scope that a token needs for anything but reading.
    write_scope: str = ApiToken.Scope.RUN
    # What the query string may hold, besides paging.
    filters: type[Filters] = Filters

    def get_exception_handler(self) -> Callable[..., Response | None]:
        """The API's own shape, on top of the framework's statuses."""
        return errors.handle

    @property
    def user(self) -> User:
        """Who asks; the permission classes let nobody else through."""
        return cast(User, self.request.user)

    def query(self, filters: type[Filters] | None = None) -> dict[str, Any]:
        """The checked query string; an unknown or unreadable filter is refused, not ignored."""
        reader = (filters or self.filters)(data=self.request.query_params.dict())
        reader.is_valid(raise_exception=True)
        return cast(dict[str, Any], reader.validated_data)

    def body(self, kind: type[BaseSerializer[Any]]) -> dict[str, Any]:
        """The checked body."""
        data = self.request.data
        if not isinstance(data, Mapping):
            raise ValidationError(_("The body must be a JSON object."))
        reader = kind(data=data)
        reader.is_valid(raise_exception=True)
        return cast(dict[str, Any], reader.validated_data)

    def paged(self, rows: Any, kind: type[BaseSerializer[Any]], **context: Any) -> Response:
        """One page of rows."""
        page = self.paginate_queryset(rows) or []
        context = {**self.get_serializer_context(), **context}
        return self.get_paginated_response(kind(page, many=True, context=context).data)
