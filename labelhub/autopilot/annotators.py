"""Simulated annotators: they claim slots and submit rankings through the same actions as people."""

from __future__ import annotations

import random
import uuid

from labelhub.accounts.actions import create_user
from labelhub.accounts.models import User
from labelhub.assignments.actions import claim_next
from labelhub.autopilot.preferences import Preference
from labelhub.projects.actions import add_member
from labelhub.projects.models import Membership, Project
from labelhub.rankings.actions import submit_ranking


def seat_annotators(project: Project, count: int = 3) -> list[User]:
    """Make the project's simulated annotators, or find those of an earlier time."""
    seated = []
    for n in range(1, count + 1):
        name = f"sim-{project.slug}-{n}"
        user = User.objects.filter(username=name).first() or create_user(
            username=name, password=None, by=None, is_simulated=True
        )
        add_member(project=project, user=user, role=Membership.Role.ANNOTATOR, by=None)
        seated.append(user)
    return seated


def rank_next(project: Project, user: User, preference: Preference, rng: random.Random) -> bool:
    """Let one annotator rank the next answer set; False when nothing is left for it."""
    slot = claim_next(project=project, by=user)
    if slot is None or slot.lease_token is None:
        return False
    answers = list(slot.answer_set.answers.order_by("n"))
    ranks = preference.rank([answer.text for answer in answers], rng)
    submit_ranking(
        slot_id=slot.pk,
        token=slot.lease_token,
        ranks={answer.pk: rank for answer, rank in zip(answers, ranks, strict=True)},
        idempotency_key=uuid.UUID(int=rng.getrandbits(128), version=4),
        duration_ms=0,
        active_ms=0,
        by=user,
    )
    return True
