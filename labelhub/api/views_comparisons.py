"""Blind comparisons of two model versions: start, follow, close. For project admins.

Annotators learn nothing here: who judges blind must not know what is compared, nor how it stands.
"""

from __future__ import annotations

from typing import Any

from django.utils.translation import gettext as _
from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import serializers, status
from rest_framework.request import Request
from rest_framework.response import Response

from labelhub.accounts.models import User
from labelhub.api.base import ApiView
from labelhub.api.fields import MAX_ID, ProjectFilter, Strict, Text, Whole
from labelhub.api.lookups import find, visible, visible_versions
from labelhub.api.serializers import slug_of
from labelhub.projects.models import Project
from labelhub.projects.queries import Role, administered_projects, get_project_or_404
from labelhub.registry.models import ModelVersion
from labelhub.rounds.actions import close_comparison, start_comparison
from labelhub.rounds.estimates import WinRate
from labelhub.rounds.models import Comparison
from labelhub.rounds.rules import RoundConfig
from labelhub.rounds.verdicts import verdict_of

MOST_PROMPTS = int(RoundConfig.BOUNDS["compare_prompts"][1])
MOST_OPINIONS = int(RoundConfig.BOUNDS["compare_opinions"][1])


class WinRateSerializer(serializers.Serializer[WinRate]):
    """How often the version after wins; a tie is half a win."""

    wins = serializers.IntegerField()
    ties = serializers.IntegerField()
    losses = serializers.IntegerField()
    win_rate = serializers.FloatField(source="value", allow_null=True)
    ci95 = serializers.ListField(
        source="bounds",
        child=serializers.FloatField(),
        allow_null=True,
        help_text="Wilson's 95 % interval over prompts.",
    )
    advice = serializers.CharField(
        help_text="The interval against ½: promote, unclear or reject; empty before anything is."
    )


class VerdictSerializer(serializers.Serializer[Any]):
    """What came of a comparison; both rates are over the same pairs."""

    pairs = serializers.IntegerField(help_text="Prompts that both versions answered.")
    same = serializers.IntegerField(help_text="Of these, both answers the same text: ties.")
    people = WinRateSerializer()
    reward = WinRateSerializer()
    parted = serializers.BooleanField(
        help_text="The reward model likes the version after better, people do not (yet)."
    )


class ComparisonSerializer(serializers.ModelSerializer[Comparison]):
    """Two versions whose answers to the same prompts people compare, blind."""

    project = slug_of()
    before = slug_of("name")
    after = slug_of("name")
    round = serializers.IntegerField(
        source="round_id", read_only=True, allow_null=True, help_text="None for any two versions."
    )

    class Meta:
        model = Comparison
        fields = [
            "id", "project", "round", "before", "after", "run", "state", "opinions", "created",
            "ended",
        ]  # fmt: skip


class ComparisonDetailSerializer(ComparisonSerializer):
    """One comparison with how far it is and, once it is closed, what came of it."""

    wanted = serializers.SerializerMethodField(help_text="Opinions that are asked for.")
    done = serializers.SerializerMethodField(help_text="Opinions that are there.")
    verdict = serializers.SerializerMethodField(
        help_text="None before it is closed: who can watch a rate closes at the right moment."
    )

    class Meta(ComparisonSerializer.Meta):
        fields = [*ComparisonSerializer.Meta.fields, "wanted", "done", "verdict"]

    def get_wanted(self, _comparison: Comparison) -> int:
        """How many opinions there shall be."""
        return int(self.context["verdict"].wanted)

    def get_done(self, _comparison: Comparison) -> int:
        """How many of them there are."""
        return int(self.context["verdict"].done)

    @extend_schema_field(VerdictSerializer(allow_null=True))
    def get_verdict(self, comparison: Comparison) -> Any:
        """What people and the reward model say."""
        if comparison.state != Comparison.State.CLOSED:
            return None
        return VerdictSerializer(self.context["verdict"]).data


class ComparisonCreateSerializer(Strict):
    """Which two versions answer, who scores, and how much is asked."""

    project = Text(max_length=60)
    before = Text(max_length=140, help_text="Name of the older version.")
    after = Text(max_length=140, help_text="Name of the newer version.")
    reward = Text(max_length=140, help_text="Name of the reward model that scores the answers.")
    prompts = Whole(min_value=1, max_value=MOST_PROMPTS, required=False, default=40)
    opinions = Whole(min_value=1, max_value=MOST_OPINIONS, required=False, default=1)
    held_out = serializers.BooleanField(
        required=False, default=True, help_text="False: prompts that training uses."
    )
    seed = Whole(min_value=0, max_value=min(MAX_ID, 2**31 - 1), required=False, default=0)


class ApiComparisons(ApiView):
    """Comparisons."""

    filters = ProjectFilter

    @extend_schema(operation_id="comparisons_list", responses=ComparisonSerializer(many=True))
    def get(self, request: Request) -> Response:
        """List the comparisons of the projects that you administer, newest first."""
        named = self.query().get("project")
        rows = visible(Comparison, self.user, named)
        if named:
            get_project_or_404(self.user, named, Role.ADMIN)
        rows = rows.filter(project__in=administered_projects(self.user))
        return self.paged(
            rows.select_related("project", "before", "after").order_by("-id"), ComparisonSerializer
        )

    @extend_schema(
        operation_id="comparisons_start",
        request=ComparisonCreateSerializer,
        responses={201: ComparisonDetailSerializer},
    )
    def post(self, request: Request) -> Response:
        """Let two versions answer the same prompts, and annotators compare the answers, blind.

        For project admins. An evaluation is queued; when it is finished the pairs enter the queue.
        """
        asked = self.body(ComparisonCreateSerializer)
        project = get_project_or_404(self.user, asked.pop("project"), Role.ADMIN)
        for role in ("before", "after", "reward"):
            asked[role] = named_version(self.user, project, role, asked[role])
        made = start_comparison(project=project, by=self.user, **asked)
        return Response(comparison_body(made), status=status.HTTP_201_CREATED)


def named_version(user: User, project: Project, role: str, name: str) -> ModelVersion:
    """The version of that name; one that the user may not see does not exist for him."""
    found = visible_versions(user, project.slug).filter(name=name).first()
    if found is None:
        words = _("There is no model version “%(said)s” in this project.") % {"said": name}
        raise serializers.ValidationError({role: [words]})
    return found


def comparison_body(comparison: Comparison) -> Any:
    """The comparison in full."""
    context = {"verdict": verdict_of(comparison)}
    return ComparisonDetailSerializer(comparison, context=context).data


class ApiComparison(ApiView):
    """One comparison."""

    @extend_schema(operation_id="comparisons_read", responses=ComparisonDetailSerializer)
    def get(self, request: Request, pk: int) -> Response:
        """Read how far a comparison is and, once it is closed, both win rates."""
        return Response(comparison_body(find(Comparison, self.user, pk, Role.ADMIN)))


class ApiComparisonClose(ApiView):
    """Closing a comparison."""

    @extend_schema(
        operation_id="comparisons_close", request=None, responses={200: ComparisonDetailSerializer}
    )
    def post(self, request: Request, pk: int) -> Response:
        """Ask nobody any more and keep what was said; a round goes on to its decision."""
        found = find(Comparison, self.user, pk, Role.ADMIN)
        return Response(comparison_body(close_comparison(comparison=found, by=self.user)))
