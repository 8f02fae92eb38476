"""Stages, and their runs: start, stop, resume, follow."""

from __future__ import annotations

from typing import Any

from django.utils.translation import gettext as _
from drf_spectacular.utils import extend_schema
from rest_framework import serializers, status
from rest_framework.request import Request
from rest_framework.response import Response

from labelhub.api import serializers as s
from labelhub.api.base import ApiView
from labelhub.api.lookups import find, visible
from labelhub.lib.errors import Refused
from labelhub.projects.queries import Role, get_project_or_404
from labelhub.runs.actions import resume_run, start_run, stop_run
from labelhub.runs.inputs import find_inputs
from labelhub.runs.models import Run
from labelhub.runs.queries import events_after, is_living
from labelhub.runs.stages import facts, schema

# Words of the body that are short for an input of the same name.
SHORT = ("prompts", "answers")


class ApiRuns(ApiView):
    """Runs."""

    filters = s.RunFilter

    @extend_schema(operation_id="runs_list", responses=s.RunSerializer(many=True))
    def get(self, request: Request) -> Response:
        """List runs, newest first."""
        asked = self.query()
        rows = visible(Run, self.user, asked.get("project"))
        wanted = {name: asked[name] for name in ("stage", "state") if name in asked}
        rows = rows.filter(**wanted).select_related("project", "created_by").order_by("-id")
        return self.paged(rows, s.RunSerializer)

    @extend_schema(
        operation_id="runs_start",
        request=s.RunCreateSerializer,
        responses={201: s.RunDetailSerializer},
    )
    def post(self, request: Request) -> Response:
        """Start a stage. For project admins.

        What each stage reads, and its settings: `GET /api/v1/stages/`. `inputs` names everything
        by its role; `snapshot`, `prompts` and `answers` beside it are short for the inputs that
        they are. Held-out prompts are refused where a policy learns from prompts.
        """
        asked = self.body(s.RunCreateSerializer)
        project = get_project_or_404(self.user, asked["project"], Role.ADMIN)
        stage = asked["stage"]
        inputs, fields = named_inputs(asked)
        try:
            found = find_inputs(project, stage, inputs, asked["seed"])
            run = start_run(
                project=project,
                stage=stage,
                config=asked.get("config", {}),
                inputs=found.things,
                seed=asked["seed"],
                by=self.user,
                data=found.rows,
            )
        except Refused as refusal:
            raise by_field(refusal, fields) from None
        return Response(run_body(run), status=status.HTTP_201_CREATED)


def run_body(run: Run) -> Any:
    """The run in full."""
    return s.RunDetailSerializer(run).data


def named_inputs(asked: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """The inputs by role, short forms among them, and the field that named each."""
    inputs = dict(asked.get("inputs", {}))
    fields = {role: f"inputs.{role}" for role in inputs}
    short = {name: (name, asked[name]) for name in SHORT if name in asked}
    if "snapshot" in asked:
        kinds = facts(asked["stage"]).kinds
        role = next((role for role in ("rankings", "pairs") if role in kinds), "rankings")
        short["snapshot"] = (role, asked["snapshot"])
    for field, (role, said) in short.items():
        if role in inputs:
            raise serializers.ValidationError({field: [_("This is named twice.")]})
        inputs[role], fields[role] = said, field
    return inputs, fields


def by_field(refusal: Refused, fields: dict[str, str]) -> Exception:
    """A refusal about one input or setting as a 400 about its field; any other stays as it is."""
    if refusal.status != status.HTTP_400_BAD_REQUEST:
        return refusal
    if setting := refusal.details.get("setting"):
        field = f"config.{setting}"
    elif "role" in refusal.details:
        field = fields.get(refusal.details["role"], "inputs")
    else:
        return refusal
    return serializers.ValidationError({field: [refusal.message]})


class ApiStages(ApiView):
    """Stages."""

    pagination_class = None

    @extend_schema(operation_id="stages_list", responses=s.StageSerializer(many=True))
    def get(self, request: Request) -> Response:
        """List the stages: what each reads, makes, and its settings as JSON Schema."""
        self.query()
        return Response([schema(stage) for stage in Run.Stage.values])


class ApiRun(ApiView):
    """One run."""

    @extend_schema(operation_id="runs_read", responses=s.RunDetailSerializer)
    def get(self, request: Request, pk: int) -> Response:
        """Read one run with its settings, inputs, output and report."""
        return Response(run_body(find(Run, self.user, pk)))


class ApiRunStop(ApiView):
    """Stopping a run."""

    @extend_schema(operation_id="runs_stop", request=None, responses={200: s.RunDetailSerializer})
    def post(self, request: Request, pk: int) -> Response:
        """Ask a run to stop; a running one saves a checkpoint first. For project admins."""
        run = find(Run, self.user, pk, Role.ADMIN)
        return Response(run_body(stop_run(run=run, by=self.user)))


class ApiRunResume(ApiView):
    """Resuming a run."""

    @extend_schema(operation_id="runs_resume", request=None, responses={200: s.RunDetailSerializer})
    def post(self, request: Request, pk: int) -> Response:
        """Let a stopped or failed run go on from its last checkpoint. For project admins."""
        run = find(Run, self.user, pk, Role.ADMIN)
        return Response(run_body(resume_run(run=run, by=self.user)))


class ApiRunEvents(ApiView):
    """The events of a run."""

    filters = s.EventFilter
    pagination_class = None

    @extend_schema(operation_id="runs_events", responses=s.EventPageSerializer)
    def get(self, request: Request, pk: int) -> Response:
        """Follow a run: read what comes after an offset, wait a moment, go on at `next`.

        For reviewers and admins: sample answers name the policy that wrote them, which annotators
        of a blind comparison must not know.
        """
        asked = self.query()
        # The state is read before the events: a run that ends in between is then not called done
        # with its last events unread.
        run = find(Run, self.user, pk, Role.REVIEWER)
        events = list(events_after(run, asked["after"], asked["limit"]))
        body = {
            "events": events,
            "next": events[-1].offset if events else asked["after"],
            "state": run.state,
            "done": not is_living(run) and len(events) < asked["limit"],
        }
        return Response(s.EventPageSerializer(body).data)
