"""Rules of the house that a linter does not know."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


def test_the_web_and_worker_processes_never_load_torch() -> None:
    script = (
        "import django, os, sys; os.environ['DJANGO_SETTINGS_MODULE'] = 'labelhub.settings';"
        "django.setup(); import labelhub.urls, labelhub.runs.tasks, labelhub.rounds.tasks;"
        "print([name for name in ('torch', 'transformers', 'peft', 'trl') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_migrations_have_names_that_say_something() -> None:
    migrations = [path.name for path in (ROOT / "labelhub").glob("*/migrations/0*.py")]
    assert migrations
    assert [name for name in migrations if "_auto_" in name] == []


def test_no_file_that_python_unpickles_is_ever_read() -> None:
    forbidden = re.compile(r"\btorch\.load\(|\bpickle\.loads?\(|trust_remote_code=True")
    found = [
        str(path.relative_to(ROOT))
        for folder in ("labelhub", "trainer", "scripts", "benchmarks")
        for path in (ROOT / folder).rglob("*.py")
        if forbidden.search(path.read_text(encoding="utf-8"))
    ]
    assert found == []


def test_every_text_for_people_is_translated() -> None:
    done = subprocess.run(
        [sys.executable, "scripts/messages.py", "check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "", "run scripts/messages.py update, then translate what is new"
