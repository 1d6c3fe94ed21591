"""Playing actions from a recorded start, and what is kept of it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, fields
from functools import cache, cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from workbook.common.array import Array
from workbook.common.paths import replacing
from workbook.data.episodes import Start
from workbook.simulation import scene as scene_module
from workbook.simulation.kernels import kernels
from workbook.simulation.scene import Scene, versions

TAIL_STEPS = 10  # of standing still after the last action, in which a goal not yet reached may come to hold


@dataclass(frozen=True, eq=False)
class Playback:
    """Actions (T, 7) in controller units, to be played one after the other from a start."""

    start: Start
    actions: Array

    @cached_property
    def key(self) -> str:
        """Hash of all that decides what will happen, with this code, the simulator's packages and the kernels."""
        made_by = {"code": _code_sha256(), "kernels": kernels(), **versions()}
        said = {"task": self.start.task_file, "fixtures": self.start.fixtures, **made_by}
        digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode())
        digest.update(np.ascontiguousarray(self.start.state, dtype=np.float64).tobytes())
        digest.update(np.ascontiguousarray(self.actions, dtype=np.float64).tobytes())
        return digest.hexdigest()


@cache
def _code_sha256() -> str:
    return hashlib.sha256(b"".join(Path(file).read_bytes() for file in (scene_module.__file__, __file__))).hexdigest()


@dataclass(frozen=True, eq=False)
class Trace:
    """What happened: row 0 of every path is the start, row t what the t-th action led to.

    goal: (T,) whether the task's goal held after each action; hand: (T+1, 3) position of the end effector in metres;
    turn: (T+1, 4) its rotation as a quaternion, w last; objects: (T+1, N, 3) positions of what the goal says is to be
    carried; mechanisms: (T+1, M) positions of the joints that the goal is about, in metres or radians;
    final_state_sha256: () hash of the simulator's state after the last action.
    """

    goal: NDArray[np.bool_]
    hand: Array
    turn: Array
    objects: Array
    mechanisms: Array
    final_state_sha256: NDArray[np.str_]

    @property
    def succeeded(self) -> bool:
        """LIBERO's own rule: the goal held after some action."""
        return bool(self.goal.any())

    def save(self, path: Path) -> None:
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **{field.name: getattr(self, field.name) for field in fields(self)})

    @staticmethod
    def load(path: Path) -> Trace | None:
        """The trace in a file; None where there is none, or none that can be read."""
        try:
            with np.load(path, allow_pickle=False) as saved:
                return Trace(**{field.name: saved[field.name] for field in fields(Trace)})
        except Exception:  # a damaged archive can raise nearly anything, and is simply played again
            return None


def play(scene: Scene, playback: Playback) -> Trace:
    """Play all actions, and stand still for a while where the goal has not been reached by then.

    Raises:
        SimulationError: the start does not fit the task, or the simulation became unstable.
    """
    scene.begin(playback.start.state, playback.start.fixtures)
    goal, looks = [], [_look(scene)]

    def act(action: Array) -> None:
        goal.append(scene.advance(action))
        looks.append(_look(scene))

    for action in playback.actions:
        act(action)
    final = scene.state_sha256
    idle = np.concatenate([np.zeros(6), playback.actions[-1, 6:]])
    while not any(goal) and len(goal) < len(playback.actions) + TAIL_STEPS:
        act(idle)
    hand, turn, objects, mechanisms = (np.stack(column) for column in zip(*looks, strict=True))
    return Trace(np.array(goal), hand, turn, objects, mechanisms, np.array(final))


def _look(scene: Scene) -> tuple[Array, Array, Array, Array]:
    position, rotation = scene.hand
    objects = np.array([scene.position(name) for name in scene.objects]).reshape(-1, 3)
    return position, Rotation.from_matrix(rotation).as_quat(), objects, scene.mechanisms


def turned_apart(first: Array, second: Array) -> Array:
    """Angle in degrees between rotations given as quaternions (..., 4)."""
    return np.degrees((Rotation.from_quat(first).inv() * Rotation.from_quat(second)).magnitude())
