"""`manage.py add_text`: bring text to pretrain on from this machine, for every project."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from labelhub.lib.errors import Refused
from labelhub.runs.gathering import add_corpus, bring_named, text_files_of


class Command(BaseCommand):
    """Copy the text files of a folder under var/corpora and register them."""

    help = "Bring text to pretrain on: a file, a folder of files, or pretrain_en or pretrain_zh."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("source", metavar="PATH", type=Path)
        parser.add_argument("--name", help="register it under this name")

    def handle(self, *args: Any, **options: Any) -> None:
        source: Path = options["source"].expanduser()
        name = options["name"] or source.name.split(".")[0]
        try:
            if source.exists():
                files = text_files_of(source.resolve())
                corpus = add_corpus(project=None, name=name, files=files, by=None)
            else:
                corpus = bring_named(str(source), by=None)
        except Refused as error:
            raise CommandError(str(error)) from None
        self.stdout.write(
            f"{corpus.name}: {corpus.files} files, {corpus.size / 1e6:.1f} MB of text, "
            f"sha256 {corpus.sha256[:12]}…, in {corpus.folder}"
        )
