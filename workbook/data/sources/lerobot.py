"""Reader of LeRobot data sets, v2 (one episode a file) and v3 (many): the action columns alone, never the images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from workbook.common.errors import InputError
from workbook.common.note import Note, note
from workbook.data.episodes import Episode, LeftOut, Origin, ReadOptions, Recordings, control_rate
from workbook.data.sources.clock import Clock, read_clock
from workbook.data.sources.files import UnreadableError, check_is_file, files_below, or_refuse
from workbook.data.sources.lerobot_columns import (
    INDEX_COLUMNS,
    action_columns,
    actions_of,
    chosen_columns,
    integers_of,
    seconds_of,
    success_of,
    wanted_columns,
)
from workbook.data.sources.lerobot_meta import (
    INFO,
    OTHERWISE,
    Listed,
    names_of,
    rate_of,
    read_info,
    read_listed,
    read_tasks,
)
from workbook.data.sources.success import left_out_as_failed, notes_of_success

PLACES_NAMED = 3  # of many, in a note
SAME_RATE = 0.05  # by which the rate of a clock may differ from the one that is said


def is_dataset(folder: Path) -> bool:
    return (folder / INFO).exists()


def read_folder(folder: Path, options: ReadOptions | None = None) -> Recordings:
    """Episodes in order of `episode_index`, steps in order of `frame_index`, cut where their timestamps jump.

    Files that are damaged and episodes with steps missing are left out, and so is what the data set's own list of
    episodes does not have, and what ends in no success where that is asked for.

    Raises:
        InputError: a file that is missing or not as the format says, or nothing that can be read; names the place.
    """
    options = options or ReadOptions()
    column = options.action_column
    info = read_info(folder / INFO)
    tasks = read_tasks(folder)
    listed, notes = read_listed(folder)
    files, left_out = _read_files(folder, column, listed)
    rate, of_rate = rate_of(info, tasks)
    found = _group(files, listed)
    left_out += found.left_out
    unwanted = (False,) if options.only_successful else ()
    kept = [steps for steps in found.whole if steps.succeeded not in unwanted]
    episodes, of_clocks = _cut(kept, tasks, rate, control_rate(info.get("fps")))
    names = names_of(info, files[0].columns, files[0].widths)
    notes += [*of_rate, *_of_columns(files[0], column, names), *_missing(info, listed, found, left_out), *of_clocks]
    notes += notes_of_success([steps.succeeded for steps in found.whole], options.only_successful)
    left_out += [left_out_as_failed(steps.place) for steps in found.whole if steps.succeeded in unwanted]
    origin = Origin(f"LeRobot {info['codebase_version']}", str(folder), notes=tuple(notes))
    return Recordings(episodes, origin, tuple(left_out), names)


@dataclass(frozen=True, eq=False)
class _Rows:
    """Rows of one file.

    actions: (N, A), from `columns` of these widths; others: columns of actions that were not read; episode, frame,
    task: (N,), the task -1 where the file has none; seconds, success: (N,), NaN where it has none.
    """

    place: str
    columns: list[str]
    widths: list[int]
    others: list[str]
    actions: NDArray[np.float64]
    episode: NDArray[np.int64]
    frame: NDArray[np.int64]
    task: NDArray[np.int64]
    seconds: NDArray[np.floating[Any]]
    success: NDArray[np.floating[Any]]


def _read_files(folder: Path, column: str, listed: Listed | None) -> tuple[list[_Rows], list[LeftOut]]:
    """The wanted columns of every data file, and the episodes that lie in one that cannot be read."""
    paths = files_below(folder / "data", ".parquet") if (folder / "data").is_dir() else []
    if not paths:
        raise InputError(f"{folder}: has {INFO} and no data/*.parquet; download the data set again")
    files: list[_Rows] = []
    damaged: list[UnreadableError] = []
    left_out = []
    for path in paths:
        place = str(path.relative_to(folder))
        try:
            files.append(_read_rows(path, place, column))
        except UnreadableError as error:
            damaged.append(error)
            sentence = f"{error}, or, to go on without it, remove the file or give a larger --max-left-out"
            inside = [f"{place}, episode {number}" for number in (listed.inside(place) if listed else ())]
            left_out += [LeftOut(name, "unreadable", sentence) for name in inside or [place]]
    if not files:
        raise damaged[0]
    return files, left_out


def _read_rows(path: Path, place: str, column: str) -> _Rows:
    check_is_file(path)

    def read() -> _Rows:
        with pq.ParquetFile(path) as file:
            schema = file.schema_arrow
            table = file.read(columns=wanted_columns(schema, column, place))
        columns = chosen_columns(schema, column, place)
        actions = actions_of(table, columns, place)
        episode, frame, task = (
            integers_of(table[name], f"{place}, column '{name}'")
            if name in table.column_names
            else np.full(table.num_rows, -1, dtype=np.int64)
            for name in INDEX_COLUMNS
        )
        others = [name for name in action_columns(schema) if name not in columns]
        widths = [part.shape[1] for part in actions]
        side_by_side = np.concatenate(actions, axis=1)
        said = seconds_of(table), success_of(table)
        return _Rows(place, columns, widths, others, side_by_side, episode, frame, task, *said)

    return or_refuse(place, read, OTHERWISE)


def _of_columns(file: _Rows, named: str, names: Sequence[str]) -> list[Note]:
    """What else could have been read, and what the numbers are called."""
    notes = [note("action_names", names=list(names))] if names else []
    if file.others and not named:
        notes.append(note("other_actions", taken=file.columns[0], others=file.others))
    return notes


@dataclass(frozen=True, eq=False)
class _Steps:
    """The steps of one episode, in order. succeeded: by what it ends with, None where that is not said."""

    number: int
    source: str
    actions: NDArray[np.float64]
    task: NDArray[np.int64]
    seconds: NDArray[np.floating[Any]]
    succeeded: bool | None

    @property
    def place(self) -> str:
        return f"{self.source}, episode {self.number}"


@dataclass(frozen=True, eq=False)
class _Found:
    """The episodes that are whole, those that are not, and places of those that the data set does not list."""

    whole: list[_Steps]
    left_out: list[LeftOut]
    not_listed: list[str]


def _group(files: list[_Rows], listed: Listed | None) -> _Found:
    """Put the rows of all files together and take them apart into episodes.

    Raises:
        InputError: no rows, rows of different widths, or none of an episode that is listed.
    """
    filled = [rows for rows in files if len(rows.actions)]
    _refuse_mixed_widths(filled, files[0].place)
    episode = np.concatenate([rows.episode for rows in filled])
    frame = np.concatenate([rows.frame for rows in filled])
    order = np.lexsort((frame, episode))
    actions = np.concatenate([rows.actions for rows in filled])[order]
    task = np.concatenate([rows.task for rows in filled])[order]
    seconds = np.concatenate([rows.seconds for rows in filled])[order]
    success = np.concatenate([rows.success for rows in filled])[order]
    file = np.repeat(np.arange(len(filled)), [len(rows.actions) for rows in filled])[order]
    episode, frame = episode[order], frame[order]
    starts = np.flatnonzero(np.diff(episode, prepend=episode[0] - 1))
    found = _Found([], [], [])
    for start, end in zip(starts, [*starts[1:], len(episode)], strict=True):
        number = int(episode[start])
        place, said = filled[file[start]].place, success[end - 1]
        succeeded = None if np.isnan(said) else bool(said)
        steps = _Steps(number, place, actions[start:end], task[start:end], seconds[start:end], succeeded)
        if listed and number not in listed.lengths:
            found.not_listed.append(steps.place)
        elif problem := _missing_steps(frame[start:end], listed.lengths[number] if listed else None, listed):
            found.left_out.append(LeftOut(steps.place, "steps_missing", f"{steps.place}: {problem}"))
        else:
            found.whole.append(steps)
    if listed and not found.whole and not found.left_out:
        raise InputError(
            f"{listed.file}: lists no episode of those in data/ (the first is {found.not_listed[0]}); "
            "download the data set again"
        )
    return found


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


def _missing_steps(frame: NDArray[np.int64], length: int | None, listed: Listed | None) -> str:
    """Steps are 0, 1, 2, ... without a gap, or a chunk across one would be a motion that nobody made; "" if so."""
    wrong = np.flatnonzero(frame != np.arange(len(frame)))
    if len(wrong):
        at = int(wrong[0])
        if at and frame[at] == frame[at - 1]:
            return f"frame_index {frame[at]} is there twice; remove the copy, or convert it again"
        return f"frame_index {at} is missing (next is {frame[at]}); download or convert it again"
    if listed and length != len(frame):
        return f"has {len(frame)} steps, and {length} by {listed.file}; download it again"
    return ""


def _missing(info: dict[str, Any], listed: Listed | None, found: _Found, left_out: Sequence[LeftOut]) -> Iterator[Note]:
    """What is said of episodes that are not there, or should not be.

    Raises:
        InputError: every episode is there, but steps are missing: at the end of one, where nothing else would tell.
    """
    if listed and found.not_listed:
        yield note("not_listed", file=listed.file, count=len(found.not_listed), first=found.not_listed[0])
    there = len(found.whole) + len(found.left_out)
    promised = len(listed.lengths) if listed else info.get("total_episodes")
    lost = len(left_out) - len(found.left_out)
    if isinstance(promised, int) and promised != there + lost:
        yield note("episodes_missing", file=listed.file if listed else INFO, promised=promised, found=there)
        return
    steps, counted = info.get("total_frames"), sum(len(steps.actions) for steps in found.whole)
    if listed or left_out or not isinstance(promised, int) or not isinstance(steps, int):
        return
    if steps != counted:
        raise InputError(
            f"{INFO}: promises {steps:,} steps, and data/ has {counted:,} in as many episodes as promised; "
            "download it again"
        )


def _cut(
    whole: Sequence[_Steps], tasks: dict[int, str], rate: float | None, said: float | None
) -> tuple[list[Episode], list[Note]]:
    """The episodes, each cut where its timestamps jump, and what their clocks say.

    said: steps a second by the data set itself, which `rate` may have corrected.
    """
    episodes: list[Episode] = []
    clocks: list[tuple[_Steps, Clock]] = []
    for steps in whole:
        name = _task_name(steps.task, tasks)
        episode = Episode(steps.actions, name, steps.source, f"episode {steps.number}", control_rate_hz=rate)
        clock = read_clock(steps.seconds, rate)
        if clock:
            clocks.append((steps, clock))
        episodes.extend(_parts(episode, clock.jumps if clock else []))
    return episodes, [*_of_jumps(clocks), *_of_clocks(clocks, rate, said)]


def _parts(whole: Episode, jumps: Sequence[int]) -> list[Episode]:
    """An episode cut before these steps; the parts after the first are called by the step that they begin with."""
    if not jumps:
        return [whole]
    return [
        replace(whole, actions=part, key=f"{whole.key}, from step {start}" if start else whole.key, part_of=whole.key)
        for start, part in zip([0, *jumps], np.split(whole.actions, jumps), strict=True)
    ]


def _of_jumps(clocks: Sequence[tuple[_Steps, Clock]]) -> Iterator[Note]:
    places = [f"{steps.place}, step {step}" for steps, clock in clocks for step in clock.jumps]
    if places:
        yield note(
            "timestamps_jump",
            gaps=sum(len(clock.gaps) for _, clock in clocks),
            restarts=sum(len(clock.restarts) for _, clock in clocks),
            episodes=sum(bool(clock.jumps) for _, clock in clocks),
            first=places[:PLACES_NAMED],
        )


def _of_clocks(clocks: Sequence[tuple[_Steps, Clock]], rate: float | None, said: float | None) -> Iterator[Note]:
    still = [steps.place for steps, clock in clocks if clock.stands_still]
    if still:
        yield note("timestamps_stand_still", episodes=len(still), of=len(clocks), first=still[0])
    measured = [clock.step for _, clock in clocks if clock.step is not None]
    if measured and rate and said:
        found = 1 / float(np.median(measured))
        if min(abs(found / rate - 1), abs(found / said - 1)) > SAME_RATE:
            yield note("timestamps_rate", found=found, said=rate)


def _task_name(task: NDArray[np.int64], tasks: dict[int, str]) -> str:
    """The instruction of an episode; of several, in order of appearance."""
    _, first = np.unique(task, return_index=True)
    numbers = [int(task[position]) for position in np.sort(first)]
    return "; ".join(str(tasks.get(number) or _unnamed(number)) for number in numbers)


def _unnamed(number: int) -> str:
    return "task not named" if number < 0 else f"task {number}"
