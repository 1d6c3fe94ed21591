"""What --data names: the sample, paths, LIBERO's suites, and data sets of the hub."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fake_hub import COMMIT, FakeHub
from hub_fixtures import GOAL, SPATIAL, refusal
from made_up import libero_tasks, numbered, random_demos
from reading import assert_same, assert_same_episodes, read, said
from writers import FILE, write_lerobot_v3, write_libero_folder

from workbook.common.errors import InputError
from workbook.common.note import note
from workbook.common.paths import SAMPLE
from workbook.data.card import describe
from workbook.data.dataset import prepare_dataset
from workbook.data.episodes import Episode, Recordings
from workbook.data.sources import DATA_KINDS, hub, libero_hdf5, libero_suites
from workbook.data.sources.libero_suites import FILTERED
from workbook.data.sources.mirror import Mirror
from workbook.data.sources.read import read_recordings
from workbook.options import check_before_start, parse_arguments


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
        return Mirror(folder, "abc", (note("fetched", read=1, total=2),))

    monkeypatch.setattr(hub, "fetch", fetch)
    monkeypatch.chdir(tmp_path)
    return asked


@pytest.mark.usefixtures("no_hub")
def test_sample_is_the_embedded_recordings_wherever_one_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    recordings = read_recordings("sample")
    assert (recordings.origin.kind, recordings.origin.name) == ("expert", "sample")
    expected = [(episode.task, episode.actions) for episode in libero_hdf5.read_folder(SAMPLE).episodes]
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
    assert (recordings.origin.kind, recordings.origin.name) == ("LeRobot v3.0", "libero_goal@abc")
    assert [episode.task for episode in recordings.episodes] == libero_tasks("libero_goal")[:2]
    assert recordings.origin.revision == "abc"
    assert recordings.origin.notes == (
        FILTERED,
        note("fetched", read=1, total=2),
        note("tasks_lacking", lacking=8, of=10, suite="libero_goal", place="hf://lerobot/libero@abc"),
    )


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


def test_what_is_nowhere_gets_the_list_of_what_can_be_given(tmp_path: Path) -> None:
    with pytest.raises(InputError) as raised:
        read(tmp_path / "nowhere")
    assert str(raised.value) == f"{tmp_path / 'nowhere'}: no such file or directory; give --data {DATA_KINDS}"


def test_of_a_path_with_an_at_sign_no_revision_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_libero_folder(tmp_path / "mine@home", numbered([30, 31, 32, 33]))
    options = ["--data", str(folder), "--layout", "joint:7"]
    assert check_before_start(parse_arguments(options)).settings["data"]["data"] == str(folder)
    assert capsys.readouterr().out == ""
    [first, *_] = said(folder, layout="joint:7")
    assert re.fullmatch(r"4 episodes with 126 steps, read as LIBERO HDF5; SHA-256 of the actions [0-9a-f]{12}\.", first)


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
    assert said == [note("tasks_lacking", lacking=lacking, of=of, suite=suite, place="here")]


@pytest.mark.parametrize("suite", libero_suites.names())
def test_a_suite_of_which_no_task_is_there_is_refused(suite: str) -> None:
    with pytest.raises(InputError, match=f"here: holds no task of {suite}; .* give hf://lerobot/libero"):
        libero_suites.select(of_tasks(["fold the towel"]), suite, "here")


# A suite of the hub


@pytest.mark.parametrize(
    ("suite", "tasks", "lacking", "of"),
    [("libero_spatial", SPATIAL, 8, 10), ("libero_goal", GOAL, 9, 10), ("libero", SPATIAL + GOAL, 37, 40)],
)
def test_a_suite_is_read_by_its_name_and_pinned(
    libero: FakeHub, suite: str, tasks: tuple[str, ...], lacking: int, of: int
) -> None:
    recordings = read_recordings(suite)
    assert [episode.task for episode in recordings.episodes] == [
        task for _ in range(4) for task in (*SPATIAL, *GOAL) if task in tasks
    ]
    whole = read_recordings("hf://lerobot/libero")
    expected = [episode for episode in whole.episodes if episode.task in tasks]
    assert_same_episodes(recordings, Recordings(expected, whole.origin))
    assert {episode.control_rate_hz for episode in recordings.episodes} == {20.0}
    assert recordings.origin.name == f"{suite}@{COMMIT}"
    assert recordings.origin.revision == COMMIT
    assert recordings.origin.notes == (
        FILTERED,
        *whole.origin.notes,
        note("tasks_lacking", lacking=lacking, of=of, suite=suite, place=f"hf://lerobot/libero@{COMMIT}"),
    )
    assert whole.origin.notes[1:] == (note("liberos_rate", said=10, taken=20),)

    libero.forget()
    again = read_recordings(recordings.origin.name)
    assert libero.requests == []
    assert_same_episodes(recordings, again)
    assert again.origin == recordings.origin


def test_a_second_suite_sends_nothing_more(libero: FakeHub) -> None:
    read_recordings("libero_spatial")
    libero.forget()
    read_recordings("libero_goal")
    assert libero.bytes_sent == 0


def test_a_suite_without_tasks_there_is_refused(libero: FakeHub) -> None:
    text = refusal("libero_object")
    assert "no task of libero_object" in text
    assert "give hf://lerobot/libero" in text


def test_the_card_of_a_suite_names_its_commit(libero: FakeHub) -> None:
    named = check_before_start(parse_arguments(["--data", "libero_spatial"])).settings["data"]["data"]
    card, _ = describe(prepare_dataset(named))
    assert card["origin"]["name"] == named == f"libero_spatial@{COMMIT}"
    assert card["control_rates_hz"] == [20.0]


def test_a_folder_of_a_suites_name_is_read_itself(
    libero: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_libero_folder(tmp_path / "libero_spatial", random_demos(4))
    monkeypatch.chdir(tmp_path)
    assert read_recordings("libero_spatial").origin.kind == "LIBERO HDF5"
    assert libero.requests == []


def test_an_unknown_revision_of_a_suite_is_refused(libero: FakeHub) -> None:
    assert "no such revision" in refusal("libero_spatial@nothing")


@pytest.mark.parametrize("data", ["", "  "])
def test_an_empty_option_is_refused(data: str) -> None:
    """An unset variable of a shell must not mean the folder that one stands in."""
    with pytest.raises(InputError, match="--data is empty"):
        read_recordings(data)
