"""Which error of decoded actions says whether they will still do the task: each held against the replays' success."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from workbook.common.array import Array
from workbook.common.intervals import LEVEL

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
RESAMPLES = 1000


def held_against_success(errors: Mapping[str, Array], success: NDArray[np.bool_]) -> dict[str, Any]:
    """How well each error tells failed replays from others, over C codecs x E episodes.

    errors: (C, E) each, NaN where a replay has none; success: (C, E). Only replays that have every error count, so that
    all are held against the same ones. 'auc' is the chance that of a failed and a succeeded replay the failed one has
    the larger error, 'within' the same of pairs of one codec, 'correlation' Spearman's between error and failure.
    Intervals are by bootstrap over episodes, with all codecs of an episode together.
    """
    telling = {name: values for name, values in errors.items() if _varies(values)}
    known = np.isfinite(np.array(list(telling.values()))).all(axis=0) if telling else np.zeros_like(success)
    held = {name: np.where(known, values, np.nan) for name, values in telling.items()}
    rows = {name: _row(held.get(name), success) for name in errors}
    found = {name: row["auc"]["mean"] for name, row in rows.items() if row["auc"]["mean"] is not None}
    best = max(found, key=found.__getitem__, default=None)
    return {
        "replays": int(known.sum()),
        "failed": int((~success & known).sum()),
        "rows": rows,
        "best": best,
        "less_than_best": {name: _lead(held[best], held[name], success) for name in found if best and name != best},
    }


def _varies(errors: Array) -> bool:
    known = errors[np.isfinite(errors)]
    return len(known) > 0 and bool(known.min() < known.max())


def _row(errors: Array | None, success: NDArray[np.bool_]) -> dict[str, Any]:
    """Figures of one error; without any where it is the same in every replay."""
    figures = {"auc": _auc, "within": _auc_within, "correlation": _correlation}
    if errors is None:
        return {name: {"mean": None, "low": None, "high": None} for name in figures}
    samples = _samples(errors.shape[1])

    def of(figure: Callable[[Array, NDArray[np.bool_]], float]) -> dict[str, Any]:
        return _estimate(lambda drawn: figure(errors[:, drawn], success[:, drawn]), samples)

    return {name: of(figure) for name, figure in figures.items()}


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
    won, pairs = _pairs_won(errors, success)
    return won / pairs if pairs else np.nan


def _auc_within(errors: Array, success: NDArray[np.bool_]) -> float:
    """The same of pairs within a codec: which of its episodes fail, and not which codec is a bad one."""
    counted = [_pairs_won(of_codec, ended) for of_codec, ended in zip(errors, success, strict=True)]
    won, pairs = (sum(column) for column in zip(*counted, strict=True))
    return won / pairs if pairs else np.nan


def _pairs_won(errors: Array, success: NDArray[np.bool_]) -> tuple[float, int]:
    """In how many pairs of a failed and a succeeded replay the failed one has the larger error, and of how many."""
    known = np.isfinite(errors)
    ranks, failed = rankdata(errors[known]), ~success[known]
    bad = int(failed.sum())
    return float(ranks[failed].sum() - bad * (bad + 1) / 2), bad * int((~failed).sum())


def _correlation(errors: Array, success: NDArray[np.bool_]) -> float:
    known = np.isfinite(errors)
    ranks, failed = rankdata(errors[known]), (~success[known]).astype(float)
    if not known.any() or ranks.std() == 0 or failed.std() == 0:
        return np.nan
    return float(np.corrcoef(ranks, failed)[0, 1])
