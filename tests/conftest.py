"""Recordings to test with: small ones written on the spot, and the real ones where they are at hand."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from writers import TASK, write_libero

from workbook.paths import REPOSITORY

SHARED_DATA = REPOSITORY.parent / "shared" / "data"


def random_walk(rng: np.random.Generator, steps: int) -> NDArray[np.float64]:
    """(steps, 7) actions that wander within [-0.9, 0.9], the gripper -1 or +1."""
    motion = np.clip(np.cumsum(rng.normal(0, 0.1, (steps, 6)), axis=0), -0.9, 0.9)
    gripper = np.where(np.arange(steps) < rng.integers(1, steps), -1.0, 1.0)
    return np.column_stack([motion, gripper])


def walks(seed: int, count: int = 6) -> dict[str, NDArray[np.float64]]:
    """{demo_0, demo_1, ...: random walks of 24..60 steps}."""
    rng = np.random.default_rng(seed)
    return {f"demo_{i}": random_walk(rng, int(rng.integers(24, 61))) for i in range(count)}


@pytest.fixture
def tiny_data(tmp_path: Path) -> Path:
    """A folder with 2 files x 6 demos."""
    folder = tmp_path / "tiny_data"
    write_libero(folder / "open_the_drawer_demo.hdf5", walks(1), "open the drawer")
    write_libero(folder / "put_the_bowl_on_the_plate_demo.hdf5", walks(2), TASK)
    return folder


@pytest.fixture
def human_teleop() -> Path:
    """Human VR teleoperation, 50 episodes."""
    return _recordings("human_teleop")


@pytest.fixture
def spacemouse() -> Path:
    """Human SpaceMouse demonstrations, 5 episodes."""
    return _recordings("spacemouse")


def _recordings(name: str) -> Path:
    folder = SHARED_DATA / name
    if not folder.is_dir():
        pytest.skip(f"the recordings {folder} are not on this machine")
    return folder
