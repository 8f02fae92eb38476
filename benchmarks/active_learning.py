"""How many labels does ranking the disputed sets first save? `./run bench active_learning`

Replays real rankings as if they came in one after the other. Both ways begin with the same few
sets; then, batch after batch, one takes sets at random and the other the sets about which an
ensemble fitted to the labels so far disagrees most, by the rule and the bands of the product, with
a fifth taken at random all the same. After every batch the ensemble's mean is tested on prompts
that no label was taken from.

Choices
- Heads on frozen features stand in for reward models (`_replay.py`, `_heads.py`), so that hundreds
  of them are fitted in minutes. What is measured is the choice of labels, not the model.
- The ridge is chosen once for each data set, by cross-validation on all labels of the pool, the
  same for both ways.
- HH-RLHF has a test file; of Open-Assistant's trees a third is held out anew by every seed, and
  since they are few they get four times as many seeds.
- Intervals are percentiles over 2,000 resamples of seeds and, at once, of test conversations.

    ./run bench active_learning --json docs/measured/active_learning.json
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)  # before anything else: here lies a queue.py that is not Python's

import argparse
import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

# Small products gain nothing from threads that wait for one another.
os.environ.setdefault("OMP_NUM_THREADS", "2")

import numpy as np

from benchmarks._heads import (
    Pairs,
    choose_ridge,
    fit_ensemble,
    outcomes,
    pairs_of,
    principal,
    surprise,
)
from benchmarks._replay import Floats, Missing, Set, features, read_hh, read_oasst
from labelhub.assignments.rules import priority_band
from labelhub.rounds.rules import disagreement

WAYS = ("uniform", "active")
GRID = (10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0, 10_000.0, 30_000.0)
RESAMPLES = 2000


@dataclass(frozen=True)
class Task:
    """One data set: its sets, which of them a test may hold, and the budgets to stop at."""

    name: str
    about: str
    sets: list[Set]
    rows: list[Floats]
    fixed_test: int  # so many sets at the end are the test; 0: a third of the groups by the seed
    budgets: tuple[int, ...]

    def part(self, seed: int) -> tuple[list[int], list[int]]:
        """(pool, test) as numbers of sets; no conversation is on both sides."""
        everything = range(len(self.sets))
        if self.fixed_test:
            border = len(self.sets) - self.fixed_test
            return list(everything[:border]), list(everything[border:])
        groups = sorted({one.group for one in self.sets})
        held = set(np.random.default_rng(seed).permutation(groups)[: len(groups) // 3])
        return (
            [n for n in everything if self.sets[n].group not in held],
            [n for n in everything if self.sets[n].group in held],
        )


@dataclass
class Curve:
    """What one way learned with one seed: sums by test conversation after every budget."""

    right: dict[str, list[float]] = field(default_factory=dict)
    nats: dict[str, list[float]] = field(default_factory=dict)
    pairs: dict[str, int] = field(default_factory=dict)


# --- data


def tasks(only: Sequence[str]) -> list[Task]:
    """The data sets by name, with their features."""
    makers = {"hh_rlhf": _hh, "oasst_en_trees": _oasst_en, "oasst_zh_rank": _oasst_zh}
    return [makers[name]() for name in makers if name in only]


def _hh() -> Task:
    pool = read_hh("helpful-online.test") + read_hh("helpful-rejection-sampled.test")
    test = read_hh("helpful-base.dev")
    rows = features("hh_train", pool) + features("hh_test", test)
    budgets = (100, 200, 300, 400, 500, 600, 800, 1000, 1200, 1600, 2000)
    about = (
        f"pairs, {len(pool)} to label (online, rejection-sampled), {len(test)} to test on (base)"
    )
    return Task("hh_rlhf", about, pool + test, rows, len(test), budgets)


def _oasst_en() -> Task:
    sets = read_oasst("oasst_en_trees/ranked.jsonl")
    about = f"{len(sets)} sets of 2 to 9 answers, a third of 100 conversations to test on"
    return Task(
        "oasst_en_trees", about, sets, features("oasst_en", sets), 0, (20, 40, 60, 80, 100, 120)
    )


def _oasst_zh() -> Task:
    sets = read_oasst("oasst_zh_rank/ranked.dev.jsonl.gz")
    about = f"{len(sets)} sets of 2 to 10 answers, a third of 188 conversations to test on"
    return Task(
        "oasst_zh_rank",
        about,
        sets,
        features("oasst_zh", sets),
        0,
        (20, 40, 60, 80, 100, 120, 160, 200),
    )


# --- one replay


def replay(task: Task, way: str, seed: int, members: int, floor: float, ridge: float) -> Curve:
    """Label batch after batch; the test's outcome after each."""
    pool, test = task.part(seed)
    rows = principal(task.rows, pool)
    ranks = [next(iter(one.ranks.values())) for one in task.sets]
    known = pairs_of([rows[n] for n in pool], [ranks[n] for n in pool])
    asked = pairs_of([rows[n] for n in test], [ranks[n] for n in test])
    groups = [task.sets[n].group for n in test]
    # Both ways start from the same sets and draw the same members as long as they agree.
    dice = np.random.default_rng([seed, 1])
    order = dice.permutation(len(pool))
    chosen = list(order[: task.budgets[0]])
    curve = Curve()
    for budget, following in zip(task.budgets, [*task.budgets[1:], None], strict=True):
        heads = fit_ensemble(known.of(chosen), len(chosen), ridge, members, dice)
        note(curve, asked, groups, heads.mean(0))
        if following is None:
            break
        rest = [n for n in order if n not in set(chosen)]
        if way == "active":
            chosen += disputed(rest, rows, pool, heads, following - budget, floor, dice)
        else:
            chosen += rest[: following - budget]
    return curve


def disputed(
    rest: Sequence[int],
    rows: Sequence[Floats],
    pool: Sequence[int],
    heads: Floats,
    count: int,
    floor: float,
    dice: np.random.Generator,
) -> list[int]:
    """The next `count` sets: a share of `floor` at random, the others by band of disagreement."""
    uniform = list(dice.permutation(np.asarray(rest))[: round(floor * count)])
    left = sorted(set(rest) - set(uniform))
    bands = {n: priority_band(disagreement((rows[pool[n]] @ heads.T).tolist()), 0) for n in left}
    shuffled = dice.permutation(np.asarray(left))  # ties within a band break at random
    return uniform + sorted(shuffled, key=lambda n: -bands[n])[: count - len(uniform)]


def note(curve: Curve, asked: Pairs, groups: Sequence[str], head: Floats) -> None:
    """Add one test of the head to the curve, by conversation."""
    owner = asked.ranking[asked.target == 1]
    results = zip(owner, outcomes(asked, head), surprise(asked, head), strict=True)
    right: dict[str, float] = dict.fromkeys(groups, 0.0)
    nats: dict[str, float] = dict.fromkeys(groups, 0.0)
    pairs: dict[str, int] = dict.fromkeys(groups, 0)
    for number, hit, loss in results:
        right[groups[number]] += float(hit)
        nats[groups[number]] += float(loss)
        pairs[groups[number]] += 1
    for group in pairs:
        curve.right.setdefault(group, []).append(right[group])
        curve.nats.setdefault(group, []).append(nats[group])
    curve.pairs = pairs


# --- figures


def compare(task: Task, curves: dict[str, list[Curve]], seed: int = 0) -> dict[str, Any]:
    """Accuracy and loss by budget, their differences and the label saving, with intervals."""
    names = sorted({group for curve in curves["uniform"] for group in curve.pairs})
    tables = {way: _tables(curves[way], names) for way in WAYS}
    dice = np.random.default_rng(seed)
    seeds = len(curves["uniform"])
    whole = figures(task.budgets, tables, np.ones(seeds), np.ones(len(names)))
    drawn = [
        figures(
            task.budgets,
            tables,
            dice.multinomial(seeds, np.full(seeds, 1 / seeds)),
            dice.multinomial(len(names), np.full(len(names), 1 / len(names))),
        )
        for _ in range(RESAMPLES)
    ]
    return {
        "about": task.about,
        "budgets": list(task.budgets),
        "pairs_tested": [sum(curve.pairs.values()) for curve in curves["uniform"]],
        **{key: _interval(key, whole, drawn) for key in whole},
    }


Tables = tuple[Floats, Floats, Floats]


def _tables(curves: Sequence[Curve], names: Sequence[str]) -> Tables:
    """(seeds, groups, budgets) right answers and nats, (seeds, groups) pairs; 0 where absent."""
    budgets = len(next(iter(curves[0].right.values())))
    zeros = [0.0] * budgets
    right = np.array([[curve.right.get(name, zeros) for name in names] for curve in curves])
    nats = np.array([[curve.nats.get(name, zeros) for name in names] for curve in curves])
    pairs = np.array([[curve.pairs.get(name, 0) for name in names] for curve in curves])
    return right, nats, pairs.astype(np.float64)


def figures(
    budgets: Sequence[int], tables: dict[str, Tables], seeds: Any, groups: Any
) -> dict[str, Floats]:
    """Every figure with these weights of seeds and test conversations."""
    found: dict[str, Floats] = {}
    for way in WAYS:
        right, nats, pairs = tables[way]
        tested = pairs @ groups
        tested = np.where(tested == 0, 1, tested)
        share = seeds / seeds.sum()
        found[way] = share @ (np.einsum("sgb,g->sb", right, groups) / tested[:, None])
        found[f"{way}_nats"] = share @ (np.einsum("sgb,g->sb", nats, groups) / tested[:, None])
    later = slice(1, None)  # both ways have the same first batch
    found["difference"] = found["active"] - found["uniform"]
    found["mean_difference"] = np.atleast_1d(found["difference"][later].mean())
    less = found["uniform_nats"] - found["active_nats"]
    found["mean_nats_saved"] = np.atleast_1d(less[later].mean())
    found["label_saving"] = np.atleast_1d(saving(budgets, found["uniform"], found["active"]))
    found["label_saving_by_nats"] = np.atleast_1d(
        saving(budgets, -found["uniform_nats"], -found["active_nats"])
    )
    return found


def saving(budgets: Sequence[int], uniform: Floats, active: Floats) -> float:
    """Share of the labels that active learning saves on the way to the same quality.

    Of the two ends the lower one is the goal: 1 − (labels that active needs) / (labels that uniform
    needs), with both curves made rising (isotonic) and straight lines between budgets. Below 0:
    active needs more.
    """
    one, other = isotonic(uniform), isotonic(active)
    goal = min(one[-1], other[-1])
    return 1 - _labels(budgets, other, goal) / _labels(budgets, one, goal)


def _labels(budgets: Sequence[int], curve: Floats, goal: float) -> float:
    """The least number of labels with which a rising curve reaches the goal."""
    place = int(np.argmax(curve >= goal - 1e-12))
    if place == 0:
        return float(budgets[0])
    low, high = curve[place - 1], curve[place]
    step = (goal - low) / (high - low) if high > low else 1.0
    return float(budgets[place - 1] + step * (budgets[place] - budgets[place - 1]))


def isotonic(values: Floats) -> Floats:
    """The rising sequence nearest to the values in squares (pool adjacent violators)."""
    blocks: list[list[float]] = []
    for value in values:
        blocks.append([float(value), 1.0])
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            (mean, count), (other, more) = blocks[-2:]
            blocks[-2:] = [[(mean * count + other * more) / (count + more), count + more]]
    return np.concatenate([np.full(int(count), mean) for mean, count in blocks])


def _interval(key: str, whole: dict[str, Floats], drawn: Sequence[dict[str, Floats]]) -> Any:
    low, high = np.quantile(np.stack([one[key] for one in drawn]), [0.025, 0.975], axis=0)
    rows = [
        {"value": round(float(v), 4), "ci95": [round(float(a), 4), round(float(b), 4)]}
        for v, a, b in zip(whole[key], low, high, strict=True)
    ]
    return rows[0] if len(rows) == 1 else rows


# --- the page


def table(results: dict[str, Any]) -> str:
    """The figures as Markdown."""
    lines = [
        f"{results['members']} members, {results['floor']:.0%} of each batch at random. Held-out "
        "pair accuracy in per cent (95 %)."
    ]
    for name, entry in results["data"].items():
        about = f"{entry['about']}; {entry['seeds']} seeds, ridge {entry['ridge']:g}"
        lines += ["", f"{name}: {about}.", ""]
        lines += ["| labels | uniform | active | active − uniform |", "|---|---|---|---|"]
        for place, budget in enumerate(entry["budgets"]):
            one, other, apart = (entry[key][place] for key in ("uniform", "active", "difference"))
            lines.append(
                f"| {budget} | {_percent(one)} | {_percent(other)} | {_percent(apart, sign=True)} |"
            )
        lines += [
            "",
            f"Label saving {_percent(entry['label_saving'], sign=True)} %; by held-out loss "
            f"{_percent(entry['label_saving_by_nats'], sign=True)} %. Mean difference "
            f"{_percent(entry['mean_difference'], sign=True)} points of accuracy, "
            f"{_number(entry['mean_nats_saved'])} nats a pair saved.",
        ]
    return "\n".join(lines)


def _percent(figure: dict[str, Any], *, sign: bool = False) -> str:
    form = "{:+.1f}" if sign else "{:.1f}"
    value, low, high = (form.format(100 * x) for x in (figure["value"], *figure["ci95"]))
    return f"{value} ({low} to {high})"


def _number(figure: dict[str, Any]) -> str:
    value, low, high = (f"{x:+.4f}" for x in (figure["value"], *figure["ci95"]))
    return f"{value} ({low} to {high})"


def main() -> int:
    """Replay every data set with every seed and print what came of it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--members", type=int, default=8, help="heads of the ensemble")
    parser.add_argument("--floor", type=float, default=0.2, help="share of a batch at random")
    parser.add_argument("--data", nargs="+", default=["hh_rlhf", "oasst_en_trees", "oasst_zh_rank"])
    parser.add_argument("--json", type=Path, help="keep the figures in this file")
    options = parser.parse_args()
    try:
        found = tasks(options.data)
    except Missing as missing:
        sys.stderr.write(f"{missing}\n")
        return 1
    begun = time.monotonic()
    results: dict[str, Any] = {
        "members": options.members, "floor": options.floor, "data": {}
    }  # fmt: skip
    for task in found:
        seeds = options.seeds * (1 if task.fixed_test else 4)
        results["data"][task.name] = measure(task, seeds, options.members, options.floor)
        sys.stderr.write(f"{task.name}: {time.monotonic() - begun:.0f} s so far\n")
    results["seconds"] = round(time.monotonic() - begun)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(table(results))
    return 0


def measure(task: Task, seeds: int, members: int, floor: float) -> dict[str, Any]:
    """All replays of one data set."""
    pool, _ = task.part(0)
    rows = principal(task.rows, pool)
    ranks = [next(iter(one.ranks.values())) for one in task.sets]
    known = pairs_of([rows[n] for n in pool], [ranks[n] for n in pool])
    groups = [task.sets[n].group for n in pool]
    ridge = choose_ridge(known, groups, GRID)
    curves = {
        way: [replay(task, way, seed, members, floor, ridge) for seed in range(seeds)]
        for way in WAYS
    }
    return {"seeds": seeds, "ridge": ridge, **compare(task, curves)}


if __name__ == "__main__":
    sys.exit(main())
