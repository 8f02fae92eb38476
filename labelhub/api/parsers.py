"""Reading bodies strictly, so that what no database can hold is a 400 and never a 500.

Refused here, before any view sees it: bodies over the limit, text that is not UTF-8, numbers that
are not finite (1e999 included), NUL characters, halves of surrogate pairs, and nesting without end.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import IO, Any

from django.utils.translation import gettext as _
from rest_framework.exceptions import ParseError
from rest_framework.parsers import BaseParser
from rest_framework.request import Request

from labelhub.api.errors import TooLarge

# 10 000 prompts of 2 kB; more comes in several requests.
MAX_BYTES = 20 * 1024 * 1024
MAX_DEPTH = 32


class StrictJSONParser(BaseParser):
    """A JSON body."""

    media_type = "application/json"

    def parse(
        self,
        stream: IO[bytes],
        media_type: str | None = None,
        parser_context: Mapping[str, Any] | None = None,
    ) -> Any:
        """The value that the body holds."""
        return strict_loads(read_text(stream))


class JSONLinesParser(BaseParser):
    """A body of JSON lines, as {"lines": [text …]}: each is judged, and refused, by itself."""

    media_type = "application/x-ndjson"

    def parse(
        self,
        stream: IO[bytes],
        media_type: str | None = None,
        parser_context: Mapping[str, Any] | None = None,
    ) -> dict[str, list[str]]:
        """The lines. Only \\n ends one: U+2028 and its like may stand inside a JSON string."""
        return {"lines": read_text(stream).removesuffix("\n").split("\n")}


class TextFileParser(BaseParser):
    """A body that is one file of text; what it may hold is checked while it is copied."""

    media_type = "text/plain"
    ending = ".txt"

    def parse(
        self,
        stream: IO[bytes],
        media_type: str | None = None,
        parser_context: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """The stream itself: it may be longer than memory."""
        return {"stream": stream, "ending": self.ending}


class GzipFileParser(TextFileParser):
    """A packed text."""

    media_type = "application/gzip"
    ending = ".txt.gz"


class LinesFileParser(TextFileParser):
    """A text as JSON lines."""

    media_type = "application/x-ndjson"
    ending = ".jsonl"


def is_lines(request: Request) -> bool:
    """Whether the body is JSON lines."""
    sent = str(request.content_type).partition(";")[0].strip().lower()
    return sent == JSONLinesParser.media_type


def read_text(stream: IO[bytes]) -> str:
    """The whole body as text, if it is not too long."""
    raw = stream.read(MAX_BYTES + 1)
    if len(raw) > MAX_BYTES:
        raise TooLarge(
            _("The body is longer than %(limit)d MiB: send it in parts.")
            % {"limit": MAX_BYTES // 1024**2}
        )
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ParseError(
            _("The body is not UTF-8: byte %(byte)d cannot be read.") % {"byte": error.start}
        ) from None


def strict_loads(text: str) -> Any:
    """Parse JSON, refusing what cannot be stored; one sentence says what and where."""
    try:
        value = json.loads(text, parse_float=_finite, parse_constant=_finite)
    except (ValueError, RecursionError) as error:
        raise ParseError(_("This is not JSON: %(error)s.") % {"error": error}) from None
    refuse_unstorable(value)
    return value


def refuse_unstorable(value: Any, depth: int = 0) -> None:
    """Refuse texts with NUL or lone surrogates anywhere in `value`, and too deep nesting."""
    if depth > MAX_DEPTH:
        raise ParseError(
            _("The JSON is nested more than %(limit)d levels deep.") % {"limit": MAX_DEPTH}
        )
    if isinstance(value, str):
        _refuse_bad_text(value)
    elif isinstance(value, dict):
        for key, inner in value.items():
            _refuse_bad_text(key)
            refuse_unstorable(inner, depth + 1)
    elif isinstance(value, list):
        for inner in value:
            refuse_unstorable(inner, depth + 1)


def _refuse_bad_text(text: str) -> None:
    if "\0" in text:
        raise ParseError(_("A text holds a NUL character (\\u0000): remove it."))
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise ParseError(_("A text holds half of a surrogate pair (\\ud800 to \\udfff): mend it."))


def _finite(number: str) -> float:
    value = float(number)
    if not math.isfinite(value):
        raise ValueError(_("%(number)s is not a finite number") % {"number": number})
    return value
