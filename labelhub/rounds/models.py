"""A round: one turn of the loop, from fresh answers to a decision about the new policy."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Greatest, Least
from django.utils.translation import gettext_lazy as _

from labelhub.projects.models import Project
from labelhub.prompts.models import AnswerSet, Prompt
from labelhub.registry.models import ModelVersion
from labelhub.runs.models import Run, Snapshot


class Round(models.Model):
    """One turn: generate → rank → reward model → PPO → evaluate → compare → promote or reject."""

    class State(models.TextChoices):
        """See `rules.NEXT` for the moves between them."""

        PLANNED = "planned", _("planned")
        GENERATE = "generate", _("writing answers")
        RANK = "rank", _("ranking")
        REWARD = "reward", _("training the reward model")
        PPO = "ppo", _("training the policy")
        EVALUATE = "evaluate", _("evaluating")
        COMPARE = "compare", _("blind comparison")
        DECIDE = "decide", _("waiting for a decision")
        PROMOTED = "promoted", _("promoted")
        REJECTED = "rejected", _("rejected")

    class Mode(models.TextChoices):
        STEP = "step", _("step by step")  # an admin starts each stage
        AUTO = "auto", _("by itself")  # each stage starts when the one before is done

    project = models.ForeignKey(Project, on_delete=models.PROTECT, related_name="rounds")
    number = models.PositiveIntegerField()
    state = models.CharField(max_length=8, choices=State.choices, default=State.PLANNED)
    mode = models.CharField(max_length=4, choices=Mode.choices, default=Mode.AUTO)
    # {"prompts", "answers", "rankings", "steps", …}: see rounds/rules.py:RoundConfig.
    config = models.JSONField(default=dict)
    seed = models.BigIntegerField(default=0)
    policy_in = models.ForeignKey(ModelVersion, on_delete=models.PROTECT, related_name="+")
    reward_base = models.ForeignKey(ModelVersion, on_delete=models.PROTECT, related_name="+")
    reward = models.ForeignKey(
        ModelVersion, null=True, blank=True, on_delete=models.PROTECT, related_name="+"
    )
    policy_out = models.ForeignKey(
        ModelVersion, null=True, blank=True, on_delete=models.PROTECT, related_name="+"
    )
    snapshot = models.ForeignKey(
        Snapshot, null=True, blank=True, on_delete=models.PROTECT, related_name="rounds"
    )
    prompts = models.ManyToManyField(Prompt, related_name="rounds")
    answer_sets = models.ManyToManyField(AnswerSet, related_name="rounds")
    runs = models.ManyToManyField(Run, through="RoundRun", related_name="rounds")
    created = models.DateTimeField(auto_now_add=True)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="+",
    )
    decided_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="+",
    )
    ended = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-number"]
        constraints = [
            models.UniqueConstraint(fields=["project", "number"], name="round_number_once"),
            models.UniqueConstraint(
                fields=["project"],
                condition=~Q(state__in=["promoted", "rejected"]),
                name="one_open_round_per_project",
            ),
            models.CheckConstraint(
                condition=Q(
                    state__in=[
                        "planned",
                        "generate",
                        "rank",
                        "reward",
                        "ppo",
                        "evaluate",
                        "compare",
                        "decide",
                        "promoted",
                        "rejected",
                    ]
                ),
                name="round_state_known",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.project}, round {self.number}"


class RoundRun(models.Model):
    """A run that a round started for one of its stages; a new try is a new run."""

    round = models.ForeignKey(Round, on_delete=models.CASCADE, related_name="round_runs")
    run = models.OneToOneField(Run, on_delete=models.PROTECT, related_name="round_run")
    stage = models.CharField(max_length=10)

    def __str__(self) -> str:
        return f"{self.stage} of {self.round}"


class Comparison(models.Model):
    """Two model versions whose answers to the same prompts people compare, blind.

    A round makes one before its decision; an admin may begin one of any two versions.
    """

    class State(models.TextChoices):
        WRITING = "writing", _("writing answers")  # its run is not finished
        OPEN = "open", _("people compare")  # its pairs are in the queue
        CLOSED = "closed", _("closed")  # nobody is asked any more; what was said stays as it is

    project = models.ForeignKey(Project, on_delete=models.PROTECT, related_name="comparisons")
    round = models.OneToOneField(
        Round, null=True, blank=True, on_delete=models.PROTECT, related_name="comparison"
    )
    before = models.ForeignKey(ModelVersion, on_delete=models.PROTECT, related_name="+")
    after = models.ForeignKey(ModelVersion, on_delete=models.PROTECT, related_name="+")
    # The evaluation in which both versions answered and the reward model scored.
    run = models.OneToOneField(Run, on_delete=models.PROTECT, related_name="comparison")
    state = models.CharField(max_length=7, choices=State.choices, default=State.WRITING)
    opinions = models.PositiveSmallIntegerField(default=1)  # wanted on each pair
    # The pairs that were drawn for it: answer 0 is the version before, answer 1 the one after.
    answer_sets = models.ManyToManyField(AnswerSet, related_name="comparisons")
    created = models.DateTimeField(auto_now_add=True)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="+",
    )
    ended = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.CheckConstraint(
                condition=Q(state__in=["writing", "open", "closed"]), name="comparison_state_known"
            ),
            models.CheckConstraint(
                condition=~Q(before=F("after")), name="comparison_of_two_versions"
            ),
            models.CheckConstraint(
                condition=Q(opinions__gte=1, opinions__lte=20), name="comparison_opinions_1_to_20"
            ),
            models.CheckConstraint(
                condition=Q(state="closed", ended__isnull=False)
                | (~Q(state="closed") & Q(ended__isnull=True)),
                name="only_a_closed_comparison_has_ended",
            ),
            # Whichever of the two is called the older. Rounds are left out: none may stand still
            # because somebody compares the same two beside it.
            models.UniqueConstraint(
                F("project"),
                Least("before", "after"),
                Greatest("before", "after"),
                condition=~Q(state="closed") & Q(round__isnull=True),
                name="one_open_comparison_per_pair",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.before} against {self.after}"
