"""Readers of every format: the same recordings give the same data set and results, whatever they are written in."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from conftest import random_walk
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from writers import (
    Demos,
    lerobot_table,
    write_chunk_file,
    write_info,
    write_lerobot_v2,
    write_lerobot_v3,
    write_libero_folder,
    write_parquet,
)

from rfsq_robust import CONDITIONINGS
from workbook import training, variants
from workbook.comparison import compare
from workbook.data_card import describe
from workbook.dataset import DataConfig, Dataset, Prepared, prepare_dataset, save_dataset
from workbook.episodes import Episode
from workbook.errors import InputError
from workbook.paths import SAMPLE, OutputFolder
from workbook.residual_analysis import analyse
from workbook.sources import hub, libero_hdf5, libero_suites
from workbook.sources.mirror import Mirror
from workbook.sources.recordings import read_recordings
from workbook.split import FRACTIONS
from workbook.training import TrainConfig, measure_step_seconds
from workbook.variants import train_variants

Array = NDArray[np.float64]
HYPOTHESIS = settings(deadline=None, max_examples=40)
FILE = "data/chunk-000/file-000.parquet"
TASKS = ["open the drawer", "put the bowl on the plate"]
TINY = TrainConfig(epochs=2, batch_size=16, learning_rate=5e-3, hidden_dim=4, num_layers=3)
TIMES = {"seconds", "total_seconds", "train_seconds", "overhead"}


def exact_walk(rng: np.random.Generator, steps: int) -> Array:
    """A walk on multiples of 1/128, which float32 holds exactly; some beyond the controller's range, to be clipped."""
    actions = np.round(random_walk(rng, steps) * 160) / 128 + 0.0  # no -0.0, whose sign denormalising would lose
    actions[:, 6] = np.sign(actions[:, 6])
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


def read(data: Path | str) -> list[Episode]:
    return read_recordings(data).episodes


def notes(data: Path | str) -> str:
    return " ".join(read_recordings(data).origin.notes)


def assert_same(episodes: list[Episode], demos: Demos) -> None:
    """The actions of these demos and no others, to the last bit."""
    assert len(episodes) == len(demos)
    for episode, (task, actions) in zip(episodes, demos, strict=True):
        assert episode.task == task
        assert episode.actions.dtype == np.float64
        np.testing.assert_array_equal(episode.actions, actions)


# One data set, whatever it is written in

FORMATS: dict[str, Callable[[Path, Demos], Path]] = {
    "LIBERO HDF5": write_libero_folder,
    "LeRobot v2": write_lerobot_v2,
    "LeRobot v3": write_lerobot_v3,
    "LeRobot v3, one episode a file": lambda folder, demos: write_lerobot_v3(folder, demos, episodes_a_file=1),
    "LeRobot v3, three episodes a file": lambda folder, demos: write_lerobot_v3(folder, demos, episodes_a_file=3),
    "normalised chunks": lambda folder, demos: write_chunk_file(folder.with_suffix(".pt"), demos),
}
OTHER_FORMATS = [name for name in FORMATS if name != "LIBERO HDF5"]


@dataclass(frozen=True, eq=False)
class Run:
    """A folder with 20 episodes in every format, and what the results are on each."""

    written: dict[str, Path]
    evidence: dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("formats")
    written = {name: write(folder / name, exact_demos()) for name, write in FORMATS.items()}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "available_cores", lambda: 1)  # in this process: no workers to wait for
        patch.setattr(variants, "measure_step_seconds", partial(measure_step_seconds, rounds=2))
        evidence = {name: results_on(path, folder / f"out of {name}") for name, path in written.items()}
    torch.set_num_threads(threads)
    return Run(written, evidence)


def results_on(data: Path, out_folder: Path) -> dict[str, Any]:
    """The content of the three stages after 01_data, times apart."""
    dataset, out = prepare_dataset(data).dataset, OutputFolder.at(str(out_folder))
    trained = train_variants(out, dataset, TINY, 2, "cpu")
    comparison = compare(out, dataset, trained, lambda done, total: None)
    residuals = analyse(out, dataset, trained)
    return without_times({"training": trained, "comparison": comparison, "residuals": residuals})


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_times(item) for key, item in value.items() if key not in TIMES}
    return [without_times(item) for item in value] if isinstance(value, (list, tuple)) else value


def as_text(value: Any) -> str:
    """Every bit of every float, and NaN equal to NaN."""
    return json.dumps(value, sort_keys=True)


def prepare_both(run: Run, name: str, config: DataConfig | None = None) -> tuple[Prepared, Prepared]:
    return prepare_dataset(run.written["LIBERO HDF5"], config), prepare_dataset(run.written[name], config)


def assert_same_dataset(one: Dataset, other: Dataset) -> None:
    assert one.sha256 == other.sha256
    assert one.split == other.split
    assert one.control_rate_hz == other.control_rate_hz
    for bound in ("low", "high"):
        np.testing.assert_array_equal(getattr(one.normaliser, bound), getattr(other.normaliser, bound))
    assert_same(list(one.episodes), [(episode.task, episode.actions) for episode in other.episodes])
    cut = [[d.train_chunks(), *(d.held_out_chunks(part) for part in FRACTIONS)] for d in (one, other)]
    for ours, theirs in zip(*cut, strict=True):
        for field in ("actions", "valid", "episode"):
            np.testing.assert_array_equal(getattr(ours, field), getattr(theirs, field))


def test_the_recordings_to_compare_are_exact_in_float32_and_partly_clipped() -> None:
    actions = np.concatenate([actions for _, actions in exact_demos()])
    np.testing.assert_array_equal(actions, actions.astype(np.float32))
    assert 0 < (np.abs(actions[:, :6]) > 1).mean() < 0.5


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_back_what_was_written(run: Run, name: str) -> None:
    assert_same(read(run.written[name]), exact_demos())


@pytest.mark.parametrize(
    "config",
    [
        DataConfig(),
        DataConfig(chunk_len=5, stride=2, split_seed=3),
        DataConfig(num_episodes=9),
        DataConfig(drop_noops=True, gripper_open="high"),
    ],
    ids=["default", "other chunks and split", "nine episodes", "no-ops dropped"],
)
@pytest.mark.parametrize("name", OTHER_FORMATS)
def test_every_format_gives_the_same_data_set(run: Run, name: str, config: DataConfig) -> None:
    one, other = prepare_both(run, name, config)
    assert_same_dataset(one.dataset, other.dataset)


@pytest.mark.parametrize("name", OTHER_FORMATS)
def test_every_format_gives_the_same_data_card(run: Run, name: str) -> None:
    of_format = {"origin", "files"}
    one, other = (
        {key: value for key, value in describe(prepared).items() if key not in of_format}
        for prepared in prepare_both(run, name)
    )
    assert as_text(one) == as_text(other)


@pytest.mark.parametrize("stage", ["training", "comparison", "residuals"])
@pytest.mark.parametrize("name", OTHER_FORMATS)
def test_every_format_gives_the_same_results(run: Run, name: str, stage: str) -> None:
    assert as_text(run.evidence[name][stage]) == as_text(run.evidence["LIBERO HDF5"][stage])


def test_the_results_that_are_compared_are_of_every_model_and_seed(run: Run) -> None:
    evidence = run.evidence["LIBERO HDF5"]
    for name in CONDITIONINGS:
        runs = evidence["training"]["conditionings"][name]["runs"]
        assert [model["seed"] for model in runs] == [0, 1]
        assert len({model["reconstruction_sha256"] for model in runs}) == 2
        assert 0 < evidence["comparison"]["models"][name]["token_mse"]["mean"] < 1
        assert len(evidence["residuals"][name]["prefix_mse"]) == TINY.num_layers


@settings(HYPOTHESIS, max_examples=12)
@given(
    st.lists(st.integers(2, 5), min_size=4, max_size=9),
    st.integers(1, 9),
    st.integers(0, 2**32 - 1),
)
def test_any_recordings_are_read_alike_in_every_format(lengths: list[int], a_file: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    tasks = sorted(TASKS[rng.integers(2)] for _ in lengths)
    demos = [(task, exact_walk(rng, 8 * steps)) for task, steps in zip(tasks, lengths, strict=True)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        one = prepare_dataset(write_libero_folder(folder / "libero", demos)).dataset
        for other in (
            write_lerobot_v2(folder / "v2", demos),
            write_lerobot_v3(folder / "v3", demos, a_file),
            write_chunk_file(folder / "a.pt", demos),
        ):
            assert_same_dataset(one, prepare_dataset(other).dataset)


# LeRobot: columns


def rewrite(folder: Path, change: Callable[[pa.Table], pa.Table], file: str = FILE) -> Path:
    """Change the rows of one data file; returns the data set's folder."""
    pq.write_table(change(pq.read_table(folder / file)), folder / file)
    return folder


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
    wanted = {"action", "episode_index", "frame_index", "task_index"}
    for file in folder.glob("data/**/*.parquet"):
        overwrite_columns(file, lambda name: name.split(".")[0] not in wanted)
        for spoilt in ("observation.images.image", "timestamp", "index"):
            with pytest.raises((OSError, pa.ArrowException)):
                pq.read_table(file, columns=[spoilt])
    assert_same(read(folder), exact_demos(2))


def overwrite_columns(file: Path, spoil: Callable[[str], bool]) -> None:
    """Put 0xFF in the place of every page of some columns."""
    groups = pq.read_metadata(file)
    content = bytearray(file.read_bytes())
    for group in (groups.row_group(number) for number in range(groups.num_row_groups)):
        for column in (group.column(number) for number in range(group.num_columns)):
            if spoil(column.path_in_schema):
                start = column.dictionary_page_offset or column.data_page_offset
                content[start : start + column.total_compressed_size] = b"\xff" * column.total_compressed_size
    file.write_bytes(content)


# LeRobot: order


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
    for number, file in enumerate((FILE, FILE.replace("000.p", "001.p"))):
        write_parquet(folder / file, table.filter(pc.equal(pc.bit_wise_and(table["episode_index"], 1), number)))
    assert_same(read(folder), numbered([8, 9, 10, 11]))
    assert [episode.key for episode in read(folder)] == [f"episode {number}" for number in range(4)]
    assert [Path(episode.source).stem for episode in read(folder)] == ["file-000", "file-001"] * 2


def test_an_episode_in_two_files_is_one_and_named_after_the_first(tmp_path: Path) -> None:
    folder = write_lerobot_v3(tmp_path, numbered([8, 20]))
    table = pq.read_table(folder / FILE)
    second = FILE.replace("file-000", "file-001")
    write_parquet(folder / FILE, table.slice(0, 15))
    write_parquet(folder / second, table.slice(15))
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


# LeRobot: tasks


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


# LeRobot: what info.json says


def with_info(folder: Path, **entries: object) -> Path:
    path = folder / "meta/info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))
    return folder


def rate_of(data: Path) -> float:
    rates = {episode.control_rate_hz for episode in read(data)}
    assert len(rates) == 1
    return rates.pop()


@pytest.mark.parametrize("fps", [5, 10, 20, 29.97, 50])
def test_fps_is_the_control_rate(tmp_path: Path, fps: float) -> None:
    folder = with_info(write_lerobot_v3(tmp_path, numbered([8])), fps=fps)
    assert rate_of(folder) == fps
    assert notes(folder) == ""


@pytest.mark.parametrize("fps", [None, 0, -10, "10", True, [10], float("nan"), float("inf")])
def test_fps_that_is_no_rate_leaves_liberos(tmp_path: Path, fps: object) -> None:
    assert rate_of(with_info(write_lerobot_v3(tmp_path, numbered([8])), fps=fps)) == 20


def test_fps_beyond_floats_leaves_liberos(tmp_path: Path) -> None:
    assert rate_of(with_info(write_lerobot_v3(tmp_path, numbered([8])), fps=10**400)) == 20


def libero_tasks(suite: str) -> list[str]:
    """As LIBERO writes them, with a capital here and a double space there, which must not matter."""
    content = json.loads(Path(libero_suites.__file__).with_name("libero_suites.json").read_text())
    return [task.replace(" ", "  ", 1).capitalize() for task in content["suites"][suite]]


@pytest.mark.parametrize("write", [write_lerobot_v2, write_lerobot_v3])
def test_ten_fps_with_liberos_tasks_is_said_to_be_20_hz(tmp_path: Path, write: Callable[..., Path]) -> None:
    demos = [(task, np.zeros((8, 7))) for task in libero_tasks("libero_goal")[:3]]
    folder = with_info(write(tmp_path, demos), fps=10)
    assert rate_of(folder) == 20
    assert "says 10 steps a second" in notes(folder)
    assert "20 Hz" in notes(folder)
    assert "steps a second" not in notes(with_info(folder, fps=20))


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
    (folder / "data/chunk-000/file-001.parquet").unlink()
    assert "promises 3 episodes; 2 are there" in notes(folder)


@pytest.mark.parametrize("version", ["v2.0", "v2.1", "v3.0", "v3.1"])
def test_the_version_is_part_of_the_kind(tmp_path: Path, version: str) -> None:
    folder = with_info(write_lerobot_v3(tmp_path, numbered([8])), codebase_version=version)
    origin = read_recordings(folder).origin
    assert (origin.kind, origin.name) == (f"LeRobot {version}", str(folder))


# Normalised chunks: see also the properties above


def chunk_file(path: Path, demos: Demos | None = None, **entries: object) -> Path:
    """A .pt of these demos, with other entries; None takes an entry out."""
    content = torch.load(write_chunk_file(path, demos or exact_demos(2)))
    content |= entries
    torch.save({key: value for key, value in content.items() if value is not None}, path)
    return path


def metadata(path: Path, **entries: object) -> Path:
    content = torch.load(write_chunk_file(path, exact_demos(2)))
    content["metadata"] |= entries
    torch.save(content, path)
    return path


def test_chunks_are_denormalised_with_the_bounds_in_the_file(tmp_path: Path) -> None:
    low = torch.tensor([-1.0, 0.0, -0.5, -4.0, 2.0, 0.25, -1.0])
    high = torch.tensor([1.0, 1.0, 0.25, 4.0, 2.0, 0.5, 0.0])
    normalised = torch.rand(40, 8, 7, generator=torch.Generator().manual_seed(0)) * 2 - 1
    content = {"actions": normalised, "normalization": {"min": low, "max": high}}
    torch.save(content, tmp_path / "a.pt")
    by_hand = (normalised.double() + 1) / 2 * (high.double() - low.double()) + low.double()
    actions = np.concatenate([episode.actions for episode in read(tmp_path / "a.pt")])
    np.testing.assert_array_equal(actions, by_hand.reshape(-1, 7).numpy())
    assert "brought back to controller units" in notes(tmp_path / "a.pt")


def test_minus_one_is_the_minimum_and_one_the_maximum(tmp_path: Path) -> None:
    ends = torch.ones(20, 8, 7)
    ends[:, :4] = -1
    bounds = {"min": [-3, 0.5, -1, -1, -1, -1, 0], "max": (5, 0.75, 1, 1, 1, 1, 1)}
    torch.save({"actions": ends, "normalization": bounds}, tmp_path / "a.pt")
    chunks = read(tmp_path / "a.pt")[0].actions.reshape(20, 8, 7)
    assert (chunks[:, :4] == bounds["min"]).all()
    assert (chunks[:, 4:] == bounds["max"]).all()


@pytest.mark.parametrize("kind", [list, tuple, torch.tensor, lambda bound: torch.tensor(bound, dtype=torch.float64)])
def test_bounds_may_be_lists_and_tensors(tmp_path: Path, kind: Callable[[list[float]], object]) -> None:
    bounds = {"min": kind([-1.0] * 7), "max": kind([1.0] * 7)}
    assert_same(read(chunk_file(tmp_path / "a.pt", normalization=bounds)), exact_demos(2))


def test_whole_numbers_are_bounds_too(tmp_path: Path) -> None:
    bounds = {"min": [-1] * 7, "max": [1] * 7, "method": "min-max"}
    assert_same(read(chunk_file(tmp_path / "a.pt", normalization=bounds)), exact_demos(2))


def test_bounds_in_lists_keep_all_their_digits(tmp_path: Path) -> None:
    bounds = {"min": [-0.1] * 7, "max": [0.1] * 7}
    torch.save({"actions": torch.ones(20, 8, 7), "normalization": bounds}, tmp_path / "a.pt")
    assert (read(tmp_path / "a.pt")[0].actions == 0.1).all()


def test_without_normalization_values_are_taken_as_they_are_and_it_is_said(tmp_path: Path) -> None:
    path = chunk_file(tmp_path / "a.pt", normalization=None)
    assert_same(read(path), exact_demos(2))
    assert "carries no 'normalization'" in notes(path)


@pytest.mark.parametrize("key", ["episode_index", "episode"])
@pytest.mark.parametrize("as_list", [False, True])
def test_the_episode_of_a_chunk_is_respected(tmp_path: Path, key: str, as_list: bool) -> None:
    demos = numbered([16, 8, 24])
    owner = torch.tensor([7, 7, 3, 9, 9, 9])
    path = chunk_file(tmp_path / "a.pt", demos, metadata={key: owner.tolist() if as_list else owner, "task": "count"})
    assert_same(read(path), demos)
    assert [episode.key for episode in read(path)] == ["episode 7", "episode 3", "episode 9"]
    assert "does not say which episode" not in notes(path)


def test_chunks_of_one_episode_need_not_be_neighbours(tmp_path: Path) -> None:
    demos = numbered([32])
    path = chunk_file(tmp_path / "a.pt", demos, metadata={"episode_index": torch.tensor([0, 1, 0, 1]), "task": "x"})
    chunks = demos[0][1].reshape(4, 8, 7)
    assert_same(read(path), [("x", chunks[number::2].reshape(-1, 7)) for number in (0, 1)])


@pytest.mark.parametrize(("chunk_len", "block"), [(8, 20), (16, 10), (1, 160), (50, 3), (200, 1)])
def test_without_episodes_blocks_of_160_steps_are_held_together_and_it_is_said(
    tmp_path: Path, chunk_len: int, block: int
) -> None:
    count = 2 * block + 1
    actions = torch.randn(count, chunk_len, 7, generator=torch.Generator().manual_seed(0))
    torch.save({"actions": actions}, tmp_path / "a.pt")
    assert [len(episode.actions) for episode in read(tmp_path / "a.pt")] == [
        block * chunk_len,
        block * chunk_len,
        chunk_len,
    ]
    assert f"blocks of {block} neighbouring chunks" in notes(tmp_path / "a.pt")


def test_a_recording_at_rest_does_not_overlap(tmp_path: Path) -> None:
    torch.save({"actions": torch.zeros(40, 8, 7)}, tmp_path / "a.pt")
    assert len(read(tmp_path / "a.pt")) == 2


def test_one_task_is_that_of_every_chunk(tmp_path: Path) -> None:
    assert {episode.task for episode in read(metadata(tmp_path / "a.pt", task="stack"))} == {"stack"}


@pytest.mark.parametrize("task", [None, "", 3, {}])
def test_without_a_task_the_file_names_it(tmp_path: Path, task: object) -> None:
    path = metadata(tmp_path / "libero_actions_normalized.pt", task=task)
    assert {episode.task for episode in read(path)} == {"libero actions normalized"}


@pytest.mark.parametrize("rate", [10, 12.5])
def test_the_control_rate_of_a_chunk_file_is_taken(tmp_path: Path, rate: float) -> None:
    assert rate_of(metadata(tmp_path / "a.pt", control_rate_hz=rate)) == rate


@pytest.mark.parametrize(
    "rate", [None, 0, -1, "20", float("nan"), float("inf"), True, 10**400], ids=lambda r: str(r)[:5]
)
def test_a_control_rate_that_is_none_leaves_liberos(tmp_path: Path, rate: object) -> None:
    assert rate_of(metadata(tmp_path / "a.pt", control_rate_hz=rate)) == 20


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int8])
def test_tensors_of_any_number_are_read(tmp_path: Path, dtype: torch.dtype) -> None:
    demos = [("count", np.arange(8 * 7 * 2).reshape(16, 7) % 100.0)]
    actions = torch.from_numpy(demos[0][1]).reshape(2, 8, 7).to(dtype)
    path = chunk_file(tmp_path / "a.pt", demos, actions=actions, normalization=None)
    assert_same(read(path), demos)


def test_tensors_of_a_gradient_or_a_parameter_are_read(tmp_path: Path) -> None:
    actions = torch.load(write_chunk_file(tmp_path / "a.pt", exact_demos(2)))["actions"]
    for number, tensor in enumerate((actions.clone().requires_grad_(), torch.nn.Parameter(actions.clone()))):
        assert_same(read(chunk_file(tmp_path / f"{number}.pt", actions=tensor)), exact_demos(2))


@pytest.mark.parametrize("name", ["a.pt", "a.PT", "a.pth"])
def test_both_suffixes_and_the_older_format_are_read(tmp_path: Path, name: str) -> None:
    content = torch.load(write_chunk_file(tmp_path / "b.pt", exact_demos(2)))
    torch.save(content, tmp_path / name, _use_new_zipfile_serialization=False)
    assert_same(read(tmp_path / name), exact_demos(2))
    assert read_recordings(tmp_path / name).origin.kind == "normalised chunks"


def test_a_chunk_file_may_be_a_link_to_a_file_without_suffix(tmp_path: Path) -> None:
    write_chunk_file(tmp_path / "blob.pt", exact_demos(2)).rename(tmp_path / "0123abcd")
    (tmp_path / "a.pt").symlink_to(tmp_path / "0123abcd")
    assert_same(read(tmp_path / "a.pt"), exact_demos(2))


# What --data names


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(*_: object) -> Mirror:
        raise AssertionError("the hub was asked")

    monkeypatch.setattr(hub, "fetch", fetch)


@pytest.fixture
def fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What the hub is asked for; it answers with a data set of two tasks of libero_goal, and one of libero_object."""
    chosen = [*libero_tasks("libero_goal")[:2], libero_tasks("libero_object")[0]]
    folder = write_lerobot_v3(tmp_path / "mirror", [(task, np.zeros((8, 7))) for task in chosen])
    asked: list[tuple[str, str]] = []

    def fetch(repository: str, revision: str, *_: object) -> Mirror:
        asked.append((repository, revision))
        return Mirror(folder, "abc", ("fetched",))

    monkeypatch.setattr(hub, "fetch", fetch)
    monkeypatch.chdir(tmp_path)
    return asked


@pytest.mark.usefixtures("no_hub")
def test_sample_is_the_embedded_recordings_wherever_one_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    recordings = read_recordings("sample")
    assert (recordings.origin.kind, recordings.origin.name) == ("LIBERO HDF5", "sample")
    expected = [(episode.task, episode.actions) for episode in libero_hdf5.read_folder(SAMPLE)]
    assert_same(recordings.episodes, expected)


@pytest.mark.usefixtures("no_hub")
@pytest.mark.parametrize("suite", libero_suites.names())
def test_a_path_that_exists_wins_over_a_suite_of_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suite: str
) -> None:
    write_libero_folder(tmp_path / suite, numbered([8, 9]))
    monkeypatch.chdir(tmp_path)
    recordings = read_recordings(suite)
    assert_same(recordings.episodes, numbered([8, 9]))
    assert recordings.origin.name == str(tmp_path / suite)


def test_a_suite_is_fetched_where_there_is_no_such_path(fetched: list[tuple[str, str]]) -> None:
    recordings = read_recordings("libero_goal")
    assert fetched == [(libero_suites.REPOSITORY, "")]
    assert (recordings.origin.kind, recordings.origin.name) == ("LeRobot v3.0, from the hub", "libero_goal@abc")
    assert [episode.task for episode in recordings.episodes] == libero_tasks("libero_goal")[:2]
    assert recordings.origin.notes[0] == "fetched"
    assert "8 of the 10 tasks of libero_goal are not in" in recordings.origin.notes[-1]


@pytest.mark.parametrize(
    ("data", "asked"),
    [
        ("libero@v3.0", (libero_suites.REPOSITORY, "v3.0")),
        ("hf://a/b", ("a/b", "")),
        ("hf://a/b/", ("a/b", "")),
        ("hf://a/b@main", ("a/b", "main")),
    ],
)
def test_names_on_the_hub_are_asked_for_with_their_revision(
    fetched: list[tuple[str, str]], data: str, asked: tuple[str, str]
) -> None:
    origin = read_recordings(data).origin
    assert fetched == [asked]
    assert read_recordings(origin.name).origin.name == origin.name  # what is written down reads the same again
    assert fetched[1] == (asked[0], "abc")


def test_a_parquet_file_gets_the_hint_to_give_its_folder(tmp_path: Path) -> None:
    folder = write_lerobot_v3(tmp_path, numbered([8]))
    with pytest.raises(InputError, match=r"file-000\.parquet: is one file of a LeRobot data set; give the folder"):
        read(folder / FILE)


def test_a_data_set_one_level_down_is_asked_about(tmp_path: Path) -> None:
    folder = write_lerobot_v3(tmp_path / "mine", numbered([8]))
    with pytest.raises(InputError) as raised:
        read(tmp_path)
    assert str(raised.value).endswith(f"; did you mean {folder}?")


def test_a_folder_with_both_formats_is_read_as_lerobots(tmp_path: Path) -> None:
    write_lerobot_v3(tmp_path, numbered([8]))
    write_libero_folder(tmp_path, numbered([9, 9]))
    assert_same(read(tmp_path), numbered([8]))


def test_a_home_folder_and_a_relative_path_are_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_lerobot_v3(tmp_path / "set", numbered([8]))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for data in ("~/set", "set", "./set/", Path("set")):
        assert read_recordings(data).origin.name == str(folder)


# LIBERO's suites


def of_tasks(tasks: list[str]) -> list[Episode]:
    return [Episode(np.zeros((8, 7)), task, "a.parquet", f"episode {number}") for number, task in enumerate(tasks)]


SUITES = [name for name in libero_suites.names() if name != libero_suites.ALL]


def test_there_are_four_suites_of_ten_tasks_and_no_task_is_in_two() -> None:
    assert SUITES == ["libero_spatial", "libero_object", "libero_goal", "libero_10"]
    everything = [" ".join(task.lower().split()) for suite in SUITES for task in libero_tasks(suite)]
    assert [len(libero_tasks(suite)) for suite in SUITES] == [10] * 4
    assert len(set(everything)) == 40
    assert all(map(libero_suites.is_libero_task, everything))
    assert not libero_suites.is_libero_task("fold the towel")


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("spell", [str, str.upper, str.title, lambda task: f"  {task}\n"])
def test_a_suite_is_its_tasks_however_they_are_spelt(suite: str, spell: Callable[[str], str]) -> None:
    episodes = of_tasks([spell(task) for name in SUITES for task in libero_tasks(name)] + ["fold the towel"])
    chosen, said = libero_suites.select(episodes, suite, "here")
    assert [" ".join(e.task.lower().split()) for e in chosen] == [
        " ".join(task.lower().split()) for task in libero_tasks(suite)
    ]
    assert said == []


def test_all_of_libero_is_forty_tasks() -> None:
    episodes = of_tasks([task for name in SUITES for task in libero_tasks(name)] + ["fold the towel"])
    chosen, said = libero_suites.select(episodes, "libero", "here")
    assert (len(chosen), said) == (40, [])


@pytest.mark.parametrize(("suite", "lacking", "of"), [("libero_goal", 7, 10), ("libero", 37, 40)])
def test_tasks_of_a_suite_that_are_missing_are_counted(suite: str, lacking: int, of: int) -> None:
    episodes = of_tasks(libero_tasks("libero_goal")[:3] * 2)
    chosen, said = libero_suites.select(episodes, suite, "here")
    assert chosen == episodes
    assert said == [f"{lacking} of the {of} tasks of {suite} are not in here."]


@pytest.mark.parametrize("suite", libero_suites.names())
def test_a_suite_of_which_no_task_is_there_is_refused(suite: str) -> None:
    with pytest.raises(InputError, match=f"here: holds no task of {suite}; .* give hf://lerobot/libero"):
        libero_suites.select(of_tasks(["fold the towel"]), suite, "here")


# What is read can be saved


def test_every_format_can_be_saved(run: Run, tmp_path: Path) -> None:
    for path in run.written.values():
        save_dataset(prepare_dataset(path).dataset, OutputFolder.at(str(tmp_path / "out")))


@pytest.mark.parametrize("character", ["\0", "\udcff"], ids=["NUL", "lone surrogate"])
@pytest.mark.parametrize("form", ["lerobot", "chunks", "file name"])
def test_a_task_with_odd_characters_can_be_saved(tmp_path: Path, form: str, character: str) -> None:
    task = f"open{character}it"
    if form == "lerobot":
        data = write_lerobot_v2(tmp_path / "set", exact_demos(2))
        (data / "meta/tasks.jsonl").write_text(json.dumps({"task_index": 0, "task": task}))
    elif form == "chunks":
        data = metadata(tmp_path / "a.pt", task=task)
    else:
        data = write_chunk_file(tmp_path / f"{task}.pt".replace("\0", "_"), exact_demos(2))
    save_dataset(prepare_dataset(data).dataset, OutputFolder.at(str(tmp_path / "out")))


def test_the_origin_is_json(run: Run) -> None:
    for path in run.written.values():
        assert json.loads(json.dumps(asdict(read_recordings(path).origin)))["name"] == str(path)
