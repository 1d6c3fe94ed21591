"""Where fetched actions are kept: a folder for each data set and commit, laid out like the data set itself."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from workbook.errors import InputError
from workbook.paths import expand, replacing

CACHE_VARIABLE = "WORKBOOK_CACHE"
MARKER = "mirror.json"  # written last: the mirror is whole
NEWEST = "newest"  # names the commit that the data set's newest revision was when it was last asked for


@dataclass(frozen=True)
class Mirror:
    """A local copy of a data set's actions. revision: the commit that it is of; notes: what to know of it."""

    folder: Path
    revision: str
    notes: tuple[str, ...]


def cache_of(repository: str) -> Path:
    """The folder in which a data set's mirrors lie, one a commit."""
    named = os.environ.get(CACHE_VARIABLE)
    root = expand(named) if named else expand(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "robust-rfsq-workbook"
    return root / repository.replace("/", "--")


def whole(folder: Path) -> Mirror | None:
    """The mirror in a folder, where it was finished."""
    try:
        size: dict[str, int] = json.loads((folder / MARKER).read_text(encoding="utf8"))
    except (OSError, ValueError):
        return None
    note = f"Fetched without images: {size['read'] / 1e6:.3g} MB of {size['total'] / 1e6:.3g} MB of data files."
    return Mirror(folder, folder.name, (note,))


def newest(cache: Path) -> Mirror | None:
    """The mirror of what was the newest revision when it was last asked for."""
    try:
        return whole(cache / (cache / NEWEST).read_text(encoding="utf8"))
    except OSError:
        return None


def finish(folder: Path, read: int, total: int) -> None:
    """Mark a mirror as whole. read, total: bytes of the data files that were read, and that they have."""
    store(folder / MARKER, json.dumps({"read": read, "total": total}).encode())


def store(path: Path, content: bytes) -> None:
    with _writing(path) as temporary:
        temporary.write_bytes(content)


def store_table(path: Path, table: pa.Table) -> None:
    with _writing(path) as temporary:
        pq.write_table(table.replace_schema_metadata(None), temporary)


@contextmanager
def _writing(path: Path) -> Iterator[Path]:
    """A temporary name for a file whose folder is made.

    Raises:
        InputError: it cannot be written there.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            yield temporary
    except OSError as error:
        raise InputError(
            f"{path.parent}: fetched actions cannot be kept here ({error.strerror or error}); "
            f"make room, or set {CACHE_VARIABLE} to another folder"
        ) from None
