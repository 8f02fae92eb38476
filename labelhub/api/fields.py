"""Serializer parts that take values as they are: "5" is no number, a misspelt key is no key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.utils.translation import gettext_lazy as _
from rest_framework import serializers

MAX_ID = 2**63 - 1


class Whole(serializers.IntegerField):
    """A JSON number without a fraction."""

    def to_internal_value(self, data: Any) -> int:
        if isinstance(data, bool) or not isinstance(data, int):
            self.fail("invalid")
        return int(data)


class Text(serializers.CharField):
    """A JSON string."""

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        return str(super().to_internal_value(data))


class Strict(serializers.Serializer[Any]):
    """A body that refuses the keys it does not know, by name."""

    unknown_words = _("There is no such field; known are %(known)s.")

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, Mapping):
            unknown = sorted(set(map(str, data)) - set(self.known()))
            if unknown:
                words = str(self.unknown_words) % {"known": ", ".join(sorted(self.known()))}
                raise serializers.ValidationError({name: [words] for name in unknown})
        return super().to_internal_value(data)

    def known(self) -> list[str]:
        """The names that may be given."""
        return list(self.fields)


class Filters(Strict):
    """A query string: paging words are always known."""

    unknown_words = _("There is no such filter; known are %(known)s.")

    def known(self) -> list[str]:
        """The filters and the words of paging."""
        return [*self.fields, "page", "page_size"]


class ProjectFilter(Filters):
    """Lists cover all your projects unless one is named."""

    project = serializers.SlugField(required=False, help_text="A project's slug.")
