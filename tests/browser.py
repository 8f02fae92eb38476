"""The browser of the end-to-end tests: which one, and started how."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from scripts.browser import FLAGS, find_chromium
from tests.servers import unavailable


@cache
def _found() -> Path | None:
    return find_chromium()


def chromium_path() -> Path:
    """Return the browser; without one the test skips, or fails where CI=true."""
    path = _found()
    if path is None:
        unavailable("There is no Chromium or Chrome: run ./run setup --browser.")
    return path


def launch_options() -> dict[str, Any]:
    """Return what Playwright's `chromium.launch` takes here."""
    return {"executable_path": str(chromium_path()), "args": list(FLAGS), "headless": True}


def axe_source() -> str:
    """Return axe-core's script, for `page.evaluate`; without it the test skips or fails."""
    path = Path(__file__).resolve().parent.parent / "node_modules" / "axe-core" / "axe.min.js"
    if not path.is_file():
        unavailable("There is no axe-core: run ./run setup --browser.")
    return path.read_text(encoding="utf-8")
