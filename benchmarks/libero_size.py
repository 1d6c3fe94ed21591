"""`python -m benchmarks.libero_size FOLDER`: a made-up data set of LIBERO's size, to time a whole run on.

1,693 episodes of 40 tasks with 273,465 steps: what `--data libero` reads once OpenVLA's no-ops are left out. Motions
are smooth and random, on the controller's grid and within its limits, with pauses; the gripper closes and opens. They
are nobody's, and say nothing of a codec.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np

from workbook.common import terminal
from workbook.common.array import Array
from workbook.common.errors import InputError
from workbook.common.paths import expand

TASKS, EPISODES, STEPS = 40, 1_693, 273_465
CONTROL_HZ = 20
GRID = (0.9375 / 350, 0.375 / 350)  # position and rotation, as a SpaceMouse's 350 counts are scaled
REACH = (0.6, 0.2)  # of most commands
KNOT = 10  # steps between the points that a motion goes through


def main(arguments: Sequence[str] | None = None) -> int:
    given = sys.argv[1:] if arguments is None else arguments
    if len(given) != 1:
        return terminal.tell(_refuse, "")
    return terminal.tell(lambda: write(expand(given[0])), given[0])


def _refuse() -> str:
    raise InputError("give one folder: python -m benchmarks.libero_size FOLDER")


def write(folder: Path, episodes: int = EPISODES, steps: int = STEPS, tasks: int = TASKS, seed: int = 0) -> str:
    """A file a task in LIBERO's layout, actions only.

    Raises:
        InputError: the folder is there already and not empty.
    """
    if folder.is_dir() and any(folder.iterdir()):
        raise InputError(f"{folder}: is not empty; give a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    lengths = _lengths(rng, episodes, steps)
    for task, of_task in enumerate(np.array_split(lengths, tasks)):
        with h5py.File(folder / f"made_up_{task:02}_demo.hdf5", "w") as file:
            data = file.create_group("data")
            data.attrs["problem_info"] = json.dumps({"language_instruction": f"made-up task {task}"})
            data.attrs["env_args"] = json.dumps({"env_kwargs": {"control_freq": CONTROL_HZ}})
            for number, length in enumerate(of_task):
                demonstration = data.create_group(f"demo_{number}")
                demonstration.attrs["num_samples"] = int(length)
                demonstration.create_dataset("actions", data=_actions(rng, int(length)))
    return f"written: {folder}, {episodes:,} episodes of {tasks} tasks, {int(lengths.sum()):,} steps"


def _lengths(rng: np.random.Generator, episodes: int, steps: int) -> Array:
    """(E,) whole numbers that add up to `steps`, most within a third of the mean."""
    shares = rng.gamma(9.0, size=episodes)
    ends = np.round(np.cumsum(shares) / shares.sum() * steps).astype(int)
    return np.diff(ends, prepend=0)


def _actions(rng: np.random.Generator, steps: int) -> Array:
    """(T, 7) position, rotation and gripper in controller units."""
    parts = []
    for grid, reach in zip(GRID, REACH, strict=True):
        knots = rng.normal(size=(steps // KNOT + 2, 3)) * (rng.random(size=(steps // KNOT + 2, 1)) < 0.8)
        places = np.arange(steps) / KNOT
        smooth = np.stack([np.interp(places, np.arange(len(knots)), column) for column in knots.T], axis=1)
        parts.append(np.round(reach * np.tanh(smooth) / grid) * grid)
    switches = np.sort(rng.choice(np.arange(1, max(steps, 4)), size=2, replace=False))
    gripper = np.where((np.arange(steps) >= switches[0]) & (np.arange(steps) < switches[1]), 1.0, -1.0)
    return np.concatenate([*parts, gripper[:, None]], axis=1)


if __name__ == "__main__":
    sys.exit(main())
