"""What is changed in the actions that are used: steps that command nothing, glitches, and what the controller clips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from workbook.common.errors import InputError
from workbook.data.episodes import Episode, LeftOut
from workbook.data.grippers import GripperReading
from workbook.data.layout import DELTAS, ActionLayout
from workbook.data.left_out import Copy

NOOP_BELOW = 1e-4  # length of the motion command; OpenVLA, regenerate_libero_dataset.py


@dataclass(frozen=True, eq=False)
class Clipping:
    """What clipping to the controller's range changed; arrays have one entry a dimension."""

    steps: NDArray[np.int64]
    largest: NDArray[np.float64]
    steps_any: int
    total_steps: int


@dataclass(frozen=True)
class Outlier:
    """A value far outside all else of its dimension."""

    place: str
    step: int
    dimension: str
    value: float


@dataclass(frozen=True)
class Outliers:
    """How many values lie far outside, the first few of them, and whether they were brought to a quantile."""

    count: int
    first: tuple[Outlier, ...]
    clipped: bool


@dataclass(frozen=True, eq=False)
class Changes:
    """Everything that differs from what lies in the files, and outliers, which may be kept as they are.

    noops_dropped: steps, None where none were to be dropped.
    """

    copies: tuple[Copy, ...]
    left_out: tuple[LeftOut, ...]
    grippers: tuple[GripperReading, ...]
    noops_dropped: int | None
    outliers: Outliers
    clipping: Clipping


def noops_are_known(layout: ActionLayout) -> bool:
    """Whether a step that commands nothing can be told: all motion is deltas, and there is some."""
    return bool(layout.of_kind(*DELTAS)) and not layout.of_kind("joint")


def noop_steps(actions: NDArray[np.float64], layout: ActionLayout) -> NDArray[np.bool_]:
    """Steps that command no motion and no change of a gripper, by OpenVLA's rule: (T, A) -> (T,).

    It is a rule for deltas: joints, which are mostly poses, are left out of account; see `noops_are_known`.

    The gripper is compared with that of the last step that is no such step; before the first, motion alone counts.
    """
    still = np.linalg.norm(actions[:, layout.indices(*DELTAS)], axis=1) < NOOP_BELOW
    gripper = actions[:, layout.grippers]
    # A no-op has the gripper command of the last kept step, so comparing with the step before is the same.
    same = np.concatenate([[False], (gripper[1:] == gripper[:-1]).all(axis=1)])
    nothing_kept_yet = np.logical_and.accumulate(still)
    return still & (same | nothing_kept_yet)


def check_noops(layout: ActionLayout) -> None:
    """Raises InputError for a layout in which a no-op cannot be told."""
    if not noops_are_known(layout):
        raise InputError(
            f"layout '{layout.spec}': which steps command nothing is known for position and rotation deltas only; "
            "leave out --drop-noops"
        )


def drop_noops(episodes: list[Episode], layout: ActionLayout) -> tuple[list[Episode], int]:
    """The episodes without their no-op steps, and how many went.

    Raises:
        InputError: a layout in which a no-op cannot be told.
    """
    check_noops(layout)
    kept = [replace(episode, actions=episode.actions[~noop_steps(episode.actions, layout)]) for episode in episodes]
    dropped = sum(len(before.actions) - len(after.actions) for before, after in zip(episodes, kept, strict=True))
    return kept, dropped


OUTLIERS = ("keep", "clip")
QUANTILES = (0.01, 0.99)
# Ranges between the quantiles from the median. Motion recorded without glitches goes to 1.3; a glitch of 2950 among
# joints within 90 lies 16 from it.
FAR = 10.0
NAMED = 5


def check_outliers(outliers: str) -> None:
    """Raises InputError for another word than 'keep' or 'clip'."""
    if outliers not in OUTLIERS:
        raise InputError(f"outliers is '{outliers}'; give one of {', '.join(OUTLIERS)}")


def limit_outliers(
    episodes: list[Episode], train: Sequence[int], layout: ActionLayout, clip: bool
) -> tuple[list[Episode], Outliers]:
    """Find what lies far outside all else of an unclipped dimension, and where asked bring it to the nearer quantile.

    Far is beyond 10 times the range from the 1 % to the 99 % quantile, from the median: of the steps of the episodes
    `train`, so that what is held out has no say. A dimension in which the two quantiles are equal hardly ever moves,
    and that tells nothing of how far it may.
    """
    fitting = np.concatenate([episodes[position].actions for position in train])
    # The outer neighbours of the quantiles would be glitches themselves where there are fewer than 100 steps.
    low = np.quantile(fitting, QUANTILES[0], axis=0, method="higher")
    high = np.quantile(fitting, QUANTILES[1], axis=0, method="lower")
    known = np.isinf(layout.limit) & (high > low)
    middle, width = np.median(fitting, axis=0), np.where(known, high - low, np.inf)
    far = [np.abs(episode.actions / FAR - middle / FAR) > width for episode in episodes]
    named = [
        Outlier(episode.place, int(step), layout.names[at], float(episode.actions[step, at]))
        for episode, found in zip(episodes, far, strict=True)
        for step, at in np.argwhere(found)[:NAMED]
    ]
    if clip:
        limited = (np.where(f, np.clip(e.actions, low, high), e.actions) for e, f in zip(episodes, far, strict=True))
        episodes = [replace(e, actions=a) if f.any() else e for e, a, f in zip(episodes, limited, far, strict=True)]
    return episodes, Outliers(sum(int(found.sum()) for found in far), tuple(named[:NAMED]), clip)


def clip_episodes(episodes: list[Episode], layout: ActionLayout) -> tuple[list[Episode], Clipping]:
    """Clip as the simulator does before the controller sees an action, and count what it changed."""
    limit = layout.limit
    actions = np.concatenate([episode.actions for episode in episodes])
    outside = np.abs(actions) > limit
    clipping = Clipping(
        steps=outside.sum(axis=0),
        largest=np.abs(actions).max(axis=0),
        steps_any=int(outside.any(axis=1).sum()),
        total_steps=len(actions),
    )
    if not clipping.steps_any:
        return episodes, clipping
    return [replace(e, actions=np.clip(e.actions, -limit, limit)) for e in episodes], clipping
