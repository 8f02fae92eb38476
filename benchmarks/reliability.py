"""Does weighing annotators by their reliability make better reward heads? `./run bench reliability`

377 sources with ten translations each, ranked by three of eight professional raters (WMT 2023 MQM,
Chinese to English). Heads are fitted to the rankings of two thirds of the documents, first with all
raters counting alike, then with the weights that the product takes from how the raters agree
(`rankings/consensus.py`), and tested on the other documents against the raters' majority. The same
again with one or three raters spoilt: their rankings replaced by random ones, or turned round. All
that with three opinions on every set, and with three on a fifth of the sets and one on each other,
which is how projects are set up. `known` leaves the spoilt raters out: what a perfect estimate
could gain.

Choices
- Heads on frozen features of SmolLM2 stand in for reward models (`_replay.py`, `_heads.py`).
- Weights are estimated on the training documents alone, from the same rankings that train.
- The test is never corrupted. A pair that no majority orders is not counted.
- Intervals are percentiles over 2,000 resamples of seeds and, at once, of documents.

    ./run bench reliability --json docs/measured/reliability.json
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)  # before anything else: here lies a queue.py that is not Python's

import argparse
import json
import os
import time
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "2")

import numpy as np

from benchmarks._heads import Pairs, choose_ridge, fit_head, pairs_of, principal
from benchmarks._replay import Floats, Missing, Set, features, read_mqm
from labelhub.rankings.consensus import reliabilities, weights_of

WAYS = ("alike", "weighed", "known")
SPOILT = (("none", 0), ("random", 1), ("random", 3), ("turned", 1), ("turned", 3))
SHARED = (1.0, 0.2)
GRID = (30.0, 100.0, 300.0, 1000.0, 3000.0, 10_000.0)
RESAMPLES = 2000


class Opinion(NamedTuple):
    """One ranking of one set by one rater."""

    set: int
    rater: str
    ranks: tuple[int, ...]


Scores = dict[str, tuple[float, int]]  # document → (right pairs, pairs)


def part(sets: Sequence[Set], seed: int) -> tuple[list[int], list[int]]:
    """(training, test) as numbers of sets: a third of the documents is held out."""
    documents = sorted({one.group for one in sets})
    held = set(np.random.default_rng(seed).permutation(documents)[: len(documents) // 3])
    numbers = range(len(sets))
    return (
        [n for n in numbers if sets[n].group not in held],
        [n for n in numbers if sets[n].group in held],
    )


def opinions(
    sets: Sequence[Set],
    training: Sequence[int],
    shared: float,
    spoilt: Mapping[str, str],
    seed: int,
) -> list[Opinion]:
    """What is trained on: three opinions on a share of the sets and one on each other set.

    The `spoilt` raters order at random, with as many ties as they made, or the wrong way round.
    """
    dice = np.random.default_rng([seed, 2])
    several = set(dice.permutation(np.asarray(training))[: round(shared * len(training))])
    found = []
    for number in training:
        raters = sorted(sets[number].ranks)
        asked = raters if number in several else [raters[int(dice.integers(len(raters)))]]
        for rater in asked:
            ranks = np.asarray(sets[number].ranks[rater])
            if spoilt.get(rater) == "random":
                ranks = dice.permutation(ranks)
            elif spoilt.get(rater) == "turned":
                ranks = ranks.max() + 1 - ranks
            found.append(Opinion(number, rater, tuple(ranks.tolist())))
    return found


def weigh(given: Sequence[Opinion]) -> tuple[dict[str, float], dict[str, float]]:
    """(reliability, weight) of each rater, from the rankings alone."""
    orders: dict[str, list[dict[tuple[int, int], int]]] = {}
    for number, rater, ranks in given:
        order = {(number, answer): rank for answer, rank in enumerate(ranks)}
        orders.setdefault(rater, []).append(order)
    reliability = reliabilities(orders)
    counts = {rater: len(some) for rater, some in orders.items()}
    return reliability, weights_of(reliability, counts)


def majority(sets: Sequence[Set], test: Sequence[int], rows: Sequence[Floats]) -> Any:
    """(differences better − worse, owner) of the test's pairs by what most raters prefer."""
    difference, owner = [], []
    for number in test:
        orders = list(sets[number].ranks.values())
        for i, j in combinations(range(len(sets[number].texts)), 2):
            votes = sum(np.sign(order[j] - order[i]) for order in orders)
            if votes:
                difference.append((rows[number][i] - rows[number][j]) * np.sign(votes))
                owner.append(sets[number].group)
    return np.array(difference), owner


def run_seed(
    sets: Sequence[Set], rows: Sequence[Floats], seed: int, ridge: float
) -> dict[str, dict[str, Any]]:
    """All settings with one split: by setting, the scores of each way and the estimates."""
    training, test = part(sets, seed)
    turned = principal(rows, training)
    asked, owner = majority(sets, test, turned)
    raters = sorted({rater for one in sets for rater in one.ranks})
    order = np.random.default_rng([seed, 3]).permutation(raters)
    found: dict[str, dict[str, Any]] = {}
    for shared in SHARED:
        for how, count in SPOILT:
            spoilt = {str(rater): how for rater in order[:count]}
            given = opinions(sets, training, shared, spoilt, seed)
            reliability, weights = weigh(given)
            known = {rater: float(rater not in spoilt) for rater in raters}
            ways = {"alike": dict.fromkeys(raters, 1.0), "weighed": weights, "known": known}
            found[f"{shared}/{how}/{count}"] = {
                "reliability": {
                    "honest": [eta for one, eta in reliability.items() if one not in spoilt],
                    "spoilt": [eta for one, eta in reliability.items() if one in spoilt],
                },
                **{
                    way: _test(given, turned, each, ridge, asked, owner)
                    for way, each in ways.items()
                },
            }
    return found


def _test(
    given: Sequence[Opinion],
    rows: Sequence[Floats],
    weights: Mapping[str, float],
    ridge: float,
    asked: Floats,
    owner: Sequence[str],
) -> Scores:
    """Fit a head with these weights of raters and count its right pairs by document."""
    head = fit_head(pooled(given, rows, weights), np.ones(1), ridge, np.zeros(rows[0].shape[1]))
    right: Scores = dict.fromkeys(owner, (0.0, 0))
    for document, hit in zip(owner, (np.sign(asked @ head) + 1) / 2, strict=True):
        sum_, count = right[document]
        right[document] = (sum_ + float(hit), count + 1)
    return right


def pooled(given: Sequence[Opinion], rows: Sequence[Floats], weights: Mapping[str, float]) -> Pairs:
    """The pairs of all opinions with what all raters together say of each, as one ranking.

    Opinions on one pair have one loss, w₁ · ℓ(t₁) + w₂ · ℓ(t₂) = (w₁ + w₂) · ℓ(mean of t by w), so
    a third of the rows does. Weights have a mean of 1, as in the trainer: the ridge then means the
    same whatever they are.
    """
    mean = np.mean([weights[one.rater] for one in given])
    counts: dict[tuple[int, int, int], list[float]] = {}
    for number, rater, ranks in given:
        share = weights[rater] / mean / (len(ranks) * (len(ranks) - 1) / 2)
        for i, j in combinations(range(len(ranks)), 2):
            cell = counts.setdefault((number, i, j), [0.0, 0.0])
            cell[0] += share
            cell[1] += share * (1 + np.sign(ranks[j] - ranks[i])) / 2
    kept = {key: cell for key, cell in counts.items() if cell[0] > 0}
    difference = np.array([rows[number][i] - rows[number][j] for number, i, j in kept])
    share, for_first = np.array(list(kept.values())).T
    return Pairs(difference, for_first / share, np.zeros(len(kept), dtype=np.int64), share)


# --- figures


def compare(runs: Sequence[dict[str, dict[str, Any]]]) -> list[dict[str, Any]]:
    """One entry a setting: each way's accuracy and what weighing gains, with intervals."""
    documents = sorted({name for one in runs for name in one["1.0/none/0"]["alike"]})
    dice = np.random.default_rng(0)
    draws = [
        (
            dice.multinomial(len(runs), np.full(len(runs), 1 / len(runs))),
            dice.multinomial(len(documents), np.full(len(documents), 1 / len(documents))),
        )
        for _ in range(RESAMPLES)
    ]
    entries = []
    for key in runs[0]:
        shared, how, count = key.split("/")
        tables = {way: _table([one[key][way] for one in runs], documents) for way in WAYS}
        whole = figures(tables, np.ones(len(runs)), np.ones(len(documents)))
        drawn = [figures(tables, *draw) for draw in draws]
        estimates = [one[key]["reliability"] for one in runs]
        entries.append(
            {
                "three_opinions_on": float(shared),
                "spoilt": how,
                "raters_spoilt": int(count),
                **{name: _figure(value, [one[name] for one in drawn])
                   for name, value in whole.items()},
                "reliability_of_honest": _range([e for one in estimates for e in one["honest"]]),
                "reliability_of_spoilt": _range([e for one in estimates for e in one["spoilt"]]),
            }
        )  # fmt: skip
    return entries


def _table(scores: Sequence[Scores], documents: Sequence[str]) -> tuple[Floats, Floats]:
    """(seeds, documents) right pairs and pairs; a document that was trained on has none."""
    cells = [[one.get(name, (0.0, 0)) for name in documents] for one in scores]
    table = np.array(cells, dtype=np.float64)
    return table[..., 0], table[..., 1]


def figures(
    tables: Mapping[str, tuple[Floats, Floats]], seeds: Any, documents: Any
) -> dict[str, float]:
    """Accuracies and gains with these weights of seeds and documents."""
    found: dict[str, float] = {}
    for way, (right, pairs) in tables.items():
        tested = pairs @ documents
        found[way] = float(seeds @ (right @ documents / np.maximum(tested, 1)) / seeds.sum())
    found["gain"] = found["weighed"] - found["alike"]
    found["possible_gain"] = found["known"] - found["alike"]
    return found


def _figure(value: float, drawn: Sequence[float]) -> dict[str, Any]:
    low, high = np.quantile(drawn, [0.025, 0.975])
    return {"value": round(value, 4), "ci95": [round(float(low), 4), round(float(high), 4)]}


def _range(values: Sequence[float]) -> list[float] | None:
    """[least, mean, most]."""
    if not values:
        return None
    return [round(float(x), 3) for x in (min(values), np.mean(values), max(values))]


# --- the page


def table(results: dict[str, Any]) -> str:
    """The figures as Markdown."""
    lines = [
        f"{results['seeds']} seeds, {results['sets']} sets, {results['raters']} raters; ridge "
        f"{results['ridge']:g}. Held-out pair accuracy against the majority, per cent (95 %).",
        "",
        "| three opinions on | spoilt raters | alike | weighed | weighed − alike "
        "| without the spoilt − alike | reliability: honest; spoilt |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in results["settings"]:
        cells = [
            f"{one['three_opinions_on']:.0%} of the sets",
            f"{one['raters_spoilt']} of {results['raters']} {one['spoilt']}".replace(" none", ""),
            _percent(one["alike"]),
            _percent(one["weighed"]),
            _percent(one["gain"], "+"),
            _percent(one["possible_gain"], "+"),
            "; ".join(_spread(one[f"reliability_of_{kind}"]) for kind in ("honest", "spoilt")),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _percent(figure: dict[str, Any], sign: str = "") -> str:
    value, low, high = (f"{100 * x:{sign}.1f}" for x in (figure["value"], *figure["ci95"]))
    return f"{value} ({low} to {high})"


def _spread(values: list[float] | None) -> str:
    return f"{values[1]:.2f} ({values[0]:.2f} to {values[2]:.2f})" if values else "none"


def main() -> int:
    """Fit and test every setting with every seed and print what came of it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="keep the figures in this file")
    options = parser.parse_args()
    begun = time.monotonic()
    try:
        sets = read_mqm()
        rows = features("wmt", sets)
    except Missing as missing:
        sys.stderr.write(f"{missing}\n")
        return 1
    ridge = whole_ridge(sets, rows)
    runs = [run_seed(sets, rows, seed, ridge) for seed in range(options.seeds)]
    results = {
        "seeds": options.seeds,
        "sets": len(sets),
        "raters": len({rater for one in sets for rater in one.ranks}),
        "ridge": ridge,
        "settings": compare(runs),
        "seconds": round(time.monotonic() - begun),
    }
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(table(results))
    return 0


def whole_ridge(sets: Sequence[Set], rows: Sequence[Floats]) -> float:
    """The ridge of all settings: cross-validation over documents on every true ranking."""
    given = [(n, ranks) for n, one in enumerate(sets) for ranks in one.ranks.values()]
    turned = principal(rows, range(len(sets)))
    pairs = pairs_of([turned[n] for n, _ in given], [ranks for _, ranks in given])
    return choose_ridge(pairs, [sets[n].group for n, _ in given], GRID)


if __name__ == "__main__":
    sys.exit(main())
