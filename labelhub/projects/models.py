"""A project: what is wanted of the annotators, who they are, and by which guidelines."""

from __future__ import annotations

from django.conf import settings
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

MIN_ANSWERS, MAX_ANSWERS = 2, 9


class Project(models.Model):
    """One labelling effort with its members, settings and rounds."""

    slug = models.SlugField(max_length=60, unique=True)
    name = models.CharField(max_length=120)
    description = models.TextField(blank=True)
    language = models.CharField(max_length=10, default="en")
    answers_per_prompt = models.PositiveSmallIntegerField(
        default=4,
        validators=[MinValueValidator(MIN_ANSWERS), MaxValueValidator(MAX_ANSWERS)],
    )
    # How many annotators are to rank each answer set.
    overlap = models.PositiveSmallIntegerField(default=1, validators=[MinValueValidator(1)])
    max_new_tokens = models.PositiveSmallIntegerField(default=96)
    temperature = models.FloatField(default=1.0)
    # Ranked by simulated annotators; people may look but their queue never shows it.
    is_simulated = models.BooleanField(default=False)
    paused = models.BooleanField(default=False)
    created = models.DateTimeField(auto_now_add=True)
    members = models.ManyToManyField(
        settings.AUTH_USER_MODEL, through="Membership", related_name="projects"
    )

    class Meta:
        ordering = ["name"]
        constraints = [
            models.CheckConstraint(
                condition=Q(
                    answers_per_prompt__gte=MIN_ANSWERS,
                    answers_per_prompt__lte=MAX_ANSWERS,
                ),
                name="project_answers_2_to_9",
            ),
            models.CheckConstraint(condition=Q(overlap__gte=1), name="project_overlap_at_least_1"),
        ]

    def __str__(self) -> str:
        return self.name


class Membership(models.Model):
    """One person's role in one project."""

    class Role(models.TextChoices):
        ANNOTATOR = "annotator", _("annotator")
        REVIEWER = "reviewer", _("reviewer")
        ADMIN = "admin", _("admin")

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="memberships")
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="memberships"
    )
    role = models.CharField(max_length=10, choices=Role.choices, default=Role.ANNOTATOR)
    created = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["project", "user"], name="one_membership_per_person"),
            models.CheckConstraint(
                condition=Q(role__in=["annotator", "reviewer", "admin"]),
                name="membership_role_known",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.user} is {self.role} of {self.project}"


class Guidelines(models.Model):
    """One version of the guidelines; a changed text is a new one, since rankings keep theirs."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="guidelines")
    version = models.PositiveIntegerField()
    text = models.TextField()
    created = models.DateTimeField(auto_now_add=True)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )

    class Meta:
        verbose_name_plural = "guidelines"
        ordering = ["-version"]
        constraints = [
            models.UniqueConstraint(fields=["project", "version"], name="guidelines_version_once"),
        ]

    def __str__(self) -> str:
        return f"{self.project} v{self.version}"
