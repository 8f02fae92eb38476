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
    # The skill that an annotator needs for it, such as medicine; blank: none.
    skill = models.CharField(max_length=40, blank=True)
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
        GOLD = "gold", _("known ranking, mixed in")
        TUTORIAL = "tutorial", _("known ranking, to learn from")
        REPEAT = "repeat", _("shown again to the same person")

    prompt = models.ForeignKey(Prompt, on_delete=models.CASCADE, related_name="answer_sets")
    purpose = models.CharField(max_length=8, choices=Purpose.choices, default=Purpose.RANK)
    # A repeat is a copy, so that "one opinion of one person on one set" stays true of every set.
    original = models.ForeignKey(
        "self", null=True, blank=True, on_delete=models.CASCADE, related_name="copies"
    )
    # Gold and tutorial sets only: no longer given to anybody.
    retired = models.BooleanField(default=False)
    # How far the newest reward ensemble disagrees about the order (0 = not at all); null: unknown.
    disagreement = models.FloatField(null=True, blank=True)
    created = models.DateTimeField(auto_now_add=True)

    class Meta:
        indexes = [
            models.Index(
                fields=["prompt", "purpose"],
                condition=Q(purpose__in=["gold", "tutorial"]),
                name="answer_set_known_ranking",
            ),
        ]
        constraints = [
            models.CheckConstraint(
                condition=Q(purpose__in=["rank", "compare", "gold", "tutorial", "repeat"]),
                name="answer_set_purpose_known",
            ),
            models.CheckConstraint(
                condition=Q(purpose="repeat", original__isnull=False)
                | (~Q(purpose="repeat") & Q(original__isnull=True)),
                name="only_a_repeat_has_an_original",
            ),
        ]

    def __str__(self) -> str:
        return f"answers to {self.prompt}"


class Answer(models.Model):
    """One reply of one model version, with all that is needed to write it again."""

    answer_set = models.ForeignKey(AnswerSet, on_delete=models.CASCADE, related_name="answers")
    n = models.PositiveSmallIntegerField()
    # Null when no model of ours wrote it: the texts of a known ranking may be imported.
    version = models.ForeignKey(
        ModelVersion, null=True, blank=True, on_delete=models.PROTECT, related_name="answers"
    )
    text = models.TextField()
    sha256 = models.CharField(max_length=64)
    sampling = models.JSONField(default=dict)
    seed = models.BigIntegerField(default=0)
    # Natural logarithm of the whole reply's probability under the version that wrote it.
    logprob = models.FloatField(null=True, blank=True)
    tokens = models.PositiveIntegerField(default=0)
    # False when the reply was cut at the token limit.
    finished = models.BooleanField(default=True)
    # The text names a language model or its maker, which may break blindness.
    names_model = models.BooleanField(default=False)

    class Meta:
        ordering = ["answer_set_id", "n"]
        constraints = [
            models.UniqueConstraint(fields=["answer_set", "n"], name="answer_n_once_per_set"),
        ]

    def __str__(self) -> str:
        return self.text[:60]
