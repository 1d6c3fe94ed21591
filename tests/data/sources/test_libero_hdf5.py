"""LIBERO's HDF5 files: which are found, and what is read of them."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from made_up import TASK, random_walk, walks
from reading import rate_of, read
from writers import write_libero


def test_demos_are_read_in_numeric_order(tmp_path: Path) -> None:
    path = write_libero(tmp_path / "a.hdf5", {f"demo_{i}": np.full((8, 7), i / 100) for i in range(12)})
    episodes = read(path)
    assert [e.key for e in episodes] == [f"demo_{i}" for i in range(12)]
    assert [e.actions[0, 0] for e in episodes] == [i / 100 for i in range(12)]


def test_only_the_actions_are_read(tmp_path: Path) -> None:
    path = write_libero(tmp_path / "a.hdf5", walks(0))
    with h5py.File(path, "r+") as file:
        file["data/demo_1/obs/agentview_rgb"] = h5py.ExternalLink("images_left_behind.hdf5", "/rgb")
        damaged = file.create_dataset(
            "data/demo_2/obs/agentview_rgb", (4, 8, 8, 3), "u1", chunks=(4, 8, 8, 3), compression="gzip"
        )
        damaged.id.write_direct_chunk((0, 0, 0, 0), b"this does not decompress")
        with pytest.raises(OSError, match="filter returned failure"):
            damaged[()]
    for found, written in zip(read(path), walks(0).values(), strict=True):
        np.testing.assert_array_equal(found.actions, written)


def test_a_folder_is_read_recursively_in_sorted_order(tmp_path: Path) -> None:
    for name in ("b.hdf5", "a/z.hdf5", "a/deep/y.hdf5", "c/x.hdf5"):
        write_libero(tmp_path / name, walks(0, count=2))
    (tmp_path / "a" / "notes.txt").write_text("not a recording")
    sources = [e.source for e in read(tmp_path)]
    assert sources == [name for name in ("a/deep/y.hdf5", "a/z.hdf5", "b.hdf5", "c/x.hdf5") for _ in range(2)]


def test_a_single_file_is_read_and_named_without_its_folder(tiny_data: Path) -> None:
    episodes = read(tiny_data / "open_the_drawer_demo.hdf5")
    assert len(episodes) == 6
    assert {e.source for e in episodes} == {"open_the_drawer_demo.hdf5"}


def test_the_task_is_the_recorded_instruction(tiny_data: Path) -> None:
    tasks = {e.source: e.task for e in read(tiny_data)}
    assert tasks == {"open_the_drawer_demo.hdf5": "open the drawer", "put_the_bowl_on_the_plate_demo.hdf5": TASK}


@pytest.mark.parametrize("problem_info", [None, "no JSON", "{}", "[]"])
def test_without_an_instruction_the_task_is_the_file_name(tmp_path: Path, problem_info: str | None) -> None:
    path = write_libero(tmp_path / "turn_on_the_stove_demo.hdf5", walks(0), task=None)
    if problem_info is not None:
        with h5py.File(path, "r+") as file:
            file["data"].attrs["problem_info"] = problem_info
    assert {e.task for e in read(path)} == {"turn on the stove"}


@pytest.mark.parametrize("instruction", ['"open it"', ["open", "it"], "open it"])
def test_an_instruction_is_freed_of_quotes_and_lists(tmp_path: Path, instruction: str | list[str]) -> None:
    path = write_libero(tmp_path / "a.hdf5", walks(0))
    with h5py.File(path, "r+") as file:
        file["data"].attrs["problem_info"] = json.dumps({"language_instruction": instruction})
    assert {e.task for e in read(path)} == {"open it"}


@pytest.mark.parametrize(
    ("env_args", "rate"),
    [
        ('{"env_kwargs": {"control_freq": 12.5}}', 12.5),
        ('{"env_kwargs": {"control_freq": 0}}', None),
        ('{"env_kwargs": {"control_freq": "20"}}', None),
        ('{"env_kwargs": {}}', None),
        ("no JSON", None),
        (None, None),
    ],
)
def test_the_control_rate_is_what_the_environment_was_made_with(
    tmp_path: Path, env_args: str | None, rate: float | None
) -> None:
    path = write_libero(tmp_path / "a.hdf5", walks(0))
    if env_args is not None:
        with h5py.File(path, "r+") as file:
            file["data"].attrs["env_args"] = env_args
    assert rate_of(path) == rate


@pytest.mark.parametrize("dtype", ["float16", "float32", ">f8", "int8", "int64", "uint8"])
def test_numbers_of_any_type_become_float64(tmp_path: Path, dtype: str) -> None:
    values = np.arange(56).reshape(8, 7) % 2
    [found] = read(write_libero(tmp_path / "a.hdf5", {"demo_0": values.astype(dtype)}))
    assert found.actions.dtype == np.float64
    np.testing.assert_array_equal(found.actions, values)


def test_float32_values_are_kept_as_they_are(tmp_path: Path) -> None:
    recorded = random_walk(np.random.default_rng(0), 30).astype(np.float32)
    [found] = read(write_libero(tmp_path / "a.hdf5", {"demo_0": recorded}))
    np.testing.assert_array_equal(found.actions, recorded.astype(np.float64))


def test_linked_folders_are_followed_once_and_capitals_are_read(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    write_libero(elsewhere / "A_demo.HDF5", walks(0))
    data = tmp_path / "data"
    data.mkdir()
    (data / "suite").symlink_to(elsewhere)
    (elsewhere / "back").symlink_to(data)
    assert len(read(data)) == len(walks(0))
