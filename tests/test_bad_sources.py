"""Whatever is wrong with a LeRobot data set or a .pt file: one sentence, where and what to do, and nothing executed."""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import shutil
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import random_walk
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from writers import write_chunk_file, write_lerobot_v2, write_lerobot_v3, write_libero

from rfsq_robust import ActionRFSQAE, Checkpoint, save_checkpoint
from workbook.dataset import prepare_dataset
from workbook.errors import InputError

FILE, OTHER_FILE = (f"data/chunk-000/file-{number:03d}.parquet" for number in (0, 1))
INFO, TASKS, LINES = "meta/info.json", "meta/tasks.parquet", "meta/tasks.jsonl"
HYPOTHESIS = settings(deadline=None, max_examples=40)
# A message ends in what to do, after a semicolon: nothing else in it may be the last word.
REMEDY = re.compile(r"; (give|download|record|convert|leave|save|copy|remove|mend) [^;]+$")
GIT_LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12345\n"

Spoil = Callable[[Path], object]
ChangeTable = Callable[[pa.Table], pa.Table]
Content = dict[str, object]


def refusal(data: Path, *named: str) -> str:
    """The message with which `data` is refused, checked to be one sentence that names these and says what to do."""
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        with pytest.raises(InputError) as raised:
            prepare_dataset(data)
    message = str(raised.value)
    assert "\n" not in message
    assert "Traceback" not in message
    assert len(message) < 600
    assert REMEDY.search(message), message
    assert [str(warning.message) for warning in warned] == []
    for name in named:
        assert name in message
    return message


def demos(count: int = 6) -> list[tuple[str, NDArray[np.float64]]]:
    rng = np.random.default_rng(0)
    return [(f"task {number % 2}", random_walk(rng, 16)) for number in range(count)]


def lerobot(folder: Path) -> Path:
    """A data set of v3 in two files of three episodes."""
    return write_lerobot_v3(folder, demos(), episodes_a_file=3)


def changed(folder: Path, change: ChangeTable) -> Path:
    """A data set with other rows in its first file."""
    lerobot(folder)
    pq.write_table(change(pq.read_table(folder / FILE)), folder / FILE)
    return folder


def with_column(name: str, values: Callable[[list], pa.Array]) -> ChangeTable:
    """Put another column in the place of one, made of its values."""

    def change(table: pa.Table) -> pa.Table:
        return table.set_column(table.column_names.index(name), name, values(table[name].to_pylist()))

    return change


def drop_rows(*rows: int) -> ChangeTable:
    return lambda table: table.take(pa.array([row for row in range(len(table)) if row not in rows]))


def repeat_row(row: int) -> ChangeTable:
    return lambda table: pa.concat_tables([table, table.slice(row, 1)])


def spoilt(tmp_path: Path, spoil: Spoil) -> Path:
    folder = lerobot(tmp_path / "set")
    spoil(folder)
    return folder


def writing(file: str, content: str | bytes) -> Spoil:
    return lambda folder: (folder / file).write_bytes(content.encode() if isinstance(content, str) else content)


def truncate(path: Path, size: float) -> None:
    """Keep so many bytes, or that share of them; of a negative number, so many less."""
    content = path.read_bytes()
    path.write_bytes(content[: int(size * len(content)) if 0 < size < 1 else int(size)])


# LeRobot: damaged files

NO_PARQUET = {
    "empty": b"",
    "text": b"episode,frame,action\n0,0,0\n",
    "magic alone": b"PAR1",
    "magic at both ends": b"PAR1" + bytes(200) + b"PAR1",
    "a pointer of git-lfs": GIT_LFS,
    "HDF5": b"\x89HDF\r\n\x1a\n" + bytes(2000),
}


@pytest.mark.parametrize("content", NO_PARQUET.values(), ids=NO_PARQUET)
@pytest.mark.parametrize("file", [FILE, OTHER_FILE, TASKS])
def test_a_file_that_is_not_parquet(tmp_path: Path, file: str, content: bytes) -> None:
    assert "download it again" in refusal(spoilt(tmp_path, writing(file, content)), file)


@pytest.mark.parametrize("size", [1, 4, 8, 12, 0.1, 0.5, 0.9, 0.999, -9, -8, -4, -1])
def test_a_parquet_file_cut_short(tmp_path: Path, size: float) -> None:
    refusal(spoilt(tmp_path, lambda folder: truncate(folder / FILE, size)), FILE, "cut short")


@HYPOTHESIS
@given(st.data())
def test_a_parquet_file_cut_anywhere(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = lerobot(Path(name))
        size = (folder / FILE).stat().st_size
        truncate(folder / FILE, data.draw(st.integers(1 - size, -1)))
        refusal(folder, FILE, "cut short")


@HYPOTHESIS
@given(
    st.sampled_from([FILE, TASKS, INFO]), st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1)
)
def test_changed_bytes_are_read_or_refused_and_nothing_else(file: str, changes: list[tuple[int, int]]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = lerobot(Path(name))
        content = bytearray((folder / file).read_bytes())
        for position, value in changes:
            content[-1 - position % len(content)] = value
        (folder / file).write_bytes(content)
        with suppress(InputError):
            prepare_dataset(folder)


def test_pages_that_do_not_decompress(tmp_path: Path) -> None:
    folder = lerobot(tmp_path)
    column = pq.read_metadata(folder / FILE).row_group(0).column(0)
    assert column.path_in_schema.startswith("action")
    start = column.dictionary_page_offset or column.data_page_offset
    content = bytearray((folder / FILE).read_bytes())
    content[start : start + column.total_compressed_size] = b"\xff" * column.total_compressed_size
    (folder / FILE).write_bytes(content)
    refusal(folder, FILE, "damaged")


# LeRobot: meta

BAD_INFOS = {
    "empty": "",
    "no JSON": "codebase_version: v3.0",
    "cut short": '{"codebase_version": "v3.0", "fps"',
    "no text": b"\xff\xfe\x00",
    "a pointer of git-lfs": GIT_LFS,
    "nested without end": "[" * 100_000,
    "a list": '["v3.0"]',
    "a string": '"v3.0"',
    "null": "null",
    "no version": '{"fps": 20}',
    "a version that is a number": '{"codebase_version": 3.0}',
    "v1.6": '{"codebase_version": "v1.6"}',
    "v4.0": '{"codebase_version": "v4.0"}',
    "v30": '{"codebase_version": "v30.0"}',
    "no v": '{"codebase_version": "3.0"}',
}


@pytest.mark.parametrize("content", BAD_INFOS.values(), ids=BAD_INFOS)
def test_a_bad_info(tmp_path: Path, content: str | bytes) -> None:
    folder = spoilt(tmp_path, writing(INFO, content))
    message = refusal(folder, str(folder / INFO))
    version = re.search(rb'"(v1\.6|v4\.0)"', content if isinstance(content, bytes) else content.encode())
    assert version is None or f"is LeRobot {version[1].decode()}; convert" in message


def test_no_info(tmp_path: Path) -> None:
    folder = spoilt(tmp_path, lambda folder: (folder / INFO).unlink())
    refusal(folder, str(folder), "no meta/info.json")


def test_info_is_a_folder(tmp_path: Path) -> None:
    refusal(spoilt(tmp_path, lambda folder: ((folder / INFO).unlink(), (folder / INFO).mkdir())), INFO)


def of_tasks(**columns: object) -> Spoil:
    return lambda folder: pq.write_table(pa.table(columns), folder / TASKS)


BAD_TASK_TABLES: dict[str, Spoil] = {
    "cut short": lambda folder: truncate(folder / TASKS, 0.7),
    "no instruction": of_tasks(task_index=[0, 1], length=[3, 4]),
    "instructions as bytes": of_tasks(task_index=[0, 1], task=[b"a", b"b"]),
    "no index": of_tasks(task=["a", "b"]),
    "a folder": lambda folder: ((folder / TASKS).unlink(), (folder / TASKS).mkdir()),
}


@pytest.mark.parametrize("spoil", BAD_TASK_TABLES.values(), ids=BAD_TASK_TABLES)
def test_a_bad_table_of_tasks(tmp_path: Path, spoil: Spoil) -> None:
    folder = spoilt(tmp_path, spoil)
    refusal(folder, TASKS)


BAD_TASK_LINES = {
    "cut short": '{"task_index": 0, "task": "a"}\n{"task_index": 1, "ta',
    "no JSON": "0 open the drawer",
    "lists": '[0, "a"]',
    "numbers": "0\n1\n",
    "no task": '{"task_index": 0}',
    "no index": '{"task": "a"}',
    "an index that is no number": '{"task_index": "first", "task": "a"}',
    "an infinite index": '{"task_index": Infinity, "task": "a"}',
    "no text": b"\xff\xfe",
}


@pytest.mark.parametrize("content", BAD_TASK_LINES.values(), ids=BAD_TASK_LINES)
def test_bad_lines_of_tasks(tmp_path: Path, content: str | bytes) -> None:
    folder = write_lerobot_v2(tmp_path, demos())
    writing(LINES, content)(folder)
    refusal(folder, LINES)


# LeRobot: which files there are

NO_DATA: dict[str, Spoil] = {
    "no folder": lambda folder: shutil.rmtree(folder / "data"),
    "an empty folder": lambda folder: (shutil.rmtree(folder / "data"), (folder / "data").mkdir()),
    "a file": lambda folder: (shutil.rmtree(folder / "data"), (folder / "data").write_text("")),
    "hidden files": lambda folder: [path.rename(path.with_name(f".{path.name}")) for path in folder.glob("data/*/*")],
    "other files": lambda folder: [path.rename(path.with_suffix(".arrow")) for path in folder.glob("data/*/*")],
    "a link to nothing": lambda folder: (shutil.rmtree(folder / "data"), (folder / "data").symlink_to(folder / "gone")),
    "a link to itself": lambda folder: (shutil.rmtree(folder / "data"), (folder / "data").symlink_to(folder / "data")),
}


@pytest.mark.parametrize("spoil", NO_DATA.values(), ids=NO_DATA)
def test_no_data_files(tmp_path: Path, spoil: Spoil) -> None:
    folder = spoilt(tmp_path, spoil)
    refusal(folder, f"{folder}: has meta/info.json and no data/*.parquet")


BAD_FILES: dict[str, Spoil] = {
    "a link to nothing": lambda path: path.symlink_to("gone.parquet"),
    "a link to itself": lambda path: path.symlink_to(path),
}


@pytest.mark.parametrize("make", BAD_FILES.values(), ids=BAD_FILES)
def test_a_data_file_that_is_none(tmp_path: Path, make: Spoil) -> None:
    bad = "data/chunk-000/file-002.parquet"
    refusal(spoilt(tmp_path, lambda folder: make(folder / bad)), bad)


@contextmanager
def without_rights() -> Iterator[None]:
    """For whom permissions hold: root reads everything, so it becomes nobody for the moment."""
    if os.geteuid():
        yield
        return
    try:
        os.seteuid(65534)
    except PermissionError:
        pytest.skip("root cannot become another user here")
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that everyone can look into, which tmp_path is not."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.parametrize("locked", [INFO, TASKS, FILE, "meta", "."])
def test_no_permission(open_folder: Path, locked: str) -> None:
    folder = lerobot(open_folder / "set")
    prepare_dataset(folder)  # whatever has to be imported for it, from folders that nobody may not read
    (folder / locked).chmod(0)
    with without_rights():
        message = refusal(folder, locked if "/" in locked else str(folder))
    assert "mend its permissions" in message
    (folder / locked).chmod(0o755)


@pytest.mark.parametrize("locked", ["data", "data/chunk-000"])
def test_no_permission_for_the_folder_of_data(open_folder: Path, locked: str) -> None:
    folder = write_lerobot_v3(open_folder / "set", demos(12), episodes_a_file=6)
    (folder / "data/chunk-001").mkdir()
    (folder / OTHER_FILE).rename(folder / "data/chunk-001/file-001.parquet")
    prepare_dataset(folder)
    (folder / locked).chmod(0)
    try:
        with without_rights():
            assert "mend its permissions" in refusal(folder, locked)
    finally:
        (folder / locked).chmod(0o755)


def test_no_permission_for_a_chunk_file(open_folder: Path) -> None:
    path = write_chunk_file(open_folder / "bad.pt", demos())
    prepare_dataset(path)
    path.chmod(0)
    with without_rights():
        assert "mend its permissions" in refusal(path, str(path))


# LeRobot: columns


@pytest.mark.parametrize("column", ["action", "episode_index", "frame_index"])
def test_a_missing_column(tmp_path: Path, column: str) -> None:
    message = refusal(changed(tmp_path, lambda table: table.drop_columns([column])), FILE, f"no column '{column}'")
    assert OTHER_FILE not in message


def test_a_file_of_other_columns(tmp_path: Path) -> None:
    refusal(changed(tmp_path, lambda table: pa.table({"length": [1], "tasks": ["a"]})), FILE, "it has length, tasks")


def test_a_file_without_columns(tmp_path: Path) -> None:
    refusal(changed(tmp_path, lambda table: table.select([])), FILE, "no column 'action'")


def test_a_column_that_is_there_twice(tmp_path: Path) -> None:
    refusal(changed(tmp_path, lambda table: table.append_column("action", table["action"])), FILE, "action")


NO_LISTS_OF_NUMBERS: dict[str, Callable[[list], pa.Array]] = {
    "strings": lambda rows: pa.array([str(row) for row in rows]),
    "bool": lambda rows: pa.array([True] * len(rows)),
    "scalars": lambda rows: pa.array([row[0] for row in rows]),
    "nothing": lambda rows: pa.nulls(len(rows)),
    "bytes": lambda rows: pa.array([np.float32(row).tobytes() for row in rows]),
    "categories": lambda rows: pa.array(["a"] * len(rows)).dictionary_encode(),
    "structs": lambda rows: pa.array([{"x": row[0], "y": row[1]} for row in rows]),
    "lists of strings": lambda rows: pa.array([["0.5"] * 7] * len(rows)),
    "lists of bool": lambda rows: pa.array([[True] * 7] * len(rows)),
    "lists of lists": lambda rows: pa.array([[row] for row in rows]),
    "lists of structs": lambda rows: pa.array([[{"x": value} for value in row] for row in rows]),
    "lists of nothing": lambda rows: pa.array([[None] * 7] * len(rows)),
    "lists of times": lambda rows: pa.array([[0] * 7] * len(rows), pa.list_(pa.timestamp("us"))),
    "maps": lambda rows: pa.array([[("x", row[0])] for row in rows], pa.map_(pa.string(), pa.float64())),
}


@pytest.mark.parametrize("values", NO_LISTS_OF_NUMBERS.values(), ids=NO_LISTS_OF_NUMBERS)
def test_actions_that_are_no_lists_of_numbers(tmp_path: Path, values: Callable[[list], pa.Array]) -> None:
    folder = changed(tmp_path, with_column("action", values))
    refusal(folder, f"{FILE}, column 'action': holds", "not lists of numbers")


LISTS = {
    "list": pa.list_(pa.float32()),
    "large_list": pa.large_list(pa.float32()),
    "fixed_size_list": pa.list_(pa.float32(), 7),
}


@pytest.mark.parametrize("kind", LISTS.values(), ids=LISTS)
@pytest.mark.parametrize(("bad", "said"), [(None, "1 empty entries"), ([0.5] * 6 + [None], "1 empty numbers")])
def test_actions_with_nulls(tmp_path: Path, kind: pa.DataType, bad: list | None, said: str) -> None:
    folder = changed(tmp_path, with_column("action", lambda rows: pa.array([*rows[:9], bad, *rows[10:]], kind)))
    refusal(folder, f"{FILE}, column 'action'", said)


@pytest.mark.parametrize("bad", [[], [0.5] * 6, [0.5] * 14])
def test_ragged_actions(tmp_path: Path, bad: list[float]) -> None:
    folder = changed(tmp_path, with_column("action", lambda rows: pa.array([*rows[:9], bad, *rows[10:]])))
    refusal(folder, f"{FILE}, column 'action', row 9: has {len(bad)} numbers, and row 0 has 7")


def test_actions_without_numbers(tmp_path: Path) -> None:
    empty = with_column("action", lambda rows: pa.array([[]] * len(rows), pa.list_(pa.float32())))
    refusal(changed(tmp_path, empty), FILE)


NO_INDICES: dict[str, Callable[[list], pa.Array]] = {
    "strings": lambda rows: pa.array(list(map(str, rows))),
    "floats": lambda rows: pa.array(list(map(float, rows))),
    "bool": lambda rows: pa.array([True] * len(rows)),
    "nothing": lambda rows: pa.nulls(len(rows)),
    "nulls": lambda rows: pa.array([*rows[:-1], None]),
    "empty lists": lambda rows: pa.array([[]] * len(rows), pa.list_(pa.int64())),
    "lists of null": lambda rows: pa.array([[None]] * len(rows), pa.list_(pa.int64())),
    "lists of floats": lambda rows: pa.array([[float(row)] for row in rows]),
}


@pytest.mark.parametrize("values", NO_INDICES.values(), ids=NO_INDICES)
@pytest.mark.parametrize("column", ["episode_index", "frame_index", "task_index"])
def test_indices_that_are_no_whole_numbers(tmp_path: Path, column: str, values: Callable[[list], pa.Array]) -> None:
    message = refusal(changed(tmp_path, with_column(column, values)), FILE)
    assert OTHER_FILE not in message


# LeRobot: steps and values

BAD_FRAMES: dict[str, tuple[ChangeTable, str]] = {
    "a gap": (drop_rows(5), "episode 0: frame_index 5 is missing (next is 6)"),
    "a wide gap": (drop_rows(18, 19, 20), "episode 1: frame_index 2 is missing (next is 5)"),
    "the first missing": (drop_rows(16), "episode 1: frame_index 0 is missing (next is 1)"),
    "a step twice": (repeat_row(40), "episode 2: frame_index 8 is there twice"),
    "the first twice": (repeat_row(0), "episode 0: frame_index 0 is there twice"),
    "counted from 1": (
        with_column("frame_index", lambda rows: pa.array([row + 1 for row in rows])),
        "episode 0: frame_index 0 is missing (next is 1)",
    ),
    "negative": (with_column("frame_index", lambda rows: pa.array([row - 1 for row in rows])), "next is -1"),
    "counted through the file": (
        with_column("frame_index", lambda rows: pa.array(range(len(rows)))),
        "episode 1: frame_index 0 is missing (next is 16)",
    ),
    "one episode for all": (with_column("episode_index", lambda rows: pa.array([0] * len(rows))), "is there twice"),
}


@pytest.mark.parametrize(("change", "said"), BAD_FRAMES.values(), ids=BAD_FRAMES)
def test_steps_that_do_not_count_up(tmp_path: Path, change: ChangeTable, said: str) -> None:
    refusal(changed(tmp_path, change), FILE, said)


def test_the_same_episodes_in_two_files(tmp_path: Path) -> None:
    folder = spoilt(tmp_path, lambda folder: shutil.copy(folder / FILE, folder / OTHER_FILE))
    refusal(folder, FILE, "episode 0: frame_index 0 is there twice")


def test_the_first_half_of_an_episode_in_a_file_that_is_missing(tmp_path: Path) -> None:
    folder = write_lerobot_v3(tmp_path, demos())
    pq.write_table(pq.read_table(folder / FILE).slice(24), folder / FILE)
    refusal(folder, FILE, "episode 1: frame_index 0 is missing (next is 8)")


def test_files_of_different_widths(tmp_path: Path) -> None:
    folder = changed(tmp_path, with_column("action", lambda rows: pa.array([row[:6] for row in rows])))
    refusal(folder, f"{OTHER_FILE}: actions have 7 numbers, and 6 in {FILE}")


@pytest.mark.parametrize("width", [1, 6, 8, 14])
def test_actions_of_another_width(tmp_path: Path, width: int) -> None:
    demo = [(task, np.resize(actions, (16, width))) for task, actions in demos()]
    refusal(write_lerobot_v3(tmp_path, demo), f"{FILE}, episode 0", f"(16, {width})", "expected (steps, 7)")


def test_no_rows_in_any_file(tmp_path: Path) -> None:
    folder = changed(tmp_path, lambda table: table.slice(0, 0))
    shutil.copy(folder / FILE, folder / OTHER_FILE)
    refusal(folder, f"{FILE}: holds no step")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(("column", "name"), [(0, "x"), (4, "pitch"), (6, "gripper")])
def test_a_value_that_is_not_finite(tmp_path: Path, value: float, column: int, name: str) -> None:
    demo = demos()
    demo[1][1][5, column] = value
    refusal(write_lerobot_v3(tmp_path / "set", demo), f"{FILE}, episode 1, step 5, {name}: the action is {value}")
    refusal(write_chunk_file(tmp_path / "bad.pt", demo), f"bad.pt, episode 1, step 5, {name}: the action is {value}")


@pytest.mark.parametrize("steps", [1, 7])
def test_an_episode_shorter_than_a_chunk(tmp_path: Path, steps: int) -> None:
    demo = demos()
    demo[2] = ("task 0", demo[2][1][:steps])
    refusal(write_lerobot_v3(tmp_path, demo), f"{FILE}, episode 2: {steps} steps are fewer than one chunk of 8")


# Chunk files


def chunk_file(path: Path, change: Callable[[Content], object]) -> Path:
    """A good .pt, its content changed."""
    content = torch.load(write_chunk_file(path, demos()))
    change(content)
    torch.save(content, path)
    return path


def putting(key: str, value: object | Callable[[torch.Tensor], object]) -> Callable[[Content], object]:
    """Put another value in the place of one, or what a function makes of it."""
    return lambda content: content.update({key: value(content[key]) if callable(value) else value})


@pytest.mark.parametrize("size", [0, 1, 4, 100, 0.5, 0.99, -100, -22, -1])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_chunk_file_cut_short(tmp_path: Path, size: float, zipped: bool) -> None:
    content = torch.load(write_chunk_file(tmp_path / "bad.pt", demos()))
    torch.save(content, tmp_path / "bad.pt", _use_new_zipfile_serialization=zipped)
    truncate(tmp_path / "bad.pt", size)
    refusal(tmp_path / "bad.pt", str(tmp_path / "bad.pt"), "not a PyTorch file")


@HYPOTHESIS
@given(st.data())
def test_a_chunk_file_cut_anywhere(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as name:
        path = write_chunk_file(Path(name) / "bad.pt", demos())
        truncate(path, data.draw(st.integers(1 - path.stat().st_size, -1)))
        refusal(path, "bad.pt")


NO_CHUNK_FILES: dict[str, Callable[[Path], object]] = {
    "text": lambda path: path.write_text("x,y,z\n0,0,0\n"),
    "a pointer of git-lfs": lambda path: path.write_bytes(GIT_LFS),
    "an empty zip": lambda path: path.write_bytes(b"PK\x05\x06" + bytes(18)),
    "HDF5": lambda path: write_libero(path, {"demo_0": demos()[0][1]}),
    "parquet": lambda path: pq.write_table(pa.table({"action": [[0.5]]}), path),
    "a numpy archive": lambda path: np.savez(path.open("wb"), actions=np.zeros((8, 8, 7))),
    "a list": lambda path: torch.save([torch.zeros(8, 8, 7)], path),
    "a tensor": lambda path: torch.save(torch.zeros(8, 8, 7), path),
    "an empty dict": lambda path: torch.save({}, path),
    "other keys": lambda path: torch.save({"action": torch.zeros(8, 8, 7)}, path),
    "weights of a model": lambda path: torch.save(torch.nn.Linear(7, 7).state_dict(), path),
    "a model": lambda path: torch.save(torch.nn.Linear(7, 7), path),
    "a checkpoint": lambda path: save_checkpoint(
        path, Checkpoint(ActionRFSQAE(7, 4, 2, 3), 1, 0.5, {"min": -torch.ones(7), "max": torch.ones(7)}, {})
    ),
    "numpy actions": lambda path: torch.save({"actions": np.zeros((8, 8, 7))}, path),
    "a path in it": lambda path: torch.save({"actions": torch.zeros(8, 8, 7), "metadata": {"source": path}}, path),
}


@pytest.mark.parametrize("write", NO_CHUNK_FILES.values(), ids=NO_CHUNK_FILES)
def test_a_file_that_is_no_chunk_file(tmp_path: Path, write: Callable[[Path], object]) -> None:
    write(tmp_path / "bad.pt")
    refusal(tmp_path / "bad.pt", str(tmp_path / "bad.pt"))


def test_a_chunk_file_called_hdf5(tmp_path: Path) -> None:
    path = write_chunk_file(tmp_path / "bad.hdf5", demos())
    refusal(path, f"{path}: not an HDF5 file")


def test_a_folder_called_pt(tmp_path: Path) -> None:
    (tmp_path / "bad.pt").mkdir()
    refusal(tmp_path / "bad.pt", str(tmp_path / "bad.pt"))


@pytest.mark.parametrize("target", ["gone.pt", "bad.pt"])
def test_a_chunk_file_that_is_a_link_to_nothing(tmp_path: Path, target: str) -> None:
    (tmp_path / "bad.pt").symlink_to(target)
    refusal(tmp_path / "bad.pt", "bad.pt")


def test_a_chunk_file_that_is_a_link_to_a_device(tmp_path: Path) -> None:
    (tmp_path / "bad.pt").symlink_to("/dev/null")
    refusal(tmp_path / "bad.pt")


NO_ACTIONS: dict[str, object] = {
    "a list": torch.Tensor.tolist,
    "nothing": None,
    "a word": "actions",
    "one episode": lambda actions: actions[0],
    "one dimension too many": lambda actions: actions[None],
    "a number": torch.tensor(0.5),
    "no chunks": lambda actions: actions[:0],
    "no steps": lambda actions: actions[:, :0],
    "no dimensions": lambda actions: actions[:, :, :0],
    "bool": lambda actions: actions > 0,
    "complex": lambda actions: actions.to(torch.complex64),
    "sparse": torch.Tensor.to_sparse,
}


@pytest.mark.parametrize("value", NO_ACTIONS.values(), ids=NO_ACTIONS)
def test_actions_that_are_no_chunks_of_numbers(tmp_path: Path, value: object) -> None:
    refusal(chunk_file(tmp_path / "bad.pt", putting("actions", value)), f"{tmp_path / 'bad.pt'}, 'actions'")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: torch.eye(7).repeat(12, 1, 1).to_sparse_csr(), id="sparse rows"),
        pytest.param(lambda: torch.quantize_per_tensor(torch.zeros(12, 8, 7), 0.1, 0, torch.qint8), id="quantized"),
        pytest.param(lambda: torch.zeros(12, 8, 7, device="meta"), id="meta"),
        pytest.param(lambda: torch.nested.nested_tensor([torch.zeros(8, 7)] * 2), id="nested"),
        pytest.param(lambda: torch.zeros(1, 1, 7).expand(10**12, 8, 7), id="more than memory holds"),
    ],
)
def test_actions_that_are_no_dense_tensor(tmp_path: Path, make: Callable[[], torch.Tensor]) -> None:
    torch.save({"actions": make()}, tmp_path / "bad.pt")
    refusal(tmp_path / "bad.pt", "bad.pt")


@pytest.mark.parametrize("width", [1, 6, 8, 14])
def test_chunks_of_another_width(tmp_path: Path, width: int) -> None:
    path = write_chunk_file(tmp_path / "bad.pt", [(task, np.resize(a, (16, width))) for task, a in demos()])
    refusal(path, "bad.pt, episode 0", f"(16, {width})", "expected (steps, 7)")


LOW, HIGH = [-1.0] * 7, [1.0] * 7
BAD_BOUNDS: dict[str, object] = {
    "a tensor": torch.ones(7),
    "a word": "min-max",
    "false": False,
    "a list": [LOW, HIGH],
    "empty": {},
    "no max": {"min": LOW},
    "no min": {"max": HIGH},
    "none": {"min": None, "max": None},
    "numbers": {"min": -1.0, "max": 1.0},
    "words": {"min": ["low"] * 7, "max": ["high"] * 7},
    "a word each": {"min": "lowlowl", "max": "highhig"},
    "bool": {"min": [False] * 7, "max": [True] * 7},
    "complex": {"min": torch.full((7,), -1j), "max": torch.full((7,), 1j)},
    "6 numbers": {"min": LOW[:6], "max": HIGH[:6]},
    "8 numbers": {"min": [*LOW, 0.0], "max": [*HIGH, 1.0]},
    "no numbers": {"min": [], "max": []},
    "a row": {"min": torch.tensor([LOW]), "max": torch.tensor([HIGH])},
    "exchanged": {"min": HIGH, "max": LOW},
    "exchanged in one": {"min": LOW, "max": [*HIGH[:6], -2.0]},
    "not a number": {"min": [*LOW[:6], np.nan], "max": HIGH},
    "infinite": {"min": LOW, "max": [*HIGH[:6], np.inf]},
}


@pytest.mark.parametrize("bounds", BAD_BOUNDS.values(), ids=BAD_BOUNDS)
def test_bounds_that_are_none(tmp_path: Path, bounds: object) -> None:
    refusal(
        chunk_file(tmp_path / "bad.pt", putting("normalization", bounds)), str(tmp_path / "bad.pt"), "normalization"
    )


BAD_OWNERS: dict[str, object] = {
    "a number": 3,
    "a word": "0",
    "words": ["0"] * 12,
    "bool": [True] * 12,
    "a tensor of bool": torch.ones(12, dtype=torch.bool),
    "too few": [0] * 11,
    "too many": torch.arange(13),
    "empty": [],
    "a column": torch.arange(12)[:, None],
    "a dict": {"0": 0},
}


@pytest.mark.parametrize("owner", BAD_OWNERS.values(), ids=BAD_OWNERS)
@pytest.mark.parametrize("key", ["episode", "episode_index"])
def test_owners_that_are_not_one_a_chunk(tmp_path: Path, key: str, owner: object) -> None:
    path = chunk_file(tmp_path / "bad.pt", putting("metadata", {key: owner}))
    refusal(path, str(path), "'metadata'")


def test_the_key_that_is_wrong_is_named(tmp_path: Path) -> None:
    path = chunk_file(tmp_path / "bad.pt", putting("metadata", {"episode_index": ["0"] * 12}))
    refusal(path, "'episode_index'")


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 0.7])
def test_owners_that_are_no_whole_numbers(tmp_path: Path, bad: float) -> None:
    owner = torch.arange(12.0) // 2 + torch.tensor([0, bad]).repeat(6)
    path = chunk_file(tmp_path / "bad.pt", putting("metadata", {"episode_index": owner}))
    refusal(path, str(path), "'metadata'")


@pytest.mark.parametrize(
    "entries",
    [
        {"normalization": {"min": [-1] * 7, "max": [10**400] * 7}},
        {"metadata": {"episode_index": [10**30] * 12}},
    ],
    ids=["bounds", "owners"],
)
def test_numbers_beyond_what_a_tensor_holds(tmp_path: Path, entries: Content) -> None:
    path = chunk_file(tmp_path / "bad.pt", lambda content: content.update(entries))
    refusal(path, str(path))


@pytest.mark.parametrize("count", [6, 11, 13])
def test_tasks_that_are_not_one_a_chunk(tmp_path: Path, count: int) -> None:
    def shorten(content: Content) -> None:
        content["metadata"] |= {"task": [f"task {number}" for number in range(count)]}  # type: ignore[operator]

    path = chunk_file(tmp_path / "bad.pt", shorten)
    refusal(path, str(path), "'metadata'")


def windows(shift: int, episodes: int = 5) -> torch.Tensor:
    """Chunks of 8 steps that begin every `shift` steps of episodes of 40."""
    rng = np.random.default_rng(0)
    walks = [torch.from_numpy(random_walk(rng, 40)) for _ in range(episodes)]
    return torch.stack([walk[start : start + 8] for walk in walks for start in range(0, 33, shift)])


# Not 7: a single step that two chunks share cannot be told from a command that is held.
@pytest.mark.parametrize("shift", range(1, 7))
def test_overlapping_windows(tmp_path: Path, shift: int) -> None:
    torch.save({"actions": windows(shift)}, tmp_path / "bad.pt")
    said = f"its chunks overlap (each begins {shift} step(s) after the one before)"
    assert "save every 8th step's chunk" in refusal(tmp_path / "bad.pt", f"{tmp_path / 'bad.pt'}: {said}")


@pytest.mark.parametrize("shift", [1, 4])
def test_overlapping_windows_whose_episode_is_given(tmp_path: Path, shift: int) -> None:
    chunks = windows(shift)
    owner = torch.arange(5).repeat_interleave(len(chunks) // 5)
    torch.save({"actions": chunks, "metadata": {"episode_index": owner}}, tmp_path / "bad.pt")
    refusal(tmp_path / "bad.pt", "bad.pt", "overlap")


# Nothing is executed, waited for, or said besides


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.marker,)


def pickled(trap: Trap) -> bytes:
    return pickle.dumps(trap, protocol=2)


def saved(content: object, zipped: bool = True) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


TRAPS: dict[str, Callable[[Trap], bytes]] = {
    "a pickle": pickled,
    "the whole file": saved,
    "the older format": lambda trap: saved(trap, zipped=False),
    "the actions": lambda trap: saved({"actions": trap}),
    "beside the actions": lambda trap: saved({"actions": torch.zeros(8, 8, 7), "metadata": {"note": trap}}),
    "a bound": lambda trap: saved({"actions": torch.zeros(8, 8, 7), "normalization": {"min": trap, "max": trap}}),
}


@pytest.mark.parametrize("make", TRAPS.values(), ids=TRAPS)
def test_code_in_a_chunk_file_is_not_executed(tmp_path: Path, make: Callable[[Trap], bytes]) -> None:
    marker = tmp_path / "executed"
    (tmp_path / "bad.pt").write_bytes(make(Trap(marker)))
    refusal(tmp_path / "bad.pt", str(tmp_path / "bad.pt"))
    assert not marker.exists()
    torch.load(tmp_path / "bad.pt", weights_only=False) if make is not pickled else pickle.loads(pickled(Trap(marker)))
    assert marker.exists()  # the trap works


@pytest.mark.parametrize("file", [INFO, TASKS, FILE])
def test_code_in_a_lerobot_data_set_is_not_executed(tmp_path: Path, file: str) -> None:
    marker = tmp_path / "executed"
    refusal(spoilt(tmp_path, writing(file, pickled(Trap(marker)))), file)
    assert not marker.exists()


def test_code_in_an_extension_type_is_not_executed(tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    pickled_type = {
        "ARROW:extension:name": "arrow.py_extension_type",
        "ARROW:extension:metadata": pickled(Trap(marker)),
    }

    def disguise(table: pa.Table) -> pa.Table:
        return table.cast(pa.schema([field.with_metadata(pickled_type) for field in table.schema]))

    prepare_dataset(changed(tmp_path / "set", disguise))
    assert not marker.exists()


@contextmanager
def answering(pipe: Path, seconds: float) -> Iterator[threading.Event]:
    """After so many seconds, end the waiting of whoever waits for a pipe; the event tells that somebody did."""
    waited, over = threading.Event(), threading.Event()

    def answer() -> None:
        over.wait(seconds)
        while not over.wait(0.05):
            try:
                os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
                waited.set()
            except OSError:  # nobody waits
                time.sleep(0.05)

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    try:
        yield waited
    finally:
        over.set()
        thread.join()


@pytest.mark.parametrize("file", ["bad.pt", INFO, TASKS, FILE])
def test_a_pipe_is_not_waited_for(tmp_path: Path, file: str) -> None:
    folder = lerobot(tmp_path)
    (folder / file).unlink(missing_ok=True)
    os.mkfifo(folder / file)
    with answering(folder / file, seconds=1.0) as waited:
        refusal(folder / file if file == "bad.pt" else folder, file)
    assert not waited.is_set()


@pytest.mark.parametrize(
    "write",
    [
        pytest.param(lambda path: torch.jit.save(torch.jit.script(torch.nn.Linear(7, 7)), path), id="TorchScript"),
        pytest.param(lambda path: path.write_bytes(pickle.dumps({"actions": [0.5]}, protocol=5)), id="newer pickle"),
    ],
)
def test_a_refusal_is_all_that_is_said(tmp_path: Path, write: Callable[[Path], object]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the writing
        write(tmp_path / "bad.pt")
    refusal(tmp_path / "bad.pt", str(tmp_path / "bad.pt"))


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(writing(INFO, json.dumps({"codebase_version": "v1\nv2"})), id="version"),
        pytest.param(
            lambda folder: pq.write_table(pa.table({"act\nion": [1]}), folder / FILE), id="line break in a column"
        ),
        pytest.param(
            lambda folder: pq.write_table(pa.table({f"{n}{'x' * 500}": [1] for n in range(9)}), folder / FILE),
            id="long columns",
        ),
    ],
)
def test_what_files_say_does_not_break_the_sentence(tmp_path: Path, spoil: Spoil) -> None:
    refusal(spoilt(tmp_path, spoil))


def test_hdf5_beside_it_does_not_make_up_for_a_bad_info(tmp_path: Path) -> None:
    folder = spoilt(tmp_path, writing(INFO, "{}"))
    write_libero(folder / "good.hdf5", {f"demo_{number}": actions for number, (_, actions) in enumerate(demos())})
    refusal(folder, str(folder / INFO))
