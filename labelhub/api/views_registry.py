"""Rounds and model versions: read only."""

from __future__ import annotations

from django.db.models import Prefetch, QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from labelhub.api import serializers as s
from labelhub.api.base import ApiView
from labelhub.api.fields import ProjectFilter
from labelhub.api.lookups import find, find_version, visible, visible_versions
from labelhub.registry.models import ModelVersion, Parent
from labelhub.rounds.models import Round, RoundRun


def full_rounds(rows: QuerySet[Round]) -> QuerySet[Round]:
    """With everything that is shown of a round, in two queries."""
    named = ("project", "policy_in", "reward_base", "reward", "policy_out")
    runs = Prefetch("round_runs", RoundRun.objects.select_related("run").order_by("run_id"))
    return rows.select_related(*named).prefetch_related(runs)


def full_versions(rows: QuerySet[ModelVersion]) -> QuerySet[ModelVersion]:
    """With project and parents."""
    parents = Prefetch("parent_links", Parent.objects.select_related("parent").order_by("role"))
    return rows.select_related("project").prefetch_related(parents)


class ApiRounds(ApiView):
    """Rounds."""

    filters = ProjectFilter

    @extend_schema(operation_id="rounds_list", responses=s.RoundSerializer(many=True))
    def get(self, request: Request) -> Response:
        """List rounds, newest first."""
        rows = full_rounds(visible(Round, self.user, self.query().get("project")))
        return self.paged(rows.order_by("-id"), s.RoundSerializer)


class ApiRound(ApiView):
    """One round."""

    @extend_schema(operation_id="rounds_read", responses=s.RoundDetailSerializer)
    def get(self, request: Request, pk: int) -> Response:
        """Read one round with its settings, runs and versions."""
        return Response(s.RoundDetailSerializer(find(Round, self.user, pk)).data)


class ApiVersions(ApiView):
    """Model versions."""

    filters = s.VersionFilter

    @extend_schema(operation_id="versions_list", responses=s.VersionSerializer(many=True))
    def get(self, request: Request) -> Response:
        """List model versions with parents and metrics, newest first; the bases are among them."""
        asked = self.query()
        rows = full_versions(visible_versions(self.user, asked.get("project")))
        if kind := asked.get("kind"):
            rows = rows.filter(kind=kind)
        return self.paged(rows.order_by("-id"), s.VersionSerializer)


class ApiVersion(ApiView):
    """One model version."""

    @extend_schema(operation_id="versions_read", responses=s.VersionDetailSerializer)
    def get(self, request: Request, pk: int) -> Response:
        """Read one model version with parents, metrics and card."""
        return Response(s.VersionDetailSerializer(find_version(self.user, pk)).data)
