"""Model versions: weights with parents, hash, figures and card. Never overwritten."""

from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from labelhub.projects.models import Project


class ModelVersion(models.Model):
    """One set of weights on disk. A base that was brought in belongs to no project."""

    class Kind(models.TextChoices):
        BASE = "base", _("base")
        ENCODER = "encoder", _("encoder")  # pretrained on hidden tokens: it can judge, not write
        SFT = "sft", _("fine-tuned")
        REWARD = "reward", _("reward model")
        POLICY = "policy", _("policy")

    project = models.ForeignKey(
        Project,
        null=True,
        blank=True,
        on_delete=models.PROTECT,
        related_name="versions",
    )
    kind = models.CharField(max_length=7, choices=Kind.choices)
    # "smollm2", "everyday/policy-v3": unique, so that people and specs can name it.
    name = models.CharField(max_length=140, unique=True)
    number = models.PositiveIntegerField(default=0)
    folder = models.CharField(max_length=500)
    sha256 = models.CharField(max_length=64)
    parameters = models.BigIntegerField(default=0)
    metrics = models.JSONField(default=dict)
    card = models.TextField(blank=True)
    created = models.DateTimeField(auto_now_add=True)
    parents = models.ManyToManyField(
        "self", through="Parent", symmetrical=False, related_name="children"
    )

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(
                fields=["project", "kind", "number"],
                condition=Q(project__isnull=False),
                name="version_number_once",
            ),
            models.CheckConstraint(
                condition=Q(kind="base")
                | Q(
                    kind__in=["encoder", "sft", "reward", "policy"],
                    project__isnull=False,
                ),
                name="only_bases_may_have_no_project",
            ),
        ]

    def __str__(self) -> str:
        return self.name


class Parent(models.Model):
    """Lineage: `child` was made from `parent`, which played `role` in it."""

    child = models.ForeignKey(ModelVersion, on_delete=models.CASCADE, related_name="parent_links")
    parent = models.ForeignKey(ModelVersion, on_delete=models.PROTECT, related_name="child_links")
    role = models.CharField(max_length=12)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["child", "parent", "role"], name="parent_once_per_role"
            ),
            models.CheckConstraint(
                condition=~Q(child=models.F("parent")),
                name="no_version_is_its_own_parent",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.parent} → {self.child} ({self.role})"


class LivePolicy(models.Model):
    """The `live` pointer: the policy that writes a project's next answers."""

    project = models.OneToOneField(Project, on_delete=models.CASCADE, related_name="live")
    version = models.ForeignKey(ModelVersion, on_delete=models.PROTECT, related_name="+")
    since = models.DateTimeField(auto_now=True)

    def __str__(self) -> str:
        return f"{self.project}: {self.version}"
