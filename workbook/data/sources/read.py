"""The one way in: what --data names, read by the reader of its format."""

from __future__ import annotations

import re
import stat
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from workbook.common.errors import InputError
from workbook.common.note import note
from workbook.common.paths import SAMPLE, expand
from workbook.data.episodes import Episode, Origin, ReadOptions, Recordings, Start
from workbook.data.sources import (
    DATA_KINDS,
    chunk_file,
    lerobot,
    libero_hdf5,
    libero_suites,
)

if TYPE_CHECKING:
    from workbook.data.sources.hub import OnProgress

HUB_PREFIX = "hf://"


def read_recordings(
    data: str | Path, options: ReadOptions | None = None, on_progress: OnProgress | None = None
) -> Recordings:
    """Read what `data` names: 'sample', a path, a LIBERO suite, or hf://owner/name[@revision].

    A path that exists is read as such, even where a suite has the same name. on_progress: called with files done and
    files to do while something is fetched.

    Raises:
        InputError: nothing of that name, or something in it that cannot be read.
    """
    options = options or ReadOptions()
    recordings = _read(str(data), options, on_progress)
    return replace(recordings, episodes=list(map(_plain, recordings.episodes)))


def read_recorded_starts(data: str | Path, episodes: Sequence[Episode]) -> list[Start | None]:
    """Where episodes that `data` yielded began in the simulator; None for each that does not say it."""
    text = str(data)
    return libero_hdf5.read_starts(SAMPLE if text == "sample" else expand(text), episodes)


def _plain(episode: Episode) -> Episode:
    """Without the characters that no file of results could hold, and with 0 for -0, which not every format keeps."""
    labels = {name: getattr(episode, name) for name in ("task", "source", "key", "session")}
    plain = {name: text.replace("\0", " ").encode("utf8", "replace").decode("utf8") for name, text in labels.items()}
    return replace(episode, actions=episode.actions + 0.0, **plain)


def _read(text: str, options: ReadOptions, on_progress: OnProgress | None) -> Recordings:
    if not text.strip():
        raise InputError(f"--data is empty; give {DATA_KINDS}")
    if text == "sample":
        sample = libero_hdf5.read_folder(SAMPLE, options)
        return replace(sample, origin=replace(sample.origin, kind="expert", name="sample"))
    if text.startswith(HUB_PREFIX):
        return _read_hub(text.removeprefix(HUB_PREFIX).rstrip("/"), options, on_progress)
    path = expand(text)
    name, _, revision = text.partition("@")
    if name in libero_suites.names() and not path.exists():
        return _read_suite(name, revision, options, on_progress)
    return _read_path(path, options)


def _read_hub(name: str, options: ReadOptions, on_progress: OnProgress | None) -> Recordings:
    repository, _, revision = name.partition("@")
    if not re.fullmatch(r"[^/\s]+/[^/\s]+", repository):
        raise InputError(f"hf://{name}: is not a data set's name; write hf://owner/name or hf://owner/name@revision")
    # Only here: its package takes a second, and warns in notebooks without widgets.
    from workbook.data.sources import hub

    mirror = hub.fetch(repository, revision, on_progress, options.action_column)
    pinned = f"{HUB_PREFIX}{repository}@{mirror.revision}"
    try:
        recordings = lerobot.read_folder(mirror.folder, options)
    except InputError as error:
        raise InputError(
            f"{pinned}: {error}; it was fetched to {mirror.folder}: delete that to fetch it anew"
        ) from None
    notes = (*mirror.notes, *recordings.origin.notes)
    return replace(recordings, origin=Origin(recordings.origin.kind, pinned, mirror.revision, notes))


def _read_suite(suite: str, revision: str, options: ReadOptions, on_progress: OnProgress | None) -> Recordings:
    whole = _read_hub(f"{libero_suites.REPOSITORY}{'@' + revision if revision else ''}", options, on_progress)
    origin = whole.origin
    episodes, lacking = libero_suites.select(whole.episodes, suite, origin.name)
    notes = (libero_suites.FILTERED, *origin.notes, *lacking)
    return replace(whole, episodes=episodes, origin=replace(origin, name=f"{suite}@{origin.revision}", notes=notes))


def _read_path(path: Path, options: ReadOptions) -> Recordings:
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise InputError(f"{path}: {(error.strerror or str(error)).lower()}; give --data {DATA_KINDS}") from None
    if stat.S_ISDIR(mode):
        return _read_folder(path, options)
    if path.suffix.lower() in chunk_file.SUFFIXES:
        if options.action_column:
            raise InputError(f"{path}: has no columns of actions to choose from; leave out --action-column")
        recordings = chunk_file.read_file(path)
        if options.only_successful:
            origin = recordings.origin
            recordings = replace(recordings, origin=replace(origin, notes=(*origin.notes, note("success_not_read"))))
        return recordings
    if path.suffix.lower() == ".parquet":
        raise InputError(f"{path}: is one file of a LeRobot data set; give the folder that holds its meta/ and data/")
    return libero_hdf5.read_file(path, options)


def _read_folder(path: Path, options: ReadOptions) -> Recordings:
    try:
        is_lerobot = lerobot.is_dataset(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); fix its permissions") from None
    if is_lerobot:
        return lerobot.read_folder(path, options)
    recordings = libero_hdf5.read_folder(path, options)
    if recordings.episodes or recordings.left_out:
        return recordings
    inside = next((found for found in sorted(path.glob(f"*/{lerobot.INFO}"))), None)
    hint = f"; did you mean {inside.parent.parent}?" if inside else f"; give --data {DATA_KINDS}"
    raise InputError(f"{path}: holds no .hdf5 file and no {lerobot.INFO}{hint}")
