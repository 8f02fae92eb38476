"""What does a nat of KL buy? PPO beside best of n, RLOO and DPO. `./run bench ppo_frontier`

A model answers prompts, a simulated annotator with a hidden preference ranks the answers, and from
the same rankings come a reward model and then every policy: PPO and RLOO at several weights of the
KL penalty, DPO at several β, fine-tuning on the best of four. Each answers held-out prompts; the
hidden preference, which no trainer saw, is compared with the untrained model's on the same random
numbers. Best of n itself is read from the untrained model's own answers: the one that the reward
model prefers among n, at a KL of log n − (n − 1)/n at most. So is the optimum, the most that any
policy scores at a KL: those answers with weights of e^(score/β).

    ./run bench ppo_frontier [--model smollm2] [--seeds 0 1 2] [--keep FOLDER]

Figures of a seed that is run again replace the old ones in docs/measured/ppo_frontier.json, the
others stay, so seeds can be run one at a time; `--table` prints what is there.

Choices
- Every stage is run through a run folder, as by hand.
- The question is answered at the KL of best of 4: PPO's gain there, on the line against √KL between
  its own points on both sides of it (and no gain at no KL), less that of best of 4, seed by seed.
  Gains begin as √KL does (Gao et al. 2023).
- Of all policies of a KL the one that scores most is π_ref · e^(score/β), one β for all prompts
  (Korbak et al. 2022): what a method lacks to it was lost in training. From so many answers a
  prompt it comes out a little low (.004 with 64 at the KL of best of 4, on four times as many).
- The reward model's own score is kept beside the hidden preference: whether something was lost in
  climbing the reward or in the reward is another matter.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)  # before anything else: here lies a queue.py that is not Python's

import argparse
import json
import math
import random
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from statistics import fmean
from typing import Any

import numpy as np

from benchmarks import _figures
from benchmarks._figures import mean_of, stored
from benchmarks._hidden import ranked
from benchmarks._stages import lines_of, prompts_of, run, write
from labelhub.autopilot.preferences import PREFERENCES
from trainer.statistics import best_of, best_of_kl

#: the (score, hidden utility) of each of a prompt's answers
Own = list[tuple[float, float]]

FIGURES = ROOT / "docs" / "measured" / "ppo_frontier.json"
ANSWERS, TOKENS, HELDOUT = 4, 32, 64
#: answers to each held-out prompt: of a policy, and of the untrained model for the best of n
TESTED, FRONTIER = 16, 64
#: how they are written and read; what comes out does not depend on the batch
TESTING = {
    "answers": TESTED, "max_new_tokens": TOKENS, "batch_size": 256, "token_budget": 4096,
}  # fmt: skip
#: best of these n is shown
BEST_OF = (2, 4, 8, 16)
PPO: dict[str, Any] = {
    "steps": 20, "max_new_tokens": TOKENS, "samples": 0, "kl_budget": 0.0,
}  # fmt: skip
#: as many set it, and as our defaults were: the policy ends up moving about the optimum
CONSTANT = PPO | {"lr_schedule": "constant", "lam": 0.95}
RLOO = {"method": "rloo", "steps": 40, "max_new_tokens": TOKENS, "samples": 0, "batch_size": 32}
DPO = {"method": "dpo", "samples": 0, "lr": 3e-4}
BEST = {"max_new_tokens": TOKENS, "epochs": 3, "lr": 1e-3, "samples": 0}
#: name → method, stage, settings
POLICIES: dict[str, tuple[str, str, dict[str, Any]]] = {
    **{f"ppo β {beta:g}": ("ppo", "ppo", PPO | {"kl_coef": beta}) for beta in (1.0, 0.7, 0.5, 0.2)},
    **{
        f"ppo, constant rate, λ .95, β {beta:g}": (
            "ppo, constant rate",
            "ppo",
            CONSTANT | {"kl_coef": beta},
        )
        for beta in (1.0, 0.3)
    },
    **{
        f"rloo β {beta:g}": ("rloo", "prefer", RLOO | {"kl_coef": beta, "lr": 1e-3})
        for beta in (0.3, 0.1)
    },
    **{f"dpo β {beta:g}": ("dpo", "prefer", DPO | {"beta": beta}) for beta in (0.3, 0.1)},
    "fine-tuned on the best of 4": ("best of 4, tuned", "bestofn", BEST),
}


def main() -> int:
    """Run the seeds that are asked for, keep their figures, print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--prompts", type=int, default=224, help="prompts that are trained on")
    parser.add_argument("--preference", default="positive", choices=sorted(PREFERENCES))
    parser.add_argument("--only", nargs="+", help="policies by the beginning of their names")
    parser.add_argument("--keep", type=Path, help="a folder for the run folders")
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    for seed in [] if options.table else options.seeds:
        with folder_of(options.keep) as folder:
            keep(options.model, seed, run_seed(folder / f"{options.model}-{seed}", options, seed))
    print(table(stored(FIGURES).get(options.model, {})))
    return 0


@contextmanager
def folder_of(named: Path | None) -> Iterator[Path]:
    """The folder that was named, or one that goes away."""
    if named is not None:
        yield named.resolve()
        return
    with tempfile.TemporaryDirectory(prefix="labelhub-frontier-") as name:
        yield Path(name)


# --- one seed -----------------------------------------------------------------------------------


def run_seed(folder: Path, options: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Rankings, a reward model and every policy; the figures of each."""
    prompts, heldout = split_prompts(options.model, options.prompts, seed)
    data = folder / "data"
    write(data / "prompts.jsonl", prompts)
    write(data / "heldout.jsonl", heldout)
    answers = run(
        folder / "answers", "generate", {"answers": ANSWERS, "max_new_tokens": TOKENS},
        {"policy": options.model, "prompts": str(data / "prompts.jsonl")}, seed,
    )  # fmt: skip
    write(
        data / "rankings.jsonl",
        ranked(lines_of(answers), options.preference, random.Random(seed)),
    )
    rankings = str(data / "rankings.jsonl")
    reward = run(
        folder / "reward", "reward", {}, {"base": options.model, "rankings": rankings}, seed
    )
    accuracy = json.loads((reward / "report.json").read_text())["pair_accuracy"]
    points: dict[str, Any] = {}
    for name, (method, stage, config) in POLICIES.items():
        if options.only and not name.startswith(tuple(options.only)):
            continue
        inputs = {"policy": options.model, "prompts": str(data / "prompts.jsonl")}
        inputs |= {"reward": str(reward)}
        if method == "dpo":
            inputs = {"policy": options.model, "rankings": rankings}
        where = folder / name.replace(" ", "-")
        policy = run(where, stage, config, inputs, seed)
        asked = {
            "policy": str(policy), "reference": options.model, "reward": str(reward),
            "prompts": str(data / "heldout.jsonl"),
        }  # fmt: skip
        settings = TESTING if points else TESTING | {"frontier": FRONTIER}
        tested = run(where / "test", "evaluate", settings, asked, seed)
        if not points:
            own = own_answers(lines_of(tested), options.preference)
        points[name] = {"method": method, **figures_of(tested, options.preference, own)}
        sys.stderr.write(f"seed {seed}, {name}: {told(points[name])}\n")
    return {
        "prompts": len(prompts), "pair_accuracy": accuracy, "points": points,
        "best_of": frontier(own),
        "optimum": {str(n): optimum(own, best_of_kl(n)) for n in BEST_OF},
    }  # fmt: skip


def split_prompts(model: str, count: int, seed: int) -> tuple[list[Any], list[Any]]:
    """(prompts to train on, held-out ones); a model with words of its own brings its prompts."""
    lines = prompts_of(model)
    random.Random(seed).shuffle(lines)
    return lines[HELDOUT : HELDOUT + count], lines[:HELDOUT]


def figures_of(tested: Path, preference: str, own: Sequence[Own]) -> dict[str, Any]:
    """What a policy gains at which KL, and the most that was to be had there."""
    report = json.loads((tested / "report.json").read_text())
    return {
        "kl": report["kl"],
        "hidden": gain(utilities(lines_of(tested), preference)),
        "score": report["score_after"] - report["score_before"],
        "optimum": optimum(own, report["kl"]),
    }


def utilities(lines: Sequence[dict[str, Any]], preference: str) -> dict[str, list[float]]:
    """Mean hidden utility of each prompt's first answers, by model, in one order of prompts."""
    found: dict[str, dict[str, list[float]]] = {}
    for line in lines:
        found.setdefault(line["model"], {}).setdefault(line["prompt_id"], []).append(
            PREFERENCES[preference].utility(line["text"])
        )
    prompts = sorted(found["policy"])
    return {
        model: [fmean(own[prompt][:TESTED]) for prompt in prompts] for model, own in found.items()
    }


def gain(hidden: dict[str, list[float]]) -> float:
    """Mean hidden utility of the policy less that of the untrained model."""
    return fmean(hidden["policy"]) - fmean(hidden["reference"])


def own_answers(lines: Sequence[dict[str, Any]], preference: str) -> list[Own]:
    """The untrained model's answers, prompt by prompt."""
    sets: dict[str, Own] = {}
    for line in lines:
        if line["model"] == "reference":
            utility = PREFERENCES[preference].utility(line["text"])
            sets.setdefault(line["prompt_id"], []).append((line["score"], utility))
    return list(sets.values())


def frontier(sets: Sequence[Own]) -> dict[str, Any]:
    """What choosing the reward model's favourite of n own answers gains, at what KL at most."""
    own = np.array(sets)  # (prompts, answers, 2): score and utility
    scores, utilities = own[..., 0], own[..., 1]
    return {
        str(n): {
            "kl": best_of_kl(n),
            "score": float(best_of(scores, n).mean() - scores.mean()),
            "hidden": float(best_of(scores, n, utilities).mean() - utilities.mean()),
        }
        for n in BEST_OF
    }


def optimum(sets: Sequence[Own], kl: float) -> dict[str, float]:
    """The most that any policy scores at this mean KL, and the hidden gain of that policy.

    It is π_ref · e^(score/β); its KL falls as β grows, so log β is found by halving.
    """
    low, high = -5.0, 5.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if tilted(sets, math.exp(middle))[0] > kl else (low, middle)
    beta = math.exp(high)
    found, score, hidden = tilted(sets, beta)
    zero = means([one for some in sets for one in some])
    return {"kl": found, "beta": beta, "score": score - zero[0], "hidden": hidden - zero[1]}


def means(pairs: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Of (score, utility) pairs each."""
    return fmean(one[0] for one in pairs), fmean(one[1] for one in pairs)


def tilted(sets: Sequence[Own], beta: float) -> tuple[float, float, float]:
    """(KL, score, utility) of π_ref · e^(score/β), estimated by weights on π_ref's own answers."""
    kls, pairs = [], []
    for some in sets:
        top = max(score for score, _ in some)
        weights = [math.exp((score - top) / beta) for score, _ in some]
        shares = [weight / sum(weights) for weight in weights]
        kls.append(sum(share * math.log(share * len(some)) for share in shares if share))
        pairs.append(weighted(some, shares))
    return fmean(kls), *means(pairs)


def weighted(pairs: Sequence[tuple[float, float]], shares: Sequence[float]) -> tuple[float, float]:
    """Mean of (score, utility) pairs with these weights, whose sum is 1."""
    score, utility = (
        sum(share * one[which] for share, one in zip(shares, pairs, strict=True))
        for which in (0, 1)
    )
    return score, utility


# --- figures ------------------------------------------------------------------------------------


def keep(model: str, seed: int, found: dict[str, Any]) -> None:
    """Put a seed's figures in place of its old ones; policies that were left out stay, unless the
    reward model is another one by now.
    """
    old = stored(FIGURES).get(model, {}).get(str(seed), {})
    same = old.get("pair_accuracy") == found["pair_accuracy"]
    points = {name: one for name, one in old["points"].items() if name in POLICIES} if same else {}
    _figures.keep(FIGURES, [model, str(seed)], found | {"points": points | found["points"]})


def at_kl(points: Sequence[dict[str, float]], kl: float, figure: str) -> float | None:
    """The gain at this KL, straight against √KL through a method's points and no gain at no KL.

    None where the method did not go so far.
    """
    gains = [(math.sqrt(max(one["kl"], 0.0)), one[figure]) for one in points]
    line, place = sorted([(0.0, 0.0), *gains]), math.sqrt(kl)
    for (low, below), (high, above) in pairwise(line):
        if low <= place <= high:
            share = (place - low) / (high - low) if high > low else 1.0
            return below + share * (above - below)
    return None


def table(seeds: dict[str, Any]) -> str:
    """The figures as Markdown: a line for each policy, then the comparison with best of n."""
    if not seeds:
        return "Nothing measured yet."
    accuracy = ", ".join(f"{one['pair_accuracy']:.3f}" for one in seeds.values())
    lines = [
        f"{len(seeds)} seeds; the reward models order {accuracy} of their held-out pairs rightly.",
        "",
        "| policy | KL, nats a reply | score gain | hidden gain | of the optimum at its KL: score "
        "| hidden |",
        "|---|---|---|---|---|---|",
    ]
    for n in map(str, BEST_OF):
        some = [one["best_of"][n] | {"optimum": one["optimum"][n]} for one in seeds.values()]
        lines.append(f"| best of {n} | ≤ {some[0]['kl']:.2f} | {_cells(some)} |")
    for name in POLICIES:
        some = [one["points"][name] for one in seeds.values() if name in one["points"]]
        if some:
            lines.append(f"| {name} | {mean_of([one['kl'] for one in some])} | {_cells(some)} |")
    return "\n".join([*lines, "", *comparison(seeds)])


def comparison(seeds: dict[str, Any]) -> list[str]:
    """Each method's gain at the KL of best of n, less that of best of n; the optimum's, too."""
    lines = ["| at the KL of | method | score, less that of best of n | hidden, the same |",
             "|---|---|---|---|"]  # fmt: skip
    measured = {point["method"] for one in seeds.values() for point in one["points"].values()}
    known = ("ppo", "ppo, constant rate", "rloo", "dpo")
    methods = ["optimum", *(one for one in known if one in measured)]
    for n in ("2", "4", "8"):
        for method in methods:
            cells = []
            for figure in ("score", "hidden"):
                found = [beside(one, method, n, figure) for one in seeds.values()]
                differences = [one for one in found if one is not None]
                cells.append(mean_of(differences) if differences else "not reached")
            lines.append(f"| best of {n} | {method} | {' | '.join(cells)} |")
    return lines


def beside(seed: dict[str, Any], method: str, n: str, figure: str) -> float | None:
    """A method's gain at the KL of best of n, less that of best of n; None if it is not reached."""
    best = seed["best_of"][n]
    if method == "optimum":
        return float(seed["optimum"][n][figure] - best[figure])
    own = [one for one in seed["points"].values() if one["method"] == method]
    there = at_kl(own, best["kl"], figure)
    return None if there is None else there - best[figure]


def _cells(points: Sequence[dict[str, Any]]) -> str:
    """Gains, and what share they are of the optimum's at the same KL."""
    figures = ("score", "hidden")
    gains = [[one[figure] for one in points] for figure in figures]
    shares = [[one[figure] / one["optimum"][figure] for one in points] for figure in figures]
    return " | ".join(map(mean_of, [*gains, *shares]))


def told(point: dict[str, Any]) -> str:
    """One policy in half a line."""
    return f"KL {point['kl']:.2f}, score {point['score']:+.3f}, hidden {point['hidden']:+.3f}"


if __name__ == "__main__":
    sys.exit(main())
