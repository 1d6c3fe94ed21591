"""Which episodes a LeRobot data set has: its own list, files that cannot be read, missing steps, and jumps in time."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_up import exact_demos, numbered, random_demos
from reading import about, assert_same, notes, read, refused, said
from spoiling import cut_short, refusal
from writers import FILE, OTHER_FILE, Demos, rewrite, write_lerobot_v2, write_lerobot_v3

from workbook.common.note import note
from workbook.data.config import DataConfig
from workbook.data.dataset import prepare_dataset
from workbook.data.episodes import ReadOptions
from workbook.data.sources.read import read_recordings

LINES, TABLE = "meta/episodes.jsonl", "meta/episodes/chunk-000/file-000.parquet"
LAST_OF_V2 = "data/chunk-000/episode_000009.parquet"
Keep = Callable[[list[str]], None]


def list_v2(folder: Path, demos: Demos, numbers: Sequence[int] | None = None) -> Path:
    rows = [(number, len(actions)) for number, (_, actions) in enumerate(demos)]
    lines = [json.dumps({"episode_index": n, "tasks": [], "length": steps}) for n, steps in rows]
    (folder / LINES).write_text("\n".join(lines[n] for n in (range(len(rows)) if numbers is None else numbers)) + "\n")
    return folder


def list_v3(folder: Path, demos: Demos, episodes_a_file: int = 1000, numbers: Sequence[int] | None = None) -> Path:
    numbers = list(range(len(demos)) if numbers is None else numbers)
    table = {
        "episode_index": numbers,
        "length": [len(demos[n][1]) for n in numbers],
        "data/chunk_index": [0 for _ in numbers],
        "data/file_index": [n // episodes_a_file for n in numbers],
        "stats/action/mean": [[0.0] * 7 for _ in numbers],
    }
    (folder / TABLE).parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(table), folder / TABLE)
    return folder


LISTED = {
    "v2": (lambda folder, demos, n=None: list_v2(write_lerobot_v2(folder, demos), demos, n), LINES),
    "v3": (lambda folder, demos, n=None: list_v3(write_lerobot_v3(folder, demos), demos, numbers=n), "meta/episodes"),
}


@pytest.fixture(params=LISTED)
def write_listed(request: pytest.FixtureRequest) -> tuple[Callable[..., Path], str]:
    return LISTED[request.param]


# The data set's own list of episodes


def test_a_list_that_agrees_says_nothing(tmp_path: Path, write_listed: tuple[Callable[..., Path], str]) -> None:
    recordings = read_recordings(write_listed[0](tmp_path, exact_demos(3)))
    assert_same(recordings.episodes, exact_demos(3))
    assert (recordings.left_out, recordings.origin.notes) == ((), ())


def test_what_is_not_listed_is_not_used(tmp_path: Path, write_listed: tuple[Callable[..., Path], str]) -> None:
    write, file = write_listed
    folder = write(tmp_path, numbered([8, 9, 10, 11, 12]), [0, 1, 3])
    recordings = read_recordings(folder)
    assert [episode.key for episode in recordings.episodes] == ["episode 0", "episode 1", "episode 3"]
    [found] = recordings.origin.notes
    assert (found["key"], found["values"]["file"], found["values"]["count"]) == ("not_listed", file, 2)
    assert found["values"]["first"].endswith(", episode 2")
    assert f"{file} does not list 2 of the episodes in data/" in notes(folder)
    assert recordings.left_out == ()


def test_a_listed_episode_without_data_is_told(tmp_path: Path, write_listed: tuple[Callable[..., Path], str]) -> None:
    write, file = write_listed
    folder = write(tmp_path, numbered([8, 9, 10]))
    if file == LINES:
        (folder / "data/chunk-000/episode_000001.parquet").unlink()
    else:
        rewrite(folder, lambda table: table.filter(pa.compute.not_equal(table["episode_index"], 1)))
    assert notes(folder) == f"{file} promises 3 episodes; 2 are there."


def test_an_episode_shorter_than_listed_is_left_out(
    tmp_path: Path, write_listed: tuple[Callable[..., Path], str]
) -> None:
    write, file = write_listed
    folder = write(tmp_path, numbered([8, 9, 10]))
    last = max((folder / "data").rglob("*.parquet"))
    table = pq.read_table(last)
    pq.write_table(table.slice(0, table.num_rows - 3), last)
    recordings = read_recordings(folder)
    assert [episode.key for episode in recordings.episodes] == ["episode 0", "episode 1"]
    [left_out] = recordings.left_out
    assert left_out.why == "steps_missing"
    assert left_out.sentence.endswith(f"episode 2: has 7 steps, and 10 by {file}; download it again")


def test_no_episode_that_is_listed_is_refused(tmp_path: Path, write_listed: tuple[Callable[..., Path], str]) -> None:
    write, file = write_listed
    folder = write(tmp_path, exact_demos(3))
    for path in (folder / "data").rglob("*.parquet"):
        table = pq.read_table(path)
        shifted = pa.compute.add(table["episode_index"], 100)
        pq.write_table(table.set_column(table.column_names.index("episode_index"), "episode_index", shifted), path)
    refusal(folder, f"{file}: lists no episode of those in data/", "episode 100")


BAD_LINES = ["", "{", '{"episode_index": 0}', "[0, 8]", '{"episode_index": "a", "length": 8}', b"\xff", "[" * 100_000]


@pytest.mark.parametrize("content", BAD_LINES, ids=lambda text: str(text)[:10])
def test_a_list_that_cannot_be_read_is_as_none(tmp_path: Path, content: str | bytes) -> None:
    folder = write_lerobot_v2(tmp_path, exact_demos(3))
    (folder / LINES).write_bytes(content if isinstance(content, bytes) else content.encode())
    assert_same(read(folder), exact_demos(3))
    assert (notes(folder) == "") == (content == "")
    assert content == "" or f"{LINES} cannot be read" in notes(folder)


def no_lengths(path: Path) -> None:
    pq.write_table(pa.table({"episode_index": [0, 1]}), path)


def nulls(path: Path) -> None:
    pq.write_table(pa.table({"episode_index": [0, None], "length": [8, 8]}), path)


@pytest.mark.parametrize(
    "spoil", [lambda path: cut_short(path, 9), lambda path: path.write_bytes(b""), no_lengths, nulls]
)
def test_a_table_of_episodes_that_cannot_be_read_is_as_none(tmp_path: Path, spoil: Callable[[Path], object]) -> None:
    folder = list_v3(write_lerobot_v3(tmp_path, exact_demos(3)), exact_demos(3))
    spoil(folder / TABLE)
    assert_same(read(folder), exact_demos(3))
    assert notes(folder).startswith("meta/episodes cannot be read, so which episodes are whole is not known")


# A recording that was interrupted


INTERRUPTIONS: dict[str, Callable[[Path], object]] = {
    "no footer": lambda path: cut_short(path, path.stat().st_size // 2),
    "empty": lambda path: path.write_bytes(b""),
    "a link to nothing": lambda path: (path.unlink(), path.symlink_to("gone")),
}


@pytest.mark.parametrize("interrupt", INTERRUPTIONS.values(), ids=INTERRUPTIONS)
def test_of_v2_the_episode_without_a_footer_is_left_out(tmp_path: Path, interrupt: Callable[[Path], object]) -> None:
    folder = list_v2(write_lerobot_v2(tmp_path, exact_demos(5)), exact_demos(5))
    interrupt(folder / LAST_OF_V2)
    recordings = read_recordings(folder)
    assert_same(recordings.episodes, exact_demos(5)[:9])
    assert [(one.place, one.why) for one in recordings.left_out] == [(LAST_OF_V2, "unreadable")]
    assert recordings.origin.notes == ()  # what is left out is not missing besides
    assert len(prepare_dataset(folder).dataset.episodes) == 9  # 1 of 10 may be left out
    message = refused(lambda: prepare_dataset(folder, DataConfig(max_left_out=0)))
    assert message.partition(": ")[0].endswith(LAST_OF_V2)
    assert message.endswith("to go on without it, remove the file or give a larger --max-left-out")
    (folder / LAST_OF_V2).unlink()
    assert_same(read(folder), exact_demos(5)[:9])
    assert notes(folder) == f"{LINES} promises 10 episodes; 9 are there."


@pytest.mark.parametrize(("listed", "lost"), [(True, [8, 9]), (False, None)])
def test_of_v3_the_episodes_of_the_file_without_a_footer_are_left_out(
    tmp_path: Path, listed: bool, lost: list[int] | None
) -> None:
    folder = write_lerobot_v3(tmp_path, exact_demos(5), episodes_a_file=8)
    if listed:
        list_v3(folder, exact_demos(5), episodes_a_file=8)
    cut_short(folder / OTHER_FILE, 300)
    recordings = read_recordings(folder)
    assert_same(recordings.episodes, exact_demos(5)[:8])
    places = [OTHER_FILE] if lost is None else [f"{OTHER_FILE}, episode {number}" for number in lost]
    assert [one.place for one in recordings.left_out] == places
    with pytest.raises(ValueError, match="damaged, cut short"):
        prepare_dataset(folder)  # 2 of 10, and 1 of 9, are more than a tenth
    found = said(folder, max_left_out=0.25)
    assert about(f"Left out: {len(places)} cannot be read", found)


def test_nothing_but_files_without_a_footer_is_refused(tmp_path: Path) -> None:
    folder = write_lerobot_v3(tmp_path, exact_demos(3), episodes_a_file=3)
    for name in (FILE, OTHER_FILE):
        cut_short(folder / name, 300)
    assert refusal(folder, FILE).endswith("; record or download it again")


def test_an_episode_with_a_missing_step_is_left_out(tmp_path: Path) -> None:
    folder = write_lerobot_v3(tmp_path, random_demos(12))
    rewrite(folder, lambda table: table.take(pa.array([row for row in range(len(table)) if row != 45])))
    recordings = read_recordings(folder)
    assert [episode.key for episode in recordings.episodes] == [f"episode {n}" for n in range(12) if n != 1]
    assert [(one.place, one.why) for one in recordings.left_out] == [(f"{FILE}, episode 1", "steps_missing")]
    [sentence] = about("Left out", said(folder))
    assert sentence.startswith("Left out: 1 with steps missing or there twice. The first: ")
    assert "episode 1: frame_index 5 is missing (next is 6)" in refused(
        lambda: prepare_dataset(folder, DataConfig(max_left_out=0))
    )


# Timestamps


def timed(
    folder: Path, change: Callable[[np.ndarray], np.ndarray], episode: int = 3, demos: Demos | None = None
) -> Path:
    """The timestamps of one episode of several changed."""
    demos = demos or numbered([80] * 10)

    def with_others(table: pa.Table) -> pa.Table:
        stamps, mine = table["timestamp"].to_numpy().copy(), table["episode_index"].to_numpy() == episode
        stamps[mine] = change(stamps[mine])
        return table.set_column(table.column_names.index("timestamp"), "timestamp", pa.array(stamps))

    return rewrite(write_lerobot_v3(folder, demos), with_others)


def late(stamps: np.ndarray) -> np.ndarray:
    return np.where(np.arange(len(stamps)) >= 40, stamps + 2, stamps)


def again(stamps: np.ndarray) -> np.ndarray:
    return np.where(np.arange(len(stamps)) >= 40, stamps - stamps[40], stamps)


@pytest.mark.parametrize(("change", "gaps", "restarts"), [(late, 1, 0), (again, 0, 1)])
def test_an_episode_is_cut_where_its_timestamps_jump(
    tmp_path: Path, change: Callable[[np.ndarray], np.ndarray], gaps: int, restarts: int
) -> None:
    folder = timed(tmp_path, change)
    episodes = read(folder)
    assert [e.key for e in episodes] == [
        *(f"episode {n}" for n in range(4)), "episode 3, from step 40", *(f"episode {n}" for n in range(4, 10))
    ]  # fmt: skip
    assert [e.actions[0, 0] for e in episodes[3:5]] == [300, 340]
    assert [len(e.actions) for e in episodes] == [80] * 3 + [40, 40] + [80] * 6
    assert [e.part_of for e in episodes] == [""] * 3 + ["episode 3"] * 2 + [""] * 6
    [found] = read_recordings(folder).origin.notes
    place = f"{FILE}, episode 3, step 40"
    assert found == note("timestamps_jump", gaps=gaps, restarts=restarts, episodes=1, first=[place])
    assert place in notes(folder)
    chunks = prepare_dataset(folder, DataConfig(layout="joint:7", stride=1)).dataset.train_chunks().actions[:, :, 0]
    assert (np.diff(chunks, axis=1) == 1).all()  # no chunk goes from step 39 to step 40
    assert not ((chunks[:, 0] < 340) & (chunks[:, -1] >= 340) & (chunks[:, 0] >= 300)).any()


@pytest.mark.parametrize("seed", range(8))
def test_the_parts_of_an_episode_are_on_one_side_of_the_split(tmp_path: Path, seed: int) -> None:
    def three(stamps: np.ndarray) -> np.ndarray:
        return late(stamps) + np.where(np.arange(len(stamps)) >= 60, 5, 0)

    folder = timed(tmp_path, three)
    dataset = prepare_dataset(folder, DataConfig(layout="joint:7", split_seed=seed)).dataset
    assert len(dataset.episodes) == 12
    parts = [dataset.part(name) for name in ("train", "validation", "test")]
    assert sum(any(episode.part_of for episode in part) for part in parts) == 1
    assert [len({episode.part_of or episode.key for episode in part}) for part in parts] == [6, 2, 2]


def test_a_part_shorter_than_a_chunk_is_no_fault(tmp_path: Path) -> None:
    folder = timed(tmp_path, lambda stamps: np.where(np.arange(len(stamps)) >= 5, stamps + 2, stamps))
    prepared = prepare_dataset(folder, DataConfig(layout="joint:7", max_left_out=0))
    assert [(one.place, one.why) for one in prepared.changes.left_out] == [(f"{FILE}, episode 3", "short_part")]
    assert len(prepared.dataset.episodes) == 10
    assert about("Left out: 1 parts of a cut episode shorter than one chunk", said(folder, layout="joint:7"))


def test_a_clock_that_stands_still_is_told_and_nothing_cut(tmp_path: Path) -> None:
    folder = timed(tmp_path, lambda stamps: 0 * stamps)
    recordings = read_recordings(folder)
    assert_same(recordings.episodes, numbered([80] * 10))
    first = f"{FILE}, episode 3"
    assert recordings.origin.notes == (note("timestamps_stand_still", episodes=1, of=10, first=first),)
    assert notes(folder).startswith("Timestamps stand still in most steps of 1 of 10 episodes")


def test_a_clock_of_another_rate_is_told_and_nothing_cut(tmp_path: Path) -> None:
    folder = write_lerobot_v3(tmp_path, numbered([80] * 4), fps=10)  # meta/info.json says 20
    assert_same(read(folder), numbered([80] * 4))
    [found] = read_recordings(folder).origin.notes
    assert found["key"] == "timestamps_rate"
    assert found["values"]["found"] == pytest.approx(10)
    assert notes(folder).startswith("Timestamps advance at 10 steps a second, and the data set says 20")


NO_CLOCKS: dict[str, Callable[[pa.Table], pa.Table]] = {
    "none": lambda table: table.drop_columns(["timestamp"]),
    "empty": lambda table: pa.nulls(len(table), pa.float32()),
    "an empty place": lambda table: pa.array([None, *table["timestamp"].to_pylist()[1:]], pa.float32()),
    "words": lambda table: pa.array(["now"] * len(table)),
    "whole numbers": lambda table: pa.array([0] * len(table)),
    "dates": lambda table: pa.array([0] * len(table), pa.timestamp("us")),
}


@pytest.mark.parametrize("make", NO_CLOCKS.values(), ids=NO_CLOCKS)
def test_without_a_clock_nothing_is_said(tmp_path: Path, make: Callable[[pa.Table], pa.Table]) -> None:
    def change(table: pa.Table) -> pa.Table:
        made = make(table)
        position = table.column_names.index("timestamp")
        return made if isinstance(made, pa.Table) else table.set_column(position, "timestamp", made)

    folder = rewrite(write_lerobot_v3(tmp_path, exact_demos(2)), change)
    assert_same(read(folder), exact_demos(2))
    assert notes(folder) == ""


def test_timestamps_may_be_lists_of_one_number(tmp_path: Path) -> None:
    folder = timed(tmp_path, late)

    def wrap(table: pa.Table) -> pa.Table:
        column = pa.array([[stamp] for stamp in table["timestamp"].to_pylist()], pa.list_(pa.float32()))
        return table.set_column(table.column_names.index("timestamp"), "timestamp", column)

    assert len(read(rewrite(folder, wrap))) == 11


# Marks of success


AS_STORED = {
    "true or false": lambda values: pa.array(values),
    "numbers": lambda values: pa.array(np.array(values, dtype=np.int64)),
    "lists of one": lambda values: pa.array([[value] for value in values], pa.list_(pa.bool_(), 1)),
}


def marked(folder: Path, name: str, flags: pa.Array) -> Path:
    return rewrite(folder, lambda table: table.append_column(name, flags))


@pytest.mark.parametrize("name", ["next.success", "success"])
@pytest.mark.parametrize("stored", AS_STORED.values(), ids=AS_STORED)
def test_what_ends_in_no_success_is_counted_and_left_out_where_asked(
    tmp_path: Path, name: str, stored: Callable[[list[bool]], pa.Array]
) -> None:
    """What an episode ends with counts: the second has been successful, and is not; the third is at its last step."""
    flags = [*[False] * 7, True, *[True] * 8, False, *[False] * 9, True]
    folder = marked(write_lerobot_v3(tmp_path, numbered([8, 9, 10])), name, stored(flags))
    kept = read_recordings(folder)
    assert_same(kept.episodes, numbered([8, 9, 10]))
    assert (kept.left_out, kept.origin.notes) == ((), (note("marked_failed", failed=1, of=3),))
    without = read_recordings(folder, ReadOptions(only_successful=True))
    assert_same(without.episodes, [numbered([8, 9, 10])[number] for number in (0, 2)])
    assert [(one.place, one.why) for one in without.left_out] == [(f"{FILE}, episode 1", "failed")]
    assert without.origin.notes == ()


def test_every_part_of_a_failed_episode_is_left_out(tmp_path: Path) -> None:
    """Its timestamps jump in the middle, and only the last part ends in the mark."""
    times = np.r_[:10, 60:70, :20] / 20
    flags = np.repeat([False, True], 20)

    def change(table: pa.Table) -> pa.Table:
        table = table.set_column(table.column_names.index("timestamp"), "timestamp", pa.array(times))
        return table.append_column("next.success", pa.array(flags))

    folder = rewrite(write_lerobot_v3(tmp_path, numbered([20, 20])), change)
    assert [e.key for e in read(folder)] == ["episode 0", "episode 0, from step 10", "episode 1"]
    recordings = read_recordings(folder, ReadOptions(only_successful=True))
    assert [e.key for e in recordings.episodes] == ["episode 1"]
    assert [one.place for one in recordings.left_out] == [f"{FILE}, episode 0"]


@pytest.mark.parametrize("flags", [["yes", "no"], [None, None]])
def test_marks_that_say_nothing_leave_nothing_out(tmp_path: Path, flags: list[str | None]) -> None:
    folder = marked(write_lerobot_v3(tmp_path, numbered([8, 8])), "success", pa.array(flags * 8))
    recordings = read_recordings(folder, ReadOptions(only_successful=True))
    assert (len(recordings.episodes), recordings.origin.notes) == (2, (note("success_not_said"),))
    assert read_recordings(folder).origin.notes == ()
