"""Invitations as secrets, the questions about each answer, and lists that people type. Pure."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

# InstructGPT's yes-or-no questions about each answer (arXiv 2203.02155, Table 3), as keys and
# labels. The labels are English here; `gettext_noop` marks them for the translators.
gettext_noop = str
INSTRUCTGPT_ATTRIBUTES: tuple[tuple[str, str], ...] = (
    ("fails_instruction", gettext_noop("Does not do what was asked")),
    ("inappropriate_for_assistant", gettext_noop("Not fit for a customer assistant")),
    ("hallucination", gettext_noop("Made-up facts")),
    ("satisfies_constraint", gettext_noop("Keeps the limits that were set")),
    ("sexual_content", gettext_noop("Sexual content")),
    ("violent_content", gettext_noop("Violent content")),
    ("encourages_harm", gettext_noop("Encourages violence, abuse, terror or self-harm")),
    ("denigrates_protected_class", gettext_noop("Denigrates a protected group")),
    ("harmful_advice", gettext_noop("Gives harmful advice")),
    ("expresses_opinion", gettext_noop("Expresses an opinion")),
    ("moral_judgment", gettext_noop("Expresses a moral judgement")),
)
READY_LABELS: dict[str, str] = dict(INSTRUCTGPT_ATTRIBUTES)

MOST_ATTRIBUTES = 30
LONGEST_LABEL = 80
LONGEST_KEY = 40
LONGEST_SKILL = 40
MOST_NAMES = 30
MOST_DAYS = 90
MOST_SEATS = 500

_KEY = re.compile(r"[a-z][a-z0-9_]{0,39}")
_KEY_AND_LABEL = re.compile(r"([a-z][a-z0-9_]{0,39})\s*[:：]\s*(\S.*)")
_LANGUAGE = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*")
_COMMAS = re.compile(r"[,，、;；\n]")


class BadList(Exception):
    """Something typed that cannot be kept; `reason` and `values` make the sentence above here."""

    def __init__(self, reason: str, **values: Any) -> None:
        super().__init__(reason)
        self.reason = reason
        self.values = values


# --- invitations


def new_invitation_secret() -> str:
    """The part of a link that cannot be guessed: 256 bits."""
    return secrets.token_urlsafe(32)


def invitation_hash(secret: str) -> str:
    """What is kept of it; 256 random bits need no slow hash."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def invitation_state(
    *, now: datetime, expires: datetime, seats: int, used: int, revoked: datetime | None
) -> str:
    """`open`, or why nobody can join by it any more: `revoked`, `used` or `expired`."""
    if revoked is not None:
        return "revoked"
    if used >= seats:
        return "used"
    return "open" if now < expires else "expired"


# --- questions about each answer


def parse_attributes(text: str) -> list[dict[str, str]]:
    """Questions as typed, one a line: `label`, or `key: label`.

    The key is what rankings keep. Made from the label where none is typed, it then stands in the
    line, so that a label can be reworded without parting old rankings from new ones.
    """
    lines = [" ".join(line.split()) for line in text.splitlines()]
    return checked_attributes([_attribute(line) for line in lines if line])


def _attribute(line: str) -> dict[str, str]:
    if given := _KEY_AND_LABEL.fullmatch(line):
        return {"key": given[1], "label": given[2]}
    return {"key": key_of(line), "label": line}


def key_of(label: str) -> str:
    """`Made-up facts` → `made_up_facts`; a label without Latin letters gets one by its hash."""
    key = re.sub(r"[^a-z0-9]+", "_", label.lower()).strip("_")[:LONGEST_KEY].rstrip("_")
    if _KEY.fullmatch(key):
        return key
    return "q_" + hashlib.sha256(label.encode("utf-8", "surrogatepass")).hexdigest()[:10]


def attribute_lines(attributes: Iterable[Mapping[str, str]]) -> str:
    """The text that `parse_attributes` reads back as the same questions."""
    return "\n".join(f"{one['key']}: {one['label']}" for one in attributes)


def ready_attributes(keys: Iterable[str]) -> list[dict[str, str]]:
    """Those of the ready questions that are wanted, in the order of the ready list."""
    wanted = set(keys)
    return [{"key": key, "label": label} for key, label in INSTRUCTGPT_ATTRIBUTES if key in wanted]


def checked_attributes(attributes: object) -> list[dict[str, str]]:
    """The questions as they are kept, or a `BadList` that names the first bad one from 1."""
    if not isinstance(attributes, Sequence) or isinstance(attributes, str):
        raise BadList("no_list")
    if len(attributes) > MOST_ATTRIBUTES:
        raise BadList("too_many", limit=MOST_ATTRIBUTES)
    kept: list[dict[str, str]] = []
    for number, one in enumerate(attributes, start=1):
        key, label = _checked_attribute(number, one)
        if any(key == other["key"] for other in kept):
            raise BadList("twice", number=number, key=key)
        kept.append({"key": key, "label": label})
    return kept


def _checked_attribute(number: int, one: object) -> tuple[str, str]:
    if not isinstance(one, Mapping) or set(one) != {"key", "label"}:
        raise BadList("no_object", number=number)
    key, label = one["key"], one["label"]
    if not isinstance(key, str) or not _KEY.fullmatch(key):
        raise BadList("bad_key", number=number)
    if not isinstance(label, str) or not is_name(label, LONGEST_LABEL):
        raise BadList("bad_label", number=number, limit=LONGEST_LABEL)
    return key, label


# --- languages and skills


def parse_names(text: str) -> list[str]:
    """Names with commas between them (those of Chinese too), each once, as typed."""
    parts = (" ".join(part.split()) for part in _COMMAS.split(text))
    return list(dict.fromkeys(part for part in parts if part))


def checked_languages(names: Iterable[str]) -> list[str]:
    """Language codes, each once; anything else is a `BadList`."""
    codes = list(dict.fromkeys(names))
    for code in codes:
        if len(code) > 10 or not _LANGUAGE.fullmatch(code):
            raise BadList("bad_language", name=code[:20])
    return _not_too_many(codes)


def checked_skills(names: Iterable[str]) -> list[str]:
    """Names of skills, each once; one that no prompt could carry is a `BadList`."""
    skills = list(dict.fromkeys(names))
    for skill in skills:
        if not is_name(skill, LONGEST_SKILL):
            raise BadList("bad_skill", name=skill[:20], limit=LONGEST_SKILL)
    return _not_too_many(skills)


def _not_too_many(names: list[str]) -> list[str]:
    if len(names) > MOST_NAMES:
        raise BadList("too_many", limit=MOST_NAMES)
    return names


def is_name(text: str, longest: int) -> bool:
    """Whether this is one line of printable text that a database can keep."""
    return 0 < len(text) <= longest and text.isprintable() and text == text.strip()
