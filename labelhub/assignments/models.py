"""Slots: one opinion wanted on one answer set. The slot holds the lease."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from labelhub.projects.models import Project
from labelhub.prompts.models import AnswerSet


class Pool(models.Model):
    """Work of one kind in a project: who reads the language and has the skill may take it."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="pools")
    language = models.CharField(max_length=10)
    skill = models.CharField(max_length=40, blank=True)

    class Meta:
        ordering = ["project_id", "language", "skill"]
        constraints = [
            models.UniqueConstraint(
                fields=["project", "language", "skill"], name="pool_once_per_project"
            ),
        ]

    def __str__(self) -> str:
        return "/".join(filter(None, [self.language, self.skill]))


class Slot(models.Model):
    """One opinion wanted on one answer set; overlap n = n slots."""

    class Kind(models.TextChoices):
        OPINION = "opinion", _("opinion")
        GOLD = "gold", _("known ranking")
        REPEAT = "repeat", _("repeat")
        TUTORIAL = "tutorial", _("tutorial")
        REVIEW = "review", _("review")  # a reviewer decides where opinions differ

    class State(models.TextChoices):
        OPEN = "open", _("open")  # nobody holds it
        HELD = (
            "held",
            _("held"),
        )  # somebody's lease runs (or ran out: then it may be claimed anew)
        DONE = "done", _("done")  # a ranking was submitted on it
        CLOSED = (
            "closed",
            _("closed"),
        )  # no longer wanted: overlap lowered, prompt retired

    answer_set = models.ForeignKey(AnswerSet, on_delete=models.CASCADE, related_name="slots")
    # Copied from the prompt so that one index answers "what is next in this project".
    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="slots")
    # Which annotators it is offered to. Only open slots are sought by it: they have indexes below.
    pool = models.ForeignKey(Pool, on_delete=models.CASCADE, related_name="slots", db_index=False)
    n = models.PositiveSmallIntegerField()
    kind = models.CharField(max_length=8, choices=Kind.choices, default=Kind.OPINION)
    # Assigned to one person by name: nobody else is offered it.
    reserved_for = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="reserved_slots",
    )
    # It was given out without regard to priority.
    uniform = models.BooleanField(default=False)
    state = models.CharField(max_length=6, choices=State.choices, default=State.OPEN)
    holder = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="slots",
    )
    lease_until = models.DateTimeField(null=True, blank=True)
    lease_token = models.UUIDField(null=True, blank=True)
    claimed_at = models.DateTimeField(null=True, blank=True)
    # Higher goes first; a worker writes it. `shuffle` breaks ties at random, the same for all.
    priority = models.FloatField(default=0.0)
    shuffle = models.PositiveIntegerField(default=0)
    created = models.DateTimeField(auto_now_add=True)

    class Meta:
        indexes = [
            # One step into each finds the next slot of a pool, however many there are.
            models.Index(
                fields=["pool", "-priority", "shuffle", "id"],
                condition=Q(state="open", kind="opinion", reserved_for__isnull=True),
                name="slot_next_open",
            ),
            models.Index(
                fields=["pool", "shuffle", "id"],
                condition=Q(state="open", kind="opinion", reserved_for__isnull=True),
                name="slot_next_uniform",
            ),
            models.Index(
                fields=["reserved_for", "project", "-priority", "shuffle", "id"],
                condition=Q(state="open", reserved_for__isnull=False),
                name="slot_reserved",
            ),
            models.Index(
                fields=["project", "id"],
                condition=Q(state="open", kind="review"),
                name="slot_to_review",
            ),
            models.Index(
                fields=["project", "holder", "state", "kind"],
                condition=Q(holder__isnull=False),
                name="slot_of_holder",
            ),
            models.Index(
                fields=["project", "lease_until"],
                condition=Q(state="held"),
                name="slot_lease_ends",
            ),
        ]
        constraints = [
            models.UniqueConstraint(fields=["answer_set", "n"], name="slot_n_once_per_set"),
            # One annotator gives one opinion on a set, whatever the overlap.
            models.UniqueConstraint(
                fields=["answer_set", "holder"],
                condition=Q(state__in=["held", "done"]),
                name="one_slot_per_annotator_and_set",
            ),
            models.UniqueConstraint(
                fields=["lease_token"],
                condition=Q(lease_token__isnull=False),
                name="lease_token_once",
            ),
            models.CheckConstraint(
                condition=Q(state__in=["open", "held", "done", "closed"]),
                name="slot_state_known",
            ),
            models.CheckConstraint(
                condition=Q(kind__in=["opinion", "gold", "repeat", "tutorial", "review"]),
                name="slot_kind_known",
            ),
            models.CheckConstraint(
                condition=~Q(state="held")
                | Q(lease_until__isnull=False, lease_token__isnull=False),
                name="held_slot_has_a_lease",
            ),
            models.CheckConstraint(
                condition=~Q(state="open") | Q(holder__isnull=True, lease_token__isnull=True),
                name="open_slot_has_no_holder",
            ),
        ]

    def __str__(self) -> str:
        return f"slot {self.n} of set {self.answer_set_id} ({self.state})"
