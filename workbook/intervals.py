"""Estimates with 95 % intervals: a bootstrap over episodes and seeds; exact ones for counts of successes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from workbook.chunks import Array

RESAMPLES = 10_000
LEVEL = 0.95
FEWEST_DIFFERING = 5  # episodes; fewer make no distribution to resample


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
    """Share of successes of `second` minus that of `first`, paired: (S, E) each, 1 for success.

    One seed is paired with every seed of the other. The interval is a bootstrap over episodes and seeds where at least
    FEWEST_DIFFERING episodes differ. Where fewer do, a bootstrap would claim certainty that there is not: no more can
    be gained than the share of episodes that `second` wins more often, and no more lost than the share that it wins
    less often, and each of these has an exact upper end (Clopper and Pearson 1934) at half the remaining error.
    """
    gains = second - first
    if gains.shape[1] == 0:
        return Estimate(None)
    mean = gains.mean(axis=0)
    if np.count_nonzero(mean) >= FEWEST_DIFFERING:
        return estimate_mean(gains, np.ones(gains.shape[1]))
    lost, won = (_highest_share(int(side.sum()), len(mean)) for side in (mean < 0, mean > 0))
    return Estimate(float(mean.mean()), -lost, won, tuple(map(float, gains.mean(axis=1))))


def _highest_share(count: int, trials: int) -> float:
    """The exact upper end of a share, at half the error of an interval of two such ends."""
    return float(binomtest(count, trials).proportion_ci((1 + LEVEL) / 2, method="exact").high)


def mcnemar_p(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    """Exact two-sided p of McNemar's test: how likely so uneven a count of trials that only one of them won is."""
    won, lost = int((second & ~first).sum()), int((first & ~second).sum())
    return 1.0 if won + lost == 0 else float(binomtest(won, won + lost).pvalue)


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
