"""Runs of the trainer, the snapshots they read and the events they report."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from labelhub.projects.models import Project
from labelhub.rankings.models import Ranking
from labelhub.registry.models import ModelVersion


class Snapshot(models.Model):
    """An immutable, hashed list of rankings that runs train on."""

    project = models.ForeignKey(Project, on_delete=models.PROTECT, related_name="snapshots")
    rankings = models.ManyToManyField(Ranking, through="SnapshotItem", related_name="snapshots")
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

    def __str__(self) -> str:
        return f"snapshot {self.pk} ({self.count} rankings)"


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


class Run(models.Model):
    """One execution of a stage."""

    class Stage(models.TextChoices):
        GENERATE = "generate", _("write answers")
        REWARD = "reward", _("train the reward model")
        PPO = "ppo", _("train the policy (PPO)")
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

    project = models.ForeignKey(Project, on_delete=models.PROTECT, related_name="runs")
    stage = models.CharField(max_length=10, choices=Stage.choices)
    state = models.CharField(max_length=8, choices=State.choices, default=State.QUEUED)
    config = models.JSONField(default=dict)
    seed = models.BigIntegerField(default=0)
    snapshot = models.ForeignKey(
        Snapshot, null=True, blank=True, on_delete=models.PROTECT, related_name="runs"
    )
    # What is written into data/ before the start: {"prompts": [prompt ids]} and the like.
    data = models.JSONField(default=dict)
    output = models.OneToOneField(
        ModelVersion,
        null=True,
        blank=True,
        on_delete=models.PROTECT,
        related_name="made_by",
    )
    report = models.JSONField(default=dict)
    error = models.TextField(blank=True)
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
                condition=Q(stage__in=["generate", "reward", "ppo", "evaluate", "score"]),
                name="run_stage_known",
            ),
        ]

    def __str__(self) -> str:
        return f"run {self.pk}: {self.stage} ({self.state})"


class RunInput(models.Model):
    """A model version that a run reads, in a role such as `policy` or `reward`."""

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="model_inputs")
    role = models.CharField(max_length=12)
    version = models.ForeignKey(ModelVersion, on_delete=models.PROTECT, related_name="used_by")

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["run", "role"], name="run_role_once"),
        ]

    def __str__(self) -> str:
        return f"{self.role} of run {self.run_id}: {self.version}"


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
