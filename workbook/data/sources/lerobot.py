"""Reader of LeRobot data sets, v2 (one episode a file) and v3 (many): the action columns alone, never the images."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from workbook.common.errors import InputError
from workbook.common.note import Note, note
from workbook.data.episodes import CONTROL_RATE_HZ, Episode, control_rate
from workbook.data.sources.files import check_is_file, files_below, one_line, or_refuse
from workbook.data.sources.libero_suites import is_libero_task

INFO = "meta/info.json"
TASK_FILES = ("meta/tasks.parquet", "meta/tasks.jsonl")  # of v3 and of v2
ACTION_COLUMNS = ("action", "actions")
INDEX_COLUMNS = ("episode_index", "frame_index", "task_index")
OTHERWISE = "not as LeRobot writes it"
VERSIONS = r"v[23](\.|$)"


def is_dataset(folder: Path) -> bool:
    return (folder / INFO).exists()


def read_folder(folder: Path) -> tuple[list[Episode], str, list[Note]]:
    """Episodes in order of `episode_index`, steps in order of `frame_index`; the version; and what to know of them.

    Raises:
        InputError: a file that is missing, damaged, or not as the format says; names the file and the place.
    """
    info = read_info(folder / INFO)
    tasks = _read_tasks(folder)
    files = [_read_rows(file, str(file.relative_to(folder))) for file in _data_files(folder)]
    rate, notes = _control_rate(info, tasks)
    episodes = _group(files, tasks, rate)
    return episodes, str(info["codebase_version"]), notes + _missing(info, episodes)


def wanted_columns(names: list[str], place: str) -> list[str]:
    """The columns to read of those that a file has: the actions, and what orders them.

    Raises:
        InputError: one of them is not there.
    """
    action = next((name for name in ACTION_COLUMNS if name in names), None)
    if action is None:
        raise InputError(
            f"{place}: has no column 'action' or 'actions' (it has {one_line(', '.join(names))}); leave it out"
        )
    for name in INDEX_COLUMNS[:2]:
        if name not in names:
            raise InputError(f"{place}: has no column '{name}', so its steps cannot be put in order; convert it again")
    return [action, *(name for name in INDEX_COLUMNS if name in names)]


def read_info(path: Path) -> dict[str, Any]:
    """The content of meta/info.json.

    Raises:
        InputError: damaged, or of a version that is not read here.
    """
    check_is_file(path)
    info = or_refuse(str(path), lambda: json.loads(path.read_text(encoding="utf8")), OTHERWISE)
    version = info.get("codebase_version") if isinstance(info, dict) else None
    if not isinstance(version, str):
        raise InputError(f"{path}: has no 'codebase_version', so it is not LeRobot's; give another folder")
    if not re.match(VERSIONS, version):
        raise InputError(
            f"{path}: is LeRobot {one_line(version)}; convert the data set to v2 or v3 with LeRobot's own converter"
        )
    return info


def _read_tasks(folder: Path) -> dict[int, str]:
    """task_index -> instruction; empty where the data set has no list of tasks."""
    for name, parse in zip(TASK_FILES, (_tasks_of_parquet, _tasks_of_lines), strict=True):
        if (folder / name).exists():
            check_is_file(folder / name)
            return or_refuse(name, partial(parse, folder / name), OTHERWISE)
    return {}


def _tasks_of_parquet(path: Path) -> dict[int, str]:
    """v3 keeps the instruction in the index of the frame, whatever that column is called."""
    table = pq.ParquetFile(path).read()
    names = [field.name for field in table.schema if _is_text(field.type) and field.name != "task_index"]
    if not names:
        raise ValueError("no column of text")
    tasks = table["task" if "task" in names else names[0]].to_pylist()
    numbers = map(int, table["task_index"].to_pylist())
    return {number: task for number, task in zip(numbers, tasks, strict=True) if task}


def _tasks_of_lines(path: Path) -> dict[int, str]:
    # Not splitlines(), which also cuts at separators that may stand inside a JSON string.
    entries = [json.loads(line) for line in path.read_text(encoding="utf8").split("\n") if line.strip()]
    return {int(entry["task_index"]): str(entry["task"]) for entry in entries if entry["task"]}


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _data_files(folder: Path) -> list[Path]:
    files = files_below(folder / "data", ".parquet") if (folder / "data").is_dir() else []
    if not files:
        raise InputError(f"{folder}: has {INFO} and no data/*.parquet; download the data set again")
    return files


def _read_rows(path: Path, place: str) -> _Rows:
    """The wanted columns of one file."""
    check_is_file(path)

    def read() -> _Rows:
        with pq.ParquetFile(path) as file:
            return _rows(file.read(columns=wanted_columns(file.schema_arrow.names, place)), place)

    return or_refuse(place, read, OTHERWISE)


def _control_rate(info: dict[str, Any], tasks: dict[int, str]) -> tuple[float | None, list[Note]]:
    """Steps a second. LIBERO's conversions say 10 fps, which is the label of the conversion: its control rate is 20."""
    rate = control_rate(info.get("fps"))
    if tasks and rate not in (None, CONTROL_RATE_HZ) and all(map(is_libero_task, tasks.values())):
        return CONTROL_RATE_HZ, [note("liberos_rate", said=rate, taken=CONTROL_RATE_HZ)]
    return rate, []


def _missing(info: dict[str, Any], episodes: list[Episode]) -> list[Note]:
    """What is said of episodes that are not there.

    Raises:
        InputError: every episode is there, but steps are missing: at the end of one, where nothing else would tell.
    """
    promised = info.get("total_episodes")
    if isinstance(promised, int) and promised != len(episodes):
        return [note("episodes_missing", file=INFO, promised=promised, found=len(episodes))]
    steps, found = info.get("total_frames"), sum(len(episode.actions) for episode in episodes)
    if isinstance(promised, int) and isinstance(steps, int) and steps != found:
        raise InputError(
            f"{INFO}: promises {steps:,} steps, and data/ has {found:,} in as many episodes as promised; "
            "download it again"
        )
    return []


@dataclass(frozen=True, eq=False)
class _Rows:
    """Rows of one file. actions: (N, A); episode, frame, task: (N,), the task -1 where the file has none."""

    place: str
    actions: NDArray[np.float64]
    episode: NDArray[np.int64]
    frame: NDArray[np.int64]
    task: NDArray[np.int64]


def _group(files: list[_Rows], tasks: dict[int, str], rate: float | None) -> list[Episode]:
    """Put the rows of all files together and cut them into episodes."""
    filled = [rows for rows in files if len(rows.actions)]
    _refuse_mixed_widths(filled, files[0].place)
    episode = np.concatenate([rows.episode for rows in filled])
    frame = np.concatenate([rows.frame for rows in filled])
    order = np.lexsort((frame, episode))
    actions = np.concatenate([rows.actions for rows in filled])[order]
    task = np.concatenate([rows.task for rows in filled])[order]
    file = np.repeat(np.arange(len(filled)), [len(rows.actions) for rows in filled])[order]
    episode, frame = episode[order], frame[order]
    starts = np.flatnonzero(np.diff(episode, prepend=episode[0] - 1))
    episodes = []
    for start, end in zip(starts, [*starts[1:], len(episode)], strict=True):
        source, key = filled[file[start]].place, f"episode {episode[start]}"
        _check_frames(frame[start:end], f"{source}, {key}")
        name = _task_name(task[start:end], tasks)
        episodes.append(Episode(actions[start:end], name, source, key, control_rate_hz=rate))
    return episodes


def _rows(table: pa.Table, place: str) -> _Rows:
    action = next(name for name in ACTION_COLUMNS if name in table.column_names)
    episode, frame, task = (
        _integers(table[name], f"{place}, column '{name}'")
        if name in table.column_names
        else np.full(table.num_rows, -1, dtype=np.int64)
        for name in INDEX_COLUMNS
    )
    return _Rows(place, _actions(table[action], f"{place}, column '{action}'"), episode, frame, task)


def _integers(column: pa.ChunkedArray, place: str) -> NDArray[np.int64]:
    """An index column, whether its entries are numbers or lists of one number."""
    if _is_list(column.type):
        column = pc.list_element(column, 0)
    if not pa.types.is_integer(column.type):
        raise InputError(f"{place}: holds {column.type}, not whole numbers; convert the data set again")
    if column.null_count:
        raise InputError(f"{place}: has {column.null_count} empty entries; convert the data set again")
    return column.to_numpy().astype(np.int64)


def _actions(column: pa.ChunkedArray, place: str) -> NDArray[np.float64]:
    kind = column.type
    if not _is_list(kind) or not _is_number(kind.value_type):
        raise InputError(f"{place}: holds {kind}, not lists of numbers; convert the data set again")
    if column.null_count:
        raise InputError(f"{place}: has {column.null_count} empty entries; convert the data set again")
    if not len(column):
        return np.zeros((0, 0))
    lengths = pc.list_value_length(column).to_numpy()
    width = int(lengths[0])
    if (lengths != width).any():
        row = int(np.argmax(lengths != width))
        raise InputError(f"{place}, row {row}: has {lengths[row]} numbers, and row 0 has {width}; convert it again")
    values = pc.list_flatten(column)
    if values.null_count:
        raise InputError(f"{place}: has {values.null_count} empty numbers; convert the data set again")
    return values.to_numpy().astype(np.float64).reshape(-1, width)


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_floating(kind) or pa.types.is_integer(kind)


def _refuse_mixed_widths(files: list[_Rows], first_file: str) -> None:
    if not files:
        raise InputError(f"{first_file}: holds no step; download the data set again")
    expected = files[0].actions.shape[1]
    for rows in files:
        if rows.actions.shape[1] != expected:
            raise InputError(
                f"{rows.place}: actions have {rows.actions.shape[1]} numbers, and {expected} in {files[0].place}; "
                "leave one of the two out"
            )


def _check_frames(frame: NDArray[np.int64], place: str) -> None:
    """Steps 0, 1, 2, ... without a gap: a chunk across one would be a motion that nobody made."""
    wrong = np.flatnonzero(frame != np.arange(len(frame)))
    if not len(wrong):
        return
    at = int(wrong[0])
    if at and frame[at] == frame[at - 1]:
        raise InputError(f"{place}: frame_index {frame[at]} is there twice; remove the copy, or convert it again")
    raise InputError(f"{place}: frame_index {at} is missing (next is {frame[at]}); download or convert it again")


def _task_name(task: NDArray[np.int64], tasks: dict[int, str]) -> str:
    """The instruction of an episode; of several, in order of appearance."""
    _, first = np.unique(task, return_index=True)
    numbers = [int(task[position]) for position in np.sort(first)]
    return "; ".join(str(tasks.get(number) or _unnamed(number)) for number in numbers)


def _unnamed(number: int) -> str:
    return "task not named" if number < 0 else f"task {number}"
