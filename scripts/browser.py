"""Find the browser for the end-to-end tests and screenshots, or install one.

Order: LABELHUB_CHROMIUM, a Chromium or Chrome on the PATH, the usual place on macOS, a build that
Playwright fetched into .venv/browsers. Installing: Debian's package where apt-get and root are
there, else Playwright's own download.
Standard library only: `./run` needs it before anything is set up.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOWNLOADS = ROOT / ".venv" / "browsers"
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
MAC_APPS = (
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
)
# --no-install-recommends leaves out all fonts; without any, Chromium draws no text at all.
DEBIAN_PACKAGES = ("chromium", "fonts-liberation", "fonts-wqy-microhei")
# What a test wants: no sandbox (root in a container has none), no traffic of the browser's own.
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
)


def find_chromium() -> Path | None:
    """Return a browser that really starts, or None."""
    named = os.environ.get("LABELHUB_CHROMIUM")
    candidates = [named] if named else [*filter(None, map(shutil.which, NAMES)), *MAC_APPS]
    if not named and DOWNLOADS.is_dir():
        shells = ("chrome", "headless_shell", "chrome-headless-shell", "Chromium")
        candidates += [str(p) for name in shells for p in sorted(DOWNLOADS.glob(f"*/*/{name}"))]
    return next((Path(path) for path in candidates if _starts(path)), None)


def _starts(path: str) -> bool:
    """Ask for the version: Ubuntu's chromium-browser may be a script that only points to a snap."""
    try:
        done = subprocess.run([path, "--version"], capture_output=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def install_commands(python: Path) -> list[list[str]]:
    """Return the commands that install a browser here."""
    root = os.geteuid() == 0
    if root and _is_debian() and shutil.which("apt-get"):
        apt = ["apt-get", "-o", "DPkg::Lock::Timeout=120"]
        install = [*apt, "install", "-y", "--no-install-recommends", *DEBIAN_PACKAGES]
        return [[*apt, "update", "-q"], install]
    with_libraries = ["--with-deps"] if root and platform.system() == "Linux" else []
    return [[str(python), "-m", "playwright", "install", *with_libraries, "chromium"]]


def _is_debian() -> bool:
    """Debian proper: Ubuntu's package of this name only fetches a snap."""
    try:
        lines = Path("/etc/os-release").read_text().splitlines()
    except OSError:
        return False
    return "ID=debian" in lines
