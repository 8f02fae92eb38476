"""Prompts and the answers that model versions wrote to them."""

from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from labelhub.projects.models import Project
from labelhub.registry.models import ModelVersion


class Prompt(models.Model):
    """A conversation that ends with the user's turn."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="prompts")
    messages = models.JSONField()
    # SHA-256 of the canonical messages: the same conversation stands once in a project.
    sha256 = models.CharField(max_length=64)
    language = models.CharField(max_length=10, default="en")
    topic = models.CharField(max_length=40, blank=True)
    # Held out for good: no stage trains on it, so gains can be measured on it.
    held_out = models.BooleanField(default=False)
    retired = models.BooleanField(default=False)
    created = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["id"]
        constraints = [
            models.UniqueConstraint(fields=["project", "sha256"], name="prompt_once_per_project"),
        ]

    def __str__(self) -> str:
        return str(self.messages[-1]["content"])[:80] if self.messages else "…"


class AnswerSet(models.Model):
    """The K answers that are shown together."""

    class Purpose(models.TextChoices):
        RANK = "rank", _("to rank")
        COMPARE = "compare", _("old and new policy, blind")
        GOLD = "gold", _("known ranking")

    prompt = models.ForeignKey(Prompt, on_delete=models.CASCADE, related_name="answer_sets")
    purpose = models.CharField(max_length=7, choices=Purpose.choices, default=Purpose.RANK)
    created = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(purpose__in=["rank", "compare", "gold"]),
                name="answer_set_purpose_known",
            ),
        ]

    def __str__(self) -> str:
        return f"answers to {self.prompt}"


class Answer(models.Model):
    """One reply of one model version, with all that is needed to write it again."""

    answer_set = models.ForeignKey(AnswerSet, on_delete=models.CASCADE, related_name="answers")
    n = models.PositiveSmallIntegerField()
    version = models.ForeignKey(ModelVersion, on_delete=models.PROTECT, related_name="answers")
    text = models.TextField()
    sha256 = models.CharField(max_length=64)
    sampling = models.JSONField(default=dict)
    seed = models.BigIntegerField(default=0)
    # Natural logarithm of the whole reply's probability under the version that wrote it.
    logprob = models.FloatField(null=True, blank=True)
    tokens = models.PositiveIntegerField(default=0)
    # False when the reply was cut at the token limit.
    finished = models.BooleanField(default=True)

    class Meta:
        ordering = ["answer_set_id", "n"]
        constraints = [
            models.UniqueConstraint(fields=["answer_set", "n"], name="answer_n_once_per_set"),
        ]

    def __str__(self) -> str:
        return self.text[:60]
