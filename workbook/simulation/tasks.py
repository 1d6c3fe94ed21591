"""The tasks of LIBERO's benchmark as the simulator has them: names, texts and official initial states."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from workbook.common.array import Array
from workbook.common.errors import InputError
from workbook.simulation.scene import SUITES, SimulationError, find_task

LARGEST_SUITE = 100  # room for the tasks of a suite in Task.number
SCENE = re.compile(r"^[A-Z_]+SCENE\d+_")  # before the text, in the names of libero_10 and libero_90


@dataclass(frozen=True)
class Task:
    """A task by its suite, its place in it, and the name of its files."""

    suite: str
    index: int
    name: str

    @property
    def label(self) -> str:
        return f"{self.suite}:{self.index}"

    @property
    def file(self) -> str:
        """The BDDL file, with its suite's folder before it."""
        return f"{self.suite}/{self.name}.bddl"

    @property
    def demo_file(self) -> str:
        """Where LIBERO puts the demonstrations, below the folder of all of them."""
        return f"{self.suite}/{self.name}_demo.hdf5"

    @property
    def text(self) -> str:
        """The instruction, which the benchmark makes from the name."""
        return SCENE.sub("", self.name).replace("_", " ")

    @property
    def number(self) -> int:
        """Another for every task."""
        return SUITES.index(self.suite) * LARGEST_SUITE + self.index


def initial_states(task: Task) -> Array:
    """The benchmark's initial states of a task, flattened: (N, S).

    Raises:
        SimulationError: the simulator or the task is not installed, or its initial states are not.
    """
    path = _states_folder(task) / task.suite / f"{task.name}.pruned_init.npz"
    try:
        with np.load(path, allow_pickle=False) as saved:
            return np.asarray(saved["states"], dtype=np.float64)
    except (OSError, KeyError, ValueError):
        raise SimulationError(f"{path}: the initial states of {task.label} are not installed") from None


def bddl_text(task: Task) -> str:
    """What the task's BDDL file says."""
    return find_task(task.file).read_text(encoding="utf8")


def _states_folder(task: Task) -> Path:
    find_task(task.file)  # says what is missing, and imports the simulator without its advice
    from libero.libero import get_libero_path

    return Path(get_libero_path("init_states"))


def parse_label(label: str) -> tuple[str, int]:
    """'libero_goal:7' -> ('libero_goal', 7).

    Raises:
        InputError: it is not of that form.
    """
    suite, _, index = label.partition(":")
    if suite not in SUITES or not index.isascii() or not index.isdecimal():
        raise InputError(f"task {label!r}: is not a suite and an index, as in libero_goal:7")
    return suite, int(index)
