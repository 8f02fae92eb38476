"""A function in a process of its own that is forked from this one, so that it may be killed.

Everything is imported already, so it takes no longer than the function. What it changes in memory
is gone with it.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Ended:
    """How a child ended: its exit code (the negative number of a signal), and what it printed."""

    code: int
    output: str


def start(function: Callable[[], int | None], output: Path) -> int:
    """Run the function in a child, the leader of a process group of its own; returns its id."""
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        os.setsid()
        _speak_into(output)
        code = function() or 0
    except BaseException:  # noqa: BLE001 - nothing may escape into the parent's test run
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _speak_into(output: Path) -> None:
    """Whatever is printed goes into that file; signals and warnings mean again what they do."""
    handle = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for stream in (1, 2):
        os.dup2(handle, stream)
    sys.stdout = sys.__stdout__ = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = sys.__stderr__ = os.fdopen(2, "w", encoding="utf-8", closefd=False)
    for one in (signal.SIGTERM, signal.SIGINT):
        signal.signal(one, signal.SIG_DFL)
    warnings.resetwarnings()  # a program does not end by a warning, as a test does


def wait(pid: int, seconds: float = 120.0) -> int:
    """The exit code of a child; one that takes too long is killed, which the code then says."""
    late = threading.Timer(seconds, os.kill, (pid, signal.SIGKILL))
    late.start()
    try:
        _, status = os.waitpid(pid, 0)
    finally:
        late.cancel()
    return os.waitstatus_to_exitcode(status)


def run(function: Callable[[], int | None], output: Path, seconds: float = 120.0) -> Ended:
    """The function in a child, from beginning to end."""
    code = wait(start(function, output), seconds)
    return Ended(code, output.read_text("utf-8"))


def has_members(group: int, patience: float = 2.0) -> bool:
    """Whether a process of that group lives still; those that are just ending get a moment."""
    until = time.monotonic() + patience
    while True:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return False
        if time.monotonic() > until:
            return True
        time.sleep(0.02)
