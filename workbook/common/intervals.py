"""Estimates with 95 % intervals over episodes and seeds, corrected for how few there are; of counts, exact ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr, betaincinv, ndtri, stdtrit  # scipy.stats takes long to import

from workbook.common.array import Array

RESAMPLES = 10_000
LEVEL = 0.95
POWER = 0.8
WIDEST = 1000.0  # times a ratio, up or down: two seeds or two episodes may say no more than nothing


@dataclass(frozen=True)
class Estimate:
    """A figure, its 95 % interval (None where one episode allows none), and the figure of each seed or round."""

    mean: float | None
    low: float | None = None
    high: float | None = None
    per_seed: tuple[float, ...] = ()

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"per_seed": list(self.per_seed)}


def estimate_mean(values: Array, weights: Array, most: float = np.inf) -> Estimate:
    """Weighted mean of values (S seeds, E episodes) with weights (E,); no figure where all weights are 0.

    values: none is negative; weights: in folds (S, E), 0 where an episode is another seed's; most: the largest that a
    value can be, as 1 of a share.
    """
    if weights.sum() == 0:
        return Estimate(None)
    per_seed = _per_seed(values, weights)
    mean = weighted_mean(values, weights) if weights.ndim == 2 else float(per_seed.mean())
    low, high = _ratio_interval(mean, values, np.ones_like(values), weights)
    return Estimate(mean, low, None if high is None else min(high, most), tuple(map(float, per_seed)))


def estimate_improvement(baseline: Array, candidate: Array, weights: Array) -> Estimate:
    """1 - candidate / baseline of the weighted means, paired by episode and seed.

    Both are (S, E); a baseline with one seed is paired with every seed of the candidate; weights as in `estimate_mean`.
    A baseline without error cannot be improved on, and gives no figure.
    """
    baseline = np.broadcast_to(baseline, candidate.shape)
    over, under = _sums(candidate, weights), _sums(baseline, weights)
    if not under.all():
        return Estimate(None)
    ratio = float(over.sum() / under.sum())
    low, high = _ratio_interval(ratio, candidate, baseline, weights)
    least, most = (None, None) if low is None or high is None else (1 - high, 1 - low)
    return Estimate(1 - ratio, least, most, tuple(map(float, 1 - over / under)))


def weighted_mean(values: Array, weights: Array) -> float:
    """Of values (S, E) with weights (E,), or (S, E) as in folds."""
    sums = _sums(values, weights)
    return float((sums.sum() if weights.ndim == 2 else sums.mean()) / weights.sum())


def _per_seed(values: Array, weights: Array) -> Array:
    whole = weights.sum(axis=-1)
    return np.asarray(_sums(values, weights) / (whole[whole > 0] if weights.ndim == 2 else whole))


def _sums(values: Array, weights: Array) -> Array:
    """Weighted sum of each seed's values; in folds of the seeds that have any of weight."""
    if weights.ndim == 2:
        return np.asarray((values * weights).sum(axis=1)[weights.any(axis=1)])
    return np.asarray(values @ weights)


def _ratio_interval(ratio: float, over: Array, under: Array, weights: Array) -> tuple[float, float] | tuple[None, None]:
    """Ends of the interval of a ratio of weighted means, over / under, each (S seeds, E episodes); weights (E,), or
    (S, E) as in folds.

    It is one of the logarithm, as errors are skewed and never negative: t quantiles, and the spread of what each seed
    and episode adds to it. Where fewer than two episodes have weight, or the ratio is negative, there is none.
    """
    used = np.atleast_2d(weights > 0).any(axis=0)
    if used.sum() < 2 or ratio < 0:
        return None, None
    if ratio == 0:
        return 0.0, 0.0
    shares = [_shares((values * weights)[:, used]) for values in (over, under)]
    added = shares[0] - shares[1]
    in_folds = weights.ndim == 2
    variance, freedom = _nested_variance(added, weights[:, used] > 0) if in_folds else _crossed_variance(added)
    half = np.minimum(stdtrit(freedom, (1 + LEVEL) / 2) * np.sqrt(variance), np.log(WIDEST))
    return float(ratio * np.exp(-half)), float(ratio * np.exp(half))


def _shares(values: Array) -> Array:
    """What each value (S, E) adds to the logarithm of their sum, scaled to a mean of about 1: to first order its share.

    An episode is held against the sum of the others, after the third correction of MacKinnon and White (1985), so that
    a few long or bad ones do not hide behind the sum that they make themselves; against half of the whole at least.
    Without it skewed errors of 10 episodes and 5 seeds are covered in 92 of 100 studies.
    """
    seeds, episodes = values.shape
    whole = values.sum()
    others = np.maximum(whole - values.sum(axis=0), whole / 2)
    return values * seeds * (episodes - 1) / others


def _crossed_variance(values: Array) -> tuple[float, float]:
    """Variance of the mean of (S seeds, E episodes) of which both are drawn at random, and its degrees of freedom.

    Mean squares of seeds, episodes and what is left of a two-way table without replicates; that of the mean is seeds +
    episodes - left, over S E, where neither counts as less than what is left (Searle, Casella and McCulloch, Variance
    Components, 1992). Degrees of freedom after Satterthwaite (1946). One seed says nothing about others.
    """
    seeds, episodes = values.shape
    by_seed, by_episode = values.mean(axis=1), values.mean(axis=0)
    of_episodes = seeds * by_episode.var(ddof=1)
    if seeds == 1:
        return float(of_episodes / episodes), episodes - 1
    of_seeds = episodes * by_seed.var(ddof=1)
    residual = values - by_seed[:, None] - by_episode + values.mean()
    left_freedom = (seeds - 1) * (episodes - 1)
    left = (residual**2).sum() / left_freedom
    total = max(of_seeds, left) + max(of_episodes, left) - left
    spread = of_seeds**2 / (seeds - 1) + of_episodes**2 / (episodes - 1) + left**2 / left_freedom
    return float(total / values.size), float(total**2 / spread) if total > 0 else left_freedom


def _nested_variance(values: Array, of_seed: NDArray[np.bool_]) -> tuple[float, float]:
    """As `_crossed_variance` where each episode is of one seed alone, (S, E): the folds of a cross-validation.

    Mean squares between and within seeds of a one-way table; that within is the least that between can stand for.
    """
    seeds, episodes = values.shape
    of_seed = of_seed[of_seed.any(axis=1)]
    by_episode, number = values.sum(axis=0) / seeds, of_seed.sum(axis=1)
    by_seed = of_seed @ by_episode / number
    between_freedom, within_freedom = len(number) - 1, episodes - len(number)
    between = (number * (by_seed - by_episode.mean()) ** 2).sum() / max(between_freedom, 1)
    within = ((by_episode - by_seed @ of_seed) ** 2).sum() / max(within_freedom, 1)
    freedom = between_freedom if between > within or not within_freedom else within_freedom
    return float(max(between, within) / episodes), float(freedom)


def estimate_excess(over: Array, under: Array) -> Estimate:
    """Median of over / under - 1, paired measurement by measurement (M,), with a bootstrap interval of the median."""
    ratios = over / under - 1
    rng = np.random.default_rng(0)
    resampled = np.median(rng.choice(ratios, (RESAMPLES, len(ratios))), axis=1)
    per_round = tuple(map(float, ratios))
    if len(ratios) < 2:
        return Estimate(float(np.median(ratios)), per_seed=per_round)
    low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(float(np.median(ratios)), float(low), float(high), per_round)


def estimate_proportion(successes: int, trials: int) -> Estimate:
    """Share of successes with the exact binomial interval (Clopper and Pearson 1934); none of no trials."""
    if trials == 0:
        return Estimate(None)
    low = betaincinv(successes, trials - successes + 1, (1 - LEVEL) / 2) if successes > 0 else 0.0
    high = betaincinv(successes + 1, trials - successes, (1 + LEVEL) / 2) if successes < trials else 1.0
    return Estimate(successes / trials, float(low), float(high))


def estimate_gain(first: Array, second: Array, own_episodes: bool = False) -> Estimate:
    """Share of successes of `second` minus that of `first`, paired by seed and episode.

    Both are (S, E), or one of them (1, E): 1 for a success, NaN for an episode that was not played. The interval is
    that of Bonett and Price (2012) for paired proportions: two pairs are added, one that only `first` wins and one that
    only `second` does, so that it claims no certainty where no pair differs. Seeds count as further pairs as far as
    their episodes differ by chance; wholly where each has episodes of its own. How the seeds' own gains spread is added
    to the variance, with degrees of freedom after Satterthwaite (1946).
    """
    gains = second - first
    gains = gains[:, np.isfinite(gains).any(axis=0)]
    if gains.shape[1] == 0:
        return Estimate(None)
    gain, by_seed, by_episode = np.nanmean(gains), np.nanmean(gains, axis=1), np.nanmean(gains, axis=0)
    played = int(np.isfinite(gains).sum())
    pairs = played if own_episodes else _distinct_pairs(gains - by_seed[:, None], by_episode)
    centre = gain * pairs / (pairs + 2)
    squares = pairs * (by_episode.var() * pairs / len(by_episode) + gain**2) + 2
    variance = (squares / (pairs + 2) - centre**2) / (pairs + 2)
    of_seeds = by_seed.var(ddof=1) / len(by_seed) if len(by_seed) > 1 else 0.0
    variance += of_seeds
    freedom = variance**2 * (len(by_seed) - 1) / of_seeds**2 if of_seeds > 0 else np.inf
    half = stdtrit(freedom, (1 + LEVEL) / 2) * np.sqrt(variance)
    low, high = (float(np.clip(centre + end, -1, 1)) for end in (-half, half))
    return Estimate(float(gain), low, high, tuple(map(float, by_seed)))


def _distinct_pairs(within_seeds: Array, by_episode: Array) -> float:
    """Independent pairs that (S, E) gains come to: E where all seeds do alike in an episode, S E where it is chance."""
    seeds, episodes = within_seeds.shape
    one, mean = np.nanvar(within_seeds), by_episode.var()
    if one == 0:
        return float(episodes)
    return float(np.clip(episodes * one / mean, episodes, seeds * episodes)) if mean > 0 else float(seeds * episodes)


def mcnemar_p(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    """Exact two-sided p of McNemar's test: how likely so uneven a count of trials that only one of them won is."""
    won, lost = int((second & ~first).sum()), int((first & ~second).sum())
    return min(1.0, 2 * float(bdtr(min(won, lost), won + lost, 0.5)))


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
    z = ndtri((1 + LEVEL) / 2) + ndtri(POWER)
    return float(min(1.0, z * np.sqrt(max(differing, 1)) / pairs))
