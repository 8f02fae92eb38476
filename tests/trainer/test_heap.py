"""Freed memory goes back to the system, and every run sees to it."""

from __future__ import annotations

import ctypes
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from trainer import heap
from trainer.events import EventWriter, Heartbeat

HOLES = """
import re
from pathlib import Path
from trainer import heap

def held() -> int:
    return int(re.search(r"VmRSS:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) // 1024

blocks = [bytearray(b"x" * 60_000) for _ in range(6_000)]  # each below glibc's threshold to map it
before = held()
kept = blocks[::1000] + blocks[-1:]  # small things that stay, the last at the heap's end
del blocks
between = held()
heap.give_back()
print(before, between, held())
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="glibc alone can do it")
def test_freed_memory_below_what_stays_goes_back_to_the_system() -> None:
    told = subprocess.run([sys.executable, "-c", HOLES], capture_output=True, text=True, check=True)
    before, between, after = map(int, told.stdout.split())
    assert before - between < 50  # freeing alone gives next to nothing back
    assert before - after > 300


def test_the_heartbeat_gives_memory_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = threading.Event()
    monkeypatch.setattr(heap, "give_back", given.set)
    with Heartbeat(EventWriter(tmp_path), every=0.02):
        assert given.wait(10)
