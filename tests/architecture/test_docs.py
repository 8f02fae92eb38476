"""Documents that cannot drift: what they name exists, and what exists is named."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from scripts import reference

ROOT = Path(__file__).resolve().parent.parent.parent
ENVIRONMENT = re.compile(
    r"""(?:env_(?:bool|int|list|secret)\(|environ(?:\.get\(|\[))\s*"([A-Z_]+)\""""
)


def paths_named_in(page: str) -> list[str]:
    """Paths in backticks that look like this project's files, without the name after a colon."""
    text = (ROOT / page).read_text(encoding="utf-8")
    named = re.findall(r"`([\w./-]+\.(?:py|md|toml|js|sh|yaml))(?::\w+)?`", text)
    return sorted(set(named))


@pytest.mark.parametrize("page", ["ARCHITECTURE.md", "README.md", "CONTRIBUTING.md"])
def test_a_path_that_a_page_names_exists(page: str) -> None:
    places = [ROOT, ROOT / "labelhub", ROOT / "trainer"]
    gone = [
        path
        for path in paths_named_in(page)
        if not any((place / path).exists() for place in places)
    ]
    assert gone == []


def test_a_function_that_the_architecture_names_exists() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    named = re.findall(r"`(\w+/\w+\.py):(\w+)`", text)
    assert named, "the page should name functions"
    gone = [
        f"{path}:{name}"
        for path, name in named
        if f"def {name}(" not in (ROOT / "labelhub" / path).read_text(encoding="utf-8")
    ]
    assert gone == []


def test_every_environment_variable_is_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    settings = (ROOT / "labelhub" / "settings.py").read_text(encoding="utf-8")
    missing = [name for name in ENVIRONMENT.findall(settings) if f"`{name}`" not in readme]
    assert missing == []


def test_the_reference_of_settings_is_up_to_date() -> None:
    assert reference.PAGE.read_text(encoding="utf-8") == reference.page(), (
        "run: .venv/bin/python scripts/reference.py"
    )


def test_every_text_of_the_settings_waits_for_translation() -> None:
    assert reference.WORDS.read_text(encoding="utf-8") == reference.words(), (
        "run: .venv/bin/python scripts/reference.py, then scripts/messages.py update"
    )


def test_every_room_stands_in_the_architecture() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    rooms = {path.parent.name for path in (ROOT / "labelhub").glob("*/apps.py")}
    assert {room for room in rooms if f"  {room}/" not in text} == set()


def test_the_changelog_begins_with_what_is_not_released() -> None:
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    assert headings[0] == "Unreleased"
