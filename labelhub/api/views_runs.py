"""Runs: start, stop, resume, follow."""

from __future__ import annotations

from typing import Any

from django.utils.translation import gettext as _
from drf_spectacular.utils import extend_schema
from rest_framework import serializers, status
from rest_framework.request import Request
from rest_framework.response import Response

from labelhub.accounts.models import User
from labelhub.api import serializers as s
from labelhub.api.base import ApiView
from labelhub.api.lookups import find, visible, visible_versions
from labelhub.projects.models import Project
from labelhub.projects.queries import Role, get_project_or_404
from labelhub.prompts.models import Answer, Prompt
from labelhub.registry.models import ModelVersion
from labelhub.runs.actions import resume_run, start_run, stop_run
from labelhub.runs.models import Run, Snapshot
from labelhub.runs.queries import events_after, is_living

# What a stage reads, by the names of the body; where there are two sets, either will do. Checked
# here so that a program learns at once what the trainer would only say minutes later.
READS: dict[str, tuple[frozenset[str], ...]] = {
    Run.Stage.GENERATE: (frozenset({"policy", "prompts"}),),
    Run.Stage.REWARD: (frozenset({"base", "snapshot"}),),
    Run.Stage.PPO: (frozenset({"policy", "reward", "prompts"}),),
    Run.Stage.EVALUATE: (
        frozenset({"reward", "snapshot"}),
        frozenset({"policy", "reference", "reward", "prompts"}),
    ),
    Run.Stage.SCORE: (frozenset({"reward", "answers"}),),
}


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

        What each stage reads:

        - generate: policy, prompts
        - reward: base, snapshot
        - ppo: policy, reward, prompts (held-out ones are refused)
        - evaluate: reward, snapshot; or policy, reference, reward, prompts
        - score: reward, answers
        """
        asked = self.body(s.RunCreateSerializer)
        project = get_project_or_404(self.user, asked["project"], Role.ADMIN)
        refuse_wrong_inputs(asked)
        run = start_run(
            project=project,
            stage=asked["stage"],
            config=asked.get("config", {}),
            inputs=named_versions(self.user, project, asked.get("inputs", {})),
            seed=asked["seed"],
            by=self.user,
            snapshot=named_snapshot(project, asked.get("snapshot")),
            data=named_rows(project, asked),
        )
        return Response(run_body(run), status=status.HTTP_201_CREATED)


def run_body(run: Run) -> Any:
    """The run in full."""
    return s.RunDetailSerializer(run).data


def refuse(field: str, sentence: str) -> serializers.ValidationError:
    """A 400 about one field."""
    return serializers.ValidationError({field: [sentence]})


def refuse_wrong_inputs(asked: dict[str, Any]) -> None:
    """Refuse inputs that the stage does not read, and a stage that misses one."""
    stage, roles = asked["stage"], set(asked.get("inputs", {}))
    given = roles | ({"snapshot", "prompts", "answers"} & set(asked))
    known = frozenset().union(*READS[stage])
    for name in sorted(given - known):
        words = _("The stage “%(stage)s” does not read this; it reads %(known)s.")
        field = f"inputs.{name}" if name in roles else name
        raise refuse(field, words % {"stage": stage, "known": ", ".join(sorted(known))})
    missing = min((wanted - given for wanted in READS[stage]), key=len)
    if missing:
        words = _("The stage “%(stage)s” also needs %(missing)s.")
        words = words % {"stage": stage, "missing": ", ".join(sorted(missing))}
        raise refuse(
            "inputs" if missing - {"snapshot", "prompts", "answers"} else min(missing), words
        )


def named_versions(user: User, project: Project, inputs: dict[str, str]) -> dict[str, ModelVersion]:
    """The versions by role; one that the user may not see does not exist for him."""
    rows = visible_versions(user, project.slug).filter(name__in=inputs.values())
    found = {version.name: version for version in rows}
    for role, name in inputs.items():
        if name not in found:
            words = _("There is no model version “%(name)s” in this project.") % {"name": name}
            raise refuse(f"inputs.{role}", words)
    return {role: found[name] for role, name in inputs.items()}


def named_snapshot(project: Project, pk: int | None) -> Snapshot | None:
    """The project's snapshot of that number."""
    if pk is None:
        return None
    snapshot = Snapshot.objects.filter(project=project, pk=pk).first()
    if snapshot is None:
        words = _("There is no snapshot %(number)d in this project.") % {"number": pk}
        raise refuse("snapshot", words)
    return snapshot


def named_rows(project: Project, asked: dict[str, Any]) -> dict[str, list[int]]:
    """The numbers of the rows that go into the run's data files, each once, all of this project."""
    data: dict[str, list[int]] = {}
    if "prompts" in asked:
        prompts = Prompt.objects.filter(project=project)
        data["prompts"] = _all_of("prompts", prompts, asked["prompts"])
        if asked["stage"] == Run.Stage.PPO:
            _refuse_held_out(project, data["prompts"])
    if "answers" in asked:
        answers = Answer.objects.filter(answer_set__prompt__project=project)
        data["answers"] = _all_of("answers", answers, asked["answers"])
    return data


def _all_of(field: str, rows: Any, asked: list[int]) -> list[int]:
    wanted = sorted(set(asked))
    known = set(rows.filter(pk__in=wanted).values_list("pk", flat=True))
    missing = [pk for pk in wanted if pk not in known]
    if missing:
        words = _("These numbers are not in this project: %(numbers)s.")
        raise refuse(field, words % {"numbers": _some(missing)})
    return wanted


def _refuse_held_out(project: Project, wanted: list[int]) -> None:
    held = Prompt.objects.filter(project=project, pk__in=wanted, held_out=True)
    found = sorted(held.values_list("pk", flat=True))
    if found:
        words = _("These prompts are held out, no stage trains on them: %(numbers)s.")
        raise refuse("prompts", words % {"numbers": _some(found)})


def _some(numbers: list[int]) -> str:
    shown = ", ".join(map(str, numbers[:5]))
    return shown if len(numbers) <= 5 else f"{shown}, …"


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
