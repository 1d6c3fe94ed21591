"""A data set on a hub that is on this machine, and what tests of its reader share."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_hub import COMMIT, FakeHub, serving
from huggingface_hub import HfFileSystem
from made_up import random_demos
from reading import refused
from writers import write_info, write_lerobot_v3

from workbook.common.paths import REPOSITORY
from workbook.data.sources.mirror import CACHE_VARIABLE
from workbook.data.sources.read import read_recordings

OWNER_NAME = "test/data"
DATA = f"hf://{OWNER_NAME}"
PINNED = f"{DATA}@{COMMIT}"
NEXT_COMMIT = "f" * 40
FILES = [f"data/chunk-000/file-{number:03d}.parquet" for number in range(4)]
DEMOS = random_demos(16)
SPATIAL = (
    "pick up the black bowl between the plate and the ramekin and place it on the plate",
    "pick up the black bowl from table center and place it on the plate",
)
GOAL = ("open the middle drawer of the cabinet",)


@pytest.fixture
def alone_with_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty cache, nothing kept of another hub or left over of another fetch, and no waiting between attempts."""
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(time, "sleep", lambda _: None)
    HfFileSystem.clear_instance_cache()
    yield
    wait_for_the_other_threads()


def wait_for_the_other_threads() -> None:
    """A fetch that is given up does not wait for its threads; they end with the file that they are at."""
    for thread in threading.enumerate():
        if thread.name.endswith("(work)"):
            thread.join(timeout=30)


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    return tmp_path / "cache" / OWNER_NAME.replace("/", "--") / COMMIT


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data set as it lies on the hub: 4 files of 4 episodes, and a video beside them."""
    folder = write_lerobot_v3(tmp_path / "remote", DEMOS, episodes_a_file=4)
    video = folder / "videos/chunk-000/observation.images.image/file-000.mp4"
    video.parent.mkdir(parents=True)
    video.write_bytes(bytes(100_000))
    return folder


@pytest.fixture
def hub(folder: Path, alone_with_the_hub: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A hub that holds it."""
    with serving({OWNER_NAME: folder}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        yield hub


@pytest.fixture
def libero(tmp_path: Path, alone_with_the_hub: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A hub with some of LIBERO's tasks, 4 episodes each, their frame rate said to be 10."""
    demos = random_demos(12, tasks=(*SPATIAL, *GOAL))
    folder = write_lerobot_v3(tmp_path / "libero", demos, episodes_a_file=5)
    write_info(folder, "v3.0", demos, fps=10)
    with serving({"lerobot/libero": folder}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        yield hub


def file_path(name: str) -> str:
    """Where the hub has a file."""
    return f"/datasets/{OWNER_NAME}/resolve/{COMMIT}/{name}"


def fetched(mirror: Path) -> dict[str, bytes]:
    """The files of a mirror that have their final name."""
    found = [path for path in mirror.rglob("*") if path.is_file() and not path.name.startswith(".")]
    return {str(path.relative_to(mirror)): path.read_bytes() for path in found}


def refusal(data: str) -> str:
    """The sentence with which reading is refused."""
    text = refused(lambda: read_recordings(data))
    assert len(text) < 500
    return text


def reading_process(code: str) -> list[str]:
    """The command that runs some lines of code after `read_recordings` was imported."""
    return [sys.executable, "-c", f"from workbook.data.sources.read import read_recordings\n{code}"]


def in_another_process(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        reading_process(code),
        cwd=REPOSITORY,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
