"""The one exception that actions raise when a person asks for something that cannot be."""

from __future__ import annotations

from typing import Any


class Refused(Exception):
    """A refusal in one translated sentence; the doors turn it into a message or a JSON error.

    `status` is the HTTP status that fits; `code` names the reason for programs; `details` may
    carry values that a door shows beside the sentence (such as the answers that lack a place).
    """

    def __init__(
        self, message: str, *, status: int = 409, code: str = "refused", **details: Any
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.code = code
        self.details = details

    def __str__(self) -> str:
        return self.message
