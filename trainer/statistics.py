"""Figures that reports show, each with its uncertainty. NumPy only, float64, deterministic.

Choices
- Pairs of one prompt are not independent, so intervals count prompts, not pairs: the variance of a
  ratio over clusters gives an effective number of pairs, and Wilson's interval is taken at that
  number (Korn & Graubard 1998). Unlike a bootstrap it stays honest at 0 % and 100 %.
- A score difference of exactly 0 is half right.
- What cannot be computed is None, never 0: a mean of nothing, a correlation with a constant.
Not here: anything about models or files.
"""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Z95 = NormalDist().inv_cdf(0.975)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its 95 % interval and the number of observations behind it."""

    value: float
    low: float
    high: float
    n: int

    @property
    def ci95(self) -> list[float]:
        return [self.low, self.high]


def wilson(successes: float, n: float, z: float = Z95) -> tuple[float, float]:
    """Score interval of a proportion (Wilson 1927); `n` may be an effective, fractional number."""
    if n <= 0:
        return 0.0, 1.0
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def clustered_share(outcomes: ArrayLike, clusters: Sequence[Hashable]) -> Estimate | None:
    """Mean of outcomes in [0, 1] with an interval that knows which of them belong together.

    Ratio estimator over G clusters (Cochran 1977, §2.11 with finite-sample factor):
        var = G/(G−1) · Σ_g (s_g − p·n_g)² / N²
    design effect = var / (p(1−p)/N), at least 1; effective N = N / design effect · (z/t_{G−1})².
    At p = 0 or 1 nothing is known about the design effect: then one cluster counts as one
    observation.
    """
    values = np.asarray(outcomes, dtype=np.float64)
    if values.size == 0:
        return None
    sums, sizes = _cluster_sums(values, clusters)
    n, groups = values.size, len(sizes)
    p = float(values.mean())
    if groups < 2 or p in (0.0, 1.0):
        effective = float(groups)
    else:
        variance = groups / (groups - 1) * float(np.sum((sums - p * sizes) ** 2)) / n**2
        effect = max(1.0, variance / (p * (1 - p) / n))
        effective = n / effect
    effective *= (Z95 / t95(groups - 1)) ** 2
    low, high = wilson(p * effective, effective)
    return Estimate(p, low, high, n)


def clustered_ratio(sums: ArrayLike, sizes: ArrayLike) -> Estimate | None:
    """Σ sums / Σ sizes, both by cluster, with an interval that counts clusters; `n` is how many.

    One cluster alone says nothing of the spread: its interval is everything.
    Ratio estimator (Cochran 1977, §2.11): r ± t · √(G/(G−1) · Σ_g (s_g − r·n_g)²) / Σ_g n_g.
    """
    s, n = np.asarray(sums, dtype=np.float64), np.asarray(sizes, dtype=np.float64)
    groups, total = len(s), float(n.sum())
    if not total:
        return None
    ratio = float(s.sum()) / total
    if groups < 2:
        return Estimate(ratio, -math.inf, math.inf, groups)
    error = math.sqrt(groups / (groups - 1) * float(np.sum((s - ratio * n) ** 2))) / total
    half = t95(groups - 1) * error
    return Estimate(ratio, ratio - half, ratio + half, groups)


def perplexity(loss: float) -> float:
    """e to the loss in nats a token; what is beyond a float's reach stays at its edge."""
    return math.exp(min(loss, 700.0))


def _cluster_sums(values: Floats, clusters: Sequence[Hashable]) -> tuple[Floats, Floats]:
    """Sum and size of each cluster: two arrays (G,)."""
    index = _numbered(clusters)
    sums = np.bincount(index, weights=values).astype(np.float64)
    return sums, np.bincount(index).astype(np.float64)


def _numbered(clusters: Sequence[Hashable]) -> NDArray[np.int64]:
    """A number for each cluster, in the order in which they come: (n,)."""
    number = {cluster: place for place, cluster in enumerate(dict.fromkeys(clusters))}
    return np.array([number[cluster] for cluster in clusters], dtype=np.int64)


def t95(degrees: int) -> float:
    """97.5 % point of Student's t (Abramowitz & Stegun 26.7.5; below 5 degrees from the table)."""
    table = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776}
    if degrees < 1:
        return table[1]
    if degrees in table:
        return table[degrees]
    z, v = Z95, float(degrees)
    return (
        z
        + (z**3 + z) / (4 * v)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * v**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * v**3)
    )


def pair_outcomes(difference: ArrayLike) -> Floats:
    """1 where the better answer scored higher, 0 where lower, ½ where equal: (p,) → (p,)."""
    return (np.sign(np.asarray(difference, dtype=np.float64)) + 1) / 2


def kendall_tau_b(a: ArrayLike, b: ArrayLike) -> float | None:
    """Rank correlation with ties (Kendall 1945): (C − D) / √((n₀ − n₁)(n₀ − n₂)); None when one
    side is all tied.

    For the few answers of a ranking: all pairs are compared, n² numbers.
    """
    x, y = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    upper = np.triu_indices(len(x), k=1)
    dx = np.sign(x[:, None] - x[None, :])[upper]
    dy = np.sign(y[:, None] - y[None, :])[upper]
    scale = math.sqrt(np.count_nonzero(dx) * np.count_nonzero(dy))
    return float(np.sum(dx * dy)) / scale if scale else None


@dataclass(frozen=True, slots=True)
class Bin:
    """One point of a reliability plot: pairs whose confidence lies between `low` and `high`."""

    low: float
    high: float
    confidence: float
    accuracy: float
    pairs: int
    ci95: list[float]  # of the accuracy


def reliability(
    difference: ArrayLike, bins: int = 10, clusters: Sequence[Hashable] | None = None
) -> list[Bin]:
    """Confidence against accuracy of the predicted winner of each pair; empty bins are left out.

    `difference` (p,) is r_better − r_worse in the model's own units (Bradley–Terry: its log-odds).
    The winner's probability is σ(|d|), so bins of equal width part [½, 1]. `clusters` says which
    pairs belong together; without it each stands alone.
    """
    d = np.asarray(difference, dtype=np.float64)
    owners = np.arange(d.size) if clusters is None else _numbered(clusters)
    confidence = 1 / (1 + np.exp(-np.abs(d)))
    outcome = pair_outcomes(d)
    edges = np.linspace(0.5, 1.0, bins + 1)
    place = np.clip(np.digitize(confidence, edges) - 1, 0, bins - 1)
    points = []
    for number in range(bins):
        inside = place == number
        share = clustered_share(outcome[inside], owners[inside].tolist())
        if share is not None:
            low, high = float(edges[number]), float(edges[number + 1])
            mean = float(confidence[inside].mean())
            points.append(Bin(low, high, mean, share.value, share.n, share.ci95))
    return points


def expected_calibration_error(points: Sequence[Bin]) -> float | None:
    """Mean of |accuracy − confidence| over pairs (Naeini et al. 2015; Guo et al. 2017, eq. 3)."""
    total = sum(point.pairs for point in points)
    if not total:
        return None
    return sum(point.pairs * abs(point.accuracy - point.confidence) for point in points) / total


def paired_bootstrap(
    before: ArrayLike, after: ArrayLike, *, seed: int = 0, resamples: int = 10_000
) -> Estimate | None:
    """Mean of after − before with a percentile interval over resampled pairs (Efron & Tibshirani
    1993, ch. 13).

    One pair is one prompt: average several answers of a prompt before. A single prompt has no
    interval (±∞ is written as the value itself would lie, so None is returned).
    """
    gain = np.asarray(after, dtype=np.float64) - np.asarray(before, dtype=np.float64)
    if gain.size < 2:
        return None
    return _bootstrap_mean(gain, seed, resamples)


def bootstrap_mean(values: ArrayLike, *, seed: int = 0, resamples: int = 10_000) -> Estimate | None:
    """Mean with a percentile bootstrap interval; None for fewer than two values."""
    numbers = np.asarray(values, dtype=np.float64)
    return _bootstrap_mean(numbers, seed, resamples) if numbers.size >= 2 else None


def _bootstrap_mean(values: Floats, seed: int, resamples: int) -> Estimate:
    random = np.random.default_rng(seed)
    n = values.size
    counts = random.multinomial(n, np.full(n, 1 / n), size=resamples)  # (resamples, n)
    low, high = np.quantile(counts @ values / n, [0.025, 0.975])
    return Estimate(float(values.mean()), float(low), float(high), n)


def distinct(answers: Sequence[Sequence[Hashable]], n: int) -> float | None:
    """Different runs of n words divided by all such runs of all answers together (Li et al. 2016).

    It falls as the answers grow longer, whoever writes them: compare it with the lengths beside it.
    """
    runs = [run for answer in answers for run in zip(*(answer[i:] for i in range(n)), strict=False)]
    return len(set(runs)) / len(runs) if runs else None


# best of n, and what leaving the reference buys -------------------------------------------------


def best_of_kl(n: int) -> float:
    """log n − (n − 1)/n: nats a reply that picking the best of n moves a policy by, at most
    (Stiennon et al. 2020; an upper bound: Beirami et al. 2024).
    """
    return math.log(n) - (n - 1) / n


def best_of_weights(m: int, n: int) -> Floats:
    """Chance of each of m sorted values to be the highest of n drawn without replacement: (m,).

    The i-th lowest is it in C(i − 1, n − 1) of C(m, n) draws (Nakano et al. 2021, appendix I).
    """
    if not 1 <= n <= m:
        raise ValueError(f"best of {n} cannot be estimated from {m} answers")
    return np.array([math.comb(i, n - 1) for i in range(m)], dtype=np.float64) / math.comb(m, n)


def best_of(chosen_by: ArrayLike, n: int, values: ArrayLike | None = None) -> Floats:
    """Unbiased estimate of what the best of n answers brings, for each prompt: (p,).

    `chosen_by` (p, m) are the scores that choose; `values` (p, m) what is then counted, the same
    scores when not given. Answers of equal score are chosen equally often.
    """
    scores = np.asarray(chosen_by, dtype=np.float64)
    counted = scores if values is None else np.asarray(values, dtype=np.float64)
    weights = best_of_weights(scores.shape[1], n)
    found = np.empty(len(scores))
    for row, (one, worth) in enumerate(zip(scores, counted, strict=True)):
        _, place, sizes = np.unique(one, return_inverse=True, return_counts=True)
        ends = np.cumsum(sizes)
        share = np.array(
            [weights[end - size : end].mean() for end, size in zip(ends, sizes, strict=True)]
        )
        found[row] = float(share[place] @ worth)
    return found


@dataclass(frozen=True, slots=True)
class GaoCurve:
    """R(d) = start + d(α − βd) for best of n, start + d(α − β log d) for reinforcement learning;
    d = √KL (Gao, Schulman & Hilton 2022, §3.1).
    """

    kind: str  # "bon" or "rl"
    start: float
    alpha: float
    beta: float
    points: int
    residual: float  # root of the mean squared distance of the points

    def at(self, d: float) -> float:
        """Score at d."""
        bend = d if self.kind == "bon" else math.log(d) if d > 0 else 0.0
        return self.start + d * (self.alpha - self.beta * bend)

    @property
    def best_kl(self) -> float | None:
        """KL at which the curve is highest; None where it only rises, or only falls.

        R′ = α − 2βd for best of n: d* = α/2β. R′ = α − β − β log d otherwise: d* = exp(α/β − 1).
        """
        if self.beta <= 0 or (self.kind == "bon" and self.alpha <= 0):
            return None
        if self.kind == "bon":
            power = 2 * math.log(self.alpha / (2 * self.beta))
        else:
            power = 2 * (self.alpha / self.beta - 1)
        return math.exp(power) if power < 50 else None  # e⁵⁰ nats: as good as never


def fit_gao(
    kl: ArrayLike, score: ArrayLike, kind: str, start: float | None = None
) -> GaoCurve | None:
    """Least squares through points (KL, score); None where they do not decide the curve.

    The curve is linear in start, α and β. `start` is the score at KL 0 where it is known.
    """
    d = np.sqrt(np.maximum(np.asarray(kl, dtype=np.float64), 0.0))
    values = np.asarray(score, dtype=np.float64)
    log = np.log(np.where(d > 0, d, 1.0))
    columns = [d, -d * d if kind == "bon" else -d * log]
    if start is None:
        columns.insert(0, np.ones_like(d))
    matrix = np.stack(columns, axis=1) if d.size else np.empty((0, len(columns)))
    if np.linalg.matrix_rank(matrix) < len(columns):
        return None
    wanted = values - (start or 0.0)
    found = np.linalg.lstsq(matrix, wanted, rcond=None)[0]
    residual = math.sqrt(float(np.mean((matrix @ found - wanted) ** 2)))
    begin = float(found[0]) if start is None else start
    return GaoCurve(kind, begin, float(found[-2]), float(found[-1]), int(d.size), residual)
