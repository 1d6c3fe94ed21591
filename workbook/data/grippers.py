"""Grippers, however they were recorded: switches are brought to one convention, all else keeps its units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from workbook.common.errors import InputError
from workbook.data.episodes import Episode, by_group
from workbook.data.layout import DELTAS, ActionLayout

OPEN_ENDS = ("auto", "low", "high")
RANGES = ((-1.0, 1.0), (0.0, 1.0))  # of a switch
TWO_VALUED = 0.99  # a gripper command that is at one of its two ends in this share of steps is a switch
AT_AN_END = 2e-3  # so near to an end is at it: recordings are rounded, normalised and brought back
CLEAR_MAJORITY = 0.9  # of the episodes begin with the hand at the same end: that end is open
FEWEST_STARTS = 4  # episodes, to call it a majority
FEW_BEYOND = 0.05  # share of values beyond [-1, 1] that are strays, clipped as the controller does
FEW_LEVELS = 3  # values that a command has which is given by buttons: open, close, and nothing


@dataclass(frozen=True)
class GripperReading:
    """How a gripper dimension was recorded and what was made of it, -1 open and +1 close.

    low, high: its least and greatest value. switch: these are -1 and 1, or 0 and 1, and nearly all it has. open_end:
    'low' or 'high', None where nothing tells; given: the user said so; starts_high: share of the `episodes` that begin
    at the high end; changed: not as recorded; own_units: an opening, which is never clipped.
    """

    name: str
    low: float
    high: float
    switch: bool
    open_end: str | None
    given: bool
    starts_high: float
    episodes: int
    changed: bool
    own_units: bool


def check_open_end(open_end: str) -> None:
    """Raises InputError for another word than 'auto', 'low' or 'high'."""
    if open_end not in OPEN_ENDS:
        raise InputError(f"gripper_open is '{open_end}'; give one of {', '.join(OPEN_ENDS)}")


def find_openings(episodes: Sequence[Episode], layout: ActionLayout) -> ActionLayout:
    """The layout in which every gripper that is a signal in units of its own is an opening, which nothing clips.

    Beside position and rotation deltas it is one only where much of it lies beyond the controller's limit.
    """
    beside_joints = bool(layout.of_kind("joint")) or not layout.of_kind(*DELTAS)
    found = [int(at) for at in layout.indices("gripper") if _has_own_units(_values(episodes, at), beside_joints)]
    return layout.with_openings(found)


def _has_own_units(values: NDArray[np.float64], beside_joints: bool) -> bool:
    few_beyond = _few_beyond(values)
    if not beside_joints:
        levels = np.sort(np.unique(values, return_counts=True)[1])[-FEW_LEVELS:]
        return not few_beyond and levels.sum() < TWO_VALUED * len(values)
    moves = np.ptp(values) > 0
    return (moves or not few_beyond) and _switch_range(values) is None


def _few_beyond(values: NDArray[np.float64]) -> bool:
    return bool((np.abs(values) > 1 + AT_AN_END).mean() <= FEW_BEYOND)


def _values(episodes: Sequence[Episode], dimension: int) -> NDArray[np.float64]:
    return np.concatenate([episode.actions[:, dimension] for episode in episodes])


def unify_grippers(
    episodes: list[Episode], layout: ActionLayout, open_end: str = "auto"
) -> tuple[list[Episode], tuple[GripperReading, ...]]:
    """Bring every gripper that is a switch to -1 open, +1 close.

    open_end: which end of the recorded values is open, 'low' or 'high'; 'auto' takes the end at which at least 90 %
    of the episodes begin, for demonstrations begin with an open hand, and the low end where that does not tell.

    Raises:
        InputError: an unknown `open_end`, or parts of the data that record the gripper differently.
    """
    check_open_end(open_end)
    readings = []
    for dimension in map(int, layout.grippers):
        reading = _read(episodes, dimension, layout, open_end)
        readings.append(reading)
        if reading.switch:
            episodes = [_with_unified(episode, dimension, reading) for episode in episodes]
    return episodes, tuple(readings)


def _read(episodes: Sequence[Episode], dimension: int, layout: ActionLayout, open_end: str) -> GripperReading:
    name, own_units = layout.names[dimension], dimension in layout.indices("opening")
    groups = [[episodes[i] for i in positions] for positions in by_group(episodes).values()]
    if not own_units:
        _refuse_mixed_ranges(groups, dimension, name)
    given = open_end != "auto"
    values = _values(episodes, dimension)
    span = None if own_units else _switch_range(values)
    low, high = span or (float(values.min()), float(values.max()))
    starts_high = _starts_high(episodes, dimension, (low + high) / 2)
    if span is None:
        return GripperReading(name, low, high, False, None, given, starts_high, len(episodes), False, own_units)
    if not given:
        _refuse_mixed_directions(groups, dimension, name, (low + high) / 2)
    found = open_end if given else _clear_end(starts_high, len(episodes))
    changed = span == (0.0, 1.0) or found == "high"
    return GripperReading(name, low, high, True, found, given, starts_high, len(episodes), changed, own_units)


def _at(values: NDArray[np.float64], end: float) -> NDArray[np.bool_]:
    return np.abs(values - end) <= AT_AN_END


def _switch_range(values: NDArray[np.float64]) -> tuple[float, float] | None:
    """The two ends between which nearly all values switch, strays aside; None where they do not."""
    if _few_beyond(values):
        values = np.clip(values, -1, 1)
    for low, high in RANGES:
        at_low, at_high = _at(values, low), _at(values, high)
        if at_low.any() and at_high.any() and (at_low | at_high).mean() >= TWO_VALUED:
            return low, high
    return None


def _starts_high(episodes: Sequence[Episode], dimension: int, middle: float) -> float:
    return float(np.mean([episode.actions[0, dimension] > middle for episode in episodes]))


def _clear_end(starts_high: float, episodes: int) -> str | None:
    if episodes < FEWEST_STARTS or max(starts_high, 1 - starts_high) < CLEAR_MAJORITY:
        return None
    return "high" if starts_high >= CLEAR_MAJORITY else "low"


def _refuse_mixed_ranges(groups: Sequence[Sequence[Episode]], dimension: int, name: str) -> None:
    """Some files switch between 0 and 1, and others between -1 and 1: no single reading is right for both."""
    found: dict[tuple[float, float], Episode] = {}
    for group in groups:
        span = _switch_range(_values(group, dimension))
        if span:
            found.setdefault(span, group[0])
    if len(found) == 2:
        signed, unsigned = (found[span].place for span in RANGES)
        raise InputError(
            f"{unsigned}: {name} switches between 0 and 1, and between -1 and 1 in {signed}; "
            "convert one of them, or leave it out"
        )


def _refuse_mixed_directions(groups: Sequence[Sequence[Episode]], dimension: int, name: str, middle: float) -> None:
    """Some files begin with the hand at the high end, and others at the low one: one of them is inverted."""
    found: dict[str, Episode] = {}
    for group in groups:
        end = _clear_end(_starts_high(group, dimension, middle), len(group))
        if end:
            found.setdefault(end, group[0])
    if len(found) == 2:
        raise InputError(
            f"{found['high'].place}: {name} begins at the high end, and at the low end in {found['low'].place}; "
            "convert one of them, or say with --gripper-open which end is open in both"
        )


def _with_unified(episode: Episode, dimension: int, reading: GripperReading) -> Episode:
    """The episode with -1 at the open end and +1 at the other; what is nearly at an end is put there."""
    recorded = episode.actions[:, dimension]
    close = recorded if reading.low == -1 else 2 * recorded - 1
    if reading.open_end == "high":
        close = -close
    close = np.where(_at(np.abs(close), 1.0), np.sign(close), close) + 0.0  # + 0.0 makes 0 of -0
    if (close == recorded).all():
        return episode
    actions = episode.actions.copy()
    actions[:, dimension] = close
    return replace(episode, actions=actions)
