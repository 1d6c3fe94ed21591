"""What the folder meta/ of a LeRobot data set says: version, rate, names, tasks, and which episodes there are."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from workbook.common.errors import InputError
from workbook.common.note import Note, note
from workbook.data.episodes import CONTROL_RATE_HZ, control_rate
from workbook.data.sources.files import UnreadableError, check_is_file, files_below, one_line, or_refuse
from workbook.data.sources.libero_suites import is_libero_task

INFO = "meta/info.json"
TASK_FILES = ("meta/tasks.parquet", "meta/tasks.jsonl")  # of v3 and of v2
EPISODES, EPISODE_LINES = "meta/episodes", "meta/episodes.jsonl"  # of v3, a folder of tables, and of v2
EPISODE_COLUMNS = ("episode_index", "length", "data/chunk_index", "data/file_index")
DATA_FILE = r"chunk-(\d+)/file-(\d+)\.parquet$"  # of v3
OTHERWISE = "not as LeRobot writes it"
VERSIONS = r"v[23](\.|$)"
DEEPEST = 4  # levels of a dict of names


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


def rate_of(info: dict[str, Any], tasks: dict[int, str]) -> tuple[float | None, list[Note]]:
    """Steps a second. LIBERO's conversions say 10 fps, which is the label of the conversion: its control rate is 20."""
    rate = control_rate(info.get("fps"))
    if tasks and rate not in (None, CONTROL_RATE_HZ) and all(map(is_libero_task, tasks.values())):
        return CONTROL_RATE_HZ, [note("liberos_rate", said=rate, taken=CONTROL_RATE_HZ)]
    return rate, []


def names_of(info: dict[str, Any], columns: Sequence[str], widths: Sequence[int]) -> tuple[str, ...]:
    """What the numbers of an action are called, one name each; nothing where no column says it.

    A column of one number that is joined to others is called as it is itself, and all else by its column.
    """
    features = info.get("features")
    features = features if isinstance(features, dict) else {}
    entries = [features.get(column) for column in columns]
    said = [list(_flat(entry.get("names"))) if isinstance(entry, dict) else [] for entry in entries]
    good = [len(names) == width for names, width in zip(said, widths, strict=True)]
    if not any(good) and not (len(columns) > 1 and 1 in widths):
        return ()
    parts = zip(columns, said, good, widths, strict=True)
    return tuple(name for column, names, is_good, width in parts for name in (names if is_good else [column] * width))


def _flat(names: object, level: int = 0) -> Iterator[str]:
    """Names in order, of a list, a dict of lists such as {'motors': [...]}, or a dict of positions."""
    if isinstance(names, str):
        yield names
    elif isinstance(names, list) and level < DEEPEST:
        for name in names:
            yield from _flat(name, level + 1)
    elif isinstance(names, dict) and level < DEEPEST:
        positions = names.values()
        if sorted(map(str, positions)) == sorted(map(str, range(len(names)))):
            yield from sorted(names, key=lambda name: int(names[name]))
        else:
            yield from _flat(list(positions), level)


def read_tasks(folder: Path) -> dict[int, str]:
    """task_index -> instruction; empty where the data set has no list of tasks.

    Raises:
        InputError: there is one, and it is damaged.
    """
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
    return {int(entry["task_index"]): str(entry["task"]) for entry in _lines(path) if entry["task"]}


def _lines(path: Path) -> list[Any]:
    # Not splitlines(), which also cuts at separators that may stand inside a JSON string.
    return [json.loads(line) for line in path.read_text(encoding="utf8").split("\n") if line.strip()]


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


@dataclass(frozen=True)
class Listed:
    """The episodes that a data set says it has.

    file: which says it; lengths: number of an episode -> its steps; members: (chunk, file) of a data file of v3 -> the
    episodes that lie in it.
    """

    file: str
    lengths: dict[int, int]
    members: dict[tuple[int, int], list[int]]

    def inside(self, place: str) -> list[int]:
        """The episodes that are said to lie in a data file."""
        found = re.search(DATA_FILE, place)
        return self.members.get((int(found[1]), int(found[2])), []) if found else []


def read_listed(folder: Path) -> tuple[Listed | None, list[Note]]:
    """The list of episodes; None where there is none, or none that can be read, which a note then says."""
    path, name = (
        (folder / EPISODES, EPISODES) if (folder / EPISODES).is_dir() else (folder / EPISODE_LINES, EPISODE_LINES)
    )
    if not path.exists():
        return None, []
    try:
        rows = _rows_of_tables(path) if path.is_dir() else or_refuse(name, partial(_rows_of_lines, path), OTHERWISE)
    except UnreadableError:
        return None, [note("list_unreadable", file=name)]
    listed = Listed(name, {episode: length for episode, length, *_ in rows}, {})
    for episode, _, *file in rows:
        if file:
            listed.members.setdefault((file[0], file[1]), []).append(episode)
    return (listed if rows else None), []


def _rows_of_lines(path: Path) -> list[tuple[int, ...]]:
    return [(int(entry["episode_index"]), int(entry["length"])) for entry in _lines(path)]


def _rows_of_tables(folder: Path) -> list[tuple[int, ...]]:
    def read(path: Path) -> list[tuple[int, ...]]:
        check_is_file(path)
        with pq.ParquetFile(path) as file:
            whole = set(EPISODE_COLUMNS) <= set(file.schema_arrow.names)
            wanted = list(EPISODE_COLUMNS if whole else EPISODE_COLUMNS[:2])
            table = file.read(columns=wanted)
        columns = [[int(value) for value in table[name].to_pylist()] for name in wanted]
        return list(zip(*columns, strict=True))

    files = files_below(folder, ".parquet")
    return [row for path in files for row in or_refuse(path.name, partial(read, path), OTHERWISE)]
