"""Errors of decoded actions, episode by episode, in normalised and in physical units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

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
}


def weight_of(metric: str) -> str | None:
    return WEIGHTS.get(metric, "steps")


@dataclass(frozen=True, eq=False)
class Metric:
    """One figure of every episode, (E,), and the weight it has in the mean, (E,)."""

    values: Array
    weights: Array


def episode_metrics(
    originals: Sequence[Array],
    decodeds: Sequence[Array],
    layout: ActionLayout,
    normaliser: Normaliser,
    train_variance: Array,
) -> dict[str, Metric]:
    """Compare E decoded episodes (T, A) with the originals, both in controller units.

    MSE and its parts are in the normaliser's units, of the decoder's output as it is. All other figures are of what
    the controller would do with it, which clips it first; with several arms they are means over them. What the layout
    has no dimension for weighs nothing. train_variance: (A,) of normalised train actions.
    """
    rows = [
        _one_episode(original, decoded, layout, normaliser, train_variance)
        for original, decoded in zip(originals, decodeds, strict=True)
    ]
    return {
        name: Metric(np.array([row[name][0] for row in rows]), np.array([row[name][1] for row in rows]))
        for name in rows[0]
    }


def _one_episode(
    original: Array, decoded: Array, layout: ActionLayout, normaliser: Normaliser, train_variance: Array
) -> dict[str, tuple[float, float]]:
    """Name -> (value, weight) for one episode."""
    steps = float(len(original))
    squared = ((decoded - original) / normaliser.half_width) ** 2
    moves = train_variance > 0
    relative = float((squared.mean(axis=0)[moves] / train_variance[moves]).mean()) if moves.any() else 0.0
    played = np.clip(decoded, -layout.limit, layout.limit)
    error = played - original
    travelled = error.cumsum(axis=0)  # how far off the accumulated motion is after each step
    deltas = layout.indices(*DELTAS)  # to a joint, zero is a pose like any other
    zeros = original[:, deltas] == 0
    kept = np.abs(played[:, deltas][zeros]) <= ZERO_TOLERANCE
    per_dimension = {
        f"mse_{name}": (float(value), steps) for name, value in zip(layout.names, squared.mean(axis=0), strict=True)
    }
    position, rotation, joints = (_mean_length(error, layout, kind) for kind in ("position", "rotation", "joint"))
    drift, turned = (_mean_length(travelled[-1:], layout, kind) for kind in ("position", "rotation"))
    has_position, has_rotation, has_joints = (
        float(bool(layout.of_kind(kind))) for kind in ("position", "rotation", "joint")
    )
    return {
        "mse": (float(squared.mean()), steps),
        "relative_mse": (relative, steps * moves.any()),
        "position_mm": (position * POSITION_MM_PER_UNIT, steps * has_position),
        "rotation_deg": (rotation * ROTATION_DEG_PER_UNIT, steps * has_rotation),
        "joint_length": (joints, steps * has_joints),
        **_gripper_metrics(original, played, layout, normaliser),
        "max_abs": (float(np.abs(error).max()), 1.0),
        "drift_mm": (drift * POSITION_MM_PER_UNIT, has_position),
        "drift_deg": (turned * ROTATION_DEG_PER_UNIT, has_rotation),
        **_drift_on_the_way(original, travelled, layout, normaliser),
        "zeros_kept": (float(kept.mean()) if zeros.any() else 0.0, float(zeros.sum())),
        **per_dimension,
    }


def _lengths(error: Array, layout: ActionLayout, kind: Kind) -> Array:
    """Length of the error of one kind at each step: (T,), the mean over the groups of that kind; (0,) without one."""
    lengths = [np.linalg.norm(error[:, group], axis=1) for group in layout.of_kind(kind)]
    return np.mean(lengths, axis=0) if lengths else np.zeros(0)


def _mean_length(error: Array, layout: ActionLayout, kind: Kind) -> float:
    lengths = _lengths(error, layout, kind)
    return float(lengths.mean()) if len(lengths) else 0.0


def _drift_on_the_way(
    original: Array, travelled: Array, layout: ActionLayout, normaliser: Normaliser
) -> dict[str, tuple[float, float]]:
    """Where the accumulated motion is farthest off, and how far where a gripper meets an object or lets it go."""
    drift = _lengths(travelled, layout, "position") * POSITION_MM_PER_UNIT
    wanted = original[:, layout.indices("gripper")] - _middle(layout, normaliser)
    steps = sorted({int(step) for one in wanted.T for closing in (True, False) for step in _switches(one, closing)})
    there = drift[steps] if len(drift) else drift
    return {
        "peak_drift_mm": (float(drift.max(initial=0.0)), float(len(drift) > 0)),
        "switch_drift_mm": (float(there.mean()) if len(there) else 0.0, float(len(there))),
    }


def _middle(layout: ActionLayout, normaliser: Normaliser) -> Array:
    """Where the two sides of each gripper meet: in the middle of its range in training."""
    return np.where(normaliser.moves, normaliser.centre, 0.0)[layout.indices("gripper")]


def _gripper_metrics(
    original: Array, played: Array, layout: ActionLayout, normaliser: Normaliser
) -> dict[str, tuple[float, float]]:
    """Error, side and timing of the grippers."""
    grippers = layout.indices("gripper")
    weight = float(len(original)) if len(grippers) else 0.0
    middle = _middle(layout, normaliser)
    wanted, found = original[:, grippers] - middle, played[:, grippers] - middle
    shifts = np.concatenate([np.zeros(0), *map(gripper_shifts, wanted.T, found.T)])
    on_time, shift = (float(np.mean(shifts == 0)), float(np.mean(shifts))) if len(shifts) else (0.0, 0.0)
    return {
        "gripper_abs": (float(np.abs(wanted - found).mean()) if weight else 0.0, weight),
        "gripper_error_rate": (float(((wanted > 0) != (found > 0)).mean()) if weight else 0.0, weight),
        "gripper_on_time": (on_time, float(len(shifts))),
        "gripper_shift_steps": (shift, float(len(shifts))),
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
