"""Whatever is wrong with a data set of the hub, the hub or the cache: one sentence."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from fake_hub import COMMIT, FakeHub, Handler
from hub_fixtures import DATA, DEMOS, FILES, NEXT_COMMIT, OWNER_NAME, refusal
from huggingface_hub import HfFileSystem
from writers import write_info, write_parquet

from workbook import run
from workbook.common.errors import InputError
from workbook.data.config import DataConfig
from workbook.data.dataset import prepare_dataset
from workbook.data.sources.mirror import CACHE_VARIABLE
from workbook.data.sources.read import read_recordings

pytestmark = pytest.mark.usefixtures("alone_with_the_hub")


# Names


def test_a_bad_name_ends_the_runner_with_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORKBOOK_COMMAND", "")
    assert run.main(["--data", "hf://x", "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: hf://x: is not a data set's name; write hf://owner/name")
    assert said.err.count("\n") == 1


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


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({"num_episodes": -1}, "num_episodes is -1; give a positive number, or 0 for all"),
        ({"split_seed": -1}, "split_seed is -1; give 0 or a positive number"),
        ({"chunk_len": 0}, "chunk length 0 and stride 8 must satisfy 1 <= stride <= length"),
        ({"stride": 9}, "chunk length 8 and stride 9 must satisfy 1 <= stride <= length"),
        ({"gripper_open": "wide"}, "gripper_open is 'wide'; give one of auto, low, high"),
        ({"layout": "wheels:4"}, "layout 'wheels:4'"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_value_that_cannot_be_is_refused_before_the_hub_is_asked(
    hub: FakeHub, bad: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError) as raised:
        prepare_dataset(DATA, DataConfig(**bad))
    assert str(raised.value).startswith(said)
    assert hub.requests == []


# The hub


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_hub_out_of_order_is_named_with_its_answer(hub: FakeHub, status: int) -> None:
    hub.failing["/"] = status
    text = refusal(DATA)
    assert text.startswith(f"{DATA}: the hub answered {status}")
    assert "run it again" in text


def test_an_answer_that_breaks_off_is_refused(hub: FakeHub) -> None:
    hub.breaking["/"] = "drop"
    assert "could not be reached or broke off" in refusal(DATA)


@pytest.mark.parametrize(
    "content", [b"<html>log in to the network first</html>", b'{"id": "test/da'], ids=["a page", "half of it"]
)
def test_an_answer_that_is_not_the_hubs_is_refused(
    hub: FakeHub, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a network that answers itself until one has logged in."""
    monkeypatch.setattr(Handler, "_api", lambda self, rest, name, with_body: self._send(200, content, with_body))
    assert refusal(DATA).startswith(DATA)


def test_an_error_of_the_code_is_not_blamed_on_the_connection(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a mistake")

    monkeypatch.setattr("workbook.data.sources.hub.fetched_columns", fail)
    with pytest.raises(ZeroDivisionError, match="a mistake"):
        read_recordings(DATA)


# The data set


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


# The cache


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
