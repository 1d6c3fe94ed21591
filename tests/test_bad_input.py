"""Whatever is wrong with the data: one sentence that says where, never a traceback."""

import os
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from made_up import walks
from reading import refused
from writers import write_libero

from workbook.data.config import DataConfig
from workbook.data.dataset import prepare_dataset
from workbook.data.layout import LIBERO

Spoil = Callable[[h5py.Group], object]
GOOD, BAD, DEMO = "good.hdf5", "bad.hdf5", "demo_3"


def refusal(path: Path, **options: int | str) -> str:
    """The message with which `path` is refused, checked to be a sentence on one line."""
    message = refused(lambda: prepare_dataset(path, DataConfig(**options)))
    assert "Error" not in message
    assert len(message.split()) >= 5
    assert message[-1].isalnum() or message[-1] in ".)'"
    return message


def refusal_naming(path: Path, *places: str) -> str:
    """The message with which `path`, beside a good file, is refused, given by itself or as part of its folder."""
    write_libero(path.parent / GOOD, walks(0))
    for given in (path, path.parent):
        message = refusal(given)
        assert path.name in message
        assert GOOD not in message
        for place in places:
            assert place in message
    return message


def write_spoilt(path: Path, spoil: Spoil) -> Path:
    """A file of 6 demos, `spoil` done to its group `data`."""
    with h5py.File(write_libero(path, walks(0)), "r+") as file:
        spoil(file["data"])
    return path


def with_actions(**dataset: object) -> Spoil:
    """Put another dataset in the place of a demo's actions."""

    def spoil(data: h5py.Group) -> None:
        del data[DEMO]["actions"]
        data[DEMO].create_dataset("actions", **dataset)

    return spoil


def with_link(link: h5py.SoftLink | h5py.ExternalLink) -> Spoil:
    """Put a link in the place of a demo's actions."""

    def spoil(data: h5py.Group) -> None:
        del data[DEMO]["actions"]
        data[DEMO]["actions"] = link

    return spoil


def without_actions(data: h5py.Group) -> None:
    del data[DEMO]["actions"]


def with_a_group_for_actions(data: h5py.Group) -> None:
    without_actions(data)
    data.create_group(f"{DEMO}/actions/left")


def with_a_damaged_chunk(data: h5py.Group) -> None:
    without_actions(data)
    actions = data.create_dataset(f"{DEMO}/actions", (20, 7), "f8", chunks=(20, 7), compression="gzip")
    actions.id.write_direct_chunk((0, 0), b"this does not decompress")


# Paths


def test_a_path_to_nothing(tmp_path: Path) -> None:
    assert str(tmp_path / "nowhere") in refusal(tmp_path / "nowhere")


def test_an_empty_folder(tmp_path: Path) -> None:
    assert str(tmp_path) in refusal(tmp_path)


def test_a_folder_without_recordings(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "notes.txt").write_text("no recording")
    (tmp_path / "actions.csv").write_text("0,0,0,0,0,0,1")
    assert str(tmp_path) in refusal(tmp_path)


def test_a_dangling_link(tmp_path: Path) -> None:
    (tmp_path / BAD).symlink_to(tmp_path / "gone.hdf5")
    assert str(tmp_path / BAD) in refusal(tmp_path / BAD)
    assert str(tmp_path) in refusal(tmp_path)


def test_a_link_to_itself(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert str(tmp_path / "loop") in refusal(tmp_path / "loop")


def test_a_folder_linked_into_itself_is_read_once(tmp_path: Path) -> None:
    write_libero(tmp_path / "deep" / GOOD, walks(0))
    (tmp_path / "deep" / "up").symlink_to(tmp_path, target_is_directory=True)
    dataset = prepare_dataset(tmp_path).dataset
    assert [episode.source for episode in dataset.episodes] == [f"deep/{GOOD}"] * 6


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / BAD)
    assert BAD in refusal(tmp_path / BAD)
    assert str(tmp_path) in refusal(tmp_path)


# Files that are no HDF5


@pytest.mark.parametrize("content", [b"", b"x,y,z\n0,0,0\n", b"\x89HDF\r\n\x1a\n", b"\x89HDF\r\n\x1a\n" + bytes(2000)])
def test_a_file_that_is_not_hdf5(tmp_path: Path, content: bytes) -> None:
    (tmp_path / BAD).write_bytes(content)
    assert str(tmp_path / BAD) in refusal_naming(tmp_path / BAD)


@pytest.mark.parametrize("share", [0.5, 0.9, 0.999])
@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_a_file_cut_short(tmp_path: Path, share: float, libver: str) -> None:
    with h5py.File(tmp_path / BAD, "w", libver=libver) as file:
        for key, actions in walks(0).items():
            file.create_dataset(f"data/{key}/actions", data=actions, compression="gzip")
    content = (tmp_path / BAD).read_bytes()
    (tmp_path / BAD).write_bytes(content[: int(len(content) * share)])
    assert "cut short" in refusal_naming(tmp_path / BAD)


# Files of another layout


@pytest.mark.parametrize(
    "fill",
    [
        pytest.param(lambda file: file.create_group("demos/demo_0"), id="no group data"),
        pytest.param(lambda file: file.create_dataset("data", data=np.zeros((20, 7))), id="data is a dataset"),
        pytest.param(lambda file: file.__setitem__("data", h5py.SoftLink("/gone")), id="data links to nothing"),
        pytest.param(lambda file: file.__setitem__("data", h5py.ExternalLink("gone.hdf5", "/data")), id="to no file"),
        pytest.param(lambda file: file.create_group("data"), id="no demos"),
        pytest.param(lambda file: file.create_dataset("data/demo_0", data=np.zeros((20, 7))), id="a demo is a dataset"),
    ],
)
def test_a_file_of_another_layout(tmp_path: Path, fill: Callable[[h5py.File], object]) -> None:
    with h5py.File(tmp_path / BAD, "w") as file:
        fill(file)
    refusal_naming(tmp_path / BAD, "'data'")


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(without_actions, id="missing"),
        pytest.param(with_a_group_for_actions, id="a group"),
        pytest.param(with_link(h5py.SoftLink("/data/gone")), id="soft link to nothing"),
        pytest.param(with_link(h5py.ExternalLink("gone.hdf5", "/actions")), id="external link to no file"),
        pytest.param(with_link(h5py.ExternalLink(GOOD, "/gone")), id="external link to nothing in a file"),
    ],
)
def test_a_demo_without_actions(tmp_path: Path, spoil: Spoil) -> None:
    refusal_naming(write_spoilt(tmp_path / BAD, spoil), DEMO, "'actions'")


@pytest.mark.parametrize(
    "dataset",
    [
        pytest.param({"data": [["0.5"] * 7] * 20}, id="strings"),
        pytest.param({"data": np.full((20, 7), b"0.5")}, id="bytes"),
        pytest.param({"data": np.zeros((20, 7), dtype=[("left", "f8"), ("right", "f8")])}, id="compound"),
        pytest.param({"shape": (20, 7), "dtype": h5py.ref_dtype}, id="references"),
        pytest.param({"shape": (20,), "dtype": h5py.vlen_dtype(np.float64)}, id="ragged"),
        pytest.param({"data": np.zeros((20, 7), dtype="V8")}, id="opaque"),
        pytest.param({"data": np.zeros((20, 7), dtype=bool)}, id="bool"),
        pytest.param({"data": np.zeros((20, 7), dtype=complex)}, id="complex"),
    ],
)
def test_actions_that_are_no_numbers(tmp_path: Path, dataset: dict[str, object]) -> None:
    refusal_naming(write_spoilt(tmp_path / BAD, with_actions(**dataset)), DEMO, "'actions'", "not numbers")


@pytest.mark.parametrize("shape", [(20, 6), (20, 8), (20, 0), (7,), (2, 20, 7), (20, 7, 1), ()])
def test_actions_of_another_shape(tmp_path: Path, shape: tuple[int, ...]) -> None:
    path = write_spoilt(tmp_path / BAD, with_actions(data=np.zeros(shape)))
    refusal_naming(path, DEMO, f"shape {shape}", "7)")


def test_actions_that_cannot_be_decompressed(tmp_path: Path) -> None:
    assert "damaged" in refusal_naming(write_spoilt(tmp_path / BAD, with_a_damaged_chunk))


# Values and lengths


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dimension", range(7))
def test_a_value_that_is_not_finite(tmp_path: Path, value: float, dimension: int) -> None:
    def spoil(data: h5py.Group) -> None:
        data[f"{DEMO}/actions"][5, dimension] = value

    path = write_spoilt(tmp_path / BAD, spoil)
    refusal_naming(path, f"{DEMO}, step 5, {LIBERO.names[dimension]}", str(value))


@pytest.mark.parametrize("steps", [0, 1, 7])
def test_an_episode_shorter_than_a_chunk(tmp_path: Path, steps: int) -> None:
    path = write_spoilt(tmp_path / BAD, with_actions(data=np.zeros((steps, 7))))
    refusal_naming(path, DEMO, f" {steps} steps", "chunk of 8")


def test_an_episode_as_long_as_a_chunk_is_taken(tmp_path: Path) -> None:
    path = write_spoilt(tmp_path / BAD, with_actions(data=np.zeros((8, 7))))
    dataset = prepare_dataset(path).dataset
    assert len(dataset.episodes) == 6


@pytest.mark.parametrize("count", [1, 2, 3])
def test_too_few_episodes_to_split(tmp_path: Path, count: int) -> None:
    assert f"{count} episode" in refusal(write_libero(tmp_path / BAD, walks(0, count)))


# Parameters


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"num_episodes": -1}, "num_episodes is -1; give a positive number, or 0 for all"),
        ({"num_episodes": 1}, "1 episode"),
        ({"num_episodes": 3}, "3 episode"),
        ({"chunk_len": 0}, "length 0"),
        ({"chunk_len": -8}, "length -8"),
        ({"chunk_len": 0, "stride": 0}, "length 0"),
        ({"chunk_len": 10**9}, "chunk of 1000000000"),
        ({"stride": 9}, "stride 9"),
        ({"chunk_len": 4, "stride": 8}, "stride 8"),
        ({"stride": 0}, "stride 0"),
        ({"stride": -1}, "stride -1"),
        ({"split_seed": -1}, "split_seed is -1; give 0 or a positive number"),
        ({"layout": ""}, "''"),
        ({"layout": "position:3 wheels:4"}, "'wheels:4'"),
        ({"layout": "position:7"}, "position has 7 numbers"),
        ({"layout": "joint:6"}, "expected (steps, 6) for the layout 'joint:6'"),
        ({"gripper_open": "wide"}, "'wide'"),
    ],
)
def test_parameters_that_cannot_be(tiny_data: Path, options: dict[str, int | str], said: str) -> None:
    assert said in refusal(tiny_data, **options)


def test_too_few_episodes_to_split_once_copies_are_left_out(tmp_path: Path) -> None:
    write_libero(tmp_path / "a.hdf5", walks(0, 3))
    (tmp_path / BAD).symlink_to(tmp_path / "a.hdf5")
    assert "3 episode" in refusal(tmp_path)


def test_a_link_to_nothing_beside_good_files(tmp_path: Path) -> None:
    write_libero(tmp_path / "a.hdf5", walks(0))
    (tmp_path / BAD).symlink_to(tmp_path / "gone.hdf5")
    assert "link to nothing" in refusal(tmp_path)


def test_a_demo_that_leads_nowhere_is_named(tmp_path: Path) -> None:
    path = write_libero(tmp_path / BAD, walks(0))
    with h5py.File(path, "r+") as file:
        file["data/demo_99"] = h5py.SoftLink("/data/gone")
    assert "bad.hdf5, demo_99: damaged, cut short or leading nowhere" in refusal_naming(path)


def test_more_actions_than_memory_holds(tmp_path: Path) -> None:
    path = write_libero(tmp_path / BAD, walks(0))
    with h5py.File(path, "r+") as file:
        file.create_dataset("data/demo_99/actions", shape=(10**15, 7), dtype="f8", chunks=(1024, 7))
    assert "bad.hdf5, demo_99" in refusal_naming(path)
