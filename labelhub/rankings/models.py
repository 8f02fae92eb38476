"""Rankings: weak orders of an answer set, stored as facts. Pairs are derived, never stored."""

from __future__ import annotations

from django.conf import settings
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from labelhub.assignments.models import Slot
from labelhub.projects.models import Guidelines, Project
from labelhub.prompts.models import Answer, AnswerSet


class Ranking(models.Model):
    """A submitted weak order of an answer set by one annotator."""

    slot = models.OneToOneField(Slot, on_delete=models.PROTECT, related_name="ranking")
    answer_set = models.ForeignKey(AnswerSet, on_delete=models.PROTECT, related_name="rankings")
    project = models.ForeignKey(Project, on_delete=models.PROTECT, related_name="rankings")
    annotator = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="rankings"
    )
    guidelines = models.ForeignKey(
        Guidelines, null=True, blank=True, on_delete=models.PROTECT, related_name="+"
    )
    # The browser makes this key, so that a repeated submit is recognised as the same one.
    idempotency_key = models.UUIDField(unique=True)
    duration_ms = models.PositiveBigIntegerField(default=0)
    # Pauses of more than 120 s are cut out of it.
    active_ms = models.PositiveBigIntegerField(default=0)
    # The lease had run out when it came: kept and flagged, never thrown away.
    late = models.BooleanField(default=False)
    is_simulated = models.BooleanField(default=False)
    # No answer is usable, though one may be less bad than another.
    all_bad = models.BooleanField(default=False)
    # To refuse was the right answer to this prompt.
    refusal_right = models.BooleanField(default=False)
    # What should have been answered: a pair for fine-tuning, never silently one for the reward.
    ideal_answer = models.TextField(blank=True)
    # A reviewer's decision where opinions differed; the opinions stay beside it.
    adjudicates = models.BooleanField(default=False)
    # Grows with each correction; what stood before is kept as a RankingRevision.
    revision = models.PositiveSmallIntegerField(default=1)
    # Taken into a snapshot: something may have been trained on it, so it can no longer be changed.
    frozen_at = models.DateTimeField(null=True, blank=True)
    created = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["id"]
        constraints = [
            models.UniqueConstraint(
                fields=["answer_set", "annotator"],
                name="one_ranking_per_annotator_and_set",
            ),
            models.CheckConstraint(
                condition=Q(active_ms__lte=models.F("duration_ms")),
                name="active_within_duration",
            ),
        ]

    def __str__(self) -> str:
        return f"ranking {self.pk} by {self.annotator}"


class RankingItem(models.Model):
    """One answer's place in a ranking."""

    class Gap(models.IntegerChoices):
        SLIGHTLY = 1, _("slightly better")
        CLEARLY = 2, _("clearly better")
        MUCH = 3, _("much better")

    ranking = models.ForeignKey(Ranking, on_delete=models.CASCADE, related_name="items")
    answer = models.ForeignKey(Answer, on_delete=models.PROTECT, related_name="ranking_items")
    # Dense, from 1 = best; equal ranks are a tie.
    rank = models.PositiveSmallIntegerField()
    # Where the card stood on this annotator's page, from 0.
    position = models.PositiveSmallIntegerField()
    # How much better this answer's tier is than the next one; null when not asked or last.
    gap = models.PositiveSmallIntegerField(null=True, blank=True, choices=Gap.choices)
    likert = models.PositiveSmallIntegerField(
        null=True, blank=True, validators=[MinValueValidator(1), MaxValueValidator(7)]
    )
    attributes = models.JSONField(default=list, blank=True)
    critique = models.TextField(blank=True)
    # Marked places: [{"start", "end", "quote", "tag": "good"|"bad", "note"}], counted in characters
    # of the answer as it is read (its text without markup).
    spans = models.JSONField(default=list, blank=True)

    class Meta:
        ordering = ["ranking_id", "rank", "position"]
        constraints = [
            models.UniqueConstraint(fields=["ranking", "answer"], name="answer_once_per_ranking"),
            models.UniqueConstraint(
                fields=["ranking", "position"], name="position_once_per_ranking"
            ),
            models.CheckConstraint(condition=Q(rank__gte=1, rank__lte=9), name="rank_1_to_9"),
            models.CheckConstraint(condition=Q(position__lte=8), name="position_0_to_8"),
            models.CheckConstraint(
                condition=Q(gap__isnull=True) | Q(gap__gte=1, gap__lte=3),
                name="gap_1_to_3",
            ),
            models.CheckConstraint(
                condition=Q(likert__isnull=True) | Q(likert__gte=1, likert__lte=7),
                name="likert_1_to_7",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.rank}: {self.answer}"


class RankingRevision(models.Model):
    """A ranking as it stood before its annotator corrected it."""

    ranking = models.ForeignKey(Ranking, on_delete=models.CASCADE, related_name="revisions")
    n = models.PositiveSmallIntegerField()
    # All facts of the ranking and its items by the names of their columns.
    facts = models.JSONField()
    replaced_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["ranking_id", "n"]
        constraints = [
            models.UniqueConstraint(fields=["ranking", "n"], name="revision_once_per_ranking"),
        ]

    def __str__(self) -> str:
        return f"revision {self.n} of ranking {self.ranking_id}"


class Gold(models.Model):
    """The known ranking of a gold or tutorial set, and why it is so."""

    answer_set = models.OneToOneField(AnswerSet, on_delete=models.CASCADE, related_name="gold")
    # Dense ranks by answer id (as text, since JSON has no other keys).
    ranks = models.JSONField()
    explanation = models.TextField(blank=True)
    # The tutorial shows its sets in this order.
    place = models.PositiveSmallIntegerField(default=0)
    created = models.DateTimeField(auto_now_add=True)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )

    class Meta:
        verbose_name_plural = "gold"
        ordering = ["place", "id"]

    def __str__(self) -> str:
        return f"known ranking of set {self.answer_set_id}"


class QualityReport(models.Model):
    """Agreement and consistency in a project, as computed by a worker at one time."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="quality_reports")
    rankings = models.PositiveIntegerField()  # how many it was made from
    figures = models.JSONField()
    created = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"quality of {self.project} at {self.created:%Y-%m-%d %H:%M}"


class Skip(models.Model):
    """An annotator passed on an answer set and said why; rules.ROUTES says where it went."""

    class Reason(models.TextChoices):
        UNCLEAR = "unclear", _("The prompt is unclear")
        EXPERT = "expert", _("It needs an expert")
        LANGUAGE = "language", _("I do not read this language well")
        IDENTICAL = "identical", _("The answers are the same")
        FAULT = "fault", _("Something is broken in it")
        PRIVATE = "private", _("It holds private data")
        HARMFUL = "harmful", _("It is harmful")
        OTHER = "other", _("Another reason")

    slot = models.ForeignKey(Slot, on_delete=models.CASCADE, related_name="skips")
    answer_set = models.ForeignKey(AnswerSet, on_delete=models.CASCADE, related_name="skips")
    annotator = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="skips"
    )
    reason = models.CharField(max_length=10, choices=Reason.choices)
    note = models.CharField(max_length=500, blank=True)
    # An admin has looked at it.
    handled_at = models.DateTimeField(null=True, blank=True)
    created = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["answer_set", "annotator"], name="one_skip_per_set"),
        ]

    def __str__(self) -> str:
        return f"{self.annotator} skipped set {self.answer_set_id}: {self.reason}"


class Flag(models.Model):
    """Something an admin should see about one answer."""

    answer = models.ForeignKey(Answer, on_delete=models.CASCADE, related_name="flags")
    annotator = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="flags"
    )
    note = models.CharField(max_length=500, blank=True)
    # An admin has looked at it.
    handled_at = models.DateTimeField(null=True, blank=True)
    created = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["answer", "annotator"], name="one_flag_per_annotator"),
        ]

    def __str__(self) -> str:
        return f"{self.annotator} flagged answer {self.answer_id}"
