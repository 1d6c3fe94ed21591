"""Whatever is wrong with a LeRobot data set: one sentence that says where and what to do."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings, strategies as st
from made_up import exact_demos
from spoiling import (
    GIT_LFS,
    ChangeTable,
    Spoil,
    changed,
    cut_short,
    demos,
    lerobot,
    overwrite_columns,
    refusal,
    spoilt,
    without_rights,
    writing,
)
from writers import (
    FILE,
    INFO,
    OTHER_FILE,
    TASK_LINES,
    TASK_TABLE,
    write_chunk_file,
    write_lerobot_v2,
    write_lerobot_v3,
    write_libero,
)

from workbook.common.errors import InputError
from workbook.data.dataset import prepare_dataset

HYPOTHESIS = settings(deadline=None, max_examples=40)


def with_column(name: str, values: Callable[[list], pa.Array]) -> ChangeTable:
    """Put another column in the place of one, made of its values."""

    def change(table: pa.Table) -> pa.Table:
        return table.set_column(table.column_names.index(name), name, values(table[name].to_pylist()))

    return change


def drop_rows(*rows: int) -> ChangeTable:
    return lambda table: table.take(pa.array([row for row in range(len(table)) if row not in rows]))


def repeat_row(row: int) -> ChangeTable:
    return lambda table: pa.concat_tables([table, table.slice(row, 1)])


# Damaged files


NO_PARQUET = {
    "empty": b"",
    "text": b"episode,frame,action\n0,0,0\n",
    "magic alone": b"PAR1",
    "magic at both ends": b"PAR1" + bytes(200) + b"PAR1",
    "a pointer of git-lfs": GIT_LFS,
    "HDF5": b"\x89HDF\r\n\x1a\n" + bytes(2000),
}


@pytest.mark.parametrize("content", NO_PARQUET.values(), ids=NO_PARQUET)
@pytest.mark.parametrize("file", [FILE, OTHER_FILE, TASK_TABLE])
def test_a_file_that_is_not_parquet(tmp_path: Path, file: str, content: bytes) -> None:
    assert "download it again" in refusal(spoilt(tmp_path, writing(file, content)), file)


@HYPOTHESIS
@given(st.data())
def test_a_parquet_file_cut_anywhere(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = lerobot(Path(name))
        cut_short(folder / FILE, data.draw(st.integers(1, (folder / FILE).stat().st_size - 1)))
        refusal(folder, FILE, "cut short")


@HYPOTHESIS
@given(
    st.sampled_from([FILE, TASK_TABLE, INFO]),
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1),
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
    overwrite_columns(folder / FILE, lambda name: name.startswith("action"))
    refusal(folder, FILE, "damaged")


# Meta


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
    return lambda folder: pq.write_table(pa.table(columns), folder / TASK_TABLE)


BAD_TASK_TABLES: dict[str, Spoil] = {
    "cut short": lambda folder: cut_short(folder / TASK_TABLE, 500),
    "no instruction": of_tasks(task_index=[0, 1], length=[3, 4]),
    "instructions as bytes": of_tasks(task_index=[0, 1], task=[b"a", b"b"]),
    "no index": of_tasks(task=["a", "b"]),
    "a folder": lambda folder: ((folder / TASK_TABLE).unlink(), (folder / TASK_TABLE).mkdir()),
}


@pytest.mark.parametrize("spoil", BAD_TASK_TABLES.values(), ids=BAD_TASK_TABLES)
def test_a_bad_table_of_tasks(tmp_path: Path, spoil: Spoil) -> None:
    folder = spoilt(tmp_path, spoil)
    refusal(folder, TASK_TABLE)


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
    writing(TASK_LINES, content)(folder)
    refusal(folder, TASK_LINES)


def test_hdf5_beside_it_does_not_make_up_for_a_bad_info(tmp_path: Path) -> None:
    folder = spoilt(tmp_path, writing(INFO, "{}"))
    write_libero(folder / "good.hdf5", {f"demo_{number}": actions for number, (_, actions) in enumerate(demos())})
    refusal(folder, str(folder / INFO))


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


# Which files there are


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


@pytest.mark.parametrize("locked", [INFO, TASK_TABLE, FILE, "meta", "."])
def test_no_permission(open_folder: Path, locked: str) -> None:
    folder = lerobot(open_folder / "set")
    prepare_dataset(folder)  # whatever has to be imported for it, from folders that nobody may not read
    (folder / locked).chmod(0)
    with without_rights():
        message = refusal(folder, locked if "/" in locked else str(folder))
    assert "fix its permissions" in message
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
            assert "fix its permissions" in refusal(folder, locked)
    finally:
        (folder / locked).chmod(0o755)


# Columns


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


# Steps and values


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


@pytest.mark.parametrize("write", [write_lerobot_v2, write_lerobot_v3])
def test_an_episode_without_its_last_steps_is_noticed(tmp_path: Path, write: Callable[..., Path]) -> None:
    folder = write(tmp_path / "set", exact_demos(6))
    last = max(folder.glob("data/*/*.parquet"))
    table = pq.read_table(last)
    pq.write_table(table.slice(0, table.num_rows - 3), last)
    refusal(folder, "meta/info.json: promises", "download it again")
