"""What a conversation must look like, when two are the same, and how prompts are drawn. Pure.

Text is compared and kept in one form: NFC, \\n as line break, no blank space around it. So the same
question copied out of another program is recognised.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Message = dict[str, str]

ROLES = ("system", "user", "assistant")
MAX_MESSAGES = 100
MAX_CHARACTERS = 50_000


class BadMessages(ValueError):
    """These messages are no prompt. `reason` is a key of `prompts.actions.REASONS`."""

    def __init__(self, reason: str, **values: object) -> None:
        super().__init__(f"{reason} {values}")
        self.reason = reason
        self.values = values


def validate_messages(messages: object) -> list[Message]:
    """The messages in the form in which they are kept; raises BadMessages when they are no prompt.

    A prompt may begin with a system message; then the user and the assistant take turns, and the
    user has the last word.
    """
    if not isinstance(messages, list) or not messages:
        raise BadMessages("no_list")
    if len(messages) > MAX_MESSAGES:
        raise BadMessages("too_many", count=len(messages), limit=MAX_MESSAGES)
    cleaned = [_message(number, message) for number, message in enumerate(messages, start=1)]
    if sum(len(message["content"]) for message in cleaned) > MAX_CHARACTERS:
        raise BadMessages("too_long", limit=MAX_CHARACTERS)
    _check_turns(cleaned)
    return cleaned


def _message(number: int, message: object) -> Message:
    if not isinstance(message, Mapping):
        raise BadMessages("no_object", number=number)
    role, content = message.get("role"), message.get("content")
    if role not in ROLES:
        raise BadMessages("role", number=number, role=str(role)[:40])
    if not isinstance(content, str) or not clean(content):
        raise BadMessages("empty", number=number)
    if not is_storable(content):
        raise BadMessages("characters", number=number)
    return {"role": str(role), "content": clean(content)}


def _check_turns(messages: Sequence[Message]) -> None:
    first = 1 if messages[0]["role"] == "system" else 0
    for at, message in enumerate(messages[first:]):
        wanted = ("user", "assistant")[at % 2]
        if message["role"] != wanted:
            raise BadMessages("turn", number=first + at + 1, role=message["role"], wanted=wanted)
    if messages[-1]["role"] != "user":
        raise BadMessages("last", role=messages[-1]["role"])


def clean(text: str) -> str:
    """NFC, \\n as line break, no blank space around."""
    return unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\r", "\n")).strip()


def is_storable(text: str) -> bool:
    """Neither NUL (PostgreSQL keeps none) nor half of a surrogate pair (UTF-8 has none)."""
    return "\x00" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


def storable(text: str) -> str:
    """A model may write anything; what cannot be kept becomes U+FFFD."""
    if is_storable(text):
        return text
    return "".join(one if is_storable(one) else "\ufffd" for one in text)


def canonical(messages: Iterable[Mapping[str, Any]]) -> str:
    """One text for one conversation, the same as the trainer's `prompt_hash` reads."""
    plain = [{"role": one["role"], "content": one["content"]} for one in messages]
    return json.dumps(plain, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def messages_hash(messages: Iterable[Mapping[str, Any]]) -> str:
    """SHA-256 of the canonical messages."""
    return text_hash(canonical(messages))


def text_hash(text: str) -> str:
    """SHA-256 of a text, as hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()


def draw(uses: Mapping[int, int], count: int, seed: int) -> list[int]:
    """Draw `count` prompts, those used least first, equals at random; fewer if there are fewer.

    `uses` says how often each prompt id was used. The same seed draws the same, whatever the
    order of `uses`.
    """
    return sorted(uses, key=lambda one: (uses[one], text_hash(f"{seed}:{one}")))[: max(0, count)]
