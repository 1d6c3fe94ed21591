"""Brings recordings to one convention: refuses what cannot be actions, unifies grippers, leaves out copies, clips."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from workbook.common.errors import InputError
from workbook.data.episodes import Episode, LeftOut, by_group
from workbook.data.layout import DELTAS, ActionLayout


def leave_out_unusable(
    episodes: Sequence[Episode], layout: ActionLayout, chunk_len: int
) -> tuple[list[Episode], list[LeftOut]]:
    """What has the layout's width, finite values and the length of a chunk, and what has not."""
    problems = [(episode, _problem(episode, layout, chunk_len)) for episode in episodes]
    return [episode for episode, found in problems if found is None], [found for _, found in problems if found]


def _problem(episode: Episode, layout: ActionLayout, chunk_len: int) -> LeftOut | None:
    shape = episode.actions.shape
    if len(shape) != 2 or shape[1] != layout.dim:
        sentence = (
            f"{episode.place}: actions have shape {shape}, expected (steps, {layout.dim}) for the layout "
            f"'{layout.spec}'; leave this file out, or say what its "
            f"actions are, for example --layout joint:{shape[-1] if len(shape) == 2 else layout.dim}"
        )
        return LeftOut(episode.place, "wrong_width", sentence)
    bad = np.argwhere(~np.isfinite(episode.actions))
    if len(bad):
        step, dimension = bad[0]
        sentence = (
            f"{episode.place}, step {step}, {layout.names[dimension]}: "
            f"the action is {episode.actions[step, dimension]}; fix or remove this episode"
        )
        return LeftOut(episode.place, "not_finite", sentence)
    if shape[0] < chunk_len:
        sentence = (
            f"{episode.place}: {shape[0]} steps are fewer than one chunk of {chunk_len}; "
            "remove this episode or choose a shorter chunk"
        )
        return LeftOut(episode.place, "short_part" if episode.part_of else "too_short", sentence)
    return None


def check_left_out(left_out: Sequence[LeftOut], usable: int, most: float) -> None:
    """Refuse data of which too much cannot be used. usable: episodes that can; most: share that may be left out.

    Raises:
        InputError: says why the first cannot, and counts them.
    """
    faults = [one for one in left_out if one.why not in ASKED_FOR]
    total = len(faults) + usable
    if len(faults) <= most * total and usable:
        return
    if len(faults) == 1 and usable:
        raise InputError(faults[0].sentence)
    if not faults:
        raise InputError(f"{left_out[0].sentence}; nothing is left" if left_out else "the data hold no episode")
    raise InputError(f"{faults[0].sentence} (and so on: {len(faults)} of {total} episodes cannot be used)")


OPEN_ENDS = ("auto", "low", "high")
RANGES = ((-1.0, 1.0), (0.0, 1.0))  # of a switch
TWO_VALUED = 0.99  # a gripper command that is at one of its two ends in this share of steps is a switch
AT_AN_END = 2e-3  # so near to an end is at it: recordings are rounded, normalised and brought back
CLEAR_MAJORITY = 0.9  # of the episodes begin with the hand at the same end: that end is open
FEWEST_STARTS = 4  # episodes, to call it a majority


@dataclass(frozen=True)
class GripperReading:
    """How a gripper dimension was recorded and what was made of it, -1 open and +1 close.

    low, high: its least and greatest value. switch: these are -1 and 1, or 0 and 1, and nearly all it has. open_end:
    'low' or 'high', None where nothing tells; given: the user said so; starts_high: share of the `episodes` that begin
    at the high end; changed: not as recorded.
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


def check_open_end(open_end: str) -> None:
    """Raises InputError for another word than 'auto', 'low' or 'high'."""
    if open_end not in OPEN_ENDS:
        raise InputError(f"gripper_open is '{open_end}'; give one of {', '.join(OPEN_ENDS)}")


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
    for dimension in map(int, layout.indices("gripper")):
        reading = _read(episodes, dimension, layout.names[dimension], open_end)
        readings.append(reading)
        if reading.switch:
            episodes = [_with_unified(episode, dimension, reading) for episode in episodes]
    return episodes, tuple(readings)


def _read(episodes: Sequence[Episode], dimension: int, name: str, open_end: str) -> GripperReading:
    values = np.concatenate([episode.actions[:, dimension] for episode in episodes])
    groups = [[episodes[i] for i in positions] for positions in by_group(episodes).values()]
    _refuse_mixed_ranges(groups, dimension, name)
    given = open_end != "auto"
    span = _switch_range(values)
    low, high = span or (float(values.min()), float(values.max()))
    starts_high = _starts_high(episodes, dimension, (low + high) / 2)
    if span is None:
        return GripperReading(name, low, high, False, None, given, starts_high, len(episodes), False)
    if not given:
        _refuse_mixed_directions(groups, dimension, name, (low + high) / 2)
    found = open_end if given else _clear_end(starts_high, len(episodes))
    changed = span == (0.0, 1.0) or found == "high"
    return GripperReading(name, low, high, True, found, given, starts_high, len(episodes), changed)


def _at(values: NDArray[np.float64], end: float) -> NDArray[np.bool_]:
    return np.abs(values - end) <= AT_AN_END


def _switch_range(values: NDArray[np.float64]) -> tuple[float, float] | None:
    """The two ends between which nearly all values switch, a stray one aside; None where they do not."""
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
        values = np.concatenate([episode.actions[:, dimension] for episode in group])
        span = _switch_range(values)
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


NOOP_BELOW = 1e-4  # length of the motion command; OpenVLA, regenerate_libero_dataset.py


@dataclass(frozen=True, eq=False)
class Clipping:
    """What clipping to the controller's range changed; arrays have one entry a dimension."""

    steps: NDArray[np.int64]
    largest: NDArray[np.float64]
    steps_any: int
    total_steps: int


ASKED_FOR = ("failed", "no_motion", "short_part")  # reasons to leave an episode out that are no fault of the data
Copy = tuple[str, str]  # where a recording lies that is left out, and where the same one that is kept


@dataclass(frozen=True, eq=False)
class Changes:
    """Everything that differs from what lies in the files. noops_dropped: steps, None where none were to be dropped."""

    copies: tuple[Copy, ...]
    left_out: tuple[LeftOut, ...]
    grippers: tuple[GripperReading, ...]
    noops_dropped: int | None
    clipping: Clipping


def leave_out_copies(episodes: list[Episode]) -> tuple[list[Episode], tuple[Copy, ...]]:
    """Keep the first of equal recordings, or a held-out episode could be trained on; the others are named."""
    first: dict[bytes, Episode] = {}
    copies = []
    for episode in episodes:
        digest = hashlib.sha256(repr(episode.actions.shape).encode() + episode.actions.tobytes()).digest()
        original = first.setdefault(digest, episode)
        if original is not episode:
            copies.append((episode.place, original.place))
    return list(first.values()), tuple(copies)


def noops_are_known(layout: ActionLayout) -> bool:
    """Whether a step that commands nothing can be told: all motion is deltas, and there is some."""
    return bool(layout.of_kind(*DELTAS)) and not layout.of_kind("joint")


def noop_steps(actions: NDArray[np.float64], layout: ActionLayout) -> NDArray[np.bool_]:
    """Steps that command no motion and no change of a gripper, by OpenVLA's rule: (T, A) -> (T,).

    It is a rule for deltas: joints, which are mostly poses, are left out of account; see `noops_are_known`.

    The gripper is compared with that of the last step that is no such step; before the first, motion alone counts.
    """
    still = np.linalg.norm(actions[:, layout.indices(*DELTAS)], axis=1) < NOOP_BELOW
    gripper = actions[:, layout.indices("gripper")]
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


def leave_out_emptied(episodes: list[Episode], chunk_len: int) -> tuple[list[Episode], list[LeftOut]]:
    """What still fills a chunk after its no-op steps went, and what does not.

    Raises:
        InputError: nothing does.
    """
    kept = [episode for episode in episodes if len(episode.actions) >= chunk_len]
    emptied = [
        LeftOut(
            episode.place,
            "no_motion",
            f"{episode.place}: {len(episode.actions)} steps that command something are fewer than one chunk of "
            f"{chunk_len}; leave out --drop-noops or choose a shorter chunk",
        )
        for episode in episodes
        if len(episode.actions) < chunk_len
    ]
    if not kept:
        raise InputError(emptied[0].sentence)
    return kept, emptied


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
