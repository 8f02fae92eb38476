"""Texts for people: collect them from code and templates, and say which are not translated.

    .venv/bin/python scripts/messages.py update    write new texts into the catalogues
    .venv/bin/python scripts/messages.py check     fail if a catalogue lacks a text

Django's own makemessages needs GNU gettext on the machine; this needs only Babel.
"""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from babel.messages.catalog import Catalog, Message
from babel.messages.extract import extract
from babel.messages.pofile import read_po, write_po
from django.conf import settings
from django.utils.translation.template import templatize

ROOT = Path(__file__).resolve().parent.parent
LOCALE = ROOT / "labelhub" / "locale"
LANGUAGES = ("zh_Hans",)
# A fixed date in the catalogue's head: else every update would change the file.
DATE = datetime(2026, 11, 22, tzinfo=UTC)
KEYWORDS = {
    "_": None, "gettext": None, "gettext_lazy": None, "gettext_noop": None,
    "ngettext": (1, 2), "ngettext_lazy": (1, 2), "pgettext": ((1, "c"), 2),
    "pgettext_lazy": ((1, "c"), 2), "npgettext": ((1, "c"), 2, 3),
}  # fmt: skip
_LITERAL = r"""u?(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")"""
CALL = re.compile(rf"\bn?p?gettext\((?:{_LITERAL}(?:, ?)?)+(?:\w+)?\)")


def collect() -> Catalog:
    """Every text of the project, with the places where it stands."""
    catalog = Catalog(project="LabelHub", charset="utf-8")
    for path in sources():
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".html":
            text = calls_only(templatize(text))
        stream = io.BytesIO(text.encode())
        place = str(path.relative_to(ROOT))
        for line, found, comments, context in extract("python", stream, KEYWORDS, ["Translators:"]):
            if found and (found if isinstance(found, str) else found[0]):
                catalog.add(found, None, [(place, line)], auto_comments=comments, context=context)
    return catalog


def calls_only(text: str) -> str:
    """Keep the gettext calls of what Django made of a template, each on its line, as Python."""
    return "\n".join("; ".join(CALL.findall(line)) for line in text.split("\n"))


def sources() -> Iterator[Path]:
    """Python files of the web application and all templates."""
    for path in sorted((ROOT / "labelhub").rglob("*.py")):
        if "migrations" not in path.parts:
            yield path
    yield from sorted((ROOT / "templates").rglob("*.html"))


def catalogue(language: str) -> Path:
    """Where a language's texts stand."""
    return LOCALE / language / "LC_MESSAGES" / "django.po"


def update() -> None:
    """Write new texts into each catalogue, and drop those that nobody says any more."""
    template = collect()
    for language in LANGUAGES:
        path = catalogue(language)
        path.parent.mkdir(parents=True, exist_ok=True)
        known = Catalog(locale=language, charset="utf-8")
        if path.exists():
            with path.open("rb") as stream:
                known = read_po(stream, locale=language)
        known.update(template, no_fuzzy_matching=True)
        known.obsolete.clear()
        with path.open("wb") as stream:
            known.creation_date = DATE
            write_po(stream, known, width=100, sort_by_file=True, omit_header=False,
                     include_lineno=False)  # fmt: skip


def missing(language: str) -> list[str]:
    """Texts that the catalogue lacks, has left empty or fuzzy, or whose placeholders differ."""
    with catalogue(language).open("rb") as stream:
        known = read_po(stream, locale=language)
    problems = []
    for message in collect():
        if not message.id:
            continue
        there = known.get(message.id, context=message.context)
        label = message.id if isinstance(message.id, str) else message.id[0]
        if there is None or not is_complete(there):
            problems.append(f"not translated: {label!r}")
        elif problem := placeholder_problem(label, there):
            problems.append(f"{problem}: {label!r}")
    return problems


def is_complete(message: Message) -> bool:
    """Whether every form of the message is translated for certain."""
    return not message.fuzzy and all(forms_of(message))


def forms_of(message: Message) -> list[str]:
    """The translation's forms: one, or one for each plural."""
    string = message.string
    return [str(form or "") for form in (string if isinstance(string, tuple | list) else [string])]


def placeholder_problem(text: str, message: Message) -> str:
    """A translation that names other placeholders would fail or lose something when it is shown."""
    pattern = re.compile(r"%\((\w+)\)[sd]|%[sd]|\{(\w*)\}")
    forms = forms_of(message)
    wanted = {match.group(0) for match in pattern.finditer(text)}
    plural = message.id[1] if not isinstance(message.id, str) else ""
    wanted |= {match.group(0) for match in pattern.finditer(plural)}
    for form in forms:
        there = {match.group(0) for match in pattern.finditer(form)}
        if there - wanted or (isinstance(message.id, str) and there != wanted):
            return f"other placeholders ({', '.join(sorted(there ^ wanted))})"
    return ""


def main(arguments: list[str]) -> int:
    """The command line."""
    if not settings.configured:
        settings.configure(USE_I18N=True)  # templatize asks for it
    if arguments == ["update"]:
        update()
        return 0
    if arguments == ["check"]:
        problems = [f"{lang}: {problem}" for lang in LANGUAGES for problem in missing(lang)]
        sys.stdout.write("\n".join(problems) + ("\n" if problems else ""))
        return 1 if problems else 0
    sys.stderr.write(__doc__)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
