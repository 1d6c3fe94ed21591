"""Good recordings with something wrong in them, and the sentence with which they are refused."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_up import Array, random_demos
from reading import refused
from writers import rewrite, write_lerobot_v3

from workbook.data.dataset import prepare_dataset
from workbook.data.sources import DATA_KINDS

# A message ends in what to do, after a semicolon: nothing else in it may be the last word.
REMEDY = re.compile(r"; (give|download|record|convert|leave|save|copy|remove|fix) [^;]+$")
GIT_LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12345\n"
Spoil = Callable[[Path], object]
ChangeTable = Callable[[pa.Table], pa.Table]


def refusal(data: Path, *named: str) -> str:
    """The message with which `data` is refused, checked to be one sentence that names these and says what to do."""
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        message = refused(lambda: prepare_dataset(data))
    assert message.endswith(f"; give --data {DATA_KINDS}") or REMEDY.search(message), message
    assert [str(warning.message) for warning in warned] == []
    for name in named:
        assert name in message
    return message


def demos(count: int = 6) -> list[tuple[str, Array]]:
    return random_demos(count, tasks=("task 0", "task 1"), steps=16)


def lerobot(folder: Path) -> Path:
    """A data set of v3 in two files of three episodes."""
    return write_lerobot_v3(folder, demos(), episodes_a_file=3)


def changed(folder: Path, change: ChangeTable) -> Path:
    """A data set with other rows in its first file."""
    return rewrite(lerobot(folder), change)


def spoilt(tmp_path: Path, spoil: Spoil) -> Path:
    folder = lerobot(tmp_path / "set")
    spoil(folder)
    return folder


def writing(file: str, content: str | bytes) -> Spoil:
    return lambda folder: (folder / file).write_bytes(content.encode() if isinstance(content, str) else content)


def cut_short(path: Path, less: int) -> None:
    """Leave out so many bytes at the end."""
    path.write_bytes(path.read_bytes()[:-less])


def overwrite_columns(file: Path, spoil: Callable[[str], bool]) -> None:
    """Put 0xFF in the place of every page of some columns."""
    groups = pq.read_metadata(file)
    content = bytearray(file.read_bytes())
    for group in (groups.row_group(number) for number in range(groups.num_row_groups)):
        for column in (group.column(number) for number in range(group.num_columns)):
            if spoil(column.path_in_schema):
                start = column.dictionary_page_offset or column.data_page_offset
                content[start : start + column.total_compressed_size] = b"\xff" * column.total_compressed_size
    file.write_bytes(content)


@contextmanager
def without_rights() -> Iterator[None]:
    """For whom permissions hold: root reads everything, so it becomes nobody for the moment."""
    if os.geteuid():
        yield
        return
    try:
        os.seteuid(65534)
    except PermissionError:
        pytest.skip("root cannot become another user here")
    try:
        yield
    finally:
        os.seteuid(0)
