"""The rooms that promise something to many people at once keep it on PostgreSQL, too.

The same tests as on SQLite, in a process of their own, against a real server from a wheel.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers import postgres_url

ROOT = Path(__file__).resolve().parents[2]
ROOMS = [
    *("accounts/test_audit_log.py", "runs/test_snapshots.py", "rounds/test_loop.py"),
    *("rounds/test_comparisons.py", "rounds/test_comparison_promises.py"),
    *("projects", "prompts", "assignments", "rankings"),
]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(
    os.environ.get("DATABASE_URL", "").startswith("postgres"), reason="all tests run on it already"
)
def test_the_rooms_keep_their_promises_on_postgresql() -> None:
    tests = [str(ROOT / "tests" / "labelhub" / room) for room in ROOMS]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--database-only", *tests],
        cwd=ROOT,
        env={**os.environ, "DATABASE_URL": postgres_url()},
        capture_output=True,
        text=True,
        timeout=880,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
