"""Recordings made up on the spot: walks at random, exact ones, and such whose every number tells where it stands."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from workbook.data.episodes import Episode
from workbook.data.layout import LIBERO_SPEC, ActionLayout
from workbook.data.sources import libero_suites

Array = NDArray[np.float64]
TASK = "put the bowl on the plate"
TASKS = ["open the drawer", TASK]
STEPS = np.zeros((8, 7))
GRIPPER = 6
TWO_ARMS = ActionLayout.parse(f"{LIBERO_SPEC} {LIBERO_SPEC}")


def random_walk(rng: np.random.Generator, steps: int) -> Array:
    """(steps, 7) actions that wander within [-0.9, 0.9], the gripper -1 or +1."""
    motion = np.clip(np.cumsum(rng.normal(0, 0.1, (steps, 6)), axis=0), -0.9, 0.9)
    gripper = np.where(np.arange(steps) < rng.integers(1, steps), -1.0, 1.0)
    return np.column_stack([motion, gripper])


def walks(seed: int, count: int = 6) -> dict[str, Array]:
    """{demo_0, demo_1, ...: random walks of 24..60 steps}."""
    rng = np.random.default_rng(seed)
    return {f"demo_{i}": random_walk(rng, int(rng.integers(24, 61))) for i in range(count)}


def scaled(factors: Sequence[float], seed: int = 0) -> dict[str, Array]:
    """Random walks within 0.9, each dimension times its factor."""
    return {key: actions * np.asarray(factors) for key, actions in walks(seed).items()}


def random_demos(
    count: int, seed: int = 0, tasks: Sequence[str] = (TASK, "open the drawer"), steps: int = 40
) -> list[tuple[str, Array]]:
    """Random walks, each task in turn."""
    rng = np.random.default_rng(seed)
    return [(tasks[number % len(tasks)], random_walk(rng, steps)) for number in range(count)]


def exact_walk(rng: np.random.Generator, steps: int) -> Array:
    """A walk on multiples of 1/128, which float32 holds exactly; some beyond the controller's range, to be clipped."""
    actions = np.round(random_walk(rng, steps) * 160) / 128 + 0.0  # no -0.0, whose sign denormalising would lose
    actions[:, GRIPPER] = np.sign(actions[:, GRIPPER])
    return actions


def exact_demos(count: int = 10, seed: int = 0) -> list[tuple[str, Array]]:
    """So many episodes of each of two tasks, in order of the tasks, their lengths multiples of 8."""
    rng = np.random.default_rng(seed)
    return [(task, exact_walk(rng, 8 * int(rng.integers(2, 6)))) for task in TASKS for _ in range(count)]


def numbered(lengths: list[int], task: str = "count") -> list[tuple[str, Array]]:
    """Episodes whose every number tells the episode and the step that it is of."""
    return [
        (task, np.repeat(100.0 * number + np.arange(steps), 7).reshape(-1, 7)) for number, steps in enumerate(lengths)
    ]


def episode(actions: Array = STEPS, task: str = TASK, source: str = "a.hdf5", key: str = "demo_0") -> Episode:
    """An episode of a LIBERO file, which is a session."""
    return Episode(np.asarray(actions, dtype=np.float64), task, source, key, session=source)


def libero_tasks(suite: str) -> list[str]:
    """As LIBERO writes them, with a capital here and a double space there, which must not matter."""
    content = json.loads(Path(libero_suites.__file__).with_name("libero_suites.json").read_text())
    return [task.replace(" ", "  ", 1).capitalize() for task in content["suites"][suite]]
