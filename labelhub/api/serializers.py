"""How the house's things look to programs, and what programs may send.

Never shown: folders on the server, leases, and which model wrote an answer that people are to rank.
"""

from __future__ import annotations

from typing import Any

from django.utils.translation import gettext as _
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.reverse import reverse

from labelhub.api.fields import MAX_ID, Filters, ProjectFilter, Strict, Text, Whole
from labelhub.projects.models import Guidelines, Membership, Project
from labelhub.prompts.models import Prompt
from labelhub.registry.models import ModelVersion, Parent
from labelhub.rounds.models import Round, RoundRun
from labelhub.runs.models import Corpus, Run, RunEvent, RunInput, Snapshot

# A run or an import names at most so many rows.
MAX_ROWS = 10_000


def slug_of(name: str = "slug") -> Any:
    """A related row, shown by the field that people know it by."""
    return serializers.SlugRelatedField(slug_field=name, read_only=True)


def ids(**options: Any) -> serializers.ListField:
    """A list of numbers of rows."""
    return serializers.ListField(
        child=Whole(min_value=1, max_value=MAX_ID),
        min_length=1,
        max_length=MAX_ROWS,
        required=False,
        **options,
    )


# --- projects


class ProjectSerializer(serializers.ModelSerializer[Project]):
    """One labelling effort."""

    role = serializers.SerializerMethodField(help_text="Your role in it.")

    class Meta:
        model = Project
        fields = [
            "slug", "name", "description", "language", "answers_per_prompt", "overlap",
            "max_new_tokens", "temperature", "is_simulated", "paused", "created", "role",
        ]  # fmt: skip

    @extend_schema_field(serializers.ChoiceField(choices=Membership.Role.choices))
    def get_role(self, project: Project) -> str:
        """An admin of everything has no membership of his own."""
        return str(self.context["roles"].get(project.pk, Membership.Role.ADMIN))


class GuidelinesSerializer(serializers.ModelSerializer[Guidelines]):
    """What the annotators were told."""

    class Meta:
        model = Guidelines
        fields = ["version", "text", "created"]


class ProjectDetailSerializer(ProjectSerializer):
    """One labelling effort with its guidelines and its live policy."""

    guidelines = serializers.SerializerMethodField()
    live = serializers.SerializerMethodField(
        help_text="The name of the policy that writes the next answers."
    )

    class Meta(ProjectSerializer.Meta):
        fields = [*ProjectSerializer.Meta.fields, "guidelines", "live"]

    @extend_schema_field(GuidelinesSerializer(allow_null=True))
    def get_guidelines(self, project: Project) -> Any:
        """The newest version."""
        newest = self.context["guidelines"]
        return GuidelinesSerializer(newest).data if newest else None

    def get_live(self, project: Project) -> str | None:
        """None before one was chosen."""
        live: str | None = self.context["live"]
        return live


# --- prompts


class MessageSerializer(serializers.Serializer[Any]):
    """One turn of a conversation."""

    role = serializers.CharField()
    content = serializers.CharField()


class PromptSerializer(serializers.ModelSerializer[Prompt]):
    """A conversation that ends with the user's turn."""

    project = slug_of()
    messages = MessageSerializer(many=True, read_only=True)

    class Meta:
        model = Prompt
        fields = [
            "id", "project", "messages", "sha256", "language", "topic", "held_out", "retired",
            "created",
        ]  # fmt: skip


class PromptFilter(ProjectFilter):
    """Which prompts to list."""

    language = serializers.CharField(required=False, max_length=10, help_text="en, zh, …")
    held_out = serializers.BooleanField(
        required=False,
        help_text="true: only those that no stage trains on; false: only the others.",
    )


class ImportFilter(Filters):
    """With a body of JSON lines the project stands in the query string."""

    project = serializers.SlugField()


class PromptImportSerializer(Strict):
    """Prompts to add. One that cannot be read is refused by itself; the others are added."""

    project = Text(max_length=60)
    prompts = serializers.ListField(
        child=serializers.JSONField(
            allow_null=True,
            help_text='{"prompt": text or [{"role", "content"} …], …}; also language, topic, skill',
        ),
        min_length=1,
        max_length=MAX_ROWS,
    )


class RefusedLineSerializer(serializers.Serializer[Any]):
    """A line that was not added."""

    line = serializers.IntegerField(help_text="From 1.")
    detail = serializers.CharField(help_text="What is wrong with it.")


class ImportReportSerializer(serializers.Serializer[Any]):
    """What became of the lines."""

    added = serializers.IntegerField()
    duplicates = serializers.IntegerField(help_text="Stood in the project already.")
    refused = RefusedLineSerializer(many=True)


# --- snapshots


class SnapshotSerializer(serializers.ModelSerializer[Snapshot]):
    """An immutable, hashed list of rankings, or of pairs to fine-tune on."""

    project = slug_of()
    created_by = slug_of("username")
    rankings = serializers.SerializerMethodField(help_text="Where its JSON lines are.")
    pairs = serializers.SerializerMethodField(help_text="Where its JSON lines are.")

    class Meta:
        model = Snapshot
        fields = [
            "id", "project", "kind", "source", "sha256", "count", "created", "created_by",
            "rankings", "pairs",
        ]  # fmt: skip
        extra_kwargs = {
            "sha256": {"help_text": "Of the JSON lines."},
            "source": {"help_text": "The run whose winners they are."},
        }

    @extend_schema_field({"type": "string", "format": "uri", "nullable": True})
    def get_rankings(self, snapshot: Snapshot) -> str | None:
        """The address of rankings.jsonl."""
        return self._lines(snapshot, "rankings")

    @extend_schema_field({"type": "string", "format": "uri", "nullable": True})
    def get_pairs(self, snapshot: Snapshot) -> str | None:
        """The address of pairs.jsonl."""
        return self._lines(snapshot, "pairs")

    def _lines(self, snapshot: Snapshot, holds: str) -> str | None:
        if snapshot.holds != holds:
            return None
        name = f"api:snapshot-{holds}"
        return str(reverse(name, args=[snapshot.pk], request=self.context.get("request")))


class SnapshotCreateSerializer(Strict):
    """What is to be frozen of a project."""

    project = Text(max_length=60)
    kind = serializers.ChoiceField(
        choices=Snapshot.Kind.choices,
        required=False,
        default=Snapshot.Kind.RANKINGS,
        help_text=(
            "Rankings; ideal answers as pairs; the answers that rankings put first; or the winners "
            "of a run. Pairs from a file are sent as JSON lines."
        ),
    )
    run = Whole(
        min_value=1,
        max_value=MAX_ID,
        required=False,
        help_text="The finished run of the best of n whose winners are meant.",
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Winners have a run, other kinds have none."""
        if (attrs["kind"] == Snapshot.Kind.WINNERS) != ("run" in attrs):
            raise serializers.ValidationError(
                {"run": [_("Name the run whose winners are meant; other kinds have none.")]}
            )
        return attrs


# --- texts


class CorpusSerializer(serializers.ModelSerializer[Corpus]):
    """Raw text to pretrain on."""

    project = serializers.SlugRelatedField[Project](
        slug_field="slug", read_only=True, help_text="None: of the whole house."
    )
    created_by = slug_of("username")

    class Meta:
        model = Corpus
        fields = ["id", "project", "name", "sha256", "files", "size", "created", "created_by"]
        extra_kwargs = {
            "sha256": {"help_text": "Of the manifest that lists the hash of every file."},
            "size": {"help_text": "Bytes of text, unpacked."},
        }


class CorpusAddFilter(Filters):
    """What the text in the body is to be called, and whose it is."""

    project = serializers.SlugField()
    name = serializers.CharField(max_length=80)


# --- runs


class StageSerializer(serializers.Serializer[Any]):
    """What a stage reads, what it makes, and its settings."""

    stage = serializers.ChoiceField(choices=Run.Stage.choices)
    title = serializers.CharField()
    about = serializers.CharField()
    needs = serializers.ListField(
        child=serializers.ListField(child=serializers.CharField()),
        help_text="Sets of inputs: one of them must be complete.",
    )
    may_use = serializers.ListField(child=serializers.CharField(), help_text="Inputs besides.")
    inputs = serializers.DictField(help_text="JSON Schema of each input, by role.")
    config = serializers.DictField(help_text="JSON Schema of the settings.")
    makes = serializers.ListField(
        child=serializers.CharField(),
        help_text="Kinds of model version that may come out, by the settings.",
    )


@extend_schema_field(
    {
        "oneOf": [
            {"type": "array", "items": {"type": "integer"}, "maxItems": MAX_ROWS},
            {"type": "object", "additionalProperties": True},
        ]
    }
)
class Rows(serializers.Field[Any, Any, Any, Any]):
    """Numbers of rows, or an object that chooses among the project's rows."""

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, dict):
            return data
        return ids().run_validation(data)

    def to_representation(self, value: Any) -> Any:
        return value


class RunSerializer(serializers.ModelSerializer[Run]):
    """One execution of a stage."""

    project = slug_of()
    created_by = slug_of("username")

    class Meta:
        model = Run
        fields = [
            "id", "project", "stage", "state", "seed", "step", "total", "eta_seconds", "attempt",
            "error", "error_code", "created", "created_by", "started", "ended",
        ]  # fmt: skip
        extra_kwargs = {
            "error": {"help_text": "The trainer's own sentence, in English."},
            "error_code": {"help_text": "What kind of failure it was."},
        }


class RunDetailSerializer(RunSerializer):
    """One execution of a stage with all that it read and made."""

    inputs = serializers.SerializerMethodField(
        help_text="By role: name of a model version or text, number of a snapshot or run."
    )
    rows = serializers.SerializerMethodField(help_text="By role: how many prompts or answers.")
    snapshot = serializers.SerializerMethodField(help_text="What it learns from, if it is one.")
    output = slug_of("name")

    class Meta(RunSerializer.Meta):
        fields = [
            *RunSerializer.Meta.fields, "config", "inputs", "rows", "snapshot", "output", "report"
        ]  # fmt: skip

    @extend_schema_field({"type": "object", "additionalProperties": True})
    def get_inputs(self, run: Run) -> dict[str, str | int | dict[str, int]]:
        """What played which role."""
        links = run.inputs.select_related("version", "snapshot", "corpus", "source")
        return {link.role: shown_input(link) for link in links}

    @extend_schema_field({"type": "object", "additionalProperties": {"type": "integer"}})
    def get_rows(self, run: Run) -> dict[str, int]:
        """How many rows were read."""
        return {role: len(numbers) for role, numbers in run.data.items()}

    def get_snapshot(self, run: Run) -> int | None:
        """The snapshot in the role rankings or pairs."""
        links = run.inputs.filter(role__in=["rankings", "pairs"], snapshot__isnull=False)
        return links.order_by("-role").values_list("snapshot_id", flat=True).first()


def shown_input(link: RunInput) -> str | int | dict[str, int]:
    """What somebody would write to name the input again."""
    thing = link.thing
    if isinstance(thing, Run) and link.role == "answers":
        return {"run": thing.pk}
    return thing.name if isinstance(thing, ModelVersion | Corpus) else int(thing.pk)


class RunCreateSerializer(Strict):
    """What a stage is to do."""

    project = Text(max_length=60)
    stage = serializers.ChoiceField(choices=Run.Stage.choices)
    config = serializers.DictField(
        required=False, help_text="Settings of the stage; what is left out has a good default."
    )
    inputs = serializers.DictField(
        child=serializers.JSONField(),
        required=False,
        help_text="By role: name of a model version or text, number of a snapshot or run.",
    )
    snapshot = Whole(
        min_value=1, max_value=MAX_ID, required=False, help_text="Number of the snapshot to read."
    )
    prompts = Rows(
        required=False,
        help_text='Numbers of prompts, or {"held_out"?, "language"?, "number"?}, drawn by seed.',
    )
    answers = Rows(
        required=False,
        help_text='Numbers of answers, or {"version"?, "number"?}, or {"run"}: what a run wrote.',
    )
    seed = Whole(min_value=0, max_value=MAX_ID, required=False, default=0)


class RunFilter(ProjectFilter):
    """Which runs to list."""

    stage = serializers.ChoiceField(choices=Run.Stage.choices, required=False)
    state = serializers.ChoiceField(choices=Run.State.choices, required=False)


class EventFilter(Filters):
    """Which part of the events to read."""

    after = serializers.IntegerField(
        required=False,
        default=-1,
        min_value=-1,
        max_value=MAX_ID,
        help_text="`next` of the page before; -1 for the beginning.",
    )
    limit = serializers.IntegerField(required=False, default=500, min_value=1, max_value=1000)


class EventSerializer(serializers.ModelSerializer[RunEvent]):
    """One line of the run's events.jsonl."""

    class Meta:
        model = RunEvent
        fields = ["offset", "attempt", "at", "kind", "step", "data"]


class EventPageSerializer(serializers.Serializer[Any]):
    """Some events, and where to go on reading."""

    events = EventSerializer(many=True)
    next = serializers.IntegerField(help_text="Give it as `after` to read on.")
    state = serializers.ChoiceField(choices=Run.State.choices, help_text="The run's state.")
    done = serializers.BooleanField(
        help_text="True when the run has ended and no event is left to read."
    )


# --- rounds


class RoundRunSerializer(serializers.ModelSerializer[RoundRun]):
    """A run that the round started."""

    run = serializers.IntegerField(source="run_id")
    state = serializers.ChoiceField(source="run.state", choices=Run.State.choices)

    class Meta:
        model = RoundRun
        fields = ["run", "stage", "state"]


class RoundSerializer(serializers.ModelSerializer[Round]):
    """One turn of the loop."""

    project = slug_of()
    policy_in = slug_of("name")
    reward_base = slug_of("name")
    reward = slug_of("name")
    policy_out = slug_of("name")
    runs = RoundRunSerializer(source="round_runs", many=True, read_only=True)

    class Meta:
        model = Round
        fields = [
            "id", "project", "number", "state", "mode", "seed", "policy_in", "reward_base",
            "reward", "policy_out", "snapshot", "runs", "created", "ended",
        ]  # fmt: skip


class RoundDetailSerializer(RoundSerializer):
    """One turn of the loop with its settings."""

    class Meta(RoundSerializer.Meta):
        fields = [*RoundSerializer.Meta.fields, "config"]


# --- versions


class ParentSerializer(serializers.ModelSerializer[Parent]):
    """A version that this one was made from."""

    id = serializers.IntegerField(source="parent_id")
    name = serializers.CharField(source="parent.name")

    class Meta:
        model = Parent
        fields = ["id", "name", "role"]


class VersionSerializer(serializers.ModelSerializer[ModelVersion]):
    """One set of weights."""

    project = slug_of()
    parents = ParentSerializer(source="parent_links", many=True, read_only=True)

    class Meta:
        model = ModelVersion
        fields = [
            "id", "name", "kind", "number", "project", "sha256", "parameters", "created",
            "parents", "metrics",
        ]  # fmt: skip


class VersionDetailSerializer(VersionSerializer):
    """One set of weights with its card and the run that made it."""

    made_by = serializers.SerializerMethodField(help_text="Number of the run; none for a base.")

    class Meta(VersionSerializer.Meta):
        fields = [*VersionSerializer.Meta.fields, "card", "made_by"]

    def get_made_by(self, version: ModelVersion) -> int | None:
        """The run whose output it is."""
        return Run.objects.filter(output=version).values_list("pk", flat=True).first()


class VersionFilter(ProjectFilter):
    """Which versions to list; bases belong to no project and are always among them."""

    kind = serializers.ChoiceField(choices=ModelVersion.Kind.choices, required=False)
