"""What a run says while it goes: `events.jsonl`, one JSON object a line, append only.

Choices: every line is flushed at once and written under a lock, so a reader that tails the file
sees whole lines; of a line that a full disk cuts in half nothing stays, and one that a crash cut is
removed when the run goes on. A resumed run repeats the events after its checkpoint: readers key on
(kind, step). Who runs the folder holds a lock on the file: the kernel's, so that it leaves nothing
behind and ends with its process, however that ends. Non-goals: no torch, no network, no rotation.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

from trainer import heap

EVENTS = "events.jsonl"
#: seconds in which a process that was just killed may still let go of its folder
LETTING_GO = 1.0

#: kinds of events and what each says
KINDS = {
    "started": "an attempt began: attempt, pid, threads, dtype, device, needs_mib, resumed_from",
    "metric": "flat numbers of one step, with its total",
    "sample": "answers of the model at this step, to read",
    "checkpoint": "a checkpoint was written: path, best (the step of the best one that is kept)",
    "alert": "something a person should look at: code, message",
    "heartbeat": "the process lives: stage_progress from 0 to 1, eta_s in seconds",
    "finished": "the stage ended well: report, seconds of this attempt, spec (what was asked for)",
    "failed": "the stage ended badly: code (FAILURES), message, one sentence that says what to do",
    "stopped": "the stage was asked to stop and can go on: message",
}
#: kinds of failures, for who tells of them in another language than the message's
FAILURES = {
    "spec": "settings or inputs in spec.json cannot be run",
    "data": "a file of the inputs has a mistake",
    "refused": "the stage cannot go on with what it was given",
    "diverged": "a figure is no number any more",
    "memory": "there is too little memory",
    "disk": "there is no room on the disk",
    "permission": "a file may not be used",
    "unexpected": "nobody foresaw it; the traceback is in trainer.log",
}


#: how torch, its libraries and the system say that memory ran out
OUT_OF_MEMORY = ("out of memory", "allocate memory", "bad_alloc", "bad allocation")


class RunError(Exception):
    """The run cannot go on; the text is one sentence that a person can act on."""

    #: one of FAILURES
    code = "refused"


class Diverged(RunError):
    """A figure of training is no number any more."""

    code = "diverged"


class MemoryShort(RunError):
    """The run would need more memory than there is."""

    code = "memory"


class Busy(RunError):
    """Another process runs the folder."""


def no_number(what: str, step: int, rate: float | None = None) -> Diverged:
    """What to do when `what` is NaN or infinite at a step. Going on would only repeat it.

    `rate` is the one that was taken, from stages that settle it where config.lr is left open.
    """
    lower = "a lower config.lr" if rate is None else f"a config.lr below {rate:.2g}"
    return Diverged(
        f"{what} no number any more at step {step}: take {lower} and a new run folder; "
        "the checkpoints from before that step are kept."
    )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether this says that memory ran out; torch has no error of its own for that on a CPU."""
    text = str(error).lower()
    return (
        isinstance(error, MemoryError)
        or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
        or any(words in text for words in OUT_OF_MEMORY)
    )


class Stopped(Exception):
    """The run was asked to stop, has saved what it needs and can be resumed."""


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Within, no other process runs this folder; raises Busy where one does already."""
    with (folder / EVENTS).open("ab") as stream:
        until = time.monotonic() + LETTING_GO
        while not _lock(stream.fileno()):
            if time.monotonic() > until:
                raise Busy(
                    f"{folder} is being run by another process; wait for its end or stop it, or "
                    "take a folder of its own for this run."
                )
            time.sleep(0.05)
        yield


def _lock(handle: int) -> bool:
    """Take the lock on an open file; False where somebody has it."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        # Some network disks know no locks: there nobody can be told apart, and the run goes on.
        return error.errno not in (errno.EAGAIN, errno.EACCES)
    return True


class EventWriter:
    """Appends events to FOLDER/events.jsonl; safe to use from several threads."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / EVENTS
        self._lock = threading.Lock()
        cut_half_line(self.path)

    def emit(self, kind: str, step: int | None = None, **data: Any) -> None:
        """Write one event; a number that is not finite is written as null, since JSON has none."""
        if kind not in KINDS:
            raise ValueError(f"unknown event kind {kind}")
        event = {"t": round(time.time(), 3), "kind": kind}
        if step is not None:
            event["step"] = step
        line = json.dumps(finite(event | data), ensure_ascii=False, allow_nan=False) + "\n"
        with self._lock:
            append(self.path, line.encode())


def append(path: Path, line: bytes) -> None:
    """Put a line behind the file; where the disk has no room for it, nothing of it stays."""
    with path.open("ab", buffering=0) as stream:
        before = stream.seek(0, os.SEEK_END)
        try:
            while line:
                line = line[stream.write(line) :]
        except OSError:
            stream.truncate(before)
            raise


class Quiet(EventWriter):
    """For the processes of a run that do not write."""

    def __init__(self) -> None:
        return

    def emit(self, kind: str, step: int | None = None, **data: Any) -> None:
        """Say nothing."""


def finite(value: Any) -> Any:
    """`value` with NaN and infinities replaced by None, all the way down."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return value


def cut_half_line(path: Path) -> None:
    """Remove a last line without its end, which a crash in the middle of a write leaves."""
    if not path.exists():
        return
    body = path.read_bytes()
    if body and not body.endswith(b"\n"):
        os.truncate(path, body.rfind(b"\n") + 1)


def read_events(folder: Path) -> Iterator[dict[str, Any]]:
    """Every whole event of a run folder; a half-written last line is left out."""
    path = folder / EVENTS
    if not path.exists():
        return
    with path.open("rb") as stream:
        for line in stream:
            if not line.endswith(b"\n"):
                return
            event = json.loads(line)
            if isinstance(event, dict):
                yield event


class Heartbeat:
    """A thread that says every few seconds how far the stage is and how long it still takes, and
    that gives freed memory back.
    """

    def __init__(self, events: EventWriter, every: float = 5.0) -> None:
        self._emit: Callable[..., None] = events.emit
        self._every = every
        self._end = threading.Event()
        self._progress = 0.0
        self._since: tuple[float, float] | None = None
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def progress(self, share: float) -> None:
        """Set how much of the stage is done, from 0 to 1."""
        self._progress = min(max(share, 0.0), 1.0)
        if self._since is None:
            self._since = (time.monotonic(), self._progress)

    def eta(self) -> float | None:
        """Seconds left if the rest goes on at the speed since this process began; None when
        unknown.
        """
        if self._since is None or self._progress <= self._since[1]:
            return None
        speed = (self._progress - self._since[1]) / (time.monotonic() - self._since[0])
        return (1.0 - self._progress) / speed

    def _beat(self) -> None:
        while not self._end.wait(self._every):
            heap.give_back()
            eta = self.eta()
            # A beat that finds no room on the disk is left out: the stage itself will say so.
            with contextlib.suppress(OSError):
                self._emit(
                    "heartbeat",
                    stage_progress=round(self._progress, 4),
                    eta_s=None if eta is None else round(eta, 1),
                )
