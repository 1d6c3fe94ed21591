"""Data sets of the hub: what is transferred, kept, gone on with, pinned and refused; the hub is one on this machine."""

import json
import logging
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import random_walk
from fake_hub import COMMIT, FakeHub, serving
from huggingface_hub import HfFileSystem
from writers import (
    TASK,
    Demos,
    lerobot_table,
    write_info,
    write_lerobot_v2,
    write_lerobot_v3,
    write_libero_folder,
    write_parquet,
)

from workbook import run
from workbook.data_card import describe
from workbook.dataset import prepare_dataset
from workbook.episodes import Recordings
from workbook.errors import InputError
from workbook.paths import REPOSITORY
from workbook.sources import hub as hub_reader
from workbook.sources.mirror import CACHE_VARIABLE, MARKER, NEWEST
from workbook.sources.recordings import read_recordings

OWNER_NAME = "test/data"
DATA = f"hf://{OWNER_NAME}"
PINNED = f"{DATA}@{COMMIT}"
NEXT_COMMIT = "f" * 40
FILES = [f"data/chunk-000/file-{number:03d}.parquet" for number in range(4)]
THE_QUESTION = [f"GET /api/datasets/{OWNER_NAME}"]
BYTES_OF_AN_IMAGE = 20_000  # fewer than those of LIBERO's 256 x 256 pictures


def walks(count: int, seed: int = 0, tasks: tuple[str, ...] = (TASK, "open the drawer"), steps: int = 40) -> Demos:
    """Random walks, each task in turn."""
    rng = np.random.default_rng(seed)
    return [(tasks[number % len(tasks)], random_walk(rng, steps)) for number in range(count)]


DEMOS = walks(16)


@pytest.fixture(autouse=True)
def _on_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty cache, nothing kept of another hub, and no waiting between attempts."""
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(time, "sleep", lambda _: None)
    HfFileSystem.clear_instance_cache()


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    return tmp_path / "cache" / OWNER_NAME.replace("/", "--") / COMMIT


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data set as it lies on the hub: 4 files of 4 episodes, and a video beside them."""
    folder = write_lerobot_v3(tmp_path / "remote", DEMOS, episodes_a_file=4)
    video = folder / "videos/chunk-000/observation.images.image/file-000.mp4"
    video.parent.mkdir(parents=True)
    video.write_bytes(bytes(100_000))
    return folder


@pytest.fixture
def hub(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A hub that holds it."""
    with serving({OWNER_NAME: folder}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        yield hub


def file_path(name: str) -> str:
    """Where the hub has a file."""
    return f"/datasets/{OWNER_NAME}/resolve/{COMMIT}/{name}"


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def fetched(mirror: Path) -> dict[str, bytes]:
    """The files of a mirror that have their final name."""
    found = [path for path in mirror.rglob("*") if path.is_file() and not path.name.startswith(".")]
    return {str(path.relative_to(mirror)): path.read_bytes() for path in found}


def assert_same_episodes(left: Recordings, right: Recordings) -> None:
    """To the last bit, and in everything else that is known of them."""
    assert len(left.episodes) == len(right.episodes) > 0
    for one, other in zip(left.episodes, right.episodes, strict=True):
        assert one.actions.dtype == other.actions.dtype
        assert one.actions.shape == other.actions.shape
        assert one.actions.tobytes() == other.actions.tobytes()
        for name in ("task", "source", "key", "session", "control_rate_hz"):
            assert getattr(one, name) == getattr(other, name)


def refusal(data: str) -> str:
    """The sentence with which reading is refused."""
    with pytest.raises(InputError) as caught:
        read_recordings(data)
    text = str(caught.value)
    assert "\n" not in text
    assert "Traceback" not in text
    assert len(text) < 500
    return text


def closed_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


def in_another_process(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", f"from workbook.sources.recordings import read_recordings\n{code}"],
        cwd=REPOSITORY,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


# What is transferred


@pytest.mark.parametrize(
    ("write", "episodes"), [(write_lerobot_v3, 12), (write_lerobot_v2, 3)], ids=["v3, one file", "v2, file an episode"]
)
def test_of_a_data_set_with_images_under_3_percent_is_sent(
    write: Callable[..., Path], episodes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pyarrow asks for the last 64 kB of every file, so that files under 2.5 MB do not get by with 3 percent."""
    folder = write(tmp_path / "remote", walks(episodes, steps=150), image_bytes=BYTES_OF_AN_IMAGE)
    with serving({OWNER_NAME: folder}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        recordings = read_recordings(DATA)
        assert 0 < hub.bytes_sent < 0.03 * size_of(folder)
    assert_same_episodes(recordings, read_recordings(folder))
    assert size_of(tmp_path / "cache") < 0.03 * size_of(folder)


def test_the_note_on_what_was_fetched_is_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_lerobot_v3(tmp_path / "remote", walks(12, steps=150), image_bytes=BYTES_OF_AN_IMAGE)
    with serving({OWNER_NAME: folder}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        (note,) = read_recordings(DATA).origin.notes
        said, _, of, *_ = note.removeprefix("Fetched without images: ").split()
    assert float(said) * 1e6 == pytest.approx(hub.bytes_sent, rel=0.25)
    assert note.endswith(f"MB of {size_of(folder / 'data') / 1e6:,.3g} MB of data files.")
    assert of == "of"


def test_a_note_never_says_that_more_was_fetched_than_there_is(hub: FakeHub) -> None:
    (note,) = read_recordings(DATA).origin.notes
    read, total = (float(word) for word in note.split() if word[0].isdigit())
    assert read <= total


def test_no_video_is_asked_for(hub: FakeHub) -> None:
    read_recordings(DATA)
    assert not [request for request in hub.requests if "videos" in request]
    assert set(hub.sent) == {*FILES, "meta/info.json", "meta/tasks.parquet"}


@pytest.mark.parametrize("redirecting", [False, True], ids=["directly", "redirected, as the hub does"])
@pytest.mark.parametrize("write", [write_lerobot_v2, write_lerobot_v3])
def test_episodes_equal_those_of_the_folder_to_the_last_bit(
    write: Callable[..., Path], redirecting: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write(tmp_path / "remote", DEMOS, image_bytes=300)
    with serving({OWNER_NAME: folder}) as hub:
        hub.redirecting = redirecting
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        recordings = read_recordings(DATA)
        assert any(request.startswith("GET /cdn/") for request in hub.requests) == redirecting
    assert_same_episodes(recordings, read_recordings(folder))
    assert recordings.origin.kind == f"{read_recordings(folder).origin.kind}, from the hub"


def test_of_a_listing_in_pages_every_file_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_lerobot_v2(tmp_path / "remote", DEMOS)
    (folder / "data/chunk-001").mkdir()
    (folder / "data/chunk-000/episode_000015.parquet").rename(folder / "data/chunk-001/episode_000015.parquet")
    with serving({OWNER_NAME: folder}) as hub:
        hub.page = 3
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        assert_same_episodes(read_recordings(DATA), read_recordings(folder))


def test_redirected_ranges_send_no_more(hub: FakeHub) -> None:
    read_recordings(DATA)
    directly = dict(hub.sent)
    hub.forget()
    hub.redirecting = True
    shutil.rmtree(os.environ[CACHE_VARIABLE])
    read_recordings(DATA)
    assert hub.sent == directly


def test_doubles_odd_numbers_and_other_column_names_come_through(
    folder: Path, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """float64 in lists, named 'actions', with -0.0, the smallest number, and indices that are lists of one number."""
    rows = lerobot_table(walks(2), column="actions")
    values = np.random.default_rng(0).normal(size=(rows.num_rows, 7))
    values[0, :3] = -0.0, 5e-324, np.nextafter(1, 2)
    columns = {name: rows[name] for name in rows.column_names}
    columns["actions"] = pa.array(list(values), pa.list_(pa.float64()))
    columns["episode_index"] = pa.array([[n] for n in rows["episode_index"].to_pylist()], pa.list_(pa.int64()))
    shutil.rmtree(folder / "data")
    write_parquet(folder / "data/train.parquet", pa.table(columns))
    recordings = read_recordings(DATA)
    assert_same_episodes(recordings, read_recordings(folder))
    assert recordings.episodes[0].actions.tobytes() == values[:40].tobytes()


# What is kept


def test_a_second_call_asks_for_the_revision_alone(hub: FakeHub) -> None:
    first = read_recordings(DATA)
    hub.forget()
    second = read_recordings(DATA)
    assert hub.requests == THE_QUESTION
    assert hub.bytes_sent == 0
    assert_same_episodes(first, second)
    assert first.origin == second.origin


def test_a_pinned_commit_that_is_here_asks_nothing(hub: FakeHub) -> None:
    first = read_recordings(DATA)
    hub.forget()
    second = read_recordings(first.origin.name)
    assert hub.requests == []
    assert_same_episodes(first, second)
    assert first.origin == second.origin


def test_the_cache_is_named_by_the_environment_or_lies_in_the_users(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(CACHE_VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    read_recordings(DATA)
    assert {path.name for path in (tmp_path / "xdg").glob("*/*/*")} == {COMMIT, NEWEST}


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_a_hub_out_of_order_leaves_the_earlier_revision_and_says_so(hub: FakeHub, status: int) -> None:
    first = read_recordings(DATA)
    hub.failing["/"] = status
    assert_earlier_was_used(first, read_recordings(DATA))


def test_without_connection_the_earlier_revision_is_used_and_the_notes_say_so(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = read_recordings(DATA)
    monkeypatch.setenv("HF_ENDPOINT", closed_port())
    assert_earlier_was_used(first, read_recordings(DATA))


def test_of_several_earlier_revisions_the_newest_is_used(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_recordings(DATA)
    publish_next(hub, tmp_path)
    second = read_recordings(DATA)
    monkeypatch.setenv("HF_ENDPOINT", closed_port())
    assert_earlier_was_used(second, read_recordings(DATA))


def assert_earlier_was_used(first: Recordings, second: Recordings) -> None:
    assert_same_episodes(first, second)
    assert first.origin.name == second.origin.name
    *notes, last = second.origin.notes
    assert tuple(notes) == first.origin.notes
    commit = first.origin.name.rpartition("@")[2]
    assert last == f"The hub could not be asked for a newer revision; {commit[:12]}, fetched earlier, was used."


def test_without_connection_a_branch_is_refused_though_its_commit_may_be_here(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_recordings(f"{DATA}@main")
    monkeypatch.setenv("HF_ENDPOINT", closed_port())
    assert "could not be reached" in refusal(f"{DATA}@main")


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_data_set_that_was_taken_away_is_refused_though_it_is_here(hub: FakeHub, status: int) -> None:
    read_recordings(DATA)
    hub.failing["/"], hub.error_code = status, "RepoNotFound"
    refusal(DATA)
    assert read_recordings(PINNED).origin.name == PINNED


def test_without_connection_and_mirror_it_is_refused(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", closed_port())
    text = refusal(DATA)
    assert text.startswith(f"{DATA}: the hub could not be reached")
    assert "run it again" in text


def test_a_half_mirror_is_not_taken_for_a_whole_one(
    hub: FakeHub, mirror: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_recordings(DATA)
    (mirror / MARKER).unlink()
    monkeypatch.setenv("HF_ENDPOINT", closed_port())
    assert "could not be reached" in refusal(DATA)
    assert "could not be reached" in refusal(PINNED)


def test_switched_off_the_earlier_revision_is_used_and_without_one_it_is_refused(hub: FakeHub) -> None:
    """huggingface_hub reads the switch as it is imported."""
    read_recordings(DATA)
    hub.forget()
    code = """
print(read_recordings("hf://test/data").origin.notes[-1])
print(read_recordings("hf://test/data@0123456789abcdef0123456789abcdef01234567").origin.name)
for name in ("hf://test/other", "libero_spatial"):
    try:
        read_recordings(name)
    except ValueError as error:
        print(error)
"""
    done = in_another_process(code, HF_HUB_OFFLINE="1")
    assert done.stdout.splitlines() == [
        "The hub could not be asked for a newer revision; 0123456789ab, fetched earlier, was used.",
        PINNED,
        "hf://test/other: the hub is switched off by HF_HUB_OFFLINE, and nothing was fetched earlier",
        "hf://lerobot/libero: the hub is switched off by HF_HUB_OFFLINE, and nothing was fetched earlier",
    ]
    assert done.stderr == ""
    assert hub.requests == []


# Going on after an interruption


@pytest.mark.parametrize("failure", [429, 500, 503, "drop", "cut", "short"])
def test_a_fetch_that_failed_in_the_middle_is_gone_on_with(
    hub: FakeHub, mirror: Path, failure: int | str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_reader, "WORKERS", 1)
    trouble = hub.failing if isinstance(failure, int) else hub.breaking
    trouble[file_path(FILES[2])] = failure  # type: ignore[assignment, index]
    text = refusal(DATA)
    assert "run it again" in text
    before = fetched(mirror)
    assert {"meta/info.json", "meta/tasks.parquet", *FILES[:2]} <= set(before)
    assert not {FILES[2], MARKER} & set(before)
    assert_parquet_is_whole(mirror)

    hub.forget()
    trouble.clear()
    resumed = read_recordings(DATA)
    assert not set(before) & set(hub.sent)
    assert FILES[2] in hub.sent
    assert {name: content for name, content in fetched(mirror).items() if name in before} == before
    assert_equals_a_fresh_fetch(resumed, mirror)


@pytest.mark.parametrize("broken", ["drop", "cut", "short"])
@pytest.mark.parametrize("name", ["meta/info.json", "meta/tasks.parquet"])
def test_half_a_description_is_never_kept(hub: FakeHub, mirror: Path, name: str, broken: str) -> None:
    hub.breaking[file_path(name)] = broken  # type: ignore[assignment]
    refusal(DATA)
    assert name not in fetched(mirror)
    hub.breaking.clear()
    assert_equals_a_fresh_fetch(read_recordings(DATA), mirror)


def test_a_moment_of_trouble_is_not_even_noticed(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.failing[file_path(FILES[1])] = 503
    monkeypatch.setattr(time, "sleep", lambda _: hub.failing.clear())
    assert len(read_recordings(DATA).episodes) == 16


@pytest.mark.parametrize("at", [1, 2, 4])
def test_an_interrupted_fetch_leaves_no_marker_and_is_gone_on_with(hub: FakeHub, mirror: Path, at: int) -> None:
    def interrupt(done: int, total: int) -> None:
        if done == at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        read_recordings(DATA, interrupt)
    assert not (mirror / MARKER).exists()
    assert_parquet_is_whole(mirror)
    before = fetched(mirror)
    hub.forget()
    resumed = read_recordings(DATA)
    assert not set(before) & set(hub.sent)
    assert_equals_a_fresh_fetch(resumed, mirror)


def test_a_killed_fetch_is_gone_on_with(hub: FakeHub, mirror: Path) -> None:
    code = "import os\nread_recordings('hf://test/data', lambda done, total: os.kill(os.getpid(), 9))"
    assert in_another_process(code).returncode == -9
    assert not (mirror / MARKER).exists()
    assert_parquet_is_whole(mirror)
    before = fetched(mirror)
    assert "meta/info.json" in before
    hub.forget()
    resumed = read_recordings(DATA)
    assert not set(before) & set(hub.sent)
    assert_equals_a_fresh_fetch(resumed, mirror)


def test_a_file_half_written_never_has_its_final_name(
    hub: FakeHub, mirror: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = pq.write_table

    def stop_half_way(table: pa.Table, path: Path) -> None:
        write(table, path)
        path.write_bytes(path.read_bytes()[:100])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pq, "write_table", stop_half_way)
        with pytest.raises(KeyboardInterrupt):
            read_recordings(DATA)
    assert set(fetched(mirror)) == {"meta/info.json", "meta/tasks.parquet"}
    assert not [path for path in mirror.rglob(".*") if path.is_file()]
    assert_equals_a_fresh_fetch(read_recordings(DATA), mirror)


def assert_parquet_is_whole(mirror: Path) -> None:
    for path in mirror.glob("data/**/[!.]*.parquet"):
        assert pq.ParquetFile(path).read().num_rows == 160


def assert_equals_a_fresh_fetch(resumed: Recordings, mirror: Path) -> None:
    """The episodes; and the files, but for the marker, which counts what was read."""
    resumed_files = fetched(mirror)
    shutil.rmtree(mirror)
    assert_same_episodes(resumed, read_recordings(DATA))
    fresh_files = fetched(mirror)
    assert set(fresh_files) == set(resumed_files)
    del fresh_files[MARKER], resumed_files[MARKER]
    assert fresh_files == resumed_files


# Pinned


def publish_next(hub: FakeHub, tmp_path: Path) -> Path:
    """A next commit with other episodes; the one before it stays, as branch 'first'."""
    hub.earlier["first"] = (hub.commit, hub.repositories[OWNER_NAME])
    folder = write_lerobot_v3(tmp_path / "next", walks(6, seed=1))
    hub.commit, hub.repositories[OWNER_NAME] = NEXT_COMMIT, folder
    return folder


def test_the_origin_carries_the_commit(hub: FakeHub) -> None:
    for data in (DATA, f"{DATA}/", f"{DATA}@main", f"{DATA}@", PINNED):
        assert read_recordings(data).origin.name == PINNED


def test_a_new_commit_is_fetched_anew_and_the_old_one_stays(hub: FakeHub, tmp_path: Path) -> None:
    old = read_recordings(DATA)
    folder = publish_next(hub, tmp_path)
    hub.forget()
    new = read_recordings(DATA)
    assert new.origin.name == f"{DATA}@{NEXT_COMMIT}"
    assert hub.bytes_sent > 0
    assert_same_episodes(new, read_recordings(folder))
    hub.forget()
    assert_same_episodes(old, read_recordings(old.origin.name))
    assert hub.requests == []


@pytest.mark.parametrize("revision", ["first", COMMIT, COMMIT[:7], "refs/pr/1"])
def test_a_revision_can_be_named(hub: FakeHub, folder: Path, tmp_path: Path, revision: str) -> None:
    publish_next(hub, tmp_path)
    hub.earlier[revision] = hub.earlier["first"]
    recordings = read_recordings(f"{DATA}@{revision}")
    assert recordings.origin.name == PINNED
    assert_same_episodes(recordings, read_recordings(folder))


def test_the_runner_pins_and_the_notebooks_read_what_it_fetched(hub: FakeHub, tmp_path: Path) -> None:
    named = run._check_before_start(run.parse_arguments(["--data", DATA, "--num-episodes", "12"]))
    assert named == PINNED
    publish_next(hub, tmp_path)
    hub.forget()
    card = describe(prepare_dataset(named))
    assert hub.requests == []
    assert card["origin"]["name"] == PINNED
    assert card["origin"]["kind"] == "LeRobot v3.0, from the hub"
    assert card["origin"]["notes"][0].startswith("Fetched without images: ")
    assert card["episodes"] == 16


def test_the_mirror_is_found_from_another_folder(hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The runner is started anywhere, and its kernels in the repository."""
    (tmp_path / "one").mkdir()
    (tmp_path / "other").mkdir()
    monkeypatch.setenv(CACHE_VARIABLE, "my cache")
    monkeypatch.chdir(tmp_path / "one")
    named = run._check_before_start(run.parse_arguments(["--data", DATA]))
    monkeypatch.chdir(tmp_path / "other")
    hub.forget()
    read_recordings(named)
    assert hub.requests == []


def test_a_bad_name_ends_the_runner_with_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORKBOOK_COMMAND", "")
    assert run.main(["--data", "hf://x", "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: hf://x: is not a data set's name; write hf://owner/name")
    assert said.err.count("\n") == 1


# LIBERO's suites by name

SPATIAL = (
    "pick up the black bowl between the plate and the ramekin and place it on the plate",
    "pick up the black bowl from table center and place it on the plate",
)
GOAL = ("open the middle drawer of the cabinet",)


@pytest.fixture
def libero(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A hub with some of LIBERO's tasks, 4 episodes each, their frame rate said to be 10."""
    demos = walks(12, tasks=(*SPATIAL, *GOAL))
    folder = write_lerobot_v3(tmp_path / "libero", demos, episodes_a_file=5)
    write_info(folder, "v3.0", demos, fps=10)
    with serving({"lerobot/libero": folder}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        yield hub


@pytest.mark.parametrize(
    ("suite", "tasks", "lacking"),
    [
        ("libero_spatial", SPATIAL, "8 of the 10"),
        ("libero_goal", GOAL, "9 of the 10"),
        ("libero", SPATIAL + GOAL, "37"),
    ],
)
def test_a_suite_is_read_by_its_name_and_pinned(
    libero: FakeHub, suite: str, tasks: tuple[str, ...], lacking: str
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
    assert any("control rate is 20 Hz" in note for note in recordings.origin.notes)
    assert recordings.origin.notes[-1].startswith(lacking)

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
    named = run._check_before_start(run.parse_arguments(["--data", "libero_spatial"]))
    card = describe(prepare_dataset(named))
    assert card["origin"]["name"] == named == f"libero_spatial@{COMMIT}"
    assert card["control_rates_hz"] == [20.0]


def test_a_folder_of_a_suites_name_is_read_itself(
    libero: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_libero_folder(tmp_path / "libero_spatial", walks(4))
    monkeypatch.chdir(tmp_path)
    assert read_recordings("libero_spatial").origin.kind == "LIBERO HDF5"
    assert libero.requests == []


# What is refused


@pytest.mark.parametrize("name", ["", "x", "/", "a/b/c", "a b/c", "a/", "/b", "@main", "a/b c", "datasets/a/b"])
def test_a_malformed_name_is_refused_before_anything_is_asked(hub: FakeHub, name: str) -> None:
    assert "write hf://owner/name" in refusal(f"hf://{name}")
    assert hub.requests == []


@pytest.mark.parametrize("name", ["../..", "a--b/c", "-a/b", "a/b.git", "a/b%20c", "a/" + "b" * 100])
def test_a_name_that_the_hub_cannot_have_is_refused(hub: FakeHub, name: str) -> None:
    assert "is not a data set's name; write hf://owner/name" in refusal(f"hf://{name}")


def test_an_unknown_data_set_is_refused(hub: FakeHub) -> None:
    text = refusal("hf://test/missing")
    assert text.startswith("hf://test/missing: no such data set")
    assert "check the name" in text


def test_a_private_data_set_is_refused(hub: FakeHub) -> None:
    hub.failing["/"], hub.error_code = 401, "RepoNotFound"
    assert "hf auth login" in refusal(DATA)


@pytest.mark.parametrize("gate", ["/", f"/datasets/{OWNER_NAME}/resolve"], ids=["all of it", "its files"])
@pytest.mark.parametrize("status", [401, 403])
def test_a_gated_data_set_is_refused_with_the_way_through(hub: FakeHub, gate: str, status: int) -> None:
    hub.failing[gate], hub.error_code = status, "GatedRepo"
    text = refusal(DATA)
    assert text.startswith(DATA)
    assert "terms have to be accepted" in text


@pytest.mark.parametrize("revision", ["nothing", NEXT_COMMIT])
def test_an_unknown_revision_is_refused(hub: FakeHub, revision: str) -> None:
    text = refusal(f"{DATA}@{revision}")
    assert text.startswith(f"{DATA}@{revision}: ")
    assert "no such revision" in text


def test_an_unknown_revision_of_a_suite_is_refused(libero: FakeHub) -> None:
    assert "no such revision" in refusal("libero_spatial@nothing")


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_hub_out_of_order_is_named_with_its_answer(hub: FakeHub, status: int) -> None:
    hub.failing["/"] = status
    text = refusal(DATA)
    assert text.startswith(f"{DATA}: the hub answered {status}")
    assert "run it again" in text


def test_an_answer_that_breaks_off_is_refused(hub: FakeHub) -> None:
    hub.breaking["/"] = "drop"
    assert "could not be reached or broke off" in refusal(DATA)


def test_what_is_not_lerobots_is_refused(hub: FakeHub, folder: Path) -> None:
    (folder / "meta/info.json").unlink()
    assert "is not a LeRobot data set (no meta/info.json)" in refusal(DATA)
    shutil.rmtree(folder / "meta")
    HfFileSystem.clear_instance_cache()
    assert "is not a LeRobot data set (no meta/info.json)" in refusal(DATA)


@pytest.mark.parametrize("leave_folder", [False, True])
def test_a_data_set_without_data_is_refused(hub: FakeHub, folder: Path, leave_folder: bool) -> None:
    shutil.rmtree(folder / "data")
    if leave_folder:
        (folder / "data").mkdir()
        (folder / "data/README.txt").write_text("moved")
    assert "no data/*.parquet" in refusal(DATA)


def test_an_older_format_is_refused(hub: FakeHub, folder: Path) -> None:
    write_info(folder, "v1.6", DEMOS)
    assert "LeRobot v1.6" in refusal(DATA)


@pytest.mark.parametrize("column", ["action", "frame_index", "episode_index"])
def test_a_missing_column_is_named_with_its_file(hub: FakeHub, folder: Path, column: str) -> None:
    path = folder / FILES[1]
    write_parquet(path, pq.read_table(path).drop_columns([column]))
    text = refusal(DATA)
    assert FILES[1] in text
    assert f"no column '{column}'" in text


@pytest.mark.parametrize("damage", [b"", b"no parquet", bytes(200_000)], ids=["empty", "text", "zeros"])
def test_a_damaged_file_on_the_hub_is_named(hub: FakeHub, folder: Path, damage: bytes) -> None:
    """Running it again would not help, and nothing is wrong with the connection."""
    (folder / FILES[1]).write_bytes(damage)
    text = refusal(DATA)
    assert FILES[1] in text
    assert "could not be reached" not in text


@pytest.mark.parametrize("name", ["meta/info.json", "meta/tasks.parquet"])
def test_a_damaged_description_is_named(hub: FakeHub, folder: Path, name: str) -> None:
    (folder / name).write_text("{")
    assert name in refusal(DATA)


@pytest.mark.parametrize("in_its_place", ["", "test--data", f"test--data/{COMMIT}"])
def test_a_cache_that_cannot_be_written_is_named(
    hub: FakeHub, tmp_path: Path, in_its_place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file stands where a folder has to be; permissions do not hold root back."""
    cache = tmp_path / "no cache"
    monkeypatch.setenv(CACHE_VARIABLE, str(cache))
    (cache / in_its_place).parent.mkdir(parents=True, exist_ok=True)
    (cache / in_its_place).write_text("in the way")
    text = refusal(DATA)
    assert str(cache / in_its_place) in text
    assert CACHE_VARIABLE in text
    assert "could not be reached" not in text


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), PermissionError(13, "Permission denied")])
def test_a_disk_that_takes_no_more_is_named(hub: FakeHub, error: OSError, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(pq, "write_table", fail)
    text = refusal(DATA)
    assert os.environ[CACHE_VARIABLE] in text
    assert "could not be reached" not in text


# What is shown meanwhile


def test_progress_grows_to_the_number_of_files(hub: FakeHub) -> None:
    calls: list[tuple[int, int]] = []
    read_recordings(DATA, lambda done, total: calls.append((done, total)))
    assert calls == [(1, 4), (2, 4), (3, 4), (4, 4)]
    calls.clear()
    read_recordings(DATA, lambda done, total: calls.append((done, total)))
    assert calls == []


def test_progress_of_a_fetch_gone_on_with_counts_what_is_here(hub: FakeHub, mirror: Path) -> None:
    read_recordings(DATA)
    (mirror / MARKER).unlink()
    (mirror / FILES[3]).unlink()
    calls: list[tuple[int, int]] = []
    read_recordings(DATA, lambda done, total: calls.append((done, total)))
    assert calls[-1] == (4, 4)
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)


def test_nothing_is_said_beside_the_sentence(
    hub: FakeHub, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """huggingface_hub would warn of every attempt."""
    logger = logging.getLogger("huggingface_hub")
    monkeypatch.setattr(logger, "propagate", True)
    logger.setLevel(logging.WARNING)
    hub.failing[file_path(FILES[1])] = 503
    refusal(DATA)
    assert caplog.messages == []
    assert capsys.readouterr() == ("", "")


def test_the_marker_holds_the_size_of_the_data(hub: FakeHub, folder: Path, mirror: Path) -> None:
    read_recordings(DATA)
    assert json.loads((mirror / MARKER).read_text())["total"] == size_of(folder / "data")
