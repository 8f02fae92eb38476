"""Snapshots: frozen, hashed lists of rankings, and their JSON lines."""

from __future__ import annotations

from django.http import HttpResponseBase
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework import status
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from labelhub.api import serializers as s
from labelhub.api.base import ApiView
from labelhub.api.fields import ProjectFilter
from labelhub.api.lookups import find, visible
from labelhub.api.streaming import JSONLinesRenderer, rankings_response
from labelhub.projects.queries import Role, get_project_or_404
from labelhub.rankings.queries import usable_rankings
from labelhub.runs.actions import take_snapshot
from labelhub.runs.models import Snapshot


class ApiSnapshots(ApiView):
    """Snapshots."""

    filters = ProjectFilter

    @extend_schema(operation_id="snapshots_list", responses=s.SnapshotSerializer(many=True))
    def get(self, request: Request) -> Response:
        """List snapshots, newest first."""
        rows = visible(Snapshot, self.user, self.query().get("project"))
        return self.paged(
            rows.select_related("project", "created_by").order_by("-id"), s.SnapshotSerializer
        )

    @extend_schema(
        operation_id="snapshots_create",
        request=s.SnapshotCreateSerializer,
        responses={201: s.SnapshotSerializer},
    )
    def post(self, request: Request) -> Response:
        """Freeze the project's rankings as they are now.

        For project admins. Rankings of held-out prompts, known rankings and blind comparisons stay
        out, since no stage may train on them; so do simulated ones, unless the project is a
        simulated one. Where a reviewer decided about a set, only the decision goes in. A ranking
        that is frozen can no longer be corrected.
        """
        body = self.body(s.SnapshotCreateSerializer)
        project = get_project_or_404(self.user, body["project"], Role.ADMIN)
        snapshot = take_snapshot(project=project, rankings=usable_rankings(project), by=self.user)
        shown = s.SnapshotSerializer(snapshot, context=self.get_serializer_context())
        return Response(shown.data, status=status.HTTP_201_CREATED)


class ApiSnapshot(ApiView):
    """One snapshot."""

    @extend_schema(operation_id="snapshots_read", responses=s.SnapshotSerializer)
    def get(self, request: Request, pk: int) -> Response:
        """Read one snapshot's hash, size and address."""
        snapshot = find(Snapshot, self.user, pk)
        return Response(s.SnapshotSerializer(snapshot, context=self.get_serializer_context()).data)


class ApiSnapshotRankings(ApiView):
    """The lines of one snapshot."""

    renderer_classes = (JSONRenderer, JSONLinesRenderer)

    @extend_schema(
        operation_id="snapshots_rankings",
        responses={
            (200, "application/x-ndjson"): OpenApiResponse(
                response={"type": "string", "format": "binary"},
                description="One ranking a line. The ETag is the SHA-256 of the whole body.",
            ),
            304: OpenApiResponse(description="You have it already (If-None-Match)."),
        },
    )
    def get(self, request: Request, pk: int) -> HttpResponseBase:
        """Download the rankings as the trainer reads them.

        For reviewers and admins: an annotator who sees how others ranked is no longer an opinion of
        his own.
        """
        snapshot = find(Snapshot, self.user, pk, Role.REVIEWER)
        return rankings_response(request, snapshot)
