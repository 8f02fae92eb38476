"""Runs of the trainer, the snapshots and texts they read, and the events they report."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from labelhub.projects.models import Project
from labelhub.rankings.models import Ranking
from labelhub.registry.models import ModelVersion


class Snapshot(models.Model):
    """An immutable, hashed list of rankings, or of pairs to fine-tune on, that runs train on."""

    class Kind(models.TextChoices):
        RANKINGS = "rankings", _("rankings")
        # Pairs of a prompt and an answer to learn:
        IDEAL = "ideal", _("ideal answers that annotators wrote")
        BEST = "best", _("best answers of the rankings")
        FILE = "file", _("pairs from a file")
        WINNERS = "winners", _("winners of a best-of-n run")

    project = models.ForeignKey(Project, on_delete=models.PROTECT, related_name="snapshots")
    kind = models.CharField(max_length=8, choices=Kind.choices, default=Kind.RANKINGS)
    # The rankings themselves, or those that the pairs come from; none for pairs from a file.
    rankings = models.ManyToManyField(Ranking, through="SnapshotItem", related_name="snapshots")
    # The run of best of n whose winners the pairs are.
    source = models.ForeignKey(
        "Run", null=True, blank=True, on_delete=models.PROTECT, related_name="winners"
    )
    # SHA-256 of the JSON lines that the trainer reads.
    sha256 = models.CharField(max_length=64)
    count = models.PositiveIntegerField()
    created = models.DateTimeField(auto_now_add=True)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="+",
    )

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.CheckConstraint(
                condition=Q(kind__in=["rankings", "ideal", "best", "file", "winners"]),
                name="snapshot_kind_known",
            ),
            models.CheckConstraint(
                condition=Q(kind="winners", source__isnull=False)
                | (~Q(kind="winners") & Q(source__isnull=True)),
                name="snapshot_of_winners_names_their_run",
            ),
        ]

    def __str__(self) -> str:
        return f"snapshot {self.pk} ({self.count} {self.holds})"

    @property
    def holds(self) -> str:
        """What its lines are: rankings, or pairs."""
        return "rankings" if self.kind == self.Kind.RANKINGS else "pairs"


class SnapshotFile(models.Model):
    """The lines of a snapshot of pairs that no ranking here stands for: of a file, or of a run."""

    snapshot = models.OneToOneField(
        Snapshot, primary_key=True, on_delete=models.CASCADE, related_name="file"
    )
    text = models.TextField()

    def __str__(self) -> str:
        return f"lines of {self.snapshot}"


class SnapshotItem(models.Model):
    """One ranking inside a snapshot."""

    snapshot = models.ForeignKey(Snapshot, on_delete=models.CASCADE, related_name="items")
    # Null once the person's data was deleted; the count says how many there were.
    ranking = models.ForeignKey(
        Ranking, null=True, on_delete=models.SET_NULL, related_name="snapshot_items"
    )
    # What the ranking counts in training: 1 unless annotators are weighed.
    weight = models.FloatField(default=1.0)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["snapshot", "ranking"], name="ranking_once_per_snapshot"
            ),
        ]

    def __str__(self) -> str:
        return f"ranking {self.ranking_id} in snapshot {self.snapshot_id}"


class Corpus(models.Model):
    """Raw text to pretrain on: files that were brought in, hashed, never changed."""

    # Null: of the whole house, for every project.
    project = models.ForeignKey(
        Project, null=True, blank=True, on_delete=models.PROTECT, related_name="corpora"
    )
    name = models.CharField(max_length=80)
    folder = models.CharField(max_length=500)
    # SHA-256 of the folder's manifest, which lists the hash of every file.
    sha256 = models.CharField(max_length=64)
    files = models.PositiveIntegerField()
    size = models.PositiveBigIntegerField()  # bytes
    created = models.DateTimeField(auto_now_add=True)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL,
        related_name="+",
    )  # fmt: skip

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(
                fields=["project", "name"],
                condition=Q(project__isnull=False),
                name="corpus_name_once_per_project",
            ),
            models.UniqueConstraint(
                fields=["name"], condition=Q(project__isnull=True), name="corpus_name_once_in_house"
            ),
            models.CheckConstraint(
                condition=Q(files__gt=0, size__gt=0), name="corpus_holds_something"
            ),
        ]

    def __str__(self) -> str:
        return self.name


class Run(models.Model):
    """One execution of a stage."""

    class Stage(models.TextChoices):
        PRETRAIN = "pretrain", _("pretrain a base")
        SFT = "sft", _("fine-tune on answers")
        GENERATE = "generate", _("write answers")
        REWARD = "reward", _("train the reward model")
        PPO = "ppo", _("train the policy (PPO)")
        PREFER = "prefer", _("train the policy (DPO or RLOO)")
        BESTOFN = "bestofn", _("train the policy (best of n)")
        EVALUATE = "evaluate", _("evaluate")
        SCORE = "score", _("score answers")

    class State(models.TextChoices):
        """See `rules.ALLOWED` for the moves between them."""

        QUEUED = "queued", _("queued")  # waits for a worker
        RUNNING = "running", _("running")  # a worker's lease on it lives
        STOPPING = (
            "stopping",
            _("stopping"),
        )  # somebody asked to stop; the trainer saves a checkpoint
        STOPPED = "stopped", _("stopped")  # can be resumed
        FINISHED = "finished", _("finished")
        FAILED = "failed", _("failed")

    class Failure(models.TextChoices):
        """What kind of thing went wrong, in the reader's language; `error` has the sentence."""

        # Told by the trainer (trainer/events.py: FAILURES):
        SPEC = "spec", _("Its settings or inputs cannot be run.")
        DATA = "data", _("There is a mistake in what it was given to read.")
        REFUSED = "refused", _("It cannot go on with what it was given.")
        DIVERGED = "diverged", _("A figure of the training is no number any more.")
        MEMORY = "memory", _("There was too little memory.")
        DISK = "disk", _("The disk is full. What was saved before is kept.")
        PERMISSION = "permission", _("The trainer may not use a file that it needs.")
        UNEXPECTED = "unexpected", _("Something happened that nobody foresaw.")
        # Told by who watches the trainer:
        NOT_STARTED = "not_started", _("The trainer could not be started.")
        KILLED = "killed", _("The trainer was ended from outside, again and again.")
        EXITED = "exited", _("The trainer ended without saying why.")

    project = models.ForeignKey(Project, on_delete=models.PROTECT, related_name="runs")
    stage = models.CharField(max_length=10, choices=Stage.choices)
    state = models.CharField(max_length=8, choices=State.choices, default=State.QUEUED)
    config = models.JSONField(default=dict)
    seed = models.BigIntegerField(default=0)
    # Rows that are written into data/ before the start, by role: {"prompts": [prompt ids]}.
    data = models.JSONField(default=dict)
    output = models.OneToOneField(
        ModelVersion,
        null=True,
        blank=True,
        on_delete=models.PROTECT,
        related_name="made_by",
    )
    report = models.JSONField(default=dict)
    # The trainer's own sentence, in English, and its kind ("" for a failure before there were any).
    error = models.TextField(blank=True)
    error_code = models.CharField(max_length=12, choices=Failure.choices, blank=True)
    # The attempt is a fencing token: a watcher of an older attempt may no longer write.
    attempt = models.PositiveIntegerField(default=0)
    lease_until = models.DateTimeField(null=True, blank=True)
    process_group = models.IntegerField(null=True, blank=True)
    step = models.PositiveIntegerField(default=0)
    total = models.PositiveIntegerField(default=0)
    eta_seconds = models.FloatField(null=True, blank=True)
    created = models.DateTimeField(auto_now_add=True)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="+",
    )
    started = models.DateTimeField(null=True, blank=True)
    ended = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-id"]
        indexes = [
            models.Index(
                fields=["state", "lease_until"],
                condition=Q(state__in=["queued", "running", "stopping"]),
                name="run_in_flight",
            )
        ]
        constraints = [
            models.CheckConstraint(
                condition=Q(
                    state__in=[
                        "queued",
                        "running",
                        "stopping",
                        "stopped",
                        "finished",
                        "failed",
                    ]
                ),
                name="run_state_known",
            ),
            models.CheckConstraint(
                condition=Q(
                    stage__in=[
                        "pretrain",
                        "sft",
                        "generate",
                        "reward",
                        "ppo",
                        "prefer",
                        "bestofn",
                        "evaluate",
                        "score",
                    ]
                ),
                name="run_stage_known",
            ),
        ]

    def __str__(self) -> str:
        return f"run {self.pk}: {self.stage} ({self.state})"

    @property
    def what(self) -> str:
        """What it does, in words; of a stage with two methods, which."""
        if self.stage == self.Stage.PREFER:
            method = str(self.config.get("method", "dpo")).upper()
            return _("train the policy (%(method)s)") % {"method": method}
        return self.get_stage_display()


class RunInput(models.Model):
    """What a run reads in a role such as `policy` or `rankings`: one thing, of one kind."""

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="inputs")
    role = models.CharField(max_length=12)
    version = models.ForeignKey(
        ModelVersion, null=True, on_delete=models.PROTECT, related_name="used_by"
    )
    snapshot = models.ForeignKey(
        Snapshot, null=True, on_delete=models.PROTECT, related_name="used_by"
    )
    corpus = models.ForeignKey(Corpus, null=True, on_delete=models.PROTECT, related_name="used_by")
    # A finished run whose report is read.
    source = models.ForeignKey(Run, null=True, on_delete=models.PROTECT, related_name="read_by")

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["run", "role"], name="run_role_once"),
            models.CheckConstraint(
                condition=Q(
                    version__isnull=False,
                    snapshot__isnull=True,
                    corpus__isnull=True,
                    source__isnull=True,
                )
                | Q(
                    version__isnull=True,
                    snapshot__isnull=False,
                    corpus__isnull=True,
                    source__isnull=True,
                )
                | Q(
                    version__isnull=True,
                    snapshot__isnull=True,
                    corpus__isnull=False,
                    source__isnull=True,
                )
                | Q(
                    version__isnull=True,
                    snapshot__isnull=True,
                    corpus__isnull=True,
                    source__isnull=False,
                ),
                name="run_input_is_one_thing",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.role} of run {self.run_id}: {self.thing}"

    @property
    def thing(self) -> ModelVersion | Snapshot | Corpus | Run:
        """What is read."""
        found = self.version or self.snapshot or self.corpus or self.source
        if found is None:
            raise ValueError("an input without a thing; see run_input_is_one_thing")
        return found


class RunEvent(models.Model):
    """One line of a run's events.jsonl."""

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="events")
    attempt = models.PositiveIntegerField()
    # Where the line begins in the file: a watcher that reads a part again writes nothing twice.
    offset = models.PositiveBigIntegerField()
    at = models.DateTimeField()
    kind = models.CharField(max_length=12)
    step = models.IntegerField(null=True, blank=True)
    data = models.JSONField(default=dict)

    class Meta:
        ordering = ["run_id", "offset"]
        indexes = [models.Index(fields=["run", "kind", "step"], name="event_by_kind")]
        constraints = [
            models.UniqueConstraint(fields=["run", "offset"], name="event_once_per_offset"),
        ]

    def __str__(self) -> str:
        return f"{self.kind} of run {self.run_id} at {self.offset}"
