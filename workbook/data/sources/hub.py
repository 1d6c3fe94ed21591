"""LeRobot data sets of the Hugging Face hub, without their images.

Of every data/*.parquet only the footer and the byte ranges of the wanted columns are read; videos are never touched.
What was read is kept as a mirror that is read like any LeRobot folder.
"""

from __future__ import annotations

import json
import os
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import pyarrow as pa
from huggingface_hub import HfApi, HfFileSystem
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import logging

from workbook.common.errors import InputError
from workbook.common.note import note
from workbook.data.sources import mirror
from workbook.data.sources.files import one_line
from workbook.data.sources.lerobot_columns import fetched_columns
from workbook.data.sources.lerobot_meta import EPISODE_COLUMNS, EPISODE_LINES, EPISODES, INFO, TASK_FILES, read_info
from workbook.data.sources.mirror import Mirror
from workbook.data.sources.remote_parquet import Gate, read_columns

WORKERS = 8  # files fetched at once; most of the time goes into waiting for answers
TIMEOUT_SECONDS = 30
HTTP_CLIENTS = ("requests", "urllib3", "httpx", "httpx2", "httpcore", "httpcore2")
OnProgress = Callable[[int, int], None]


@dataclass(frozen=True)
class _Remote:
    """One commit of a data set."""

    repository: str
    commit: str
    files: HfFileSystem
    action_column: str

    @property
    def name(self) -> str:
        return f"hf://{self.repository}@{self.commit}"

    def path(self, file: str) -> str:
        return f"datasets/{self.repository}@{self.commit}/{file}"


def fetch(
    repository: str, revision: str = "", on_progress: OnProgress | None = None, action_column: str = ""
) -> Mirror:
    """Mirror a data set's actions, or take the mirror of an earlier call; a broken-off one is gone on with.

    action_column: as in `ReadOptions`; every column whose name begins with 'action' is kept besides. revision: a
    branch, tag or commit; "" is the newest. Where the hub cannot be reached, what was the newest in an
    earlier call will do, which the notes say.

    Raises:
        InputError: no such data set, not one of LeRobot's, no connection and no mirror, no place to keep it.
    """
    logging.set_verbosity_error()  # a retry is not worth a line; what comes of it is reported
    cache = mirror.cache_of(repository)
    pinned = mirror.whole(cache / revision) if _is_commit(revision) else None
    if pinned:
        return pinned
    try:
        commit = _commit(repository, revision)
    except Exception as error:
        earlier = mirror.newest(cache) if not revision and _is_no_answer(error) else None
        if earlier is None:
            _refuse(f"hf://{repository}{'@' + revision if revision else ''}", error)
        return Mirror(earlier.folder, earlier.revision, (*earlier.notes, note("hub_not_asked", used=earlier.revision)))
    found = mirror.whole(cache / commit) or _mirror(
        _Remote(repository, commit, HfFileSystem(endpoint=_endpoint()), action_column), cache / commit, on_progress
    )
    if not revision:
        mirror.store(cache / mirror.NEWEST, commit.encode())
    return found


def _commit(repository: str, revision: str) -> str:
    api = HfApi(endpoint=_endpoint())
    commit = api.dataset_info(repository, revision=revision or None, timeout=TIMEOUT_SECONDS).sha
    if commit is None:
        raise InputError(f"hf://{repository}: the hub names no commit for '{revision or 'main'}'; try again later")
    return commit


def _mirror(remote: _Remote, folder: Path, on_progress: OnProgress | None) -> Mirror:
    mirror.sweep(folder)
    try:
        read, total = _copy(remote, folder, on_progress)
    except Exception as error:
        _refuse(remote.name, error)
    return mirror.finish(folder, read, total)


def _copy(remote: _Remote, folder: Path, on_progress: OnProgress | None) -> tuple[int, int]:
    """Copy what is not there yet; returns the bytes read of the data files, about, and the bytes that they have."""
    _copy_whole(remote, INFO, folder)
    read_info(folder / INFO)  # an unknown version is refused before anything else is fetched
    described = remote.files.ls(remote.path("meta"), detail=False)  # exists() would take an error for a no
    for name in (*TASK_FILES, EPISODE_LINES):
        if remote.path(name) in described:
            _copy_whole(remote, name, folder)
    sizes = _parquet_below(remote, "data")
    if not sizes:
        raise InputError(f"{remote.name}: has no data/*.parquet, so it is not a LeRobot data set of v2 or v3")
    lists = _parquet_below(remote, EPISODES) if remote.path(EPISODES) in described else {}
    gate = Gate()
    jobs = [partial(_copy_columns, remote, name, size, folder, gate) for name, size in (sizes | lists).items()]
    read = 0
    for done, bytes_read in enumerate(_in_threads(jobs, gate), start=1):
        read += bytes_read
        if on_progress:
            on_progress(done, len(jobs))
    return read, sum((sizes | lists).values())


def _in_threads(jobs: Sequence[Callable[[], int]], gate: Gate) -> Iterator[int]:
    """Results of the jobs as they come; the first error is raised, no further job begun, and the gate closed.

    In daemon threads: a job that waits before it asks the hub again must not hold up one who interrupts, and
    concurrent.futures would wait for it when the interpreter ends.
    """
    waiting, results = queue.SimpleQueue[Callable[[], int]](), queue.SimpleQueue[int | BaseException]()
    for job in jobs:
        waiting.put(job)

    def work() -> None:
        while True:
            try:
                gate.check()
                results.put(waiting.get_nowait()())
            except (queue.Empty, InterruptedError):
                return
            except BaseException as error:
                results.put(error)

    for _ in range(min(WORKERS, len(jobs))):
        threading.Thread(target=work, daemon=True).start()
    try:
        for _ in jobs:
            result = results.get()
            if isinstance(result, BaseException):
                raise result
            yield result
    finally:
        gate.close()


def _parquet_below(remote: _Remote, folder: str) -> dict[str, int]:
    """Name and size in bytes of every parquet file below a folder."""
    listing: Any = remote.files.find(remote.path(folder), detail=True)
    root = remote.path("")
    sizes = {path.removeprefix(root): int(entry["size"]) for path, entry in listing.items()}
    return {name: size for name, size in sizes.items() if name.endswith(".parquet")}


def _copy_whole(remote: _Remote, name: str, folder: Path) -> None:
    if (folder / name).exists():
        return
    content = remote.files.cat_file(remote.path(name))
    if len(content) != remote.files.info(remote.path(name))["size"]:
        raise ConnectionError(f"{name} came cut short")
    mirror.store(folder / name, content)


def _copy_columns(remote: _Remote, name: str, size: int, folder: Path, gate: Gate) -> int:
    """Copy the wanted columns of one file; returns how many of its `size` bytes were read, about, if earlier."""
    if (folder / name).exists():
        return (folder / name).stat().st_size
    place = f"{remote.name}, {name}"
    try:
        # No read-ahead: the very ranges that are needed are asked for.
        with remote.files.open(remote.path(name), "rb", cache_type="none") as source:
            table, read = read_columns(source, size, partial(_columns, remote, name), gate)
    except pa.ArrowInvalid as error:
        raise InputError(
            f"{place}: came cut short, or is damaged on the hub ({one_line(error)}); run it again, or name another "
            "revision"
        ) from None
    with gate.passing():
        mirror.store_table(folder / name, table)
    return read


def _columns(remote: _Remote, name: str, schema: pa.Schema) -> list[str]:
    """The columns of a file that are copied: of the list of episodes, without the statistics in it."""
    if name.startswith(EPISODES):
        return [column for column in EPISODE_COLUMNS if column in schema.names]
    return fetched_columns(schema, remote.action_column, f"{remote.name}, {name}")


def _endpoint() -> str | None:
    """Another hub than the public one, asked for when it is needed and not when this is imported."""
    return os.environ.get("HF_ENDPOINT") or None


def _is_commit(revision: str) -> bool:
    return len(revision) == 40 and all(letter in "0123456789abcdef" for letter in revision)


def _is_no_answer(error: Exception) -> bool:
    """The hub could not be reached, or is out of order: neither says anything of the data set."""
    status = _status(error)
    return _is_of_the_network(error) if status is None else status >= 429


def _is_of_the_network(error: Exception) -> bool:
    """Errors of the HTTP clients that releases of huggingface_hub use need not be OSErrors; nor is a page for JSON."""
    return isinstance(error, (OSError, json.JSONDecodeError)) or type(error).__module__.split(".")[0] in HTTP_CLIENTS


def _status(error: Exception) -> int | None:
    response: Any = getattr(error, "response", None)
    return getattr(response, "status_code", None)


def _refuse(name: str, error: Exception) -> NoReturn:
    known = (HFValidationError, EntryNotFoundError, pa.ArrowException)
    if isinstance(error, InputError) or not (isinstance(error, known) or _is_of_the_network(error)):
        raise error
    raise InputError(f"{name}: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    detail = one_line(error)
    status = _status(error)
    if isinstance(error, GatedRepoError):
        return "its terms have to be accepted on its page first, and `hf auth login` run"
    if isinstance(error, RepositoryNotFoundError) and "credentials" not in detail.lower():
        return "no such data set on the hub, or it is private; check the name, or run `hf auth login`"
    if isinstance(error, RevisionNotFoundError):
        return "the data set has no such revision; leave out what stands after @"
    if isinstance(error, HFValidationError):
        return "is not a data set's name; write hf://owner/name"
    if status in (401, 403):
        return f"the hub refused ({status}); run `hf auth login`, or unset HF_TOKEN where it is an old one"
    if isinstance(error, (FileNotFoundError, EntryNotFoundError)):
        return f"is not a LeRobot data set (no {INFO}); of HDF5 files, download them and give their folder"
    if isinstance(error, OfflineModeIsEnabled):
        return "the hub is switched off by HF_HUB_OFFLINE, and this was not fetched earlier"
    if status is not None:
        return f"the hub answered {status} ({detail}); run it again, and what was fetched stays"
    return f"the hub could not be reached or broke off ({detail}); run it again, and what was fetched stays"
