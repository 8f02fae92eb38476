"""What people ask for about projects, members and guidelines."""

from __future__ import annotations

from typing import Any

from django.db import transaction

from labelhub.accounts.actions import audit
from labelhub.accounts.models import User
from labelhub.projects.models import Guidelines, Membership, Project


@transaction.atomic
def create_project(*, name: str, slug: str, by: User | None, **settings: Any) -> Project:
    """Make a project; the person who makes it becomes its admin."""
    project = Project(name=name, slug=slug, **settings)
    project.full_clean()
    project.save()
    if by is not None:
        Membership.objects.create(project=project, user=by, role=Membership.Role.ADMIN)
    audit(by=by, action="project.create", target=project, slug=slug)
    return project


@transaction.atomic
def add_member(*, project: Project, user: User, role: str, by: User | None) -> Membership:
    """Seat a person in a project, or change the role of one who sits there."""
    membership, _created = Membership.objects.update_or_create(
        project=project, user=user, defaults={"role": role}
    )
    audit(by=by, action="project.add_member", target=project, user=user.username, role=role)
    return membership


@transaction.atomic
def publish_guidelines(*, project: Project, text: str, by: User | None) -> Guidelines:
    """Publish a new version of the guidelines; the old ones stay, since rankings follow them."""
    Project.objects.select_for_update().get(pk=project.pk)
    newest = project.guidelines.order_by("-version").first()
    guidelines = Guidelines.objects.create(
        project=project, version=(newest.version if newest else 0) + 1, text=text, created_by=by
    )
    audit(by=by, action="project.publish_guidelines", target=project, version=guidelines.version)
    return guidelines
