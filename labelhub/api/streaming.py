"""What programs download as JSON lines; how they are sent is for lib/streaming.py."""

from __future__ import annotations

from collections.abc import Iterator

from django.http import HttpResponseBase
from django.utils.cache import get_conditional_response
from drf_spectacular.utils import OpenApiResponse
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request

from labelhub.lib.streaming import BATCH, MEDIA_TYPE, chunks_of, encoded, file_response
from labelhub.projects.models import Project
from labelhub.rankings.models import Ranking
from labelhub.rankings.queries import export_lines, sft_lines
from labelhub.rankings.verdicts import consensus_lines
from labelhub.runs.models import Snapshot
from labelhub.runs.queries import snapshot_lines


class JSONLinesRenderer(JSONRenderer):
    """Lets a client ask for JSON lines by name; the lines themselves are streamed past it."""

    media_type = MEDIA_TYPE
    format = "jsonl"


def json_lines(description: str) -> dict[tuple[int, str], OpenApiResponse]:
    """What the schema says of an answer of JSON lines."""
    body = OpenApiResponse(response={"type": "string", "format": "binary"}, description=description)
    return {(200, MEDIA_TYPE): body}


def snapshot_response(request: Request, snapshot: Snapshot) -> HttpResponseBase:
    """The snapshot's lines as a stream, or 304 for whoever holds them already."""
    etag = f'"{snapshot.sha256}"'
    unchanged = get_conditional_response(request._request, etag=etag)
    if unchanged is not None:
        return unchanged
    name = f"snapshot-{snapshot.pk}-{snapshot.holds}.jsonl"
    response = file_response(request._request, snapshot_chunks(snapshot), name)
    response["ETag"] = etag
    return response


def sft_response(request: Request, project: Project) -> HttpResponseBase:
    """The ideal answers that people wrote in the project, as a stream."""
    return file_response(
        request._request, chunks_of(sft_lines(project)), f"{project.slug}-sft.jsonl"
    )


def consensus_response(request: Request, project: Project) -> HttpResponseBase:
    """One order for each ranked set, with the opinions that it follows from, as a stream."""
    chunks = chunks_of(consensus_lines(project))
    return file_response(request._request, chunks, f"{project.slug}-consensus.jsonl")


def snapshot_chunks(snapshot: Snapshot) -> Iterator[bytes]:
    """The lines that the snapshot's hash was taken of, byte for byte, some at a time.

    Rankings of somebody whose data was deleted since are missing.
    """
    if snapshot.holds != "rankings":
        yield from chunks_of(snapshot_lines(snapshot))
        return
    items = snapshot.items.filter(ranking__isnull=False).order_by("ranking_id")
    weights = list(items.values_list("ranking_id", "weight"))
    for start in range(0, len(weights), BATCH):
        some = dict(weights[start : start + BATCH])
        rankings = Ranking.objects.filter(pk__in=some).order_by("pk")
        yield encoded(export_lines(rankings, some))
