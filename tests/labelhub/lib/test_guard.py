"""A guarded program ends with its parent, whatever ended the parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from labelhub.lib.guard import guarded
from labelhub.lib.services import birth

ROOT = Path(__file__).resolve().parents[3]
linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux's kernel offers this")

# A parent that starts a guarded sleeper, says its pid and waits.
PARENT = """
import subprocess, sys, time
from labelhub.lib.guard import guarded
child = subprocess.Popen(guarded(["sleep", "60"]), start_new_session=True)
print(child.pid, flush=True)
time.sleep(60)
"""


def wait_until_gone(pid: int, seconds: float = 5.0) -> bool:
    deadline = time.monotonic() + seconds
    while birth(pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@linux
def test_it_leaves_no_orphan_when_its_parent_is_killed() -> None:
    command = [sys.executable, "-c", PARENT]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        sleeper = int(parent.stdout.readline())
        assert birth(sleeper)
        parent.kill()
    assert wait_until_gone(sleeper)


@linux
def test_it_does_not_start_for_a_parent_that_is_gone_already() -> None:
    command = guarded(["echo", "started"])
    command[command.index("--parent") + 1] = "999999999"
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_it_becomes_the_program_itself() -> None:
    with subprocess.Popen(
        guarded([sys.executable, "-c", "import os; print(os.getpid())"]), stdout=subprocess.PIPE
    ) as child:
        output, _ = child.communicate()
    assert int(output) == child.pid


def test_it_adds_to_the_niceness() -> None:
    program = "import os; print(os.nice(0))"
    done = subprocess.run(
        guarded([sys.executable, "-c", program], nice=3), capture_output=True, check=True
    )
    assert int(done.stdout) == min(19, os.nice(0) + 3)


def test_it_says_which_program_it_cannot_start() -> None:
    done = subprocess.run(
        guarded(["/no/such/program"]), capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr == "/no/such/program cannot be started: No such file or directory\n"


def test_a_signal_reaches_the_program_itself() -> None:
    with subprocess.Popen(guarded(["sleep", "60"])) as child:
        time.sleep(0.3)
        child.send_signal(signal.SIGTERM)
        assert child.wait(5) == -signal.SIGTERM
