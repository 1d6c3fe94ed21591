"""Episodes: the table that every source yields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from workbook.common.note import Note

CONTROL_RATE_HZ = 20.0  # LIBERO's; taken where nothing says another
FASTEST_HZ = 1e6


def control_rate(said: object) -> float | None:
    """The control rate that a file says in steps a second; None where it says none that can be."""
    if isinstance(said, bool) or not isinstance(said, (int, float)) or not 0 < said <= FASTEST_HZ:
        return None
    return float(said)


@dataclass(frozen=True, eq=False, repr=False)
class Episode:
    """One demonstration.

    actions: (T, A) float64; task: what was to be done; source: file, relative to the data folder; key: its name in
    the file; session: which recordings were made together, where a source tells; control_rate_hz: steps a second,
    None where nothing says it; part_of: the key of the recording that this is a part of, "" where it is whole.
    """

    actions: NDArray[np.float64]
    task: str
    source: str
    key: str
    session: str = ""
    control_rate_hz: float | None = None
    part_of: str = ""

    def __repr__(self) -> str:
        return f"Episode({self.task!r}, {len(self.actions)} steps, {self.place})"

    @property
    def group(self) -> tuple[str, str]:
        """Episodes recorded alike: the same session and the same task."""
        return self.session, self.task

    @property
    def place(self) -> str:
        return f"{self.source}, {self.key}"


@dataclass(frozen=True, eq=False)
class Start:
    """Where an episode began in LIBERO's simulator, for those who want to play it again.

    task_file: its BDDL file, with the folder of its suite where that is known; state: (S,) time, positions and
    velocities; fixtures: name of a body that does not move freely -> its position (3) and quaternion (4, w first) in
    the recorded scene, empty where the recording does not say; final_state_sha256: hash of the state in which the
    episode ended, "" where that was not recorded.
    """

    task_file: str
    state: NDArray[np.float64]
    fixtures: Mapping[str, tuple[float, ...]]
    final_state_sha256: str = ""


@dataclass(frozen=True)
class Origin:
    """Where recordings come from.

    kind: the format, by its own name or by a key that words have; name: what to give as --data to read the same again,
    a hub's revision included; revision: that revision, "" where they were not fetched; notes: what a reader of the
    results should know of how they were read.
    """

    kind: str
    name: str
    revision: str = ""
    notes: tuple[Note, ...] = ()


Why = Literal[
    "unreadable", "steps_missing", "wrong_width", "not_finite", "too_short", "failed", "no_motion", "short_part"
]  # the last three are asked for or made here, and no fault


@dataclass(frozen=True)
class LeftOut:
    """An episode, or a whole file, that is not used. sentence: what refuses it where nothing may be left out."""

    place: str
    why: Why
    sentence: str


@dataclass(frozen=True)
class ReadOptions:
    """What readers are told. action_column: '' is the usual one; only_successful: without what is marked as failed."""

    action_column: str = ""
    only_successful: bool = False


@dataclass(frozen=True, eq=False)
class Recordings:
    """What a source yields. names: what it calls the numbers of an action, one each, where it says it."""

    episodes: list[Episode]
    origin: Origin
    left_out: tuple[LeftOut, ...] = ()
    names: tuple[str, ...] = ()


def by_group(episodes: Sequence[Episode]) -> dict[tuple[str, str], list[int]]:
    """Positions of the episodes of each group, groups in the order in which they appear."""
    members: dict[tuple[str, str], list[int]] = {}
    for position, episode in enumerate(episodes):
        members.setdefault(episode.group, []).append(position)
    return members


def take_evenly(episodes: list[Episode], count: int) -> list[Episode]:
    """The first `count` episodes, taken in turn from every group; 0 takes all."""
    if count == 0 or count >= len(episodes):
        return episodes
    ranked = [entry for positions in by_group(episodes).values() for entry in enumerate(positions)]
    chosen = sorted(position for _, position in sorted(ranked)[:count])
    return [episodes[position] for position in chosen]
