"""Whether actions are what they are taken for: signs of rescaling, of other units, and of poses instead of deltas."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from workbook.common.array import Array
from workbook.data.layout import DELTAS, KINDS, ActionLayout

LATTICE_TOLERANCE = 1e-3  # of a lattice step; float32 files are off by less
ON_LATTICE = 0.95  # share of the non-zero values
LEVELS_EACH_WAY = 350  # steps of a lattice that a SpaceMouse reaches
# SpaceMouse recordings are whole multiples of a step: (position, rotation). The first that fits is the right one, for
# the steps of a later one may divide those of an earlier.
LATTICES: dict[str, tuple[float, float]] = {
    "LIBERO's SpaceMouse": (0.9375 / 350, 0.375 / 350),
    "robosuite": (1.5 / 350, 0.5625 / 350),
    "libero_metres": (0.9375 / 350 * 0.05, 0.375 / 350 * 0.5),
}
LIBERO_LATTICE = next(iter(LATTICES))
# A position changes by a small part of its range in a step, a delta by much of it; hardly any pose is exactly zero.
ABSOLUTE_BELOW = 0.15
ABSOLUTE_ZEROS_BELOW = 0.01
TREMBLES_BELOW = 1e-3  # of the spread of the median dimension of the same kind


def lattice_share(actions: Array, layout: ActionLayout, lattice: str = LIBERO_LATTICE) -> Array:
    """Share of the non-zero values that lie on a lattice: (T, A) -> (A,).

    Zero lies on every lattice and proves nothing; a dimension with nothing else, a gripper and a joint are NaN.
    """
    step = _lattice_steps(layout, lattice)
    steps = actions / step
    on = (np.abs(steps - np.rint(steps)) <= LATTICE_TOLERANCE) & (np.rint(steps) != 0)
    moving = (actions != 0) & ~np.isnan(step)
    counts = moving.sum(axis=0)
    return np.where(counts > 0, (on & moving).sum(axis=0) / np.maximum(counts, 1), np.nan)


def _lattice_steps(layout: ActionLayout, lattice: str) -> Array:
    """Step of a lattice in each dimension, NaN where it has none: (A,)."""
    step = np.full(layout.dim, np.nan)
    step[layout.indices("position")], step[layout.indices("rotation")] = LATTICES[lattice]
    return step


def _beyond(actions: Array, layout: ActionLayout, lattice: str) -> bool:
    """Values that a SpaceMouse does not reach: whole multiples of a fine lattice only because of a coarser one."""
    reached = np.abs(actions).max(axis=0) / _lattice_steps(layout, lattice)
    return bool((reached > LEVELS_EACH_WAY + 0.5).any())


def lattice_of(actions: Array, layout: ActionLayout) -> str | None:
    """The known lattice that the values lie on, or None."""
    for name in LATTICES:
        share = lattice_share(actions, layout, name)
        groups = [share[layout.indices("position")], share[layout.indices("rotation")]]
        if _beyond(actions, layout, name):
            continue
        means = [float(np.nanmean(group)) for group in groups if not np.isnan(group).all()]
        if means and min(means) > ON_LATTICE:
            return name
    return None


def fills_the_range(actions: Array, layout: ActionLayout) -> bool:
    """Every position and rotation that moves reaches exactly -1 and 1, as after min-max normalising or clipping."""
    motion = actions[:, layout.indices(*DELTAS)]
    motion = motion[:, np.ptp(motion, axis=0) > 0]
    ends = np.stack([motion.min(axis=0) + 1, motion.max(axis=0) - 1])
    return motion.shape[1] > 0 and bool((np.abs(ends) < 1e-6).all())


def looks_absolute(episodes: Sequence[Array], layout: ActionLayout) -> bool:
    """Positions that creep and are hardly ever zero: poses, it seems, and no deltas."""
    position = layout.indices("position")
    everything = np.concatenate([episode[:, position] for episode in episodes])
    moves = np.ptp(everything, axis=0) > 0
    if not moves.any():
        return False
    ratio = step_ratio([episode[:, position[moves]] for episode in episodes])
    return ratio < ABSOLUTE_BELOW and bool((everything[:, moves] == 0).mean() < ABSOLUTE_ZEROS_BELOW)


def step_ratio(episodes: Sequence[Array]) -> float:
    """Root mean square change in one step over the std, median of dimensions that all move: (T, D) each."""
    change = np.concatenate([np.diff(episode, axis=0) for episode in episodes])
    return float(np.median(np.sqrt((change**2).mean(axis=0)) / np.concatenate(episodes).std(axis=0)))


def trembling(actions: Array, layout: ActionLayout) -> list[str]:
    """Names of dimensions that move, but a thousandth as much as the median one of their kind: (T, A).

    The others are limited to their quantiles, lest a glitch of theirs makes this one look small.
    """
    std = actions.std(axis=0)
    spread = np.clip(actions, *np.quantile(actions, [0.01, 0.99], axis=0)).std(axis=0)
    small = np.zeros(layout.dim, dtype=bool)
    for kind in KINDS:
        of_kind = layout.indices(kind)
        if len(of_kind):
            small[of_kind] = std[of_kind] < TREMBLES_BELOW * np.median(spread[of_kind])
    return [name for name, found in zip(layout.names, small & (np.ptp(actions, axis=0) > 0), strict=True) if found]
