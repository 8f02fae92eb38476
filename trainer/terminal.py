"""A run's events for a person who started it by hand: a line now and then on the terminal.

Torch-free. Whoever starts a run from a program reads events.jsonl, which has all of it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from trainer.events import EventWriter

#: figures that are told of a step, the first few that there are
TOLD = ("loss", "reward", "kl", "pair_accuracy", "perplexity", "best_score", "length")
MOST = 4
#: seconds between two lines about steps
PAUSE = 1.0


class Spoken(EventWriter):
    """Writes events and tells the chief ones on a stream as well."""

    def __init__(self, folder: Path, stream: TextIO) -> None:
        super().__init__(folder)
        self.folder, self.stream = folder, stream
        self.told = float("-inf")

    def emit(self, kind: str, step: int | None = None, **data: Any) -> None:
        """Write the event; then tell it, a step only if none was told a moment ago."""
        super().emit(kind, step, **data)
        if kind == "metric":
            now = time.monotonic()
            if now - self.told < PAUSE and step != data.get("total"):
                return
            self.told = now
        line = words(kind, step, data, self.folder)
        if line:
            self.stream.write(line + "\n")
            self.stream.flush()


def words(kind: str, step: int | None, data: Mapping[str, Any], folder: Path) -> str:
    """What is told of an event; nothing of most kinds."""
    if kind == "started":
        again = f", from step {data['resumed_from']}" if data.get("resumed_from") else ""
        threads = "1 thread" if data["threads"] == 1 else f"{data['threads']} threads"
        where = f"{data['device']}, {data['dtype']}, {threads}"
        return f"{data['stage']}: {where}, about {data['needs_mib']} MiB{again}"
    if kind == "metric":
        of = f" of {data['total']}" if data.get("total") else ""
        known = [name for name in TOLD if isinstance(data.get(name), float)][:MOST]
        return f"step {step}{of}" + "".join(f" · {name} {data[name]:.4g}" for name in known)
    if kind == "finished":
        return f"Finished in {data['seconds']} s: {folder / 'out'}"
    return str(data.get("message", "")) if kind in ("alert", "stopped") else ""
