"""Data sets of the hub: what is transferred, kept, pinned and shown; the hub is one on this machine."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fake_hub import COMMIT, FakeHub, serving
from hub_fixtures import DATA, DEMOS, FILES, NEXT_COMMIT, OWNER_NAME, PINNED, file_path, in_another_process, refusal
from made_up import random_demos
from reading import assert_same_episodes, card_of, notes, refused
from writers import lerobot_table, rewrite, write_lerobot_v2, write_lerobot_v3, write_parquet

from workbook.common.note import note
from workbook.data.dataset import prepare_dataset
from workbook.data.episodes import ReadOptions, Recordings
from workbook.data.sources import mirror as mirrors
from workbook.data.sources.mirror import CACHE_VARIABLE, MARKER, NEWEST
from workbook.data.sources.read import read_recordings
from workbook.options import check_before_start, parse_arguments
from workbook.report.text import words
from workbook.report.text.data import remarks

THE_QUESTION = [f"GET /api/datasets/{OWNER_NAME}"]
BYTES_OF_AN_IMAGE = 20_000  # fewer than those of LIBERO's 256 x 256 pictures
pytestmark = pytest.mark.usefixtures("alone_with_the_hub")


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def closed_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


# What is transferred


@pytest.mark.parametrize(
    ("write", "episodes"), [(write_lerobot_v3, 12), (write_lerobot_v2, 3)], ids=["v3, one file", "v2, file an episode"]
)
def test_of_a_data_set_with_images_under_3_percent_is_sent(
    write: Callable[..., Path], episodes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pyarrow asks for the last 64 kB of every file, so that files under 2.5 MB do not get by with 3 percent."""
    folder = write(tmp_path / "remote", random_demos(episodes, steps=150), image_bytes=BYTES_OF_AN_IMAGE)
    with serving({OWNER_NAME: folder}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        recordings = read_recordings(DATA)
        assert 0 < hub.bytes_sent < 0.03 * size_of(folder)
    assert_same_episodes(recordings, read_recordings(folder))
    assert size_of(tmp_path / "cache") < 0.03 * size_of(folder)


def test_the_note_on_what_was_fetched_is_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_lerobot_v3(tmp_path / "remote", random_demos(12, steps=150), image_bytes=BYTES_OF_AN_IMAGE)
    with serving({OWNER_NAME: folder}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        said = notes(DATA)
        read, total = re.fullmatch(r"Fetched without images: about (\S+) MB of (\S+) MB of data files\.", said).groups()
    assert float(read) * 1e6 == pytest.approx(hub.bytes_sent, rel=0.25)
    assert total == f"{size_of(folder / 'data') / 1e6:.3g}"


def test_a_note_never_says_that_more_was_fetched_than_there_is(hub: FakeHub) -> None:
    [fetched] = read_recordings(DATA).origin.notes
    assert fetched["values"]["read"] <= fetched["values"]["total"]


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
    assert recordings.origin.kind == read_recordings(folder).origin.kind


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


def test_the_list_of_episodes_comes_without_its_statistics(folder: Path, hub: FakeHub) -> None:
    numbers = list(range(len(DEMOS)))
    lengths = [len(actions) for _, actions in DEMOS]
    lists = {"episode_index": numbers[:-1], "length": lengths[:-1], "stats/action/mean": [[0.5] * 7] * (len(DEMOS) - 1)}
    write_parquet(folder / "meta/episodes/chunk-000/file-000.parquet", pa.table(lists))
    recordings = read_recordings(DATA)
    assert_same_episodes(recordings, read_recordings(folder))
    assert len(recordings.episodes) == len(DEMOS) - 1
    [kept] = Path(os.environ[CACHE_VARIABLE]).rglob("meta/episodes/**/*.parquet")
    assert pq.read_table(kept).column_names == ["episode_index", "length"]


def test_the_list_of_episodes_of_v2_comes_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_lerobot_v2(tmp_path / "remote", DEMOS)
    lines = [json.dumps({"episode_index": number, "length": 40}) for number in range(len(DEMOS) - 1)]
    (folder / "meta/episodes.jsonl").write_text("\n".join(lines))
    with serving({OWNER_NAME: folder}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        recordings = read_recordings(DATA)
    assert len(recordings.episodes) == len(DEMOS) - 1
    assert_same_episodes(recordings, read_recordings(folder))


def test_timestamps_come_too_and_a_mirror_without_them_is_read(folder: Path, hub: FakeHub) -> None:
    def jumping(table: pa.Table) -> pa.Table:
        stamps = np.where(np.arange(len(table)) % 40 < 20, 0, 9) + table["timestamp"].to_numpy()
        return table.set_column(table.column_names.index("timestamp"), "timestamp", pa.array(stamps))

    for name in FILES:
        rewrite(folder, jumping, name)
    recordings = read_recordings(DATA)
    assert len(recordings.episodes) == 2 * len(DEMOS)
    assert_same_episodes(recordings, read_recordings(folder))
    mirror = Path(os.environ[CACHE_VARIABLE]) / OWNER_NAME.replace("/", "--") / COMMIT
    for name in FILES:
        rewrite(mirror, lambda table: table.drop_columns(["timestamp"]), name)
    mirrors.finish(mirror, 1, 2)
    assert len(read_recordings(DATA).episodes) == len(DEMOS)


def test_columns_of_actions_come_whole_whatever_they_are_called(folder: Path, hub: FakeHub) -> None:
    """Column names with dots, one beginning with another's, and one whose name does not say that it is an action."""

    def change(table: pa.Table) -> pa.Table:
        actions = np.array(table["action"].to_pylist())
        for name, values in {
            "action.full": np.tile(actions, 3),
            "action.arm.pose": 2 * actions,
            "state": -actions,
        }.items():
            table = table.append_column(name, pa.array(list(values), pa.list_(pa.float64())))
        # So long that the columns before it lie outside what is read of every file.
        return table.append_column("state.extra", pa.array([os.urandom(2000) for _ in range(len(table))]))

    for name in FILES:
        rewrite(folder, change, name)
    for column in ("", "action.full", "action.arm.pose", "action.arm.pose+action.full"):
        options = ReadOptions(column)
        assert_same_episodes(read_recordings(DATA, options), read_recordings(folder, options))
    shutil.rmtree(os.environ[CACHE_VARIABLE])
    assert_same_episodes(read_recordings(DATA, ReadOptions("state")), read_recordings(folder, ReadOptions("state")))


def test_a_column_that_an_earlier_copy_lacks_is_refused_with_the_way_out(folder: Path, hub: FakeHub) -> None:
    for name in FILES:
        rewrite(folder, lambda table: table.append_column("state", table["action"]), name)
    read_recordings(DATA)
    text = refused(lambda: read_recordings(DATA, ReadOptions("state")))
    assert "has no column 'state'" in text
    assert text.endswith("delete that to fetch it anew")


def test_doubles_odd_numbers_and_other_column_names_come_through(
    folder: Path, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """float64 in lists, named 'actions', with -0.0, the smallest number, and indices that are lists of one number."""
    rows = lerobot_table(random_demos(2), column="actions")
    values = np.random.default_rng(0).normal(size=(rows.num_rows, 7))
    values[0, :3] = -0.0, 5e-324, np.nextafter(1, 2)
    columns = {name: rows[name] for name in rows.column_names}
    columns["actions"] = pa.array(list(values), pa.list_(pa.float64()))
    columns["episode_index"] = pa.array([[n] for n in rows["episode_index"].to_pylist()], pa.list_(pa.int64()))
    shutil.rmtree(folder / "data")
    write_parquet(folder / "data/train.parquet", pa.table(columns))
    recordings = read_recordings(DATA)
    assert_same_episodes(recordings, read_recordings(folder))
    assert recordings.episodes[0].actions.tobytes() == (values[:40] + 0.0).tobytes()  # 0 for -0, from every source


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
    *others, last = second.origin.notes
    assert tuple(others) == first.origin.notes
    commit = first.origin.name.rpartition("@")[2]
    assert last == note("hub_not_asked", used=commit)
    assert words("data").of_note(last).endswith(f"for a newer revision; {commit[:12]}, fetched earlier, was used.")


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
print(read_recordings("hf://test/data").origin.notes[-1]["values"]["used"])
print(read_recordings("hf://test/data@0123456789abcdef0123456789abcdef01234567").origin.name)
for name in ("hf://test/other", "libero_spatial"):
    try:
        read_recordings(name)
    except ValueError as error:
        print(error)
"""
    done = in_another_process(code, HF_HUB_OFFLINE="1")
    assert done.stdout.splitlines() == [
        COMMIT,
        PINNED,
        "hf://test/other: the hub is switched off by HF_HUB_OFFLINE, and this was not fetched earlier",
        "hf://lerobot/libero: the hub is switched off by HF_HUB_OFFLINE, and this was not fetched earlier",
    ]
    assert done.stderr == ""
    assert hub.requests == []


@pytest.mark.parametrize(("age", "stays"), [(7200, False), (60, True)])
def test_what_a_killed_fetch_left_half_written_is_removed_after_an_hour(
    hub: FakeHub, mirror: Path, age: float, stays: bool
) -> None:
    left = mirror / "data/chunk-000/.file-000.parquet.abc123"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half of it")
    os.utime(left, (time.time() - age,) * 2)
    read_recordings(DATA)
    assert left.exists() == stays


def test_a_mirror_that_is_finished_is_the_one_that_is_found(tmp_path: Path) -> None:
    finished = mirrors.finish(tmp_path / COMMIT, 1_234_567, 89_000_000)
    assert finished == mirrors.whole(tmp_path / COMMIT)
    assert (finished.folder, finished.revision) == (tmp_path / COMMIT, COMMIT)
    assert finished.notes == (note("fetched", read=1_234_567, total=89_000_000),)


# Pinned


def publish_next(hub: FakeHub, tmp_path: Path) -> Path:
    """A next commit with other episodes; the one before it stays, as branch 'first'."""
    hub.earlier["first"] = (hub.commit, hub.repositories[OWNER_NAME])
    folder = write_lerobot_v3(tmp_path / "next", random_demos(6, seed=1))
    hub.commit, hub.repositories[OWNER_NAME] = NEXT_COMMIT, folder
    return folder


def test_the_origin_carries_the_commit(hub: FakeHub) -> None:
    for data in (DATA, f"{DATA}/", f"{DATA}@main", f"{DATA}@", PINNED):
        origin = read_recordings(data).origin
        assert (origin.name, origin.revision) == (PINNED, COMMIT)


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
    named = check_before_start(parse_arguments(["--data", DATA, "--num-episodes", "12"])).settings["data"]["data"]
    assert named == PINNED
    publish_next(hub, tmp_path)
    hub.forget()
    card = card_of(prepare_dataset(named))
    origin = card.data["origin"]
    assert hub.requests == []
    assert origin["name"] == PINNED
    assert (origin["kind"], origin["revision"]) == ("LeRobot v3.0", COMMIT)
    assert f"`--data {PINNED}`" in remarks(card)[0]
    assert remarks(card)[1].startswith("Fetched without images: ")
    assert card.data["episodes"] == 16


def test_the_mirror_is_found_from_another_folder(hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The runner is started anywhere, and its kernels in the repository."""
    (tmp_path / "one").mkdir()
    (tmp_path / "other").mkdir()
    monkeypatch.setenv(CACHE_VARIABLE, "my cache")
    monkeypatch.chdir(tmp_path / "one")
    named = check_before_start(parse_arguments(["--data", DATA])).settings["data"]["data"]
    monkeypatch.chdir(tmp_path / "other")
    hub.forget()
    read_recordings(named)
    assert hub.requests == []


# What is shown meanwhile


def test_progress_grows_to_the_number_of_files(hub: FakeHub) -> None:
    calls: list[tuple[int, int]] = []
    read_recordings(DATA, on_progress=lambda done, total: calls.append((done, total)))
    assert calls == [(1, 4), (2, 4), (3, 4), (4, 4)]
    calls.clear()
    read_recordings(DATA, on_progress=lambda done, total: calls.append((done, total)))
    assert calls == []


def test_progress_of_a_fetch_gone_on_with_counts_what_is_here(hub: FakeHub, mirror: Path) -> None:
    read_recordings(DATA)
    (mirror / MARKER).unlink()
    (mirror / FILES[3]).unlink()
    calls: list[tuple[int, int]] = []
    read_recordings(DATA, on_progress=lambda done, total: calls.append((done, total)))
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


@pytest.mark.parametrize("marker", ["{}", "[]", "1", '{"files": 3}', "\udcff"])
def test_a_damaged_marker_is_fetched_over(hub: FakeHub, mirror: Path, marker: str) -> None:
    first = read_recordings(DATA)
    (mirror / MARKER).write_text(marker, encoding="utf8", errors="surrogateescape")
    assert_same_episodes(read_recordings(DATA), first)


def test_a_file_that_was_deleted_from_a_mirror_is_fetched_again(hub: FakeHub, mirror: Path) -> None:
    first = read_recordings(DATA)
    (mirror / FILES[1]).unlink()
    hub.forget()
    assert_same_episodes(read_recordings(PINNED), first)
    assert hub.sent[FILES[1]] > 0
    assert FILES[0] not in hub.sent
