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
    bins = reliability(difference, clusters=clusters)
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


def ensemble_report(
    rankings: Sequence[Ranking],
    outputs: Sequence[Any],
    normalisation: Normalisation,
    members: int,
) -> dict[str, Any]:
    """Figures of the M members of an ensemble.

    `outputs` are the raw scores of each ranking's answers, (K, 1 + M): the mean's stand first.

    The spread is the standard deviation over the members of a pair's difference of normalised
    scores, mean over all pairs: what all of them add to both answers decides nothing. It is large
    where scores lie far apart, too, so the pairs are parted in two by what the members disagree
    about, which is the order: `by_disagreement` has the accuracy of the mean where the mutual
    information of outcome and member is below and above that of the middle pair.
    """
    pairs = pairs_of(rankings)
    flat = np.array([list(row) for some in outputs for row in some], dtype=np.float64)
    flat = flat.reshape(-1, 1 + members)
    difference = flat[pairs.better.numpy()] - flat[pairs.worse.numpy()]  # (p, 1 + M)
    spread = difference[:, 1:].std(1) / normalisation.std
    untied = (~pairs.tied).numpy()
    prompts = [prompt_hash(one.messages) for one in rankings]
    clusters = [prompts[number] for number in pairs.ranking.numpy()[untied]]
    right = pair_outcomes(difference[untied])  # (p, 1 + M)
    disputed = _information(difference[untied, 1:])
    torn = disputed > np.median(disputed) if clusters else []
    return {
        "members": members,
        "spread": float(spread.mean()) if spread.size else None,
        "pair_accuracy": right[:, 1:].mean(0).tolist() if clusters else [None] * members,
        "by_disagreement": _by(right[:, 0], clusters, ["more" if one else "less" for one in torn]),
    }


def _information(odds: Any) -> Any:
    """H(mean p) − mean H(p), p = σ(odds) over the members of (p, M): (p,) nats (Houlsby 2011)."""
    p = 1 / (1 + np.exp(-np.clip(odds, -30, 30)))

    def entropy(q: Any) -> Any:
        return -q * np.log(q) - (1 - q) * np.log1p(-q)

    return entropy(p.mean(1)) - entropy(p).mean(1)


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
