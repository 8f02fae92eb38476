"""A project: what is wanted of the annotators, who they are, and by which guidelines."""

from __future__ import annotations

from django.conf import settings
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

MIN_ANSWERS, MAX_ANSWERS = 2, 9
MAX_COMPARED, MAX_OPINIONS = 10_000, 20
_SHARE = [MinValueValidator(0), MaxValueValidator(1)]
_SHARES = ("shared_share", "gold_share", "repeat_share", "uniform_share")


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
    # This share of the sets gets `shared_overlap` opinions instead, so that agreement can be
    # measured; so do the first sets that a newcomer ranks. Never more than there are annotators.
    shared_share = models.FloatField(default=0.2, validators=_SHARE)
    shared_overlap = models.PositiveSmallIntegerField(
        default=3, validators=[MinValueValidator(1), MaxValueValidator(20)]
    )
    newcomer_sets = models.PositiveSmallIntegerField(default=20)
    # Of what an annotator is given: sets with a known ranking, and own sets again, unannounced.
    gold_share = models.FloatField(default=0.05, validators=_SHARE)
    repeat_share = models.FloatField(default=0.03, validators=_SHARE)
    # Sets that are drawn without regard to priority: what unbiased figures are made from.
    uniform_share = models.FloatField(default=0.2, validators=_SHARE)
    # Before a round's decision people compare so many answers of the old and the new policy, blind;
    # 0: none. Each pair gets so many opinions.
    compare_prompts = models.PositiveSmallIntegerField(
        default=40, validators=[MaxValueValidator(MAX_COMPARED)]
    )
    compare_opinions = models.PositiveSmallIntegerField(
        default=1, validators=[MinValueValidator(1), MaxValueValidator(MAX_OPINIONS)]
    )
    # Mean tau-b between the opinions on a set below which a reviewer looks at it; null: never.
    review_below = models.FloatField(
        null=True, blank=True, default=0.0, validators=[MinValueValidator(-1), MaxValueValidator(1)]
    )
    # Mean tau-b over the tutorial's sets from which on an annotator gets real work.
    qualification_tau = models.FloatField(
        default=0.6, validators=[MinValueValidator(-1), MaxValueValidator(1)]
    )
    # What an annotator is asked beside the order.
    ask_gaps = models.BooleanField(default=False)
    ask_likert = models.BooleanField(default=False)
    ask_critique = models.BooleanField(default=True)
    ask_ideal = models.BooleanField(default=True)
    ask_spans = models.BooleanField(default=True)
    # Yes-or-no questions about each answer: [{"key": "hallucination", "label": "Made-up facts"}].
    attributes = models.JSONField(default=list, blank=True)
    # Sets in which an answer names a model wait for an admin instead of being ranked.
    hold_back_leaks = models.BooleanField(default=False)
    # Weigh rankings in training by how reliable their annotators are.
    weigh_annotators = models.BooleanField(default=False)
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
            models.CheckConstraint(
                condition=Q(shared_overlap__gte=1, shared_overlap__lte=20),
                name="project_shared_overlap_1_to_20",
            ),
            models.CheckConstraint(
                condition=Q(compare_prompts__lte=MAX_COMPARED),
                name="project_compare_prompts_to_10000",
            ),
            models.CheckConstraint(
                condition=Q(compare_opinions__gte=1, compare_opinions__lte=MAX_OPINIONS),
                name="project_compare_opinions_1_to_20",
            ),
            *(
                models.CheckConstraint(
                    condition=Q(**{f"{share}__gte": 0, f"{share}__lte": 1}),
                    name=f"project_{share}_0_to_1",
                )
                for share in _SHARES
            ),
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
    # Language codes that this person reads; none named: all.
    languages = models.JSONField(default=list, blank=True)
    # Names of skills; work that needs another one is not offered. Reviewers and admins have all.
    skills = models.JSONField(default=list, blank=True)
    # Passed the tutorial; asked for only where the project has one.
    qualified_at = models.DateTimeField(null=True, blank=True)
    # Gets no work while this is set, and no longer counts as somebody who can give an opinion.
    paused_at = models.DateTimeField(null=True, blank=True)
    # A person may end a pause of their own; one that an admin began is an admin's to end.
    paused_by_admin = models.BooleanField(default=False)
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


class Invitation(models.Model):
    """A link that seats whoever opens it. Only the hash of its secret is kept."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="invitations")
    role = models.CharField(
        max_length=10, choices=Membership.Role.choices, default=Membership.Role.ANNOTATOR
    )
    sha256 = models.CharField(max_length=64, unique=True)
    note = models.CharField(max_length=120, blank=True)
    expires = models.DateTimeField()
    seats = models.PositiveSmallIntegerField(default=1, validators=[MinValueValidator(1)])
    used = models.PositiveSmallIntegerField(default=0)
    revoked = models.DateTimeField(null=True, blank=True)
    created = models.DateTimeField(auto_now_add=True)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.CheckConstraint(
                condition=Q(role__in=["annotator", "reviewer", "admin"]),
                name="invitation_role_known",
            ),
            models.CheckConstraint(
                condition=Q(used__lte=models.F("seats")), name="invitation_seats_not_exceeded"
            ),
        ]

    def __str__(self) -> str:
        return f"invitation to {self.project} as {self.role}"


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
