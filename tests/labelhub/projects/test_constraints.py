"""Each promise about projects and members is kept by the database: here each is broken once."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.db import models
from django.utils import timezone

from labelhub.accounts.models import User
from labelhub.projects.models import Guidelines, Invitation, Membership, Project
from tests.labelhub.constraints import names_of, refused_by

pytestmark = pytest.mark.django_db
Break = Callable[[Project, User], object]


def setting(**values: object) -> Break:
    return lambda project, _ann: Project.objects.filter(pk=project.pk).update(**values)


def second_seat(project: Project, ann: User) -> None:
    Membership.objects.create(project=project, user=ann, role="reviewer")


def unknown_role(project: Project, ann: User) -> None:
    Membership.objects.filter(project=project, user=ann).update(role="king")


def invitation(project: Project, **values: object) -> None:
    values = {"sha256": "a" * 64, "expires": timezone.now()} | values
    Invitation.objects.create(project=project, **values)


def same_version(project: Project, ann: User) -> None:
    Guidelines.objects.create(project=project, version=1, text="Another text.")


BROKEN: dict[tuple[type[models.Model], str], Break] = {
    (Project, "project_answers_2_to_9"): setting(answers_per_prompt=10),
    (Project, "project_overlap_at_least_1"): setting(overlap=0),
    (Project, "project_shared_overlap_1_to_20"): setting(shared_overlap=21),
    (Project, "project_compare_prompts_to_10000"): setting(compare_prompts=10_001),
    (Project, "project_compare_opinions_1_to_20"): setting(compare_opinions=0),
    (Project, "project_shared_share_0_to_1"): setting(shared_share=1.1),
    (Project, "project_gold_share_0_to_1"): setting(gold_share=-0.1),
    (Project, "project_repeat_share_0_to_1"): setting(repeat_share=2),
    (Project, "project_uniform_share_0_to_1"): setting(uniform_share=-1),
    (Membership, "one_membership_per_person"): second_seat,
    (Membership, "membership_role_known"): unknown_role,
    (Invitation, "invitation_role_known"): lambda project, _ann: invitation(project, role="king"),
    (Invitation, "invitation_seats_not_exceeded"): (
        lambda project, _ann: invitation(project, seats=1, used=2)
    ),
    (Guidelines, "guidelines_version_once"): same_version,
}


def test_every_constraint_is_broken_here() -> None:
    assert names_of(Project, Membership, Invitation, Guidelines) == set(BROKEN)


@pytest.mark.parametrize(("model", "name"), BROKEN)
def test_the_database_refuses(
    model: type[models.Model], name: str, project: Project, ann: User
) -> None:
    refused_by(model, name, lambda: BROKEN[model, name](project, ann))
