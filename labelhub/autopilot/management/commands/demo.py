"""`manage.py demo`: the demo model, project and accounts; prints their one-time passwords."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from labelhub.accounts.actions import create_user
from labelhub.accounts.models import User
from labelhub.accounts.rules import new_password
from labelhub.autopilot.setup import HELD_OUT, demo_prompts, ensure_base
from labelhub.lib.errors import Refused
from labelhub.projects.actions import add_member, create_project, publish_guidelines
from labelhub.projects.models import Membership, Project
from labelhub.prompts.actions import hold_out, import_prompts
from labelhub.registry.actions import promote
from labelhub.registry.models import ModelVersion
from labelhub.rounds.actions import start_round

SLUG = "everyday"
PEOPLE = ("ann", "ben", "cho")
ROUND = {"prompts": 40, "answers": 4, "max_new_tokens": 96, "steps": 10}
GUIDELINES = """\
# How to rank

Imagine that a friend asked the question. Put the answer first that you would be happiest to
pass on.

1. **Helpful**: it does what was asked.
2. **True**: nothing important in it is wrong.
3. **Kind and harmless**: it hurts nobody.

Answers that you find equally good may share a place. An answer that breaks off at the end was cut
for length: judge what is there. If you cannot judge a prompt, skip it and say why.
"""


class Command(BaseCommand):
    """Make the demo once; a second call changes nothing."""

    help = "Make the demo project with its model, prompts and accounts."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--if-missing", action="store_true", help="say nothing if it is there")
        parser.add_argument("--model", default="smollm2")

    def handle(self, *args: Any, **options: Any) -> None:
        if Project.objects.filter(slug=SLUG).exists():
            if not options["if_missing"]:
                self.stdout.write("The demo project is there already.")
            return
        self.stdout.write(f"Preparing the demo model {options['model']} (about half a minute) …")
        self.stdout.flush()
        try:
            base = ensure_base(options["model"])
            passwords = make_demo(base)
        except Refused as error:
            raise CommandError(str(error)) from None
        self._print(passwords)

    def _print(self, passwords: dict[str, str]) -> None:
        self.stdout.write("\nAccounts of the demo; each password is for the first sign-in only:")
        for name, password in passwords.items():
            role = "admin" if name == "admin" else "annotator"
            self.stdout.write(f"  {name:<6} {password}   ({role})")
        self.stdout.write("They are not shown again.")
        self.stdout.flush()


@transaction.atomic
def make_demo(base: ModelVersion) -> dict[str, str]:
    """Project, prompts, people and the first round, all or nothing; returns the passwords."""
    passwords: dict[str, str] = {}
    admin = _account("admin", passwords, is_superuser=True)
    project = create_project(
        name="Everyday help",
        slug=SLUG,
        by=admin,
        description="Everyday questions, answered by a small model and ranked by people.",
        answers_per_prompt=ROUND["answers"],
        max_new_tokens=ROUND["max_new_tokens"],
        # Whoever tries this is one person: nothing shall wait for a second opinion.
        shared_share=0,
        newcomer_sets=0,
    )
    publish_guidelines(project=project, text=GUIDELINES, by=admin)
    for name in PEOPLE:
        add_member(
            project=project,
            user=_account(name, passwords),
            role=Membership.Role.ANNOTATOR,
            by=admin,
        )
    # Held out before the Chinese prompts come: this model's loop speaks English.
    import_prompts(project=project, lines=demo_prompts("en"), by=admin)
    hold_out(project=project, fraction_or_count=HELD_OUT, seed=0, by=admin)
    import_prompts(project=project, lines=demo_prompts("zh"), by=admin)
    promote(project=project, version=base, by=admin)
    start_round(project=project, by=admin, config=ROUND, seed=1)
    return passwords


def _account(name: str, passwords: dict[str, str], *, is_superuser: bool = False) -> User:
    existing = User.objects.filter(username=name).first()
    if existing:
        return existing
    passwords[name] = new_password()
    return create_user(username=name, password=passwords[name], by=None, is_superuser=is_superuser)
