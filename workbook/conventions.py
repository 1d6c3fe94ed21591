"""What is changed between the files and the data set, counted, so that it can be said: copies, no-ops, range."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from workbook.episodes import Episode
from workbook.errors import InputError
from workbook.gripper import GripperReading
from workbook.layout import DELTAS, ActionLayout

NOOP_BELOW = 1e-4  # length of the motion command; OpenVLA, regenerate_libero_dataset.py


@dataclass(frozen=True, eq=False)
class Clipping:
    """What clipping to the controller's range changed; arrays have one entry a dimension."""

    steps: NDArray[np.int64]
    largest: NDArray[np.float64]
    steps_any: int
    total_steps: int


@dataclass(frozen=True, eq=False)
class Changes:
    """Everything that differs from what lies in the files. noops_dropped: steps, None where none were to be dropped."""

    copies: tuple[str, ...]
    grippers: tuple[GripperReading, ...]
    noops_dropped: int | None
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
