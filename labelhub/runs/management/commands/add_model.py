"""`manage.py add_model`: register a base model."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from labelhub.lib.errors import Refused
from labelhub.runs.actions import add_base


class Command(BaseCommand):
    """Make or copy the model's folder under var/models and register it."""

    help = "Register a base model: smollm2, tiny, a local transformers folder, or a hub id."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("source", metavar="NAME_OR_PATH")
        parser.add_argument("--name", help="register it under this name")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            version = add_base(source=options["source"], name=options["name"], by=None)
        except Refused as error:
            raise CommandError(str(error)) from None
        self.stdout.write(
            f"{version.name}: {version.parameters / 1e6:.1f} million parameters, "
            f"sha256 {version.sha256[:12]}…, in {version.folder}"
        )
