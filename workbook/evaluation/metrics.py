"""Errors of decoded actions, episode by episode, in normalised and in physical units."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from workbook.common.array import Array
from workbook.data.chunks import Normaliser
from workbook.data.layout import DELTAS, POSITION_MM_PER_UNIT, ROTATION_DEG_PER_UNIT, ActionLayout, Kind

SWITCH_WINDOW = 8  # steps; a gripper switch not found within it counts as missed
# What stands in for the simulator on data that cannot be played: of all these errors none is shown to tell better which
# replays of the sample fail there. A test holds it to the committed results.
STAND_IN = "switch_drift_mm"
ZERO_TOLERANCE = 1e-9  # controller units; far below the lattice step of 1e-3, above float64 rounding


LARGEST = "max_abs"  # of which the largest counts, not a mean
# What an episode's metric weighs in the mean over episodes: its steps where nothing else is said; None: all alike.
WEIGHTS: dict[str, str | None] = {
    "gripper_on_time": "switches",
    "gripper_shift_steps": "switches",
    "switch_drift_mm": "switch_steps",
    "zeros_kept": "zeros",
    LARGEST: None,
    "drift_mm": None,
    "drift_deg": None,
    "peak_drift_mm": None,
    **dict.fromkeys(("sum_position_mm", "sum_energy_position_mm", "sum_joint", "sum_energy_joint"), "chunks"),
}
# The largest that a metric of an episode can be; of all others there is none.
MOST = {"gripper_error_rate": 1.0, "gripper_on_time": 1.0, "zeros_kept": 1.0, "gripper_shift_steps": SWITCH_WINDOW}


def weight_of(metric: str) -> str | None:
    return WEIGHTS.get(metric, "steps")


def episode_metrics(
    originals: Sequence[Array],
    decodeds: Sequence[Array],
    layout: ActionLayout,
    normaliser: Normaliser,
    train_variance: Array,
) -> pd.DataFrame:
    """Compare E decoded episodes (T, A) with the originals, both in controller units: a row each, with the weights.

    MSE and its parts are in the normaliser's units, of the decoder's output as it is. All other figures are of what
    the controller would do with it, which clips it first; with several arms they are means over them. What the layout
    or an episode has nothing for is NaN. train_variance: (A,) of normalised train actions.
    """
    pairs = zip(originals, decodeds, strict=True)
    return pd.DataFrame([_one_episode(*pair, layout, normaliser, train_variance) for pair in pairs])


def _one_episode(
    original: Array, decoded: Array, layout: ActionLayout, normaliser: Normaliser, train_variance: Array
) -> dict[str, float]:
    squared = ((decoded - original) / normaliser.half_width) ** 2
    moves = train_variance > 0
    played = np.clip(decoded, -layout.limit, layout.limit)
    error = played - original
    travelled = error.cumsum(axis=0)  # how far off the accumulated motion is after each step
    deltas = layout.indices(*DELTAS)  # to a joint, zero is a pose like any other
    zeros = original[:, deltas] == 0
    per_dimension = zip(layout.names, squared.mean(axis=0).tolist(), strict=True)
    return {
        "mse": _mean(squared),
        "motion_mse": _mean(squared[:, layout.motion]),
        "steps": float(len(original)),
        "relative_mse": _mean(squared.mean(axis=0)[moves] / train_variance[moves]),
        "position_mm": _mean(_lengths(error, layout, "position")) * POSITION_MM_PER_UNIT,
        "rotation_deg": _mean(_lengths(error, layout, "rotation")) * ROTATION_DEG_PER_UNIT,
        "joint_length": _mean(_lengths(error, layout, "joint")),
        **_gripper_metrics(original, played, layout, normaliser),
        "max_abs": float(np.abs(error).max()),
        "drift_mm": _mean(_lengths(travelled[-1:], layout, "position")) * POSITION_MM_PER_UNIT,
        "drift_deg": _mean(_lengths(travelled[-1:], layout, "rotation")) * ROTATION_DEG_PER_UNIT,
        **_drift_on_the_way(original, travelled, layout, normaliser),
        "zeros_kept": _mean(np.abs(played[:, deltas][zeros]) <= ZERO_TOLERANCE),
        "zeros": float(zeros.sum()),
        **{f"mse_{name}": value for name, value in per_dimension},
    }


def _mean(figures: Array | NDArray[np.bool_]) -> float:
    """As numpy's mean, which takes three times as long on a few figures."""
    return float(np.add.reduce(figures, axis=None, dtype=np.float64) / figures.size) if figures.size else np.nan


def _lengths(error: Array, layout: ActionLayout, kind: Kind) -> Array:
    """Length of the error of one kind at each step: (T,), the mean over the groups of that kind; (0,) without one."""
    lengths = [np.linalg.norm(error[:, group], axis=1) for group in layout.of_kind(kind)]
    if len(lengths) == 1:
        return lengths[0]
    return np.mean(lengths, axis=0) if lengths else np.zeros(0)


def _drift_on_the_way(
    original: Array, travelled: Array, layout: ActionLayout, normaliser: Normaliser
) -> dict[str, float]:
    """Where the accumulated motion is farthest off, and how far where a gripper meets an object or lets it go."""
    drift = _lengths(travelled, layout, "position") * POSITION_MM_PER_UNIT
    wanted = (original - _middle(normaliser))[:, layout.indices("gripper")]
    steps = sorted({int(step) for one in wanted.T for closing in (True, False) for step in _switches(one, closing)})
    there = drift[steps] if len(drift) else drift
    return {
        "peak_drift_mm": float(drift.max()) if len(drift) else np.nan,
        "switch_drift_mm": _mean(there),
        "switch_steps": float(len(there)),
    }


def _middle(normaliser: Normaliser) -> Array:
    """Where the two sides of each gripper meet: in the middle of its range in training; (A,)."""
    return np.where(normaliser.moves, normaliser.centre, 0.0)


def _gripper_metrics(original: Array, played: Array, layout: ActionLayout, normaliser: Normaliser) -> dict[str, float]:
    """Error of all grippers; side and timing of those that are no openings, which have no sides."""
    sided = layout.indices("gripper")
    middle = _middle(normaliser)
    wanted, found = original - middle, played - middle
    shifts = np.concatenate([np.zeros(0), *map(gripper_shifts, wanted.T[sided], found.T[sided])])
    return {
        "gripper_abs": _mean(np.abs(wanted - found)[:, layout.grippers]),
        "gripper_error_rate": _mean(((wanted > 0) != (found > 0))[:, sided]),
        "gripper_on_time": _mean(shifts == 0),
        "switches": float(len(shifts)),
        "gripper_shift_steps": _mean(shifts),
    }


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
