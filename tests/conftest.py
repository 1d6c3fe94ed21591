"""Recordings to test with: small ones written on the spot, and the real ones where they are at hand."""

import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from made_up import TASK, walks
from writers import write_libero

from workbook.common.paths import REPOSITORY, OutputFolder
from workbook.data.episodes import Episode
from workbook.data.sources.read import read_recordings
from workbook.simulation.scene import missing_packages

SHARED_DATA = REPOSITORY.parent / "shared" / "data"
pytest_plugins = ["hub_fixtures"]
pytest.register_assert_rewrite("reading", "small_runs", "spoiling")


# What a shell starts in the background ignores interrupts, and so would all that tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def tiny_data(tmp_path: Path) -> Path:
    """A folder with 2 files x 6 demos."""
    folder = tmp_path / "tiny_data"
    write_libero(folder / "open_the_drawer_demo.hdf5", walks(1), "open the drawer")
    write_libero(folder / "put_the_bowl_on_the_plate_demo.hdf5", walks(2), TASK)
    return folder


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OutputFolder:
    monkeypatch.delenv("WORKBOOK_PREFIX", raising=False)
    return OutputFolder.at(str(tmp_path / "out"))


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that everyone can look into, which tmp_path is not."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture(scope="session")
def sample() -> list[Episode]:
    """The embedded recordings, 190 episodes."""
    return read_recordings("sample").episodes


@pytest.fixture(scope="session")
def simulator() -> None:
    """For tests that play something."""
    problem = missing_packages()
    if problem:
        pytest.skip(f"{problem}; ./run_tests.sh --with-replay does, too")


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
