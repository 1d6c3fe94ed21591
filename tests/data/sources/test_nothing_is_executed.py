"""Code in a file is never executed, and a pipe in a file's place is not waited for."""

from __future__ import annotations

import io
import os
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from spoiling import changed, lerobot, refusal, spoilt, writing
from writers import FILE, INFO, TASK_TABLE

from workbook.data.dataset import prepare_dataset


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.marker,)


def pickled(trap: Trap) -> bytes:
    return pickle.dumps(trap, protocol=2)


def saved(content: object, zipped: bool = True) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


# Code


TRAPS: dict[str, Callable[[Trap], bytes]] = {
    "a pickle": pickled,
    "the whole file": saved,
    "the older format": lambda trap: saved(trap, zipped=False),
    "the actions": lambda trap: saved({"actions": trap}),
    "beside the actions": lambda trap: saved({"actions": torch.zeros(8, 8, 7), "metadata": {"note": trap}}),
    "a bound": lambda trap: saved({"actions": torch.zeros(8, 8, 7), "normalization": {"min": trap, "max": trap}}),
}


@pytest.mark.parametrize("make", TRAPS.values(), ids=TRAPS)
def test_code_in_a_chunk_file_is_not_executed(tmp_path: Path, make: Callable[[Trap], bytes]) -> None:
    marker = tmp_path / "executed"
    (tmp_path / "bad.pt").write_bytes(make(Trap(marker)))
    refusal(tmp_path / "bad.pt", str(tmp_path / "bad.pt"))
    assert not marker.exists()
    torch.load(tmp_path / "bad.pt", weights_only=False) if make is not pickled else pickle.loads(pickled(Trap(marker)))
    assert marker.exists()  # the trap works


@pytest.mark.parametrize("file", [INFO, TASK_TABLE, FILE])
def test_code_in_a_lerobot_data_set_is_not_executed(tmp_path: Path, file: str) -> None:
    marker = tmp_path / "executed"
    refusal(spoilt(tmp_path, writing(file, pickled(Trap(marker)))), file)
    assert not marker.exists()


def test_code_in_an_extension_type_is_not_executed(tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    pickled_type = {
        "ARROW:extension:name": "arrow.py_extension_type",
        "ARROW:extension:metadata": pickled(Trap(marker)),
    }

    def disguise(table: pa.Table) -> pa.Table:
        return table.cast(pa.schema([field.with_metadata(pickled_type) for field in table.schema]))

    prepare_dataset(changed(tmp_path / "set", disguise))
    assert not marker.exists()


def test_code_in_a_pickle_called_hdf5_is_not_executed(tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    trap = pickle.dumps(Trap(marker))
    (tmp_path / "bad.hdf5").write_bytes(trap)
    for data in (tmp_path / "bad.hdf5", tmp_path):
        refusal(data, "bad.hdf5")
        assert not marker.exists()
    pickle.loads(trap)
    assert marker.exists()  # the trap works


# Pipes


@contextmanager
def answering(pipe: Path, seconds: float) -> Iterator[threading.Event]:
    """After so many seconds, end the waiting of whoever waits for a pipe; the event tells that somebody did."""
    waited, over = threading.Event(), threading.Event()

    def answer() -> None:
        over.wait(seconds)
        while not over.wait(0.05):
            try:
                os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
                waited.set()
            except OSError:  # nobody waits
                time.sleep(0.05)

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    try:
        yield waited
    finally:
        over.set()
        thread.join()


@pytest.mark.parametrize("file", ["bad.pt", INFO, TASK_TABLE, FILE])
def test_a_pipe_is_not_waited_for(tmp_path: Path, file: str) -> None:
    folder = lerobot(tmp_path)
    (folder / file).unlink(missing_ok=True)
    os.mkfifo(folder / file)
    with answering(folder / file, seconds=1.0) as waited:
        refusal(folder / file if file == "bad.pt" else folder, file)
    assert not waited.is_set()
