"""LeRobot data sets: columns, order of steps and files, tasks, and what meta/info.json says."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings, strategies as st
from made_up import TASKS, Array, exact_demos, libero_tasks, numbered, random_walk
from reading import assert_same, notes, rate_of, read
from spoiling import overwrite_columns
from writers import (
    FILE,
    OTHER_FILE,
    lerobot_table,
    rewrite,
    write_info,
    write_lerobot_v2,
    write_lerobot_v3,
    write_parquet,
)

from workbook.data.sources.read import read_recordings

HYPOTHESIS = settings(deadline=None, max_examples=40)


# Columns


def cast_column(folder: Path, name: str, kind: pa.DataType) -> Path:
    def change(table: pa.Table) -> pa.Table:
        column = pa.array(table[name].to_pylist(), kind)
        return table.set_column(table.column_names.index(name), name, column)

    return rewrite(folder, change)


LISTS: dict[str, Callable[[pa.DataType], pa.DataType]] = {
    "list": pa.list_,
    "large_list": pa.large_list,
    "fixed_size_list": lambda kind: pa.list_(kind, 7),
}


@pytest.mark.parametrize("column", ["action", "actions"])
@pytest.mark.parametrize("kind", [pa.float32(), pa.float64()], ids=str)
@pytest.mark.parametrize("lists", LISTS)
def test_actions_are_read_from_any_kind_of_list(tmp_path: Path, column: str, kind: pa.DataType, lists: str) -> None:
    folder = write_lerobot_v3(tmp_path, exact_demos(2), column=column)
    assert_same(read(cast_column(folder, column, LISTS[lists](kind))), exact_demos(2))


@pytest.mark.parametrize("kind", [pa.int8(), pa.int64(), pa.uint16(), pa.float16()], ids=str)
@pytest.mark.parametrize("lists", LISTS)
def test_whole_numbers_and_halves_are_read_as_actions(tmp_path: Path, kind: pa.DataType, lists: str) -> None:
    folder = write_lerobot_v3(tmp_path, numbered([9, 8]))
    assert_same(read(cast_column(folder, "action", LISTS[lists](kind))), numbered([9, 8]))


def test_float64_is_not_rounded_to_float32(tmp_path: Path) -> None:
    folder = write_lerobot_v3(tmp_path, numbered([8]))
    tenth = pa.FixedSizeListArray.from_arrays(pa.array(np.full(56, 0.1)), 7)
    rewrite(folder, lambda table: table.set_column(table.column_names.index("action"), "action", tenth))
    assert (read(folder)[0].actions == 0.1).all()


def test_float32_is_taken_as_it_is(tmp_path: Path) -> None:
    demos = [("walk", random_walk(np.random.default_rng(0), 30))]
    folder = write_lerobot_v3(tmp_path, demos)
    np.testing.assert_array_equal(read(folder)[0].actions, demos[0][1].astype(np.float32))


@pytest.mark.parametrize("kind", [pa.int32(), pa.uint8(), pa.int16()], ids=str)
@pytest.mark.parametrize("name", ["episode_index", "frame_index", "task_index"])
def test_indices_may_be_of_any_whole_number(tmp_path: Path, name: str, kind: pa.DataType) -> None:
    folder = write_lerobot_v3(tmp_path, exact_demos(2))
    assert_same(read(cast_column(folder, name, kind)), exact_demos(2))


@pytest.mark.parametrize("name", ["episode_index", "frame_index", "task_index"])
def test_indices_may_be_lists_of_one_number(tmp_path: Path, name: str) -> None:
    folder = write_lerobot_v3(tmp_path, exact_demos(2))

    def wrap(table: pa.Table) -> pa.Table:
        column = pa.array([[number] for number in table[name].to_pylist()])
        return table.set_column(table.column_names.index(name), name, column)

    assert_same(read(rewrite(folder, wrap)), exact_demos(2))


def test_action_is_taken_where_both_names_are_there(tmp_path: Path) -> None:
    folder = write_lerobot_v3(tmp_path, exact_demos(2))
    rewrite(folder, lambda table: table.append_column("actions", pa.array(["other"] * len(table))))
    assert_same(read(folder), exact_demos(2))


@pytest.mark.parametrize("write", [write_lerobot_v2, write_lerobot_v3])
def test_columns_that_are_not_wanted_are_never_read(tmp_path: Path, write: Callable[..., Path]) -> None:
    folder = write(tmp_path, exact_demos(2), image_bytes=500)
    wanted = {"action", "episode_index", "frame_index", "task_index", "timestamp"}
    for file in folder.glob("data/**/*.parquet"):
        overwrite_columns(file, lambda name: name.split(".")[0] not in wanted)
        for spoilt in ("observation.images.image", "index"):
            with pytest.raises((OSError, pa.ArrowException)):
                pq.read_table(file, columns=[spoilt])
    assert_same(read(folder), exact_demos(2))


# Order


@HYPOTHESIS
@given(
    st.lists(st.integers(1, 12), min_size=1, max_size=5),
    st.randoms(use_true_random=False),
    st.lists(st.integers(0, 40), max_size=3),
    st.integers(1, 50),
)
def test_any_order_of_rows_in_any_files_gives_the_same_episodes(
    lengths: list[int], random: Any, cuts: list[int], group: int
) -> None:
    table = lerobot_table(numbered(lengths))
    rows = list(range(len(table)))
    random.shuffle(rows)
    bounds = [0, *sorted(min(cut, len(rows)) for cut in cuts), len(rows)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_info(folder, "v3.0", numbered(lengths))
        for number, (start, end) in enumerate(pairwise(bounds)):
            path = folder / f"data/chunk-{number % 2:03d}/file-{number:03d}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(table.take(pa.array(rows[start:end], pa.int64())), path, row_group_size=group)
        assert_same(read(folder), numbered(lengths, "task 0"))


def test_episodes_interleaved_across_files_come_in_order(tmp_path: Path) -> None:
    folder = write_lerobot_v3(tmp_path, numbered([8, 9, 10, 11]))
    table = pq.read_table(folder / FILE)
    for number, file in enumerate((FILE, OTHER_FILE)):
        write_parquet(folder / file, table.filter(pc.equal(pc.bit_wise_and(table["episode_index"], 1), number)))
    assert_same(read(folder), numbered([8, 9, 10, 11]))
    assert [episode.key for episode in read(folder)] == [f"episode {number}" for number in range(4)]
    assert [Path(episode.source).stem for episode in read(folder)] == ["file-000", "file-001"] * 2


def test_an_episode_in_two_files_is_one_and_named_after_the_first(tmp_path: Path) -> None:
    folder = write_lerobot_v3(tmp_path, numbered([8, 20]))
    table = pq.read_table(folder / FILE)
    write_parquet(folder / FILE, table.slice(0, 15))
    write_parquet(folder / OTHER_FILE, table.slice(15))
    assert_same(read(folder), numbered([8, 20]))
    assert [episode.source for episode in read(folder)] == [FILE, FILE]


def test_gaps_between_episode_numbers_are_no_error(tmp_path: Path) -> None:
    folder = write_lerobot_v3(tmp_path, numbered([8, 9, 10]))
    rewrite(folder, lambda table: table.filter(pc.not_equal(table["episode_index"], 1)))
    assert [episode.key for episode in read(folder)] == ["episode 0", "episode 2"]


def test_a_file_without_rows_beside_others_is_passed_over(tmp_path: Path) -> None:
    folder = write_lerobot_v3(tmp_path, numbered([8, 9]))
    write_parquet(folder / "data/chunk-000/aaa.parquet", pq.read_table(folder / FILE).slice(0, 0))
    assert_same(read(folder), numbered([8, 9]))


def test_hidden_files_are_passed_over(tmp_path: Path) -> None:
    folder = write_lerobot_v3(tmp_path, numbered([8, 9]))
    for name in (".file-000.parquet.abc123", "._file-000.parquet", ".something.parquet"):
        (folder / FILE).with_name(name).write_bytes(b"half of a download")
    assert_same(read(folder), numbered([8, 9]))


def test_a_folder_that_links_back_is_not_followed_for_ever(tmp_path: Path) -> None:
    folder = write_lerobot_v3(tmp_path, numbered([8, 9]))
    (folder / "data" / "again").symlink_to(folder / "data", target_is_directory=True)
    assert_same(read(folder), numbered([8, 9]))


def test_linked_folders_of_data_are_followed(tmp_path: Path) -> None:
    folder = write_lerobot_v3(tmp_path / "set", numbered([8, 9]))
    (folder / "data/chunk-000").rename(tmp_path / "elsewhere")
    (folder / "data/chunk-000").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert_same(read(folder), numbered([8, 9]))


def test_a_linked_data_set_and_linked_files_are_read(tmp_path: Path) -> None:
    folder = write_lerobot_v3(tmp_path / "blobs", numbered([8, 9]))
    linked = tmp_path / "snapshot"
    for file in ("meta/info.json", "meta/tasks.parquet", FILE):
        (linked / file).parent.mkdir(parents=True, exist_ok=True)
        (linked / file).symlink_to(folder / file)
    (tmp_path / "latest").symlink_to(linked, target_is_directory=True)
    assert_same(read(tmp_path / "latest"), numbered([8, 9]))


# Tasks


def tasks_of(folder: Path) -> list[str]:
    return [episode.task for episode in read(folder)]


def two_tasks() -> list[tuple[str, Array]]:
    return [(TASKS[number], actions) for number, (_, actions) in enumerate(numbered([8, 9]))]


@pytest.mark.parametrize("column", ["task", "__index_level_0__", "instruction"])
@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()], ids=str)
def test_tasks_of_v3_are_found_whatever_their_column_is_called(tmp_path: Path, column: str, kind: pa.DataType) -> None:
    folder = write_lerobot_v3(tmp_path, two_tasks())
    table = pa.table({"task_index": pa.array([1, 0]), column: pa.array(TASKS[::-1], kind)})
    pq.write_table(table, folder / "meta/tasks.parquet")
    assert tasks_of(folder) == TASKS


def test_a_column_called_task_is_preferred(tmp_path: Path) -> None:
    folder = write_lerobot_v3(tmp_path, two_tasks())
    table = pa.table({"suite": ["a", "b"], "task_index": [0, 1], "task": TASKS, "author": ["c", "d"]})
    pq.write_table(table, folder / "meta/tasks.parquet")
    assert tasks_of(folder) == TASKS


def test_tasks_of_v2_are_lines_of_json_in_any_order(tmp_path: Path) -> None:
    folder = write_lerobot_v2(tmp_path, two_tasks())
    lines = [{"task_index": 1, "task": TASKS[1]}, {"task": TASKS[0], "task_index": 0, "more": None}]
    (folder / "meta/tasks.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    assert tasks_of(folder) == TASKS


def test_tasks_in_other_scripts_are_kept(tmp_path: Path) -> None:
    folder = write_lerobot_v2(tmp_path, [("Schüssel 打开", np.zeros((8, 7)))])
    line = json.dumps({"task_index": 0, "task": "Schüssel 打开"}, ensure_ascii=False)
    (folder / "meta/tasks.jsonl").write_text(line, encoding="utf8")
    assert tasks_of(folder) == ["Schüssel 打开"]


@pytest.mark.parametrize(("write", "file"), [(write_lerobot_v2, "tasks.jsonl"), (write_lerobot_v3, "tasks.parquet")])
def test_without_a_list_of_tasks_they_are_numbered(tmp_path: Path, write: Callable[..., Path], file: str) -> None:
    folder = write(tmp_path, two_tasks())
    (folder / "meta" / file).unlink()
    assert tasks_of(folder) == ["task 0", "task 1"]


def test_a_task_that_the_list_lacks_is_numbered(tmp_path: Path) -> None:
    folder = write_lerobot_v2(tmp_path, two_tasks())
    (folder / "meta/tasks.jsonl").write_text(json.dumps({"task_index": 1, "task": TASKS[1]}))
    assert tasks_of(folder) == ["task 0", TASKS[1]]


def test_without_task_index_the_task_is_not_named(tmp_path: Path) -> None:
    folder = rewrite(write_lerobot_v3(tmp_path, two_tasks()), lambda table: table.drop_columns(["task_index"]))
    assert tasks_of(folder) == ["task not named"] * 2


def test_several_tasks_in_an_episode_are_joined_in_order_of_appearance(tmp_path: Path) -> None:
    folder = write_lerobot_v3(tmp_path, [(task, np.zeros((8, 7))) for task in "abc"])
    one = lerobot_table([("a", np.zeros((24, 7)))])
    position = one.column_names.index("task_index")
    write_parquet(folder / FILE, one.set_column(position, "task_index", pa.array([2] * 8 + [0] * 8 + [2] * 8)))
    assert tasks_of(folder) == ["c; a"]


@pytest.mark.parametrize("character", ["\u2028", "\u0085"])
def test_a_task_may_hold_any_character_that_json_allows(tmp_path: Path, character: str) -> None:
    folder = write_lerobot_v2(tmp_path, [("any", np.zeros((8, 7)))])
    line = json.dumps({"task_index": 0, "task": f"a{character}b"}, ensure_ascii=False)
    (folder / "meta/tasks.jsonl").write_text(line, encoding="utf8")
    assert tasks_of(folder) == [f"a{character}b"]


# What info.json says


def with_info(folder: Path, **entries: object) -> Path:
    path = folder / "meta/info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))
    return folder


@pytest.mark.parametrize("fps", [5, 10, 20, 29.97, 50])
def test_fps_is_the_control_rate(tmp_path: Path, fps: float) -> None:
    folder = with_info(write_lerobot_v3(tmp_path, numbered([8]), fps=fps), fps=fps)
    assert rate_of(folder) == fps
    assert notes(folder) == ""


@pytest.mark.parametrize(
    "fps", [None, 0, -10, "10", True, [10], float("nan"), float("inf"), 10**400], ids=lambda f: str(f)[:5]
)
def test_fps_that_is_no_rate_says_none(tmp_path: Path, fps: object) -> None:
    assert rate_of(with_info(write_lerobot_v3(tmp_path, numbered([8])), fps=fps)) is None


@pytest.mark.parametrize("write", [write_lerobot_v2, write_lerobot_v3])
def test_no_fps_with_liberos_tasks_says_none_either(tmp_path: Path, write: Callable[..., Path]) -> None:
    folder = write(tmp_path, [(task, np.zeros((8, 7))) for task in libero_tasks("libero_goal")[:3]])
    assert rate_of(with_info(folder, fps=None)) is None
    assert notes(folder) == ""


@pytest.mark.parametrize("write", [write_lerobot_v2, write_lerobot_v3])
def test_ten_fps_with_liberos_tasks_is_said_to_be_20_hz(tmp_path: Path, write: Callable[..., Path]) -> None:
    demos = [(task, np.zeros((8, 7))) for task in libero_tasks("libero_goal")[:3]]
    folder = with_info(write(tmp_path, demos), fps=10)
    assert rate_of(folder) == 20
    assert notes(folder) == (
        "The data set says 10 steps a second; its tasks are LIBERO's, so LIBERO's control rate of 20 is taken."
    )
    assert notes(with_info(folder, fps=20)) == ""


@pytest.mark.parametrize("listed", [True, False])
def test_ten_fps_with_other_tasks_is_10_hz(tmp_path: Path, listed: bool) -> None:
    folder = write_lerobot_v3(tmp_path, [(libero_tasks("libero_goal")[0], np.zeros((8, 7))), *numbered([8])])
    if not listed:
        (folder / "meta/tasks.parquet").unlink()
    assert rate_of(with_info(folder, fps=10)) == 10


def test_ten_fps_with_a_task_that_has_no_name_is_10_hz(tmp_path: Path) -> None:
    folder = with_info(write_lerobot_v3(tmp_path, numbered([8])), fps=10)
    pq.write_table(pa.table({"task_index": [0], "task": pa.array([None], pa.string())}), folder / "meta/tasks.parquet")
    assert rate_of(folder) == 10


@pytest.mark.parametrize("promised", [3, 1500])
def test_fewer_episodes_than_promised_are_told(tmp_path: Path, promised: int) -> None:
    folder = with_info(write_lerobot_v3(tmp_path, numbered([8, 8])), total_episodes=promised)
    assert notes(folder) == f"meta/info.json promises {promised:,} episodes; 2 are there."


def test_the_promised_number_of_episodes_is_not_worth_a_note(tmp_path: Path) -> None:
    assert notes(write_lerobot_v3(tmp_path, numbered([8, 8]))) == ""


def test_a_data_file_that_was_not_downloaded_is_told(tmp_path: Path) -> None:
    folder = write_lerobot_v3(tmp_path, numbered([8, 8, 8]), episodes_a_file=1)
    (folder / OTHER_FILE).unlink()
    assert "promises 3 episodes; 2 are there" in notes(folder)


@pytest.mark.parametrize("version", ["v2.0", "v2.1", "v3.0", "v3.1"])
def test_the_version_is_part_of_the_kind(tmp_path: Path, version: str) -> None:
    folder = with_info(write_lerobot_v3(tmp_path, numbered([8])), codebase_version=version)
    origin = read_recordings(folder).origin
    assert (origin.kind, origin.name) == (f"LeRobot {version}", str(folder))
