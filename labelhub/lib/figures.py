"""Numbers as words: each with the digits that its uncertainty deserves. Pure.

A figure without an interval keeps three significant digits at most; a figure with one is rounded to
the first digit of the interval's half width (two when that digit is a 1). What is missing or not
finite is never printed as a number: it says "too few" or is left out.
"""

from __future__ import annotations

import math

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

MINUS = "−"
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def decimals_for(half: float) -> int:
    """Decimal places that leave a half width one significant digit, two if it is a 1."""
    if half <= 0 or not math.isfinite(half):
        return 2
    place = math.floor(math.log10(half))
    leading = math.floor(half / 10**place + 1e-9)
    # 0.0996 is printed as 0.10: what counts is the digit that will be read.
    if round(half / 10**place) >= 10:
        place, leading = place + 1, 1
    return max(0, min(6, -place + (1 if leading == 1 else 0)))


def plain(value: float | None, digits: int = 3) -> str:
    """A number at `digits` significant digits, without trailing noise: 0.0123, 1.5, 480, 12 400.

    What is very small or very large is written with a power of ten: 5.6 × 10⁻⁵.
    """
    if value is None or not math.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    size = math.floor(math.log10(abs(value)))
    if digits <= size < 9:
        return _signed(f"{value:,.0f}".replace(",", "\u202f"))
    if not -4 <= size < 9:
        figures, _e, power = f"{value:.{digits - 1}e}".partition("e")
        return f"{_signed(_shorn(figures))}\u202f×\u202f10{str(int(power)).translate(_RAISED)}"
    return _signed(_shorn(f"{value:.{max(0, digits - 1 - size)}f}"))


def _shorn(text: str) -> str:
    """A number without zeros that say nothing behind its point."""
    return text.rstrip("0").rstrip(".") if "." in text else text


def count(value: int) -> str:
    """A whole number with thin spaces between its thousands: 12 400."""
    return _signed(f"{value:,}".replace(",", "\u202f"))


def fixed(value: float, places: int, *, sign: bool = False) -> str:
    """A number with fixed decimal places and a real minus sign; a rounded zero has no sign."""
    rounded = round(value, places) + 0.0
    return _signed(f"{rounded:+.{places}f}" if sign and rounded else f"{rounded:.{places}f}")


def _signed(text: str) -> str:
    return text.replace("-", MINUS)


def with_error(
    value: float | None,
    bounds: tuple[float, float] | None,
    *,
    percent: bool = False,
    sign: bool = False,
) -> str:
    """`0.63 ± 0.04`; a skewed interval is written out: `0.95 (0.84 to 0.98)`."""
    if value is None or not math.isfinite(value):
        return _("too few")
    scale, unit = (100.0, "\u202f%") if percent else (1.0, "")
    if bounds is None:
        places = 0 if percent else 2
        return fixed(value * scale, places, sign=sign) + unit
    low, high = bounds[0] * scale, bounds[1] * scale
    places = decimals_for((high - low) / 2)
    text = fixed(value * scale, places, sign=sign)
    if _is_skewed(value * scale, low, high):
        return _("%(value)s%(unit)s (%(low)s to %(high)s)") % {
            "value": text,
            "unit": unit,
            "low": fixed(low, places, sign=sign),
            "high": fixed(high, places, sign=sign),
        }
    return f"{text}{unit} ±\u00a0{fixed((high - low) / 2, places)}"


def _is_skewed(value: float, low: float, high: float) -> bool:
    """Whether one arm of the interval is more than a quarter longer than the other."""
    below, above = value - low, high - value
    return min(below, above) < 0.8 * max(below, above)


def time_left(seconds: float | None) -> str:
    """A duration that is still to come, coarser the longer it is: about 40 s, 6 min, 2 h 10 min."""
    if seconds is None or not math.isfinite(seconds) or seconds < 0:
        return ""
    if seconds < 90:
        # A countdown by fives: nobody can promise a second.
        return _("about %(n)d s left") % {"n": max(5, 5 * round(seconds / 5))}
    return _("about %(time)s left") % {"time": duration(seconds)}


def duration(seconds: float | None) -> str:
    """A length of time in at most two units."""
    if seconds is None or not math.isfinite(seconds):
        return ""
    seconds = max(0, round(seconds))
    if seconds < 90:
        return _("%(n)d s") % {"n": seconds}
    minutes = round(seconds / 60)
    if minutes < 90:
        return _("%(n)d min") % {"n": minutes}
    hours, rest = divmod(minutes, 60)
    if hours < 36:
        return _("%(h)d h %(m)d min") % {"h": hours, "m": rest}
    days = round(hours / 24)
    return ngettext("%(n)d day", "%(n)d days", days) % {"n": days}
