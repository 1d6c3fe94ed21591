"""Which error of decoded actions says whether they will still do the task: each held against the replays' success."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from workbook.chunks import Array
from workbook.intervals import LEVEL

# Metrics of evaluation.py that can be had without a simulator, and what they are called.
PREDICTORS = {
    "mse": "MSE",
    "relative_mse": "MSE, each dimension by its variance",
    "position_mm": "position error of a step, mm",
    "drift_mm": "position error summed over the episode, mm",
    "peak_drift_mm": "largest sum of position errors on the way, mm",
    "switch_drift_mm": "sum of position errors where the gripper switches, mm",
    "drift_deg": "rotation error summed over the episode, degrees",
    "gripper_shift_steps": "gripper's timing, steps",
    "gripper_error_rate": "share of steps with the gripper on the wrong side",
}
RESAMPLES = 2000


def held_against_success(errors: Mapping[str, Array], success: NDArray[np.bool_]) -> dict[str, Any]:
    """How well each error tells failed replays from others, over C codecs x E episodes.

    errors: (C, E) each, NaN where an episode has no such error; success: (C, E). 'correlation' is Spearman's between
    error and failure; 'auc' the chance that a failed replay has the larger error of a failed and a succeeded one.
    Intervals are by bootstrap over episodes, with all codecs of an episode together.
    """
    rows = {name: _row(values, success) for name, values in errors.items()}
    known = {name: row["auc"]["mean"] for name, row in rows.items() if row["auc"]["mean"] is not None}
    best = max(known, key=known.__getitem__, default=None)
    return {
        "replays": int(success.size),
        "failed": int((~success).sum()),
        "rows": rows,
        "best": best,
        "less_than_best": {name: _lead(errors[best], errors[name], success) for name in known if best and name != best},
    }


def _row(errors: Array, success: NDArray[np.bool_]) -> dict[str, Any]:
    known = errors[np.isfinite(errors)]
    if not len(known) or known.min() == known.max():
        return {name: {"mean": None, "low": None, "high": None} for name in ("auc", "correlation")}
    samples = _samples(errors.shape[1])
    return {
        "auc": _estimate(lambda drawn: _auc(errors[:, drawn], success[:, drawn]), samples),
        "correlation": _estimate(lambda drawn: _correlation(errors[:, drawn], success[:, drawn]), samples),
    }


def _lead(best: Array, other: Array, success: NDArray[np.bool_]) -> dict[str, Any]:
    """How much larger the best predictor's AUC is than another's, on the same samples."""

    def lead(drawn: NDArray[np.int64]) -> float:
        return _auc(best[:, drawn], success[:, drawn]) - _auc(other[:, drawn], success[:, drawn])

    return _estimate(lead, _samples(best.shape[1]))


def _samples(episodes: int) -> NDArray[np.int64]:
    return np.random.default_rng(0).integers(0, episodes, (RESAMPLES, episodes))


def _estimate(figure: Callable[[NDArray[np.int64]], float], samples: NDArray[np.int64]) -> dict[str, Any]:
    """The figure of all episodes, and its 95 % interval; None where every replay ended alike."""
    whole = figure(np.arange(samples.shape[1]))
    if not np.isfinite(whole):
        return {"mean": None, "low": None, "high": None}
    drawn = np.array([figure(sample) for sample in samples])
    low, high = np.quantile(drawn[np.isfinite(drawn)], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return {"mean": float(whole), "low": float(low), "high": float(high)}


def _auc(errors: Array, success: NDArray[np.bool_]) -> float:
    """Area under the curve of the test 'error above a threshold' for failure (Mann and Whitney 1947)."""
    known = np.isfinite(errors)
    ranks, failed = rankdata(errors[known]), ~success[known]
    bad, good = int(failed.sum()), int((~failed).sum())
    if not bad or not good:
        return np.nan
    return float((ranks[failed].sum() - bad * (bad + 1) / 2) / (bad * good))


def _correlation(errors: Array, success: NDArray[np.bool_]) -> float:
    known = np.isfinite(errors)
    ranks, failed = rankdata(errors[known]), (~success[known]).astype(float)
    if not known.any() or ranks.std() == 0 or failed.std() == 0:
        return np.nan
    return float(np.corrcoef(ranks, failed)[0, 1])
