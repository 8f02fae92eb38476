"""What runs learn from: snapshots of rankings and pairs with their JSON lines, and raw texts."""

from __future__ import annotations

from typing import Any, cast

from django.http import Http404, HttpResponseBase
from django.utils.translation import gettext as _
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework import serializers, status
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from labelhub.accounts.models import User
from labelhub.api import serializers as s
from labelhub.api.base import ApiView
from labelhub.api.fields import ProjectFilter
from labelhub.api.lookups import find, visible, visible_corpora
from labelhub.api.parsers import (
    GzipFileParser,
    JSONLinesParser,
    LinesFileParser,
    StrictJSONParser,
    TextFileParser,
    is_lines,
)
from labelhub.api.streaming import JSONLinesRenderer, json_lines, snapshot_response
from labelhub.projects.queries import Role, get_project_or_404
from labelhub.rankings.queries import usable_rankings
from labelhub.runs.actions import take_snapshot
from labelhub.runs.gathering import (
    TextFile,
    add_corpus,
    import_pairs,
    take_pairs,
    take_winners,
)
from labelhub.runs.models import Run, Snapshot


class ApiSnapshots(ApiView):
    """Snapshots."""

    filters = ProjectFilter
    parser_classes = (StrictJSONParser, JSONLinesParser)

    @extend_schema(operation_id="snapshots_list", responses=s.SnapshotSerializer(many=True))
    def get(self, request: Request) -> Response:
        """List snapshots, newest first."""
        rows = visible(Snapshot, self.user, self.query().get("project"))
        return self.paged(
            rows.select_related("project", "created_by").order_by("-id"), s.SnapshotSerializer
        )

    @extend_schema(
        operation_id="snapshots_create",
        parameters=[
            OpenApiParameter("project", str, description="With JSON lines: the project's slug.")
        ],
        request={
            "application/json": s.SnapshotCreateSerializer,
            "application/x-ndjson": {"type": "string", "format": "binary"},
        },
        responses={201: s.SnapshotSerializer},
    )
    def post(self, request: Request) -> Response:
        """Freeze the project's rankings as they are now, or pairs for supervised fine-tuning.

        For project admins. Pairs are ideal answers (`ideal`), answers that rankings put first
        (`best`), the winners of a best-of-n run (`winners`, with `run`), or a body of
        JSON lines with `?project=` in the query string: one
        `{"prompt": text or [{"role", "content"} …], "answer": text}` a line.

        Rankings of held-out prompts, known rankings and blind comparisons stay
        out, since no stage may train on them; so do simulated ones, unless the project is a
        simulated one. Where a reviewer decided about a set, only the decision goes in. A ranking
        that is frozen can no longer be corrected.
        """
        snapshot = self._imported() if is_lines(request) else self._taken()
        shown = s.SnapshotSerializer(snapshot, context=self.get_serializer_context())
        return Response(shown.data, status=status.HTTP_201_CREATED)

    def _taken(self) -> Snapshot:
        body = self.body(s.SnapshotCreateSerializer)
        project = get_project_or_404(self.user, body["project"], Role.ADMIN)
        if body["kind"] == Snapshot.Kind.WINNERS:
            run = Run.objects.filter(project=project, pk=body["run"]).first()
            if run is None:
                words = _("There is no run %(said)s in this project.") % {"said": body["run"]}
                raise serializers.ValidationError({"run": [words]})
            return take_winners(run=run, by=self.user)
        if body["kind"] != Snapshot.Kind.RANKINGS:
            return take_pairs(project=project, kind=body["kind"], by=self.user)
        return take_snapshot(project=project, rankings=usable_rankings(project), by=self.user)

    def _imported(self) -> Snapshot:
        asked = self.query(s.ImportFilter)
        project = get_project_or_404(self.user, asked["project"], Role.ADMIN)
        lines = cast(dict[str, list[str]], self.request.data)["lines"]
        return import_pairs(project=project, lines=lines, by=self.user)


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
            **json_lines("One ranking a line. The ETag is the SHA-256 of the whole body."),
            304: OpenApiResponse(description="You have it already (If-None-Match)."),
        },
    )
    def get(self, request: Request, pk: int) -> HttpResponseBase:
        """Download the rankings as the trainer reads them.

        For reviewers and admins: an annotator who sees how others ranked is no longer an opinion of
        his own.
        """
        return snapshot_response(request, lines_of(self.user, pk, "rankings"))


class ApiSnapshotPairs(ApiView):
    """The lines of one snapshot of pairs."""

    renderer_classes = (JSONRenderer, JSONLinesRenderer)

    @extend_schema(
        operation_id="snapshots_pairs",
        responses={
            **json_lines("One pair a line. The ETag is the SHA-256 of the whole body."),
            304: OpenApiResponse(description="You have it already (If-None-Match)."),
        },
    )
    def get(self, request: Request, pk: int) -> HttpResponseBase:
        """Download the pairs as the trainer reads them. For reviewers and admins."""
        return snapshot_response(request, lines_of(self.user, pk, "pairs"))


def lines_of(user: User, pk: int, holds: str) -> Snapshot:
    """The snapshot, if its lines are of this kind."""
    snapshot = find(Snapshot, user, pk, Role.REVIEWER)
    if snapshot.holds != holds:
        raise Http404(_("This snapshot holds no %(holds)s.") % {"holds": holds})
    return snapshot


# --- texts


class ApiCorpora(ApiView):
    """Texts."""

    filters = ProjectFilter
    parser_classes = (TextFileParser, GzipFileParser, LinesFileParser)

    @extend_schema(operation_id="corpora_list", responses=s.CorpusSerializer(many=True))
    def get(self, request: Request) -> Response:
        """List the texts that your projects may pretrain on, also those of the whole house."""
        rows = visible_corpora(self.user, self.query().get("project"))
        rows = rows.select_related("project", "created_by").order_by("-id")
        return self.paged(rows, s.CorpusSerializer)

    @extend_schema(
        operation_id="corpora_add",
        parameters=[s.CorpusAddFilter],
        request={
            kind.media_type: {"type": "string", "format": "binary"}
            for kind in (TextFileParser, GzipFileParser, LinesFileParser)
        },
        responses={201: s.CorpusSerializer},
    )
    def post(self, request: Request) -> Response:
        """Bring one file of text under a name. For project admins.

        The content type says what it is: plain text, plain text packed with gzip, or JSON lines
        with a `text` each. It is checked as a whole and never changes.
        """
        asked = self.query(s.CorpusAddFilter)
        project = get_project_or_404(self.user, asked["project"], Role.ADMIN)
        sent = cast(dict[str, Any], request.data)
        file = TextFile(f"text{sent['ending']}", sent["stream"])
        corpus = add_corpus(project=project, name=asked["name"], files=[file], by=self.user)
        shown = s.CorpusSerializer(corpus, context=self.get_serializer_context())
        return Response(shown.data, status=status.HTTP_201_CREATED)
