"""JSON lines of any length in little memory, under ASGI and WSGI alike.

Django collects an ordinary iterator whole before an ASGI server sees the first byte, and warns; an
asynchronous one it would collect under WSGI. So the server decides which of the two it gets.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable, Iterator
from itertools import islice
from typing import Any

from asgiref.sync import sync_to_async
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, StreamingHttpResponse

MEDIA_TYPE = "application/x-ndjson"
# Lines that are read from the database, and sent, at once.
BATCH = 100


def file_response(
    request: HttpRequest, chunks: Iterator[bytes], name: str
) -> StreamingHttpResponse:
    """A file of JSON lines to keep, sent as it is made."""
    response = StreamingHttpResponse(
        _without_blocking(chunks) if isinstance(request, ASGIRequest) else chunks,
        content_type=MEDIA_TYPE,
    )
    response["Cache-Control"] = "private, no-cache"
    response["Content-Disposition"] = f'attachment; filename="{name}"'
    return response


def chunks_of(rows: Iterator[dict[str, Any]]) -> Iterator[bytes]:
    """The rows as JSON lines, some at a time."""
    while some := list(islice(rows, BATCH)):
        yield encoded(some)


def encoded(rows: Iterable[dict[str, Any]]) -> bytes:
    """The rows as JSON lines, at once."""
    return "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows).encode()


async def _without_blocking(chunks: Iterator[bytes]) -> AsyncIterator[bytes]:
    """Each batch is read on the request's own thread, which also holds its database connection."""

    def step() -> bytes | None:
        return next(chunks, None)

    while (chunk := await sync_to_async(step)()) is not None:
        yield chunk
