"""Columns of a remote parquet by their byte ranges: the same table, few bytes, and a stop between two reads."""

from __future__ import annotations

import io
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings, strategies as st

from workbook.data.sources import remote_parquet
from workbook.data.sources.remote_parquet import FOOTER_READ, Gate, read_columns


def parquet(rows: int, group: int, picture_bytes: int, compression: str = "snappy") -> bytes:
    """A file with an action, an index, and pictures between them."""
    rng = np.random.default_rng(rows)
    actions = pa.FixedSizeListArray.from_arrays(pa.array(rng.normal(size=rows * 7).astype(np.float32)), 7)
    pictures = pa.array([rng.bytes(picture_bytes) for _ in range(rows)])
    table = pa.table({"action": actions, "picture": pictures, "index": pa.array(np.arange(rows))})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, row_group_size=group, compression=compression)
    return buffer.getvalue()


def without_pictures(schema: pa.Schema) -> list[str]:
    return [name for name in schema.names if name != "picture"]


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 300), st.integers(1, 120), st.integers(0, 2000), st.sampled_from(["none", "snappy", "zstd"]))
def test_the_table_is_that_of_reading_the_whole_file(rows: int, group: int, picture: int, compression: str) -> None:
    content = parquet(rows, group, picture, compression)
    table, read = read_columns(io.BytesIO(content), len(content), without_pictures, Gate())
    assert table.equals(pq.read_table(io.BytesIO(content), columns=["action", "index"]))
    assert read <= len(content) + FOOTER_READ


def test_pictures_are_not_read() -> None:
    content = parquet(300, 100, 20_000)
    _, read = read_columns(io.BytesIO(content), len(content), without_pictures, Gate())
    assert read < 0.03 * len(content)


def test_a_column_whose_name_holds_a_dot_is_read() -> None:
    """As LeRobot's observation.state, which is no column inside another."""
    numbers = [[float(number)] * 7 for number in range(300)]
    pictures = pa.array([np.random.default_rng(number).bytes(2000) for number in range(300)])
    buffer = io.BytesIO()
    pq.write_table(pa.table({"action.arm": pa.array(numbers), "picture": pictures}), buffer)
    table, read = read_columns(buffer, len(buffer.getvalue()), without_pictures, Gate())
    assert table["action.arm"].to_pylist() == numbers
    assert read < len(buffer.getvalue()) / 4


def test_a_footer_longer_than_the_first_read_is_read_whole() -> None:
    content = parquet(4000, 2, 100)
    footer = int.from_bytes(content[-8:-4], "little")
    assert footer > FOOTER_READ
    table, read = read_columns(io.BytesIO(content), len(content), without_pictures, Gate())
    assert table.num_rows == 4000
    assert footer < read


def test_a_file_that_fits_into_the_first_read_is_read_once(tmp_path: Path) -> None:
    content = parquet(50, 50, 100)
    _, read = read_columns(io.BytesIO(content), len(content), without_pictures, Gate())
    assert read == len(content)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"no parquet at all, but longer than a footer", bytes(100_000)])
def test_what_is_no_parquet_is_said_to_be_damaged(content: bytes) -> None:
    with pytest.raises(pa.ArrowInvalid):
        read_columns(io.BytesIO(content), len(content), without_pictures, Gate())


def test_fewer_bytes_than_asked_for_are_a_broken_connection() -> None:
    content = parquet(300, 100, 2000)
    with pytest.raises(ConnectionError, match="bytes came"):
        read_columns(io.BytesIO(content[:-10]), len(content), without_pictures, Gate())


def test_a_stop_is_obeyed_between_two_reads() -> None:
    content = parquet(300, 100, 20_000)
    gate = Gate()

    class Closing(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            gate.close()  # as another thread would while this one waits for an answer
            return super().read(size)

    with pytest.raises(InterruptedError):
        read_columns(Closing(content), len(content), without_pictures, gate)


def test_every_read_happens_in_the_thread_that_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread of pyarrow's own gives back what it read after the gate, and aborts a process that is ending then."""
    content, readers = parquet(300, 100, 2000), set()
    readinto = remote_parquet._Parts.readinto

    def note(parts: remote_parquet._Parts, buffer: Any) -> int:
        readers.add(threading.get_ident())
        return readinto(parts, buffer)

    monkeypatch.setattr(remote_parquet._Parts, "readinto", note)
    read_columns(io.BytesIO(content), len(content), without_pictures, Gate())
    assert readers == {threading.get_ident()}


def test_a_gate_that_closes_waits_for_the_one_inside_and_lets_nobody_in() -> None:
    gate, inside, closed = Gate(), threading.Event(), threading.Event()

    def close() -> None:
        inside.wait()
        gate.close()
        closed.set()

    closer = threading.Thread(target=close)
    closer.start()
    with gate.passing():
        inside.set()
        assert not closed.wait(0.2)
    closer.join()
    with pytest.raises(InterruptedError), gate.passing():
        pytest.fail("let in")
