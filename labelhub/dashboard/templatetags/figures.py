"""Numbers in templates, by the rules of `lib/figures.py`."""

from __future__ import annotations

from datetime import datetime

from django import template

from labelhub.lib import figures
from labelhub.rounds.queries import Gain

register = template.Library()


@register.filter
def plain(value: float | None, digits: int = 3) -> str:
    """`{{ kl|plain:2 }}`: significant digits, a dash for what is missing."""
    return figures.plain(value, digits) if isinstance(value, (int, float)) else "–"


@register.filter
def count(value: int) -> str:
    """`{{ version.parameters|count }}`: 134 515 008."""
    return figures.count(value)


@register.filter
def duration(seconds: float | None) -> str:
    """`{{ seconds|duration }}`: 40 s, 6 min, 2 h 10 min; a dash for what is missing."""
    return figures.duration(seconds) or "–"


@register.filter
def left(seconds: float | None) -> str:
    """`{{ run.eta_seconds|left }}`: about 6 min left."""
    return figures.time_left(seconds)


@register.filter
def between(start: datetime | None, end: datetime | None) -> str:
    """`{{ run.started|between:run.ended }}`: how long it took."""
    return figures.duration((end - start).total_seconds()) if start and end else "–"


@register.filter
def gain(value: Gain | None) -> str:
    """`{{ outcome.gain|gain }}`: with its sign and interval."""
    return figures.with_error(value.value, value.bounds, sign=True) if value else "–"


@register.filter
def score(value: float | None) -> str:
    """`{{ pair.score_after|score }}`: two places, since a single score has no interval."""
    return figures.fixed(value, 2) if value is not None else "–"


@register.filter
def difference(value: float | None) -> str:
    """`{{ pair.gain|difference }}`: two places and always a sign."""
    return figures.fixed(value, 2, sign=True) if value is not None else "–"


@register.simple_tag
def share_with_error(value: float | None, bounds: tuple[float, float] | None) -> str:
    """`{% share_with_error accuracy bounds %}`: 68 % ± 3, a dash for what is missing."""
    return figures.with_error(value, bounds, percent=True) if value is not None else "–"
