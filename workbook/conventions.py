"""What is changed between the files and the data set, counted, so that it can be said: copies, gripper, range."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from workbook.episodes import Episode
from workbook.errors import InputError
from workbook.layout import ActionLayout

GRIPPER_OPEN = ("auto", "low", "high")
TWO_VALUED = 0.99  # a gripper command that is at one of its two ends in this share of steps is a switch
CLEAR_MAJORITY = 0.9  # of the episodes begin with the hand at the same end: that end is open
FEWEST_STARTS = 4  # episodes, to call it a majority
NOOP_BELOW = 1e-4  # length of the motion command; OpenVLA, regenerate_libero_dataset.py


@dataclass(frozen=True, eq=False)
class Clipping:
    """What clipping to the controller's range changed; arrays have one entry a dimension."""

    steps: NDArray[np.int64]
    largest: NDArray[np.float64]
    steps_any: int
    total_steps: int


@dataclass(frozen=True)
class GripperReading:
    """How a gripper dimension was recorded and what was made of it, -1 open and +1 close.

    low, high: its least and greatest value. switch: these are -1 and 1, or 0 and 1, and nearly all it has. open_end:
    'low' or 'high', None where nothing tells; given: the user said so; starts_high: share of episodes that begin at
    the high end; changed: not as recorded.
    """

    name: str
    low: float
    high: float
    switch: bool
    open_end: str | None
    given: bool
    starts_high: float
    changed: bool


@dataclass(frozen=True, eq=False)
class Changes:
    """Everything that differs from what lies in the files."""

    copies: tuple[str, ...]
    grippers: tuple[GripperReading, ...]
    noops_dropped: int
    clipping: Clipping


def leave_out_copies(episodes: list[Episode]) -> tuple[list[Episode], tuple[str, ...]]:
    """Keep the first of equal recordings, or a held-out episode could be trained on; the others are named."""
    first: dict[bytes, Episode] = {}
    copies = []
    for episode in episodes:
        digest = hashlib.sha256(repr(episode.actions.shape).encode() + episode.actions.tobytes()).digest()
        original = first.setdefault(digest, episode)
        if original is not episode:
            copies.append(f"{episode.place} is the same recording as {original.place}")
    return list(first.values()), tuple(copies)


def unify_grippers(
    episodes: list[Episode], layout: ActionLayout, open_end: str = "auto"
) -> tuple[list[Episode], tuple[GripperReading, ...]]:
    """Bring every gripper that is a switch to -1 open, +1 close.

    open_end: which end of the recorded values is open, 'low' or 'high'; 'auto' takes the end at which at least 90 %
    of the episodes begin, for demonstrations begin with an open hand, and the low end where that does not tell.

    Raises:
        InputError: an unknown `open_end`, or parts of the data that record the gripper differently.
    """
    if open_end not in GRIPPER_OPEN:
        raise InputError(f"gripper_open is '{open_end}'; give one of {', '.join(GRIPPER_OPEN)}")
    readings = []
    for dimension in layout.indices("gripper"):
        reading = _read_gripper(episodes, int(dimension), layout.names[dimension], open_end)
        readings.append(reading)
        if reading.changed:
            episodes = [_with_gripper(episode, int(dimension), reading) for episode in episodes]
    return episodes, tuple(readings)


def _read_gripper(episodes: Sequence[Episode], dimension: int, name: str, open_end: str) -> GripperReading:
    values = np.concatenate([episode.actions[:, dimension] for episode in episodes])
    low, high = (float(end) for end in (values.min(), values.max()))
    starts_high = float(np.mean([episode.actions[0, dimension] > (low + high) / 2 for episode in episodes]))
    ends = np.mean((values == low) | (values == high))
    signed, unsigned = (low, high) == (-1.0, 1.0), (low, high) == (0.0, 1.0)
    switch = bool(ends >= TWO_VALUED and (signed or unsigned))
    given = open_end != "auto"
    _refuse_a_mixture(episodes, dimension, name)
    if not switch:
        return GripperReading(name, low, high, False, None, given, starts_high, False)
    found = open_end if given else _open_end(episodes, starts_high)
    return GripperReading(name, low, high, True, found, given, starts_high, unsigned or found == "high")


def _open_end(episodes: Sequence[Episode], starts_high: float) -> str | None:
    if len(episodes) < FEWEST_STARTS or max(starts_high, 1 - starts_high) < CLEAR_MAJORITY:
        return None
    return "high" if starts_high >= CLEAR_MAJORITY else "low"


def _refuse_a_mixture(episodes: Sequence[Episode], dimension: int, name: str) -> None:
    """Some episodes switch between 0 and 1, and others between -1 and 1: no single reading is right for both."""
    found: dict[float, Episode] = {}
    for episode in episodes:
        values = np.unique(episode.actions[:, dimension])
        for low in (0.0, -1.0):
            if low in values and np.isin(values, (low, 1.0)).all() and (low < 0 or len(values) == 2):
                found.setdefault(low, episode)
    if len(found) == 2:
        raise InputError(
            f"{found[0.0].place}: {name} switches between 0 and 1, and between -1 and 1 in {found[-1.0].place}; "
            "convert one of them, or leave it out"
        )


def _with_gripper(episode: Episode, dimension: int, reading: GripperReading) -> Episode:
    """The episode with -1 at the open end and +1 at the other."""
    actions = episode.actions.copy()
    close_share = (actions[:, dimension] - reading.low) / (reading.high - reading.low)
    if reading.open_end == "high":
        close_share = 1 - close_share
    actions[:, dimension] = 2 * close_share - 1
    return replace(episode, actions=actions)


def noop_steps(actions: NDArray[np.float64], layout: ActionLayout) -> NDArray[np.bool_]:
    """Steps that command no motion and no change of a gripper, by OpenVLA's rule: (T, A) -> (T,).

    The gripper is compared with that of the last step that is no such step; before the first, motion alone counts.
    """
    still = np.linalg.norm(actions[:, layout.motion], axis=1) < NOOP_BELOW
    gripper = actions[:, layout.indices("gripper")]
    # A no-op has the gripper command of the last kept step, so comparing with the step before is the same.
    same = np.concatenate([[False], (gripper[1:] == gripper[:-1]).all(axis=1)])
    nothing_kept_yet = np.logical_and.accumulate(still)
    return still & (same | nothing_kept_yet)


def drop_noops(episodes: list[Episode], layout: ActionLayout) -> tuple[list[Episode], int]:
    """The episodes without their no-op steps, and how many went."""
    kept = [replace(episode, actions=episode.actions[~noop_steps(episode.actions, layout)]) for episode in episodes]
    dropped = sum(len(before.actions) - len(after.actions) for before, after in zip(episodes, kept, strict=True))
    return kept, dropped


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
