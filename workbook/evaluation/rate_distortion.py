"""Rate and distortion: codecs held against each other by the bits that a chunk costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from workbook.codecs.catalogue import Family, Fitting, fitting_chunks, of_family
from workbook.common import targets
from workbook.common.array import Array
from workbook.common.intervals import Estimate, weighted_mean
from workbook.evaluation.score import Scores

# The guide's architecture is that of naive and of the fixed scale.
RFSQ: tuple[Family, ...] = ("rfsq", "klt_rfsq")
GUIDES: tuple[Family, ...] = ("naive", "rfsq")
CHOSEN_AMONG = (*GUIDES, "klt_rfsq")


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


def points(scores: Scores, codecs: Sequence[str]) -> list[Point]:
    """Every setting of some codecs that was measured from tokens."""
    wanted = [(name, setting) for name, setting in scores.listed("measured") if name in codecs]
    return [
        Point(name, setting, scores.cost(name, setting)["bits"], *scores.values("mse", name, setting))
        for name, setting in wanted
    ]


def front(points: Sequence[Point]) -> list[Point]:
    """By rising bits, the settings that have less error than every one of fewer bits."""
    kept: list[Point] = []
    for one in sorted(points, key=lambda point: (point.bits, point.mean)):
        if not kept or one.mean < kept[-1].mean:
            kept.append(one)
    return kept


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
