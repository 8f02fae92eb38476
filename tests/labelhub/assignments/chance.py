"""Chance that a test has decided."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any


class StartAt(random.Random):
    """Searches begin at this place; of a choice it takes the first."""

    def __init__(self, start: int) -> None:
        super().__init__(0)
        self.start = start

    def randrange(self, *_limits: Any, **_more: Any) -> int:
        return self.start

    def choice(self, seq: Sequence[Any]) -> Any:
        return seq[0]
