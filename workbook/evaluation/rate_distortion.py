"""Rate and distortion: codecs held against each other by the bits that a chunk costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from workbook.codecs.catalogue import POLICY_RATES, Family, Fitting, catalogue, fitting_chunks, of_family
from workbook.common import targets
from workbook.common.array import Array
from workbook.common.intervals import Estimate, estimate_improvement, weighted_mean
from workbook.evaluation.score import Scores

# The best RFSQ but naive is held against FAST; the guide's architecture is that of naive and of the fixed scale.
RFSQ: tuple[Family, ...] = ("rfsq", "klt_rfsq")
GUIDES: tuple[Family, ...] = ("naive", "rfsq")
FAST: tuple[Family, ...] = ("fast",)
CHOSEN_AMONG = (*GUIDES, "klt_rfsq", *FAST)


@dataclass(frozen=True, eq=False)
class Point:
    """One codec at one setting: bits a chunk, mse (S, E), and the weights of the episodes, (E,) or (S, E)."""

    codec: str
    setting: str
    bits: float
    mse: Array
    weights: Array

    @property
    def mean(self) -> float:
        return weighted_mean(self.mse, self.weights)


@dataclass(frozen=True, eq=False)
class AtRate:
    """What was found at a rate: the codec of least error, and its mse (S, E) there."""

    codec: str
    mse: Array
    mean: float


def points(scores: Scores, codecs: Sequence[str]) -> list[Point]:
    """Every setting of some codecs that was measured from tokens."""
    wanted = [(name, setting) for name, setting in scores.listed("measured") if name in codecs]
    return [
        Point(name, setting, scores.cost(name, setting)["bits"], *scores.values("mse", name, setting))
        for name, setting in wanted
    ]


def at_rate(scores: Scores, codecs: Sequence[str], rate: float) -> AtRate | None:
    """The codec with the least error at a rate; None where none reaches so far.

    Between two settings of varying length the error is interpolated linearly, which coding so many chunks by one and
    the others by the other gives; of a fixed length the largest setting that is not above the rate is taken.
    """
    found = []
    for name in codecs:
        curve = front(points(scores, [name]))
        below = [point for point in curve if point.bits <= rate]
        above = [point for point in curve if point.bits >= rate]
        if not below:
            continue
        low = below[-1]
        # A length that is fixed cannot be mixed; beyond the last setting of a front, more bits buy nothing.
        high = low if catalogue()[name].fixed_length or not above else above[0]
        share = 0.0 if high.bits == low.bits else (rate - low.bits) / (high.bits - low.bits)
        mse = (1 - share) * low.mse + share * high.mse
        found.append(AtRate(name, mse, weighted_mean(mse, low.weights)))
    return min(found, key=lambda one: one.mean, default=None)


def front(points: Sequence[Point]) -> list[Point]:
    """By rising bits, the settings that have less error than every one of fewer bits."""
    kept: list[Point] = []
    for one in sorted(points, key=lambda point: (point.bits, point.mean)):
        if not kept or one.mean < kept[-1].mean:
            kept.append(one)
    return kept


def chosen_at_rate(scores: Scores, validation: Scores, codecs: Sequence[str], rate: float) -> AtRate | None:
    """On `scores`, the codec that has the least error at a rate on `validation`."""
    best = at_rate(validation, codecs, rate)
    return None if best is None else at_rate(scores, [best.codec], rate)


@dataclass(frozen=True, eq=False)
class AgainstFast:
    """RFSQ's best at a rate beside FAST's best, and RFSQ's best of fixed length; gains are shares of FAST's error."""

    rate: int
    fast: AtRate | None
    rfsq: AtRate | None
    rfsq_gain: Estimate
    fixed: AtRate | None
    fixed_gain: Estimate


def against_fast(scores: Scores, validation: Scores) -> list[AgainstFast]:
    """At every rate of policies; which codec is best, and FAST's better normaliser, is chosen on `validation`."""
    weights = scores.values("mse", "naive")[1]
    rfsq, fast_style = of_family(*RFSQ), of_family(*FAST)
    of_fixed_length = [name for name in rfsq if catalogue()[name].fixed_length]
    rows = []
    for rate in POLICY_RATES:
        fast, best, fixed = (
            chosen_at_rate(scores, validation, codecs, rate) for codecs in (fast_style, rfsq, of_fixed_length)
        )
        rows.append(AgainstFast(rate, fast, best, _gain(fast, best, weights), fixed, _gain(fast, fixed, weights)))
    return rows


def _gain(fast: AtRate | None, found: AtRate | None, weights: Array) -> Estimate:
    if fast is None or found is None:
        return Estimate(None)
    over = fast.mse if len(fast.mse) == len(found.mse) else fast.mse.mean(axis=0, keepdims=True)
    return estimate_improvement(over, found.mse, weights)


def smallest(validation: Scores) -> dict[str, tuple[str, str] | None]:
    """Codec and setting of fewest bits whose whole interval meets the target, of the guide's and of all RFSQ."""
    found: dict[str, tuple[str, str] | None] = {}
    for key, codecs in (("guide", of_family(*GUIDES)), ("any", of_family(*GUIDES, *RFSQ))):
        enough = [
            point
            for point in points(validation, codecs)
            if _meets(validation.estimate("mse", point.codec, point.setting))
        ]
        least = min(enough, key=lambda point: point.bits, default=None)
        found[key] = None if least is None else (least.codec, least.setting)
    return found


def _meets(mse: Estimate) -> bool:
    end = mse.mean if mse.high is None else mse.high
    return end is not None and targets.LOW_MSE.meets(end)


def gaussian_reference(fitting: Fitting) -> pd.DataFrame:
    """Rate and distortion (bits, mse) of a Gaussian source with the covariance of the train chunks' motion.

    Reverse water-filling (Cover and Thomas, theorem 10.3.3): an upper bound of what these chunks need, grippers left
    out, whose two values are nothing like Gaussian; distortion is spread over all numbers of an action, as MSE is.
    """
    dataset = fitting.dataset
    motion = dataset.normaliser.normalise(fitting.once(fitting_chunks))[:, :, dataset.layout.motion]
    vectors = motion.reshape(len(motion), -1)
    variances = (
        np.linalg.eigvalsh(np.atleast_2d(np.cov(vectors.T))).clip(min=1e-12) if vectors.shape[1] else np.zeros(0)
    )
    numbers = dataset.chunk_len * dataset.layout.dim
    rows = []
    for level in np.geomspace(1e-7, variances.max(initial=1e-6), 60):
        rate = 0.5 * np.log2(np.maximum(variances / level, 1)).sum()
        rows.append({"bits": float(rate), "mse": float(np.minimum(variances, level).sum() / numbers)})
    return pd.DataFrame(rows)
