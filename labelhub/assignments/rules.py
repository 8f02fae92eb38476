"""Who sees what in which order, how often, for how long, and how a lease is proved. Pure.

Choices
- Every order and every share here comes from SHA-256 of its names, not from a random generator: the
  same slot and annotator give the same order on every machine, in every process, after every
  upgrade, and which set of a person is a known one can be retold.
- Priorities come in bands (a factor of √2 each): inside a band each annotator starts at a random
  place, so that many of them at once do not run into the same set.
- A lease token carries its own proof. When a lease has run out, somebody else's token stands on
  the slot; the first holder's late work is still honest, and her token shows it without a table
  of past leases.
Not here: the rows themselves, and which of them are free.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import secrets
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

LEASE_MINUTES = 15
SHUFFLE_KEYS = 2**31  # shuffle keys and random starts lie from 0 to one below
# Own rankings between the first time that a person sees a set and the silent repeat.
REPEAT_AFTER = 10
LOWEST_EXPONENT, BANDS = -16, 64
_NONCE_BYTES = 8  # of the token's 16; the other 8 are the proof


def display_order(slot_id: int, annotator_id: int, answer_ids: Iterable[int]) -> list[int]:
    """The order in which this annotator sees these answers: shuffled, and always the same."""
    return sorted(answer_ids, key=lambda answer: _digest(slot_id, annotator_id, answer))


def shuffle_key(answer_set_id: int, n: int) -> int:
    """A slot's place among slots of the same priority, from 0 to 2³¹ - 1."""
    return int.from_bytes(_digest(answer_set_id, n)[:4]) >> 1


def _digest(*names: object) -> bytes:
    return hashlib.sha256(":".join(map(str, names)).encode()).digest()


def _share(*names: object) -> float:
    """A number from 0 to below 1 that belongs to these names, evenly spread over names."""
    return int.from_bytes(_digest(*names)[:6]) / 2**48


@dataclass(frozen=True, slots=True)
class Turn:
    """What an annotator is due; when no such `special` set is left, an opinion takes its place."""

    special: Literal["", "gold", "repeat"]
    uniform: bool  # an opinion drawn without regard to priority


def next_kind(
    project_id: int,
    annotator_id: int,
    done: int,
    *,
    gold_share: float,
    repeat_share: float,
    uniform_share: float,
) -> Turn:
    """What comes after `done` sets of this person. The shares are from 0 to 1."""
    drawn = _share("special", project_id, annotator_id, done)
    special: Literal["", "gold", "repeat"] = ""
    if drawn < gold_share:
        special = "gold"
    elif drawn < gold_share + repeat_share:
        special = "repeat"
    uniform = _share("uniform", project_id, annotator_id, done) < uniform_share
    return Turn(special=special, uniform=uniform)


def overlap_plan(
    answer_set_ids: Iterable[int],
    *,
    project_id: int,
    overlap: int,
    shared_share: float,
    shared_overlap: int,
    annotators: int,
) -> dict[int, int]:
    """How many opinions each set shall get: `overlap`, and more on the shared part of them.

    Whether a set belongs to that part hangs on its own name alone, so that it stays so whichever
    other sets are planned beside it.
    """
    more = shared(overlap, shared_overlap, annotators)
    return {
        pk: more if _share("shared", project_id, pk) < shared_share else overlap
        for pk in answer_set_ids
    }


def shared(overlap: int, shared_overlap: int, annotators: int) -> int:
    """Opinions on a set that agreement is measured on: not more than there are annotators.

    Never fewer than `overlap` either, which is wished for by name.
    """
    return max(overlap, min(shared_overlap, annotators))


def priority_band(disagreement: float, age_days: float) -> float:
    """The band of disagreement × (age + 1 day): 0 for none, then 1 to 64, one for each factor √2.

    The scale of the disagreement does not matter: another unit moves all sets by the same number
    of bands (as long as they stay between 2⁻¹⁶ and 2¹⁶).
    """
    weight = disagreement * (max(0.0, age_days) + 1)
    if not weight > 0:  # also for one that is no number
        return 0.0
    band = 1 + math.floor(2 * (math.log2(min(weight, 2.0**62)) - LOWEST_EXPONENT))
    return float(min(max(band, 1), BANDS))


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
