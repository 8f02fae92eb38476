"""The figures of a run's report in the reader's language, each with its unit and its interval.

`FIGURES` is the whole list of figures that have a name for people, the chief ones first; a number
that is not in it is shown all the same, under the trainer's own name. What is no number is drawn as
a picture or stands among the settings.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from labelhub.lib.figures import count, plain, with_error
from labelhub.runs.queries import interval, number

Bounds = tuple[float, float] | None


def _share(value: float, bounds: Bounds) -> str:
    return with_error(value, bounds, percent=True)


def _gain(value: float, bounds: Bounds) -> str:
    return with_error(value, bounds, sign=True)


def _measure(value: float, bounds: Bounds) -> str:
    return with_error(value, bounds) if bounds else plain(value)


def _score(value: float, bounds: Bounds) -> str:
    return with_error(value, bounds)


def _count(value: float, _bounds: Bounds) -> str:
    return count(round(value))


@dataclass(frozen=True)
class Said:
    """How one figure of a report is told: its name, how it is written, where its interval is."""

    title: str | Promise
    written: Callable[[float, Bounds], str] = _measure
    interval: str = ""


@dataclass(frozen=True)
class Row:
    """One figure on a page; `key` is the trainer's name for it."""

    key: str
    title: str
    figure: str


FIGURES: dict[str, Said] = {
    # how good a reward model is
    "pair_accuracy": Said(_("held-out pairs in the right order"), _share, "ci95"),
    "length_baseline": Said(_("the same by length alone"), _share),
    "kendall_tau_b": Said(_("rank correlation (Kendall's τ-b)")),
    "ece": Said(_("calibration error")),
    "ece_calibrated": Said(_("calibration error with its temperature")),
    "margin": Said(_("mean margin, log-odds")),
    "train_pair_accuracy": Said(_("training pairs in the right order"), _share),
    "temperature": Said(_("temperature of its scores")),
    # how good a policy is
    "gain": Said(_("gain in score"), _gain, "ci95_of_gain"),
    "heldout_gain": Said(_("gain in score, held out"), _gain, "ci95_of_heldout_gain"),
    "win_rate": Said(_("pairs won by the new policy"), _share),
    "wins": Said(_("won"), _count),
    "ties": Said(_("tied"), _count),
    "losses": Said(_("lost"), _count),
    "score_before": Said(_("score before"), _score),
    "score_after": Said(_("score after"), _score),
    "mean_score": Said(_("mean score of all answers"), _score),
    "best_score": Said(_("mean score of the winners"), _score),
    "kl": Said(_("KL from the reference, nats a reply")),
    "kl_bound": Said(_("KL of choosing at most, nats a reply")),
    "eos_rate": Said(_("answers that come to their end"), _share),
    "length": Said(_("length of an answer, tokens")),
    # how well text is foretold
    "perplexity_before": Said(_("perplexity before, a token")),
    "perplexity": Said(_("perplexity, a token")),
    "heldout_loss_before": Said(_("held-out loss before, nats a token")),
    "heldout_loss": Said(_("held-out loss, nats a token")),
    "bits_per_byte": Said(_("bits a byte")),
    # scores as they came
    "score_mean": Said(_("mean of the scores"), _score),
    "score_std": Said(_("standard deviation of the scores"), _score),
    # from how much
    "pairs": Said(_("held-out pairs"), _count),
    "tied_pairs": Said(_("tied pairs, left out"), _count),
    "rankings": Said(_("held-out rankings"), _count),
    "prompts": Said(_("prompts"), _count),
    "answers": Said(_("answers"), _count),
    "winners": Said(_("winners"), _count),
    "train_rankings": Said(_("rankings learned"), _count),
    "train_pairs": Said(_("pairs learned"), _count),
    "heldout_pairs": Said(_("pairs held out"), _count),
    "train_prompts": Said(_("prompts learned on"), _count),
    "heldout_prompts": Said(_("prompts held out"), _count),
    "steps": Said(_("steps"), _count),
    "rankings_per_step": Said(_("rankings in a step"), _count),
    "lr": Said(_("peak learning rate")),
    "episodes": Said(_("answers learned from"), _count),
    "tokens": Said(_("tokens written"), _count),
    "train_tokens": Said(_("tokens of the text"), _count),
    "heldout_tokens": Said(_("tokens held out"), _count),
    "tokens_seen": Said(_("tokens seen in training"), _count),
    "vocabulary": Said(_("tokens of the tokenizer"), _count),
    "layers": Said(_("layers kept of the base"), _count),
    "parameters": Said(_("parameters"), _count),
    "trained_parameters": Said(_("parameters that learned"), _count),
}


def report_rows(report: dict[str, Any]) -> list[Row]:
    """The plain numbers of a report: those with a name in its order, then the others."""
    known = [key for key in FIGURES if number(report, key) is not None]
    others = sorted(key for key in report if key not in FIGURES and number(report, key) is not None)
    return [_row(report, key) for key in (*known, *others)]


def _row(report: dict[str, Any], key: str) -> Row:
    said = FIGURES.get(key, Said(key))
    bounds = interval(report, said.interval or f"{key}_ci95")
    return Row(key, str(said.title), said.written(number(report, key) or 0.0, bounds))
