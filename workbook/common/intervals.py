"""Estimates with 95 % intervals: a bootstrap over episodes and seeds; exact ones for counts of successes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest, norm

from workbook.common.array import Array

RESAMPLES = 10_000
LEVEL = 0.95
POWER = 0.8


@dataclass(frozen=True)
class Estimate:
    """A figure, its 95 % interval (None where one episode allows none), and the figure of each seed or round."""

    mean: float | None
    low: float | None = None
    high: float | None = None
    per_seed: tuple[float, ...] = ()

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"per_seed": list(self.per_seed)}


def estimate_mean(values: Array, weights: Array) -> Estimate:
    """Weighted mean of values (S seeds, E episodes) with weights (E,); no figure where all weights are 0."""
    if weights.sum() == 0:
        return Estimate(None)
    sampled = _resampled_sums(values, weights)
    totals = _resampled_sums(np.ones_like(values), weights)
    per_seed = values @ weights / weights.sum()
    return _estimate(float(per_seed.mean()), np.divide(*_where_positive(sampled, totals)), values, per_seed)


def estimate_improvement(baseline: Array, candidate: Array, weights: Array) -> Estimate:
    """1 - candidate / baseline of the weighted means, paired by episode and seed.

    Both are (S, E); a baseline with one seed is paired with every seed of the candidate. A baseline without error
    cannot be improved on, and gives no figure.
    """
    baseline = np.broadcast_to(baseline, candidate.shape)
    if not (baseline @ weights).all():
        return Estimate(None)
    per_seed = 1 - (candidate @ weights) / (baseline @ weights)
    whole = 1 - (candidate @ weights).sum() / (baseline @ weights).sum()
    over, under = _where_positive(_resampled_sums(candidate, weights), _resampled_sums(baseline, weights))
    return _estimate(float(whole), 1 - over / under, candidate, per_seed)


def estimate_excess(over: Array, under: Array) -> Estimate:
    """Median of over / under - 1, paired measurement by measurement (M,), with a bootstrap interval of the median."""
    ratios = over / under - 1
    rng = np.random.default_rng(0)
    resampled = np.median(rng.choice(ratios, (RESAMPLES, len(ratios))), axis=1)
    return _estimate(float(np.median(ratios)), resampled, ratios[None], ratios)


def estimate_proportion(successes: int, trials: int) -> Estimate:
    """Share of successes with the exact binomial interval (Clopper and Pearson 1934); none of no trials."""
    if trials == 0:
        return Estimate(None)
    found = binomtest(successes, trials).proportion_ci(LEVEL, method="exact")
    return Estimate(successes / trials, float(found.low), float(found.high))


def estimate_gain(first: Array, second: Array) -> Estimate:
    """Share of successes of `second` minus that of `first`, paired by episode: (S, E) and (S', E), 1 for success.

    The interval is that of Bonett and Price (2012) for paired proportions, on the mean of each episode over seeds: two
    episodes are added, one that only `first` wins and one that only `second` does, so that it claims no certainty where
    no episode differs. The spread of the seeds' own shares is added to its variance.
    """
    gains = second.mean(axis=0) - first.mean(axis=0)
    if len(gains) == 0:
        return Estimate(None)
    padded = np.concatenate([gains, [1.0, -1.0]])
    variance = padded.var() / len(padded) + _spread_of_seeds(first) + _spread_of_seeds(second)
    half = float(norm.ppf((1 + LEVEL) / 2) * np.sqrt(variance))
    low, high = (float(np.clip(padded.mean() + end, -1, 1)) for end in (-half, half))
    return Estimate(float(gains.mean()), low, high, tuple(map(float, second.mean(axis=1) - first.mean())))


def _spread_of_seeds(success: Array) -> float:
    """Variance of the mean share over seeds (S, E), from how the seeds' shares differ."""
    shares = success.mean(axis=1)
    return float(shares.var(ddof=1) / len(shares)) if len(shares) > 1 else 0.0


def mcnemar_p(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    """Exact two-sided p of McNemar's test: how likely so uneven a count of trials that only one of them won is."""
    won, lost = int((second & ~first).sum()), int((first & ~second).sum())
    return 1.0 if won + lost == 0 else float(binomtest(won, won + lost).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """p values corrected for their number, in their order (Holm 1979): none is below what it was."""
    corrected, least = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = least
    return corrected


def detectable_gain(pairs: int, differing: int) -> float:
    """The difference of paired shares that McNemar's test shows in 80 of 100 studies of so many pairs, 1 at most.

    differing: pairs that only one of the two wins; at least one is assumed. Normal approximation (Connor 1987) for
    differences that are small beside the share of pairs that differ.
    """
    if pairs == 0:
        return 1.0
    z = norm.ppf((1 + LEVEL) / 2) + norm.ppf(POWER)
    return float(min(1.0, z * np.sqrt(max(differing, 1)) / pairs))


def _resampled_sums(values: Array, weights: Array) -> Array:
    """Weighted sums of values (S, E) over bootstrap samples of episodes and, independently, of seeds: (RESAMPLES,)."""
    seed_counts, episode_counts = _resampled_counts(*values.shape)
    return ((seed_counts @ (values * weights)) * episode_counts).sum(axis=1)


@cache
def _resampled_counts(seeds: int, episodes: int) -> tuple[Array, Array]:
    """How often each seed and each episode is drawn in each sample: (RESAMPLES, S), (RESAMPLES, E).

    The same samples each time, which pairs every numerator with its denominator.
    """
    rng = np.random.default_rng(0)
    episode_counts = rng.multinomial(episodes, np.full(episodes, 1 / episodes), RESAMPLES)
    seed_counts = rng.multinomial(seeds, np.full(seeds, 1 / seeds), RESAMPLES)
    return seed_counts.astype(np.float64), episode_counts.astype(np.float64)


def _where_positive(over: Array, under: Array) -> tuple[Array, Array]:
    """Leave out the rare samples that hold no episode with weight."""
    return over[under > 0], under[under > 0]


def _estimate(value: float, resampled: Array, values: Array, per_seed: Array) -> Estimate:
    if values.shape[1] < 2:
        return Estimate(value, per_seed=tuple(map(float, per_seed)))
    low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(value, float(low), float(high), tuple(map(float, per_seed)))
