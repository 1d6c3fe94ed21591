"""Episodes: what every source yields, checked and clipped as the controller does."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from workbook.errors import InputError

ACTION_DIM = 7
DIMENSION_NAMES = ("x", "y", "z", "roll", "pitch", "yaw", "gripper")
POSITION, ROTATION, GRIPPER = slice(0, 3), slice(3, 6), slice(6, 7)
CONTROL_RATE_HZ = 20.0
# OSC_POSE controller of LIBERO: what an action of 1.0 commands in one step.
POSITION_MM_PER_UNIT = 50.0
ROTATION_DEG_PER_UNIT = float(np.degrees(0.5))
CONTROLLER_LIMIT = 1.0


@dataclass(frozen=True, eq=False)
class Episode:
    """One demonstration.

    actions: (T, 7) float64 in controller units: position and rotation deltas, gripper -1 open / +1 close.
    task: what was to be done; source: file, relative to the data folder; key: its name in the file.
    """

    actions: NDArray[np.float64]
    task: str
    source: str
    key: str

    @property
    def stratum(self) -> tuple[str, str]:
        """Episodes recorded alike: the same file and the same task."""
        return self.source, self.task

    @property
    def place(self) -> str:
        return f"{self.source}, {self.key}"


@dataclass(frozen=True, eq=False)
class Clipping:
    """What clipping to the controller's range changed; arrays have one entry a dimension."""

    steps: NDArray[np.int64]
    largest: NDArray[np.float64]
    steps_any: int
    total_steps: int


def check_episodes(episodes: list[Episode], chunk_len: int) -> None:
    """Refuse what cannot be encoded.

    Raises:
        InputError: wrong width, NaN or infinite values, an episode shorter than a chunk, or the same one twice.
    """
    for episode in episodes:
        shape = episode.actions.shape
        if len(shape) != 2 or shape[1] != ACTION_DIM:
            raise InputError(
                f"{episode.place}: actions have shape {shape}, expected (steps, {ACTION_DIM}); "
                "leave this file out or convert its actions"
            )
        bad = np.argwhere(~np.isfinite(episode.actions))
        if len(bad):
            step, dimension = bad[0]
            raise InputError(
                f"{episode.place}, step {step}, {DIMENSION_NAMES[dimension]}: "
                f"the action is {episode.actions[step, dimension]}; mend or remove this episode"
            )
        if shape[0] < chunk_len:
            raise InputError(
                f"{episode.place}: {shape[0]} steps are fewer than one chunk of {chunk_len}; "
                "remove this episode or choose a shorter chunk"
            )
    _refuse_copies(episodes)


def _refuse_copies(episodes: list[Episode]) -> None:
    """The same recording twice could be trained on and held out at once."""
    seen: dict[bytes, Episode] = {}
    for episode in episodes:
        first = seen.setdefault(hashlib.sha256(episode.actions.tobytes()).digest(), episode)
        if first is not episode:
            raise InputError(
                f"{episode.place}: is the same recording as {first.place}; remove one, "
                "or a held-out episode would be trained on"
            )


def clip_episodes(episodes: list[Episode]) -> tuple[list[Episode], Clipping]:
    """Clip to [-1, 1] as the simulator does before the controller sees an action, and count what it changed."""
    actions = np.concatenate([episode.actions for episode in episodes])
    outside = np.abs(actions) > CONTROLLER_LIMIT
    clipping = Clipping(
        steps=outside.sum(axis=0),
        largest=np.abs(actions).max(axis=0),
        steps_any=int(outside.any(axis=1).sum()),
        total_steps=len(actions),
    )
    clipped = [
        replace(episode, actions=np.clip(episode.actions, -CONTROLLER_LIMIT, CONTROLLER_LIMIT)) for episode in episodes
    ]
    return clipped, clipping


def take_evenly(episodes: list[Episode], count: int) -> list[Episode]:
    """The first `count` episodes, taken in turn from every stratum; 0 takes all.

    Raises:
        InputError: `count` is negative.
    """
    if count < 0:
        raise InputError(f"--num-episodes is {count}; give a positive number, or 0 for all")
    if count == 0 or count >= len(episodes):
        return episodes
    rank_in_stratum: dict[tuple[str, str], int] = {}
    ranked = []
    for position, episode in enumerate(episodes):
        rank = rank_in_stratum.get(episode.stratum, 0)
        rank_in_stratum[episode.stratum] = rank + 1
        ranked.append((rank, position))
    chosen = sorted(position for _, position in sorted(ranked)[:count])
    return [episodes[position] for position in chosen]
