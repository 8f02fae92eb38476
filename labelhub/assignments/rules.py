"""Who sees what in which order, for how long, and how a lease is proved. Pure.

Choices
- Every order here comes from SHA-256 of its names, not from a random generator: the same slot and
  annotator give the same order on every machine, in every process, after every upgrade.
- A lease token carries its own proof. When a lease has run out, somebody else's token stands on
  the slot; the first holder's late work is still honest, and her token shows it without a table
  of past leases.
Not here: the rows themselves, and which of them are free.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import uuid
from collections.abc import Iterable
from datetime import datetime, timedelta

LEASE_MINUTES = 15
_NONCE_BYTES = 8  # of the token's 16; the other 8 are the proof


def display_order(slot_id: int, annotator_id: int, answer_ids: Iterable[int]) -> list[int]:
    """The order in which this annotator sees these answers: shuffled, and always the same."""
    return sorted(answer_ids, key=lambda answer: _digest(slot_id, annotator_id, answer))


def shuffle_key(answer_set_id: int, n: int) -> int:
    """A slot's place among slots of the same priority, from 0 to 2³¹ - 1."""
    return int.from_bytes(_digest(answer_set_id, n)[:4]) >> 1


def _digest(*names: int) -> bytes:
    return hashlib.sha256(":".join(map(str, names)).encode()).digest()


def lease_end(now: datetime, minutes: int = LEASE_MINUTES) -> datetime:
    """When a lease ends that is given or renewed now."""
    return now + timedelta(minutes=minutes)


def new_token(key: str, slot_id: int, annotator_id: int) -> uuid.UUID:
    """A fresh lease token: 64 random bits and 64 bits that prove for whom and what it was made."""
    nonce = secrets.token_bytes(_NONCE_BYTES)
    return uuid.UUID(bytes=nonce + _proof(key, slot_id, annotator_id, nonce))


def is_proof(token: uuid.UUID, key: str, slot_id: int, annotator_id: int) -> bool:
    """Whether this token was once given to this annotator for this slot."""
    nonce, proof = token.bytes[:_NONCE_BYTES], token.bytes[_NONCE_BYTES:]
    return hmac.compare_digest(proof, _proof(key, slot_id, annotator_id, nonce))


def _proof(key: str, slot_id: int, annotator_id: int, nonce: bytes) -> bytes:
    said = f"labelhub lease:{slot_id}:{annotator_id}:".encode() + nonce
    return hmac.digest(key.encode(), said, "sha256")[:_NONCE_BYTES]


def parse_token(value: object) -> uuid.UUID | None:
    """The UUID in a form field; None when it is none."""
    try:
        return value if isinstance(value, uuid.UUID) else uuid.UUID(str(value))
    except ValueError:
        return None
