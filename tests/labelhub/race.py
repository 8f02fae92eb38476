"""Runs one thing in many threads at the same moment, each with its own database connection."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

from django.db import connections

T = TypeVar("T")
R = TypeVar("R")


def race(do: Callable[[T], R], starters: Sequence[T], seconds: float = 120) -> list[R | Exception]:
    """What each call of `do` returned or raised, in the order of `starters`."""
    gate = threading.Barrier(len(starters))
    results: list[R | Exception] = [RuntimeError("never came to an end")] * len(starters)

    def run(place: int, starter: T) -> None:
        try:
            gate.wait(timeout=30)
            results[place] = do(starter)
        except Exception as error:  # noqa: BLE001 - whatever it is, the test must see it
            results[place] = error
        finally:
            connections.close_all()

    threads = [
        threading.Thread(target=run, args=(place, starter), daemon=True)
        for place, starter in enumerate(starters)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=seconds)
    return results


def raised(results: Sequence[object]) -> list[Exception]:
    """The exceptions among the results."""
    return [one for one in results if isinstance(one, Exception)]
