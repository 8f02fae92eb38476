"""What is known about a reward model, as figures: read by people and drawn by the dashboard.

One shape for the report of the reward stage and of the evaluate stage. Every accuracy counts untied
pairs, carries its number of pairs and an interval that counts prompts, and is None where nothing
could be counted.
"""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import asdict
from itertools import combinations
from typing import Any

import numpy as np

from trainer.data import Ranking, pairs_of, prompt_hash
from trainer.scoring import Normalisation
from trainer.statistics import (
    Estimate,
    clustered_share,
    expected_calibration_error,
    kendall_tau_b,
    pair_outcomes,
    reliability,
)


def reward_report(
    rankings: Sequence[Ranking], raw: Sequence[Sequence[float]], normalisation: Normalisation
) -> dict[str, Any]:
    """Figures of a reward model on rankings, given the raw scores of each ranking's answers."""
    pairs = pairs_of(rankings)
    untied = (~pairs.tied).numpy()
    better, worse = pairs.better.numpy()[untied], pairs.worse.numpy()[untied]
    ranking = pairs.ranking.numpy()[untied]
    prompts = [prompt_hash(one.messages) for one in rankings]
    clusters = [prompts[number] for number in ranking]
    flat = np.array([score for scores in raw for score in scores], dtype=np.float64)
    length = np.array([len(text) for one in rankings for text in one.texts], dtype=np.float64)
    difference = flat[better] - flat[worse]
    right = pair_outcomes(difference)
    longer = pair_outcomes(length[better] - length[worse])
    bins = reliability(difference)
    taus = [kendall_tau_b(np.negative(r.ranks), s) for r, s in zip(rankings, raw, strict=True)]
    known = [tau for tau in taus if tau is not None]
    normal = np.array([normalisation.apply(score) for score in flat])
    baseline = _share(longer, clusters)
    return {
        **_share(right, clusters),
        "tied_pairs": int(pairs.tied.sum()),
        "rankings": len(rankings),
        "prompts": len(set(prompts)),
        "length_baseline": baseline["pair_accuracy"],
        "length_baseline_ci95": baseline["ci95"],
        "kendall_tau_b": float(np.mean(known)) if known else None,
        "ece": expected_calibration_error(bins),
        "reliability": [asdict(point) for point in bins],
        "by_gap": _by(right, clusters, pairs.distance.numpy()[untied].tolist()),
        "by_annotator": _by(right, clusters, [rankings[number].annotator for number in ranking]),
        "annotator_agreement": annotator_agreement(rankings),
        "score_mean": float(normal.mean()) if normal.size else None,
        "score_std": float(normal.std()) if normal.size else None,
    }


def _share(outcomes: Any, clusters: Sequence[Hashable]) -> dict[str, Any]:
    """An accuracy with interval and number, in the report's words."""
    estimate: Estimate | None = clustered_share(outcomes, clusters)
    if estimate is None:
        return {"pair_accuracy": None, "ci95": None, "pairs": 0}
    return {"pair_accuracy": estimate.value, "ci95": estimate.ci95, "pairs": estimate.n}


def _by(outcomes: Any, clusters: Sequence[Hashable], keys: Iterable[Any]) -> dict[str, Any]:
    """The accuracy of each part of the pairs."""
    parts: dict[Any, list[int]] = defaultdict(list)
    for place, key in enumerate(keys):
        parts[key].append(place)
    return {
        str(key): _share(outcomes[places], [clusters[place] for place in places])
        for key, places in sorted(parts.items())
    }


def annotator_agreement(rankings: Sequence[Ranking]) -> dict[str, Any] | None:
    """How often two annotators order a pair alike, where both put the same answers in some order.

    The ceiling for any model that learns from them. None where nobody ranked what another ranked.
    """
    sets: dict[tuple[str, frozenset[str]], list[Ranking]] = defaultdict(list)
    for one in rankings:
        sets[prompt_hash(one.messages), frozenset(one.answer_ids)].append(one)
    outcomes: list[float] = []
    clusters: list[Hashable] = []
    for (prompt, _), together in sets.items():
        for one, other in combinations(together, 2):
            if one.annotator != other.annotator:
                alike = _alike(one, other)
                outcomes += alike
                clusters += [prompt] * len(alike)
    share = _share(np.array(outcomes), clusters)
    if not share["pairs"]:
        return None
    return {"agreement": share["pair_accuracy"], "ci95": share["ci95"], "pairs": share["pairs"]}


def _alike(one: Ranking, other: Ranking) -> list[float]:
    """1 or 0 for each pair of answers that both rankings order."""
    mine = dict(zip(one.answer_ids, one.ranks, strict=True))
    theirs = dict(zip(other.answer_ids, other.ranks, strict=True))
    signs = (
        (mine[a] - mine[b]) * (theirs[a] - theirs[b]) for a, b in combinations(one.answer_ids, 2)
    )
    return [float(sign > 0) for sign in signs if sign]
