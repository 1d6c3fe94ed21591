"""Reader of LIBERO's HDF5 demonstrations: the actions alone, never the images."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TypeVar

import h5py
import numpy as np

from workbook.episodes import Episode
from workbook.errors import InputError

SUFFIX = ".hdf5"  # of files in a folder; a file that is named itself may have any
T = TypeVar("T")


def read_episodes(path: Path) -> list[Episode]:
    """Episodes of a file, or of every HDF5 file below a folder, in numeric order of the demos.

    Raises:
        InputError: nothing there, not HDF5, or no actions in it.
    """
    try:
        found = path.stat()
    except OSError as error:
        raise InputError(
            f"{path}: {(error.strerror or str(error)).lower()}; give --data a LIBERO HDF5 file or a folder of them"
        ) from None
    if not stat.S_ISDIR(found.st_mode):
        return _read_file(path, path.name)
    files = sorted(_hdf5_files(path))
    if not files:
        raise InputError(f"{path}: holds no {SUFFIX} file; give --data a folder of LIBERO HDF5 files")
    return [episode for file in files for episode in _read_file(file, str(file.relative_to(path)))]


def _hdf5_files(folder: Path) -> Iterator[Path]:
    """Every HDF5 file below a folder; linked folders are followed, each once."""

    def refuse(error: OSError) -> None:
        raise InputError(f"{error.filename}: cannot be read ({error.strerror}); mend its permissions")

    seen: set[str] = set()
    for name, subfolders, files in os.walk(folder, onerror=refuse, followlinks=True):
        real = os.path.realpath(name)
        if real in seen:
            subfolders.clear()  # a link that leads back
            continue
        seen.add(real)
        yield from (Path(name) / file for file in files if file.lower().endswith(SUFFIX))


def _read_file(path: Path, source: str) -> list[Episode]:
    if not path.is_file():
        raise InputError(f"{path}: is not a file, or a link to nothing; leave it out")
    try:
        file = h5py.File(path, "r")
    except PermissionError:
        raise InputError(f"{path}: no permission to read it; mend its permissions") from None
    except (OSError, ValueError):
        raise InputError(
            f"{path}: not an HDF5 file, cut short, or open for writing elsewhere; download it again, or leave it out"
        ) from None
    with file:
        return _read_demos(file, source.encode("utf8", "replace").decode("utf8"))


def _read_demos(file: h5py.File, source: str) -> list[Episode]:
    # A damaged file can raise nearly anything from inside h5py, so these reads are fenced one by one.
    group = _or_refuse(source, lambda: file.get("data"))
    if not isinstance(group, h5py.Group):
        raise InputError(f"{source}: has no group 'data', so it is not a LIBERO demonstration file")
    keys = _or_refuse(source, lambda: sorted(group, key=_numeric_order))
    demos = {key: _or_refuse(f"{source}, {key}", partial(group.__getitem__, key)) for key in keys}
    demos = {key: demo for key, demo in demos.items() if isinstance(demo, h5py.Group)}
    if not demos:
        raise InputError(f"{source}: group 'data' holds no demonstration; leave this file out")
    task = _or_refuse(source, lambda: _task_name(group, source))
    return [Episode(_read_actions(demo, f"{source}, {key}"), task, source, key) for key, demo in demos.items()]


def _read_actions(demo: h5py.Group, place: str) -> np.ndarray:
    actions = _or_refuse(place, lambda: demo.get("actions"))
    if not isinstance(actions, h5py.Dataset) or actions.shape is None:
        raise InputError(f"{place}: has no dataset 'actions'; leave this file out or record it again")
    kind = _or_refuse(place, lambda: actions.dtype)
    if kind.kind not in "fiu":
        raise InputError(f"{place}: 'actions' holds {kind}, not numbers; convert it to floating point")
    return _or_refuse(place, lambda: actions[()].astype(np.float64))


def _or_refuse(place: str, read: Callable[[], T]) -> T:
    """What `read` gives; whatever it raises becomes one sentence."""
    try:
        return read()
    except Exception as error:
        detail = " ".join(str(error).split())[:120]
        raise InputError(
            f"{place}: damaged, cut short or leading nowhere ({detail}); record or download it again"
        ) from None


def _numeric_order(key: str) -> tuple[int, str]:
    """demo_10 after demo_9; names without a number come last, in alphabetical order."""
    number = re.search(r"(\d+)$", key)
    return (int(number[1]), key) if number else (2**62, key)


def _task_name(group: h5py.Group, source: str) -> str:
    """The instruction, or the file's name where there is none."""
    named_by_file = re.sub(r"_demo$", "", Path(source).stem).replace("_", " ")
    try:
        instruction = json.loads(group.attrs["problem_info"])["language_instruction"]
    except (KeyError, TypeError, ValueError):
        return named_by_file
    text = " ".join(map(str, instruction)) if isinstance(instruction, list) else str(instruction or "")
    return text.strip('"').replace("\0", " ").encode("utf8", "replace").decode("utf8") or named_by_file
