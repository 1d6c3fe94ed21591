"""Demonstrations as a file in LIBERO's HDF5 layout; the same demonstrations give the same bytes."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from workbook.common.array import Array
from workbook.common.paths import replacing
from workbook.simulation.recorder.expert import Demonstration
from workbook.simulation.tasks import Task

TAG = "scripted expert in the LIBERO simulator; not the human LIBERO demonstrations"
DOMAIN = "robosuite"
CONTROL_RATE_HZ = 20
LAYOUT = ("v110", "v110")  # of HDF5 1.10, which keeps the index of a single chunk small; h5py reads it since 2.8
POSE_DECIMALS = 4  # 0.1 mm, and as much of a quaternion: more would only be what gzip cannot shorten


@dataclass(frozen=True, eq=False)
class Kept:
    """A demonstration that succeeded, the number of its try, and of the initial state that it began from."""

    demonstration: Demonstration
    attempt: int
    init_index: int


@dataclass(frozen=True, eq=False)
class Recorded:
    """What was recorded of one task. tries: how many episodes were demonstrated; versions: package -> version."""

    task: Task
    problem: str
    bddl: str
    objects: Sequence[str]
    seed: int
    tries: int
    kept: Sequence[Kept]
    versions: Mapping[str, str]

    @property
    def steps(self) -> int:
        return sum(len(kept.demonstration.actions) for kept in self.kept)

    def save(self, folder: Path) -> Path:
        """Write the file at its place below the folder, which is made where it does not exist.

        Raises:
            OSError: it cannot be written.
        """
        path = folder / self.task.demo_file
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary, h5py.File(temporary, "w", libver=LAYOUT, locking=False) as file:
            group = file.create_group("data")
            group.attrs.update(self._attributes())
            for number, kept in enumerate(self.kept):
                self._write_demo(group.create_group(f"demo_{number}"), kept)
        return path

    def _attributes(self) -> dict[str, str | int]:
        names = {"env_name": self.problem, "problem_name": self.problem}
        control = {"robots": ["Panda"], "controller": "OSC_POSE", "control_freq": CONTROL_RATE_HZ}
        problem = {"problem_name": self.problem, "domain_name": DOMAIN, "language_instruction": self.task.text}
        return {
            "env_name": self.problem,
            "env_args": json.dumps({"type": 1, **names, "bddl_file": self.task.file, "env_kwargs": control}),
            "problem_info": json.dumps(problem),
            "bddl_file_name": self.task.file,
            "bddl_file_content": self.bddl,
            "macros_image_convention": "none",
            "tag": TAG,
            "versions": json.dumps({**self.versions, "python": platform.python_version()}),
            "seed": self.seed,
            "tries": self.tries,
            "num_demos": len(self.kept),
            "total": self.steps,
        }

    def _write_demo(self, group: h5py.Group, kept: Kept) -> None:
        demonstration = kept.demonstration
        group.attrs["num_samples"] = len(demonstration.actions)
        group.attrs["init_state"] = demonstration.start
        group.attrs["init_index"] = kept.init_index
        group.attrs["seed"] = kept.attempt
        group.attrs["final_state_sha256"] = demonstration.final_state_sha256
        _write(group, "actions", demonstration.actions)
        _write(group, "robot_states", demonstration.robot.astype(np.float32))
        _write(group, "object_poses", _rounded(demonstration.objects))
        group["object_poses"].attrs["names"] = json.dumps(list(self.objects))
        _write(group, "mechanisms", _rounded(demonstration.mechanisms))


def _rounded(poses: Array) -> np.ndarray:
    return np.round(poses, POSE_DECIMALS).astype(np.float32)


def _write(group: h5py.Group, name: str, values: np.ndarray) -> None:
    """One compressed chunk a data set; HDF5 cannot compress what is empty."""
    if values.size:
        group.create_dataset(
            name, data=values, chunks=values.shape, compression="gzip", compression_opts=9, shuffle=True
        )
    else:
        group.create_dataset(name, data=values)
