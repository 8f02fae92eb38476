"""Tokens as strings: how they look and how they are hashed. Pure."""

from __future__ import annotations

import hashlib
import secrets

PREFIX = "lh_"


def new_secret() -> str:
    """A fresh token, shown once: 256 bits, with a prefix that secret scanners can find."""
    return PREFIX + secrets.token_urlsafe(32)


def token_hash(secret: str) -> str:
    """SHA-256 is enough here: unlike a password, a token of 256 random bits cannot be guessed."""
    return hashlib.sha256(secret.encode()).hexdigest()


def shown_prefix(secret: str) -> str:
    """The part by which its owner recognises it."""
    return secret[:9]


def new_password() -> str:
    """A one-time password that can be read aloud: four groups of four, without look-alikes."""
    letters = "abcdefghjkmnpqrstuvwxyz23456789"
    return "-".join("".join(secrets.choice(letters) for _ in range(4)) for _ in range(4))
