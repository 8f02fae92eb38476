"""JSON lines of any length in little memory, under ASGI and WSGI alike.

Django collects an ordinary iterator whole before an ASGI server sees the first byte, and warns; an
asynchronous one it would collect under WSGI. So the server decides which of the two it gets.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator

from asgiref.sync import sync_to_async
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpResponseBase, StreamingHttpResponse
from django.utils.cache import get_conditional_response
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request

from labelhub.rankings.models import Ranking
from labelhub.rankings.queries import export_lines
from labelhub.runs.models import Snapshot

MEDIA_TYPE = "application/x-ndjson"
# Rankings that are read from the database, and sent, at once.
BATCH = 100


class JSONLinesRenderer(JSONRenderer):
    """Lets a client ask for JSON lines by name; the lines themselves are streamed past it."""

    media_type = MEDIA_TYPE
    format = "jsonl"


def rankings_response(request: Request, snapshot: Snapshot) -> HttpResponseBase:
    """The snapshot's lines as a stream, or 304 for whoever holds them already."""
    plain = request._request
    etag = f'"{snapshot.sha256}"'
    unchanged = get_conditional_response(plain, etag=etag)
    if unchanged is not None:
        return unchanged
    chunks = snapshot_chunks(snapshot)
    response = StreamingHttpResponse(
        _without_blocking(chunks) if isinstance(plain, ASGIRequest) else chunks,
        content_type=MEDIA_TYPE,
    )
    response["ETag"] = etag
    response["Cache-Control"] = "private, no-cache"
    name = f"snapshot-{snapshot.pk}-rankings.jsonl"
    response["Content-Disposition"] = f'attachment; filename="{name}"'
    return response


def snapshot_chunks(snapshot: Snapshot) -> Iterator[bytes]:
    """The lines that the snapshot's hash was taken of, byte for byte, some at a time."""
    pks = list(snapshot.items.order_by("ranking_id").values_list("ranking_id", flat=True))
    for start in range(0, len(pks), BATCH):
        rankings = Ranking.objects.filter(pk__in=pks[start : start + BATCH]).order_by("pk")
        lines = (json.dumps(row, ensure_ascii=False) for row in export_lines(rankings))
        yield "".join(f"{line}\n" for line in lines).encode()


async def _without_blocking(chunks: Iterator[bytes]) -> AsyncIterator[bytes]:
    """Each batch is read on the request's own thread, which also holds its database connection."""

    def step() -> bytes | None:
        return next(chunks, None)

    while (chunk := await sync_to_async(step)()) is not None:
        yield chunk
