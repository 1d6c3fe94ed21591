"""Which error of decoded actions says whether they will still do the task: each held against the replays' success."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np
from numpy.typing import NDArray

from workbook.common.array import Array
from workbook.common.intervals import LEVEL, Estimate

# Metrics that can be had without a simulator.
PREDICTORS = (
    "mse", "relative_mse", "position_mm", "drift_mm", "peak_drift_mm", "switch_drift_mm", "drift_deg",
    "gripper_shift_steps", "gripper_error_rate",
)  # fmt: skip
RESAMPLES = 1000


@dataclass(frozen=True)
class Predictor:
    """How well an error tells failed replays from others; no figures where it is the same in every replay.

    auc: the chance that of a failed and a succeeded replay the failed one has the larger error (Mann and Whitney 1947);
    within: the same of pairs of one codec; correlation: Spearman's between error and failure; behind: how much larger
    the auc of the best one is, None for the best itself.
    """

    auc: Estimate
    within: Estimate
    correlation: Estimate
    behind: Estimate | None = None


@dataclass(frozen=True)
class Predictors:
    """Over so many replays of so many codecs; best: of the largest auc, None where all replays ended alike."""

    codecs: int
    replays: int
    failed: int
    each: dict[str, Predictor]
    best: str | None

    @property
    def not_shown_worse(self) -> list[str]:
        """Those of which it is not shown that they tell less than the best one."""
        behind = {name: one.behind for name, one in self.each.items() if one.behind is not None}
        return [name for name, lead in behind.items() if lead.low is None or lead.low <= 0]


def held_against_success(errors: Mapping[str, Array], success: NDArray[np.bool_]) -> Predictors:
    """Each error over C codecs x E episodes.

    errors: (C, E) each, NaN where a replay has none; success: (C, E). Only replays that have every error count, so that
    all are held against the same ones. Intervals are by bootstrap over episodes, all codecs of an episode together.
    """
    telling = {name: values for name, values in errors.items() if _varies(values)}
    known = np.isfinite(np.array(list(telling.values()))).all(axis=0) if telling else np.zeros_like(success)
    samples = _samples(success.shape[1])
    ranked = {name: _Ranked(values, ~success & known, success & known, samples) for name, values in telling.items()}
    aucs = {name: one.auc[0] for name, one in ranked.items() if np.isfinite(one.auc[0])}
    best = max(aucs, key=aucs.__getitem__, default=None)

    def predictor(name: str) -> Predictor:
        if name not in ranked:
            return Predictor(Estimate(None), Estimate(None), Estimate(None))
        one = ranked[name]
        behind = _estimate(ranked[best].auc - one.auc) if best and name in aucs and name != best else None
        return Predictor(_estimate(one.auc), _estimate(one.within), _estimate(one.correlation), behind)

    failed = int((~success & known).sum())
    return Predictors(len(success), int(known.sum()), failed, {name: predictor(name) for name in errors}, best)


def _varies(errors: Array) -> bool:
    known = errors[np.isfinite(errors)]
    return len(known) > 0 and bool(known.min() < known.max())


def _samples(episodes: int) -> Array:
    """How often each episode counts: (1 + RESAMPLES, E), every one once in the first row."""
    drawn = np.random.default_rng(0).integers(0, episodes, (RESAMPLES, episodes))
    counts = np.zeros((RESAMPLES, episodes))
    np.add.at(counts, (np.arange(RESAMPLES)[:, None], drawn), 1)
    return np.concatenate([np.ones((1, episodes)), counts])


def _estimate(figures: Array) -> Estimate:
    """The figure of all episodes, and its 95 % interval; none where every replay ended alike."""
    if not np.isfinite(figures[0]):
        return Estimate(None)
    drawn = figures[1:]
    low, high = np.quantile(drawn[np.isfinite(drawn)], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(float(figures[0]), float(low), float(high))


class _Ranked:
    """Figures of one error, (1 + RESAMPLES,) each; errors (C, E), and which replays failed and which succeeded.

    Each is a function of how often every episode was drawn, so that pairs of replays are compared a single time.
    """

    def __init__(self, errors: Array, failed: NDArray[np.bool_], succeeded: NDArray[np.bool_], samples: Array) -> None:
        self.errors, self.samples = np.nan_to_num(errors), samples
        self.failed, self.succeeded = failed.astype(float), succeeded.astype(float)

    @cached_property
    def auc(self) -> Array:
        codecs = range(len(self.errors))
        return _ratio(*self._pairs(product(codecs, codecs)))

    @cached_property
    def within(self) -> Array:
        """Which of a codec's episodes fail, and not which codec is a bad one."""
        return _ratio(*self._pairs((codec, codec) for codec in range(len(self.errors))))

    @cached_property
    def correlation(self) -> Array:
        """Between ranks, the mean one for ties, and failure: the covariance follows from the pairs that are won."""
        bad, good = self.samples @ self.failed.sum(axis=0), self.samples @ self.succeeded.sum(axis=0)
        count, tied = bad + good, self._tied()
        variance = (count**3 - count - (tied**3 - tied).sum(axis=1)) / 12
        return _ratio((self.auc - 0.5) * bad * good * np.sqrt(count), np.sqrt(variance * bad * good))

    def _pairs(self, codecs: Iterable[tuple[int, int]]) -> tuple[Array, Array]:
        """In how many pairs of a failed and a succeeded replay the failed one has the larger error, and of how many."""
        episodes = self.errors.shape[1]
        won, all_pairs = np.zeros((episodes, episodes)), np.zeros((episodes, episodes))
        for one, other in codecs:
            pairs = np.outer(self.failed[one], self.succeeded[other])
            won += pairs * (np.sign(self.errors[one][:, None] - self.errors[other]) + 1) / 2
            all_pairs += pairs
        return self._count(won), self._count(all_pairs)

    def _count(self, pairs: Array) -> Array:
        return ((self.samples @ pairs) * self.samples).sum(axis=1)

    def _tied(self) -> Array:
        """How many replays have each of the values there are: (1 + RESAMPLES, V)."""
        values, place = np.unique(self.errors, return_inverse=True)
        known = self.failed + self.succeeded
        counts = np.zeros((self.errors.shape[1], len(values)))
        np.add.at(
            counts, (np.broadcast_to(np.arange(self.errors.shape[1]), known.shape), place.reshape(known.shape)), known
        )
        return self.samples @ counts


def _ratio(over: Array, under: Array) -> Array:
    """NaN where there is nothing to divide by."""
    return np.divide(over, under, out=np.full_like(over, np.nan), where=under > 0)
