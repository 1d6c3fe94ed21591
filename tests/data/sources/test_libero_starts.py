"""Where demonstrations began: read from LIBERO's HDF5 layout, and kept with the data set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from made_up import walks
from writers import write_libero

from workbook.common.paths import OutputFolder
from workbook.data.dataset import load_dataset, prepare_dataset, save_dataset
from workbook.data.episodes import Start
from workbook.data.sources.libero_hdf5 import fixture_poses
from workbook.data.sources.read import read_recorded_starts, read_recordings

TASK_FILE = "chiliocosm/bddl_files/libero_goal/open_the_middle_drawer_of_the_cabinet.bddl"
MODEL = """
<mujoco><worldbody>
  <body name="table" pos="0 0 0.8"/>
  <body name="cabinet_main" pos="0.1 -0.2 0.9" quat="0 0 0 1"><body name="drawer"><joint type="slide"/></body></body>
  <body name="bowl_main" pos="1 2 3"><joint type="free"/></body>
  <body name="plate_main" pos="1 2 3"><freejoint/></body>
</worldbody></mujoco>
"""


def write_with_starts(path: Path, **attributes: Any) -> Path:
    """Demos of the layout of LIBERO's own files; state k of demo i is filled with i + k / 10."""
    write_libero(path, walks(1))
    with h5py.File(path, "r+") as file:
        file["data"].attrs["bddl_file_name"] = TASK_FILE
        for number, demo in enumerate(file["data"].values()):
            demo["states"] = number + np.arange(3)[:, None] / 10 + np.zeros((3, 5))
            demo.attrs.update(init_state=np.full(5, -1.0), **attributes)
    return path


def starts_in(path: Path) -> list[Start]:
    found = read_recorded_starts(path, read_recordings(path).episodes)
    assert all(start is not None for start in found)
    return [start for start in found if start is not None]


def test_the_first_state_is_where_an_episode_began(tmp_path: Path) -> None:
    starts = starts_in(write_with_starts(tmp_path / "a_demo.hdf5"))
    assert [start.state.tolist() for start in starts] == [[float(i)] * 5 for i in range(len(starts))]
    assert {start.task_file for start in starts} == {TASK_FILE}
    assert all(not start.fixtures and not start.final_state_sha256 for start in starts)


def test_without_states_the_attribute_says_it(tmp_path: Path) -> None:
    path = write_with_starts(tmp_path / "a_demo.hdf5", final_state_sha256="abc")
    with h5py.File(path, "r+") as file:
        for demo in file["data"].values():
            del demo["states"]
    assert all(start.state.tolist() == [-1.0] * 5 for start in starts_in(path))
    assert {start.final_state_sha256 for start in starts_in(path)} == {"abc"}


def test_fixtures_stand_where_the_recorded_model_has_them(tmp_path: Path) -> None:
    start = starts_in(write_with_starts(tmp_path / "a_demo.hdf5", model_file=MODEL))[0]
    assert start.fixtures == {
        "table": (0, 0, 0.8, 1, 0, 0, 0),
        "cabinet_main": (0.1, -0.2, 0.9, 0, 0, 0, 1),
    }
    assert fixture_poses("<mujoco/>") == {}


def test_starts_of_a_folder_are_those_of_their_episodes(tmp_path: Path) -> None:
    write_with_starts(tmp_path / "suite" / "a_demo.hdf5")
    write_libero(tmp_path / "suite" / "b_demo.hdf5", walks(2))
    episodes = read_recordings(tmp_path).episodes
    found = read_recorded_starts(tmp_path, episodes[::-1])
    assert [start is not None for start in found] == [e.source == "suite/a_demo.hdf5" for e in episodes[::-1]]


SPOILED_MODELS = {"not XML": "<not xml", "no pose": MODEL.replace('quat="0 0 0 1"', 'quat="0 0 1"')}


@pytest.mark.parametrize("spoil", ["bddl_file_name", "states", *SPOILED_MODELS])
def test_a_start_that_cannot_be_read_is_as_if_it_were_not_there(tmp_path: Path, spoil: str) -> None:
    model = {"model_file": SPOILED_MODELS[spoil]} if spoil in SPOILED_MODELS else {}
    path = write_with_starts(tmp_path / "a_demo.hdf5", **model)
    with h5py.File(path, "r+") as file:
        if spoil == "bddl_file_name":
            del file["data"].attrs[spoil]
        for demo in file["data"].values() if spoil == "states" else ():
            del demo["states"]
            demo["states"] = np.array([b"no", b"numbers"])
    episodes = read_recordings(path).episodes
    assert read_recorded_starts(path, episodes) == [None] * len(episodes)


@pytest.mark.parametrize("data", ["hf://owner/name", "libero_spatial", "no/such/folder"])
def test_what_is_no_hdf5_file_says_no_starts(tmp_path: Path, data: str) -> None:
    path = write_with_starts(tmp_path / "a_demo.hdf5")
    assert set(read_recorded_starts(data, read_recordings(path).episodes)) == {None}


def test_the_data_set_keeps_every_start_and_knows_those_of_its_test_part(tmp_path: Path, out: OutputFolder) -> None:
    path = write_with_starts(tmp_path / "a_demo.hdf5", model_file=MODEL, final_state_sha256="abc")
    dataset = prepare_dataset(path).dataset
    assert set(dataset.test_starts) == set(dataset.split.test)
    assert set(dataset.starts) == set(range(len(dataset.episodes)))
    save_dataset(dataset, out)
    loaded = load_dataset(out)
    assert set(loaded.starts) == set(dataset.starts)
    for position, start in dataset.starts.items():
        again = loaded.starts[position]
        assert np.array_equal(again.state, start.state)
        assert again.state[0] == int(dataset.episodes[position].key.removeprefix("demo_"))
        assert (again.task_file, again.final_state_sha256) == (start.task_file, "abc")
        assert {body: tuple(pose) for body, pose in again.fixtures.items()} == start.fixtures
