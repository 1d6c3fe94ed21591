"""A fetch from the hub that broke off, was interrupted or killed: what is left of it, and going on."""

from __future__ import annotations

import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fake_hub import FakeHub
from hub_fixtures import (
    DATA,
    FILES,
    fetched,
    file_path,
    in_another_process,
    reading_process,
    refusal,
    wait_for_the_other_threads,
)
from reading import assert_same_episodes

from workbook.common.paths import REPOSITORY
from workbook.data.episodes import Recordings
from workbook.data.sources import hub as hub_reader
from workbook.data.sources.mirror import MARKER
from workbook.data.sources.read import read_recordings

pytestmark = pytest.mark.usefixtures("alone_with_the_hub")


def interruptible(code: str) -> subprocess.Popen[str]:
    """A process that was begun and reads."""
    return subprocess.Popen(
        reading_process(code),
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


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
        read_recordings(DATA, on_progress=interrupt)
    assert not (mirror / MARKER).exists()
    assert_parquet_is_whole(mirror)
    before = fetched(mirror)
    hub.forget()
    resumed = read_recordings(DATA)
    assert not set(before) & set(hub.sent)
    assert_equals_a_fresh_fetch(resumed, mirror)


@pytest.mark.parametrize("failing", [FILES, ["meta/info.json"]], ids=["every data file", "the description"])
def test_an_interrupted_process_does_not_wait_for_a_hub_out_of_order(hub: FakeHub, failing: list[str]) -> None:
    """Each attempt is followed by a longer wait, of 23 seconds in all."""
    for name in failing:
        hub.failing[file_path(name)] = 503
    with interruptible("read_recordings('hf://test/data')") as process:
        last_asked = f" {file_path(failing[-1])}"
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not any(request.endswith(last_asked) for request in hub.requests):
            threading.Event().wait(0.05)
        threading.Event().wait(0.5)
        begun = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert time.monotonic() - begun < 10  # on a busy machine it takes a few to end
    assert process.returncode == -signal.SIGINT
    assert said.rstrip().endswith("KeyboardInterrupt")
    assert "Exception in thread" not in said
    assert "Fatal" not in said


def test_a_killed_fetch_is_gone_on_with(hub: FakeHub, mirror: Path) -> None:
    code = "import os\nread_recordings('hf://test/data', on_progress=lambda done, total: os.kill(os.getpid(), 9))"
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
        wait_for_the_other_threads()
    assert set(fetched(mirror)) == {"meta/info.json", "meta/tasks.parquet"}
    assert not [path for path in mirror.rglob(".*") if path.is_file()]
    assert_equals_a_fresh_fetch(read_recordings(DATA), mirror)


def assert_parquet_is_whole(mirror: Path) -> None:
    for path in mirror.glob("data/**/[!.]*.parquet"):
        assert pq.ParquetFile(path).read().num_rows == 160


def assert_equals_a_fresh_fetch(resumed: Recordings, mirror: Path) -> None:
    """The episodes; and the files, but for the marker, which counts what was read."""
    wait_for_the_other_threads()
    resumed_files = fetched(mirror)
    shutil.rmtree(mirror)
    assert_same_episodes(resumed, read_recordings(DATA))
    fresh_files = fetched(mirror)
    assert set(fresh_files) == set(resumed_files)
    del fresh_files[MARKER], resumed_files[MARKER]
    assert fresh_files == resumed_files
