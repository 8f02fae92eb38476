"""Projects and their prompts."""

from __future__ import annotations

import json
from typing import Any, cast

from django.http import HttpResponseBase
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from labelhub.accounts.models import ApiToken
from labelhub.api import serializers as s
from labelhub.api.base import ApiView
from labelhub.api.lookups import visible
from labelhub.api.parsers import JSONLinesParser, StrictJSONParser, is_lines
from labelhub.api.streaming import JSONLinesRenderer, consensus_response, json_lines, sft_response
from labelhub.projects.models import Membership
from labelhub.projects.queries import (
    Role,
    current_guidelines,
    get_project_or_404,
    visible_projects,
)
from labelhub.prompts.actions import import_prompts
from labelhub.prompts.models import Prompt
from labelhub.registry.queries import live_version


class ApiProjects(ApiView):
    """Your projects."""

    serializer_class = s.ProjectSerializer

    @extend_schema(operation_id="projects_list", responses=s.ProjectSerializer(many=True))
    def get(self, request: Request) -> Response:
        """List your projects."""
        self.query()
        rows = visible_projects(self.user).order_by("slug")
        return self.paged(rows, s.ProjectSerializer, roles=roles_of(self))


class ApiProject(ApiView):
    """One of your projects."""

    @extend_schema(operation_id="projects_read", responses=s.ProjectDetailSerializer)
    def get(self, request: Request, slug: str) -> Response:
        """Read one project with its guidelines and its live policy."""
        project = get_project_or_404(self.user, slug)
        live = live_version(project)
        context = {
            "roles": roles_of(self),
            "guidelines": current_guidelines(project),
            "live": live.name if live else None,
        }
        return Response(s.ProjectDetailSerializer(project, context=context).data)


class ApiProjectSft(ApiView):
    """What people wrote in one of your projects."""

    renderer_classes = (JSONRenderer, JSONLinesRenderer)

    @extend_schema(
        operation_id="projects_sft",
        responses=json_lines("One ideal answer a line: `prompt`, `answer`, `annotator`."),
    )
    def get(self, request: Request, slug: str) -> HttpResponseBase:
        """Download the ideal answers that annotators wrote, as pairs for fine-tuning.

        For reviewers and admins. Those to held-out prompts stay out, since no stage may train on
        them. No reward model ever reads these.
        """
        project = get_project_or_404(self.user, slug, Role.REVIEWER)
        return sft_response(request, project)


class ApiProjectConsensus(ApiView):
    """What follows from the opinions in one of your projects."""

    renderer_classes = (JSONRenderer, JSONLinesRenderer)

    @extend_schema(
        operation_id="projects_consensus",
        responses=json_lines(
            "One ranked set a line: `answer_set`, `prompt`, `answers`, `ranked_pairs`, "
            "`bradley_terry` (ranks and scores), `rankings` (each annotator's ranks and "
            "reliability), `decision` of a reviewer or null."
        ),
    )
    def get(self, request: Request, slug: str) -> HttpResponseBase:
        """Download one order for each ranked set, with the rankings that it follows from.

        For admins, since it tells how reliable each annotator is.
        """
        project = get_project_or_404(self.user, slug, Role.ADMIN)
        return consensus_response(request, project)


def roles_of(view: ApiView) -> dict[int, str]:
    """The caller's role by project, in one query."""
    return dict(Membership.objects.filter(user=view.user).values_list("project_id", "role"))


class ApiPrompts(ApiView):
    """Prompts."""

    filters = s.PromptFilter
    write_scope = ApiToken.Scope.WRITE
    parser_classes = (StrictJSONParser, JSONLinesParser)

    @extend_schema(operation_id="prompts_list", responses=s.PromptSerializer(many=True))
    def get(self, request: Request) -> Response:
        """List prompts, oldest first."""
        asked = self.query()
        rows = visible(Prompt, self.user, asked.get("project")).order_by("id")
        wanted = {name: asked[name] for name in ("language", "held_out") if name in asked}
        return self.paged(rows.filter(**wanted), s.PromptSerializer)

    @extend_schema(
        operation_id="prompts_import",
        parameters=[
            OpenApiParameter("project", str, description="With JSON lines: the project's slug.")
        ],
        request={
            "application/json": s.PromptImportSerializer,
            "application/x-ndjson": {"type": "string", "format": "binary"},
        },
        responses={200: s.ImportReportSerializer},
    )
    def post(self, request: Request) -> Response:
        """Import prompts: a JSON object, or JSON lines with `?project=` in the query string.

        For project admins. A line is `{"prompt": text or [{"role", "content"} …], "language"?,
        "topic"?, "skill"?}`.
        """
        slug, lines = self._sent()
        project = get_project_or_404(self.user, slug, Role.ADMIN)
        report = import_prompts(project=project, lines=lines, by=self.user)
        refused = [{"line": line, "detail": sentence} for line, sentence in report.refused]
        body = {"added": report.added, "duplicates": report.duplicates, "refused": refused}
        return Response(s.ImportReportSerializer(body).data)

    def _sent(self) -> tuple[str, list[Any]]:
        if not is_lines(self.request):
            body = self.body(s.PromptImportSerializer)
            # What is no object goes in as JSON text: the import refuses it with its number.
            return body["project"], [
                one if isinstance(one, dict) else json.dumps(one) for one in body["prompts"]
            ]
        lines: list[Any] = cast(dict[str, list[str]], self.request.data)["lines"]
        return self.query(s.ImportFilter)["project"], lines
