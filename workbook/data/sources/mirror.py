"""Where fetched actions are kept: a folder for each data set and commit, laid out like the data set itself."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from workbook.common.errors import InputError
from workbook.common.note import Note, note
from workbook.common.paths import expand, replacing

CACHE_VARIABLE = "WORKBOOK_CACHE"
MARKER = "mirror.json"  # written last: the mirror is whole
STALE_SECONDS = 3600
NEWEST = "newest"  # names the commit that the data set's newest revision was when it was last asked for


@dataclass(frozen=True)
class Mirror:
    """A local copy of a data set's actions. revision: the commit that it is of; notes: what to know of it."""

    folder: Path
    revision: str
    notes: tuple[Note, ...]


def cache_of(repository: str) -> Path:
    """The folder in which a data set's mirrors lie, one a commit."""
    named = os.environ.get(CACHE_VARIABLE)
    root = expand(named) if named else expand(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "robust-rfsq-workbook"
    return root / repository.replace("/", "--")


def whole(folder: Path) -> Mirror | None:
    """The mirror in a folder, where it was finished and every file is still as it was."""
    try:
        marker = json.loads((folder / MARKER).read_text(encoding="utf8"))
        complete = all((folder / name).stat().st_size == size for name, size in marker["files"].items())
        return _mirror(folder, marker) if complete else None
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def _mirror(folder: Path, marker: dict[str, Any]) -> Mirror:
    return Mirror(folder, folder.name, (note("fetched", read=marker["read"], total=marker["total"]),))


def newest(cache: Path) -> Mirror | None:
    """The mirror of what was the newest revision when it was last asked for."""
    try:
        return whole(cache / (cache / NEWEST).read_text(encoding="utf8"))
    except (OSError, ValueError):
        return None


def finish(folder: Path, read: int, total: int) -> Mirror:
    """Mark a mirror as whole. read, total: bytes of the data files that were read, and that they have."""
    (folder / MARKER).unlink(missing_ok=True)
    files = {str(path.relative_to(folder)): path.stat().st_size for path in folder.rglob("[!.]*") if path.is_file()}
    marker = {"read": read, "total": total, "files": files}
    store(folder / MARKER, json.dumps(marker).encode())
    return _mirror(folder, marker)


def sweep(folder: Path) -> None:
    """Remove what a fetch that was killed long ago left half-written."""
    for path in folder.rglob(".*"):
        with suppress(OSError):  # another process may be sweeping too
            if path.is_file() and time.time() - path.stat().st_mtime > STALE_SECONDS:
                path.unlink()


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
