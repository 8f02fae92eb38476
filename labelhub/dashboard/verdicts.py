"""What came of a blind comparison, in words and in a picture; for rounds and for any two versions.

Nothing is said while people are still asked: a comparison that is watched is one that is closed at
the right moment, and then its interval no longer means 95 %.
"""

from __future__ import annotations

from dataclasses import dataclass

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from labelhub.lib.charts import DotPlot, Estimate, Mark, dot_plot
from labelhub.lib.figures import with_error
from labelhub.rounds.estimates import WinRate
from labelhub.rounds.models import Comparison
from labelhub.rounds.verdicts import Verdict


@dataclass(frozen=True)
class Said:
    """A closed comparison as a page shows it."""

    verdict: Verdict
    tone: str  # good, unclear or bad
    sentence: str
    warning: str
    remark: str
    picture: DotPlot | None


def said_of(verdict: Verdict | None) -> Said | None:
    """The words and the picture; None before the comparison is closed."""
    if verdict is None or verdict.comparison.state != Comparison.State.CLOSED:
        return None
    tones = {"promote": "good", "reject": "bad"}
    return Said(
        verdict=verdict,
        tone=tones.get(verdict.people.advice, "unclear"),
        sentence=sentence_of(verdict),
        warning=(
            _("The reward model likes %(after)s better, people do not (yet).")
            % {"after": verdict.comparison.after.name}
            if verdict.parted
            else ""
        ),
        remark=remark_of(verdict),
        picture=picture_of(verdict),
    )


def sentence_of(verdict: Verdict) -> str:
    """What people prefer, as far as the interval tells."""
    names = {"after": verdict.comparison.after.name, "before": verdict.comparison.before.name}
    return {
        "promote": _("People prefer %(after)s: the whole interval lies above 50\u00a0%%."),
        "reject": _("People prefer %(before)s: the whole interval lies below 50\u00a0%%."),
        "unclear": _("It is not clear which people prefer: the interval holds 50\u00a0%%."),
        "": _("Nobody compared them, so there is nothing to say about what people prefer."),
    }[verdict.people.advice] % names


def remark_of(verdict: Verdict) -> str:
    """What the figures were made from."""
    words = [
        ngettext("%(n)d opinion on %(pairs)d pairs.", "%(n)d opinions on %(pairs)d pairs.",
                 verdict.done) % {"n": verdict.done, "pairs": verdict.pairs}
    ]  # fmt: skip
    if verdict.same:
        words.append(
            ngettext(
                "On %(n)d pair both wrote the same: a tie that nobody was asked about.",
                "On %(n)d pairs both wrote the same: ties that nobody was asked about.",
                verdict.same,
            )
            % {"n": verdict.same}
        )
    if verdict.both:
        words.append(
            _("Where both have a favourite, people and the reward model agree on %(a)d of %(b)d.")
            % {"a": verdict.alike, "b": verdict.both}
        )
    return " ".join(words)


def picture_of(verdict: Verdict) -> DotPlot | None:
    """Both win rates with their intervals around ½."""
    rates = ((_("People, blind"), verdict.people, "c"), (_("Reward model"), verdict.reward, "a"))
    return dot_plot(
        f"verdict-{verdict.comparison.pk}",
        [_estimate(name, rate, tone) for name, rate, tone in rates if rate.n],
        title=_("How often the newer one wins"),
        unit=_("share of the same pairs; a tie is half a win"),
        marks=[Mark(0.5, _("no difference"))],
        within=(0, 1),
        percent=True,
        note=_("Whiskers: Wilson's 95 % interval over prompts; with ties it is a little wide."),
    )


def _estimate(name: str, rate: WinRate, tone: str) -> Estimate:
    counted = _("%(wins)d won, %(ties)d tied, %(losses)d lost") % {
        "wins": rate.wins,
        "ties": rate.ties,
        "losses": rate.losses,
    }
    words = with_error(rate.value, rate.bounds, percent=True)
    return Estimate(f"{name} ({counted})", rate.value or 0.0, words, rate.bounds, tone)
