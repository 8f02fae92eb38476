"""Start a program that ends when its parent ends, whatever ended the parent.

On Linux the kernel does it (PR_SET_PDEATHSIG), so not even SIGKILL of the parent leaves an orphan.
Elsewhere nothing of the kind exists: there the parent's own tidy end, and the clearing of
leftovers at the next start (`services.py`), have to do.

The wish is made in a short program that then becomes the wanted one (`exec`), not in `preexec_fn`:
code between fork and exec of a process with threads may meet a lock that nobody will ever release.
The kernel forgets the wish when the user changes, so the user is changed first.

The kernel watches the *thread* that started the child: start children from a thread that lives on.

This file runs as a script, without site-packages: standard library only.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

_PR_SET_PDEATHSIG = 1


def die_with_parent(signum: int) -> None:
    """Ask the kernel to send `signum` to this process when its parent ends (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signum, 0, 0, 0)


def be_nice_as_a_group(nice: int) -> None:
    """Lower the whole session's share of the processor, too (Linux with autogroups).

    There the kernel shares time between sessions first, and niceness counts only inside one: a nice
    worker in a session of its own would get as much as the web server.
    """
    with contextlib.suppress(OSError), open("/proc/self/autogroup", "w") as group:
        group.write(str(nice))


def guarded(
    argv: Sequence[str],
    *,
    on_parent_death: signal.Signals = signal.SIGKILL,
    nice: int = 0,
    user: int | None = None,
) -> list[str]:
    """Return the command that runs `argv` under guard; to be started by the calling process itself.

    `nice` is added to the niceness; `user` is a numeric user and group id to change to (as root).
    """
    options = ["--parent", str(os.getpid()), "--signal", str(int(on_parent_death))]
    if nice:
        options += ["--nice", str(nice)]
    if user is not None:
        options += ["--user", str(user)]
    return [sys.executable, "-I", "-S", str(Path(__file__).resolve()), *options, "--", *argv]


def main() -> None:
    """Make the wishes, then become the program."""
    parser = argparse.ArgumentParser(description="Run a program that ends with its parent.")
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--signal", type=int, required=True)
    parser.add_argument("--nice", type=int, default=0)
    parser.add_argument("--user", type=int)
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()
    if options.nice:
        os.nice(options.nice)
        be_nice_as_a_group(options.nice)
    if options.user is not None:
        os.setgroups([])
        os.setgid(options.user)
        os.setuid(options.user)
    die_with_parent(options.signal)
    if os.getppid() != options.parent:
        sys.exit(0)  # The parent ended before the wish was made: nobody wants this program now.
    try:
        os.execvp(options.command[0], options.command)  # noqa: S606 - a list of words, no shell
    except OSError as error:
        sys.exit(f"{options.command[0]} cannot be started: {error.strerror}")


if __name__ == "__main__":
    main()
