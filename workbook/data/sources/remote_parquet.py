"""Columns of a parquet file that lies elsewhere: only the footer and the byte ranges of these columns are read."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

FOOTER_READ = 64 * 1024  # bytes at the end of a file that are read first; a longer footer takes a second read
TRAILER = 8  # length of the footer in 4 bytes, and 'PAR1'
GAP = 8 * 1024  # bytes; ranges that are nearer than this are read together


class Gate:
    """Lets one thread at a time into pyarrow, and none once it is closed.

    A thread that is inside pyarrow when the interpreter ends takes the process down with it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._closed = False

    def check(self) -> None:
        """Raises InterruptedError if the gate is closed."""
        if self._closed:
            raise InterruptedError

    @contextmanager
    def passing(self) -> Iterator[None]:
        with self._lock:
            self.check()
            yield

    def close(self) -> None:
        """Wait for the one inside, and let nobody in any more."""
        with self._lock:
            self._closed = True


def read_columns(
    source: BinaryIO, size: int, choose: Callable[[pa.Schema], list[str]], gate: Gate
) -> tuple[pa.Table, int]:
    """The columns that `choose` picks from the schema, and the number of bytes that were read of `size`.

    Every read happens here, in the thread that calls: pyarrow gets the file when all that it needs is in memory.

    Raises:
        InterruptedError: the gate was closed between two reads.
        pyarrow.ArrowInvalid: not a parquet file, or damaged.
    """
    parts = _Parts(source, size, gate)
    tail = min(size, FOOTER_READ)
    parts.fetch(size - tail, size)
    footer = int.from_bytes(parts.read_at(size - TRAILER, 4), "little") + TRAILER if size > TRAILER else 0
    if tail < footer <= size:
        parts.fetch(size - footer, size - tail)
    with gate.passing():
        metadata = pq.ParquetFile(parts, pre_buffer=False).metadata
        columns = choose(metadata.schema.to_arrow_schema())
        ranges = _merged(_ranges(metadata, set(columns)))
    for start, end in ranges:
        parts.fetch(start, end)
    with gate.passing():
        table = pq.ParquetFile(parts, metadata=metadata, pre_buffer=False).read(columns=columns, use_threads=False)
    return table, parts.bytes_read


def _ranges(metadata: pq.FileMetaData, columns: set[str]) -> Iterator[tuple[int, int]]:
    """Where the chunks of some columns begin and end."""
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        for position in range(group.num_columns):
            chunk = group.column(position)
            # A column's own name may hold dots, too.
            if any(f"{chunk.path_in_schema}.".startswith(f"{name}.") for name in columns):
                start = min(offset for offset in (chunk.dictionary_page_offset, chunk.data_page_offset) if offset)
                yield start, start + chunk.total_compressed_size


def _merged(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, end in sorted(ranges):
        if merged and start - merged[-1][1] <= GAP:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


class _Parts(io.RawIOBase):
    """A file of which only parts are here; what is not is read as zeros, which pyarrow never asks for."""

    def __init__(self, source: BinaryIO, size: int, gate: Gate) -> None:
        self.source, self.size, self.gate = source, size, gate
        self.parts: list[tuple[int, bytes]] = []
        self.position = 0
        self.bytes_read = 0

    def fetch(self, start: int, end: int) -> None:
        self.gate.check()
        if any(begin <= start and end <= begin + len(content) for begin, content in self.parts):
            return
        self.source.seek(start)
        content = self.source.read(end - start)
        if len(content) != end - start:
            raise ConnectionError(f"{len(content)} bytes came where {end - start} were asked for")
        self.parts.append((start, content))
        self.bytes_read += len(content)

    def read_at(self, start: int, count: int) -> bytes:
        wanted = bytearray(count)
        for begin, content in self.parts:
            low, high = max(start, begin), min(start + count, begin + len(content))
            if low < high:
                wanted[low - start : high - start] = content[low - begin : high - begin]
        return bytes(wanted)

    def readinto(self, buffer: Any) -> int:
        count = max(0, min(len(buffer), self.size - self.position))
        buffer[:count] = self.read_at(self.position, count)
        self.position += count
        return count

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self.position, io.SEEK_END: self.size}[whence]
        self.position = base + offset
        return self.position

    def tell(self) -> int:
        return self.position

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True
