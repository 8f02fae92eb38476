"""Talking to the person at the terminal, and calling programs in the project's environment."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
BIN = VENV / "bin"
PYTHON = BIN / "python"
VAR = Path(os.environ.get("LABELHUB_VAR") or ROOT / "var").resolve()

# What the words of pip, npm or the system betray, and what a person can do about it.
CAUSES = (
    (
        "No space left on device|ENOSPC",
        "The disk is full: free about 3 GB (8 GB where PyTorch brings CUDA) and run the same "
        "command again.",
    ),
    (
        "NewConnectionError|NameResolutionError|name resolution|Network is unreachable|ProxyError"
        "|ConnectTimeout|Read timed out|Connection refused|ENOTFOUND|EAI_AGAIN|ECONNREFUSED"
        "|ETIMEDOUT|ENETUNREACH",
        "The package registry cannot be reached: check the network (behind a proxy set "
        "HTTPS_PROXY; with a mirror set PIP_INDEX_URL, or npm's registry) and run the same "
        "command again; what was fetched is kept.",
    ),
    (
        "No matching distribution found for torch",
        "There is no PyTorch build for this Python and system: use Python 3.11 to 3.13 on 64-bit "
        "Linux or an Apple-silicon Mac (PYTHON=/path/to/python3.11 ./run), or name another "
        "source with TORCH_INDEX_URL.",
    ),
    (
        "Permission denied|EACCES",
        f"A file cannot be written: {ROOT} and {VAR} must belong to the user who runs this.",
    ),
)


class Failure(Exception):
    """A step failed; the message says what to do."""


def say(text: str) -> None:
    """Print one line at once, also into a pipe."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


@contextmanager
def step(title: str) -> Iterator[None]:
    """Announce a step and, when it is done, how long it took."""
    say(f"==> {title} …")
    begin = time.monotonic()
    yield
    say(f"    {title}: done in {time.monotonic() - begin:.1f} s")


def advice_for(output: str, otherwise: str) -> str:
    """Return what to do about the failure that `output` shows."""
    return next((advice for pattern, advice in CAUSES if re.search(pattern, output)), otherwise)


def environ(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of a child: tools of the virtual environment first."""
    paths = f"{BIN}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    return os.environ | {"PATH": paths, "VIRTUAL_ENV": str(VENV)} | dict(extra or {})


def succeeds(command: Iterable[object], extra: Mapping[str, str] | None = None) -> bool:
    """Run a command with its output on the terminal; tell whether it exited with 0."""
    words = [str(word) for word in command]
    return not subprocess.run(words, cwd=ROOT, env=environ(extra), check=False).returncode


def call(command: Iterable[object], *, advice: str, extra: Mapping[str, str] | None = None) -> None:
    """Run a command with its output on the terminal, or fail with the advice."""
    if not succeeds(command, extra):
        raise Failure(advice)


def call_quietly(command: Iterable[object], *, advice: str) -> None:
    """Run a command; show its output only if it fails."""
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=ROOT, env=environ(), capture_output=True, check=False)
    if done.returncode:
        output = (done.stdout + done.stderr).decode(errors="replace")
        say(output.strip())
        raise Failure(advice_for(output, advice))


def manage(*arguments: str, advice: str, extra: Mapping[str, str] | None = None) -> None:
    """Run manage.py in the environment."""
    call([PYTHON, ROOT / "manage.py", *arguments], extra=extra, advice=advice)


def become(command: Iterable[object], extra: Mapping[str, str] | None = None) -> NoReturn:
    """Let the command take this process's place, so that Ctrl-C and exit status are its own."""
    words = [str(word) for word in command]
    sys.stdout.flush()
    os.execve(words[0], words, environ(extra))  # noqa: S606 - a list of words, no shell
