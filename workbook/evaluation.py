"""Errors of decoded actions, episode by episode, in normalised and in physical units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from workbook.chunks import Array, Normaliser
from workbook.episodes import (
    CONTROLLER_LIMIT,
    DIMENSION_NAMES,
    GRIPPER,
    POSITION,
    POSITION_MM_PER_UNIT,
    ROTATION,
    ROTATION_DEG_PER_UNIT,
)
from workbook.intervals import Estimate, estimate_mean

SWITCH_WINDOW = 8  # steps; a gripper switch not found within it counts as missed
ZERO_TOLERANCE = 1e-9  # controller units; far below the lattice step of 1e-3, above float64 rounding
MOTION = slice(0, 6)


@dataclass(frozen=True, eq=False)
class Metric:
    """One figure of every episode, (E,), and the weight it has in the mean, (E,)."""

    values: Array
    weights: Array


def episode_metrics(
    originals: Sequence[Array], decodeds: Sequence[Array], normaliser: Normaliser, train_variance: Array
) -> dict[str, Metric]:
    """Compare E decoded episodes (T, 7) with the originals, both in controller units.

    MSE and its parts are in the normaliser's units, of the decoder's output as it is. All other figures are of what
    the controller would do with it, which clips it to [-1, 1] first. train_variance: (7,) of normalised train actions.
    """
    rows = [
        _one_episode(original, decoded, normaliser, train_variance)
        for original, decoded in zip(originals, decodeds, strict=True)
    ]
    return {
        name: Metric(np.array([row[name][0] for row in rows]), np.array([row[name][1] for row in rows]))
        for name in rows[0]
    }


def _one_episode(
    original: Array, decoded: Array, normaliser: Normaliser, train_variance: Array
) -> dict[str, tuple[float, float]]:
    """Name -> (value, weight) for one episode."""
    steps = float(len(original))
    squared = ((decoded - original) / normaliser.half_width) ** 2
    moves = train_variance > 0
    relative = squared.mean(axis=0)[moves] / train_variance[moves]
    played = np.clip(decoded, -CONTROLLER_LIMIT, CONTROLLER_LIMIT)
    error = played - original
    travelled = np.cumsum(error, axis=0)[-1]
    zeros = original[:, MOTION] == 0
    kept = np.abs(played[:, MOTION][zeros]) <= ZERO_TOLERANCE
    shifts = gripper_shifts(original[:, GRIPPER].ravel(), played[:, GRIPPER].ravel())
    per_dimension = {
        f"mse_{name}": (float(value), steps) for name, value in zip(DIMENSION_NAMES, squared.mean(axis=0), strict=True)
    }
    return {
        "mse": (float(squared.mean()), steps),
        "relative_mse": (float(relative.mean()), steps),
        "position_mm": (_mean_length(error[:, POSITION]) * POSITION_MM_PER_UNIT, steps),
        "rotation_deg": (_mean_length(error[:, ROTATION]) * ROTATION_DEG_PER_UNIT, steps),
        "gripper_abs": (float(np.abs(error[:, GRIPPER]).mean()), steps),
        "gripper_error_rate": (float(_differs_in_side(original, played).mean()), steps),
        "gripper_on_time": (float(np.mean(shifts == 0)) if len(shifts) else 0.0, float(len(shifts))),
        "gripper_shift_steps": (float(np.mean(shifts)) if len(shifts) else 0.0, float(len(shifts))),
        "max_abs": (float(np.abs(error).max()), 1.0),
        "drift_mm": (float(np.linalg.norm(travelled[POSITION])) * POSITION_MM_PER_UNIT, 1.0),
        "drift_deg": (float(np.linalg.norm(travelled[ROTATION])) * ROTATION_DEG_PER_UNIT, 1.0),
        "zeros_kept": (float(kept.mean()) if zeros.any() else 0.0, float(zeros.sum())),
        **per_dimension,
    }


def _mean_length(error: Array) -> float:
    return float(np.linalg.norm(error, axis=1).mean())


def _differs_in_side(original: Array, played: Array) -> np.ndarray:
    """Steps at which one gripper command closes and the other does not."""
    return (original[:, GRIPPER] > 0) != (played[:, GRIPPER] > 0)


def gripper_shifts(original: Array, played: Array) -> Array:
    """Steps between each opening or closing in `original` (T,) and the nearest one of its kind in `played` (T,).

    A switch without its kind within 8 steps counts as 8.
    """
    shifts = []
    for closing in (True, False):
        wanted, found = _switches(original, closing), _switches(played, closing)
        for step in wanted:
            nearest = np.abs(found - step).min() if len(found) else SWITCH_WINDOW
            shifts.append(min(float(nearest), float(SWITCH_WINDOW)))
    return np.array(shifts)


def _switches(gripper: Array, closing: bool) -> np.ndarray:
    change = np.diff((gripper > 0).astype(int))
    return np.flatnonzero(change == (1 if closing else -1))


def summarise(per_seed: Sequence[dict[str, Metric]]) -> dict[str, Estimate]:
    """Estimates over seeds and episodes; `max_abs` becomes the largest error of all, not a mean."""
    summary = {}
    for name, metric in per_seed[0].items():
        values = np.stack([metrics[name].values for metrics in per_seed])
        if name == "max_abs":
            summary[name] = Estimate(float(values.max()), per_seed=tuple(map(float, values.max(axis=1))))
        else:
            summary[name] = estimate_mean(values, metric.weights)
    return summary
