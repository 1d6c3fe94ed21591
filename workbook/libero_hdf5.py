"""Reader of LIBERO's HDF5 demonstrations: the actions alone, never the images."""

from __future__ import annotations

import json
import re
from pathlib import Path

import h5py
import numpy as np

from workbook.episodes import Episode
from workbook.errors import InputError

SUFFIXES = (".hdf5", ".h5")


def read_episodes(path: Path) -> list[Episode]:
    """Episodes of a file, or of every HDF5 file below a folder, in numeric order of the demos.

    Raises:
        InputError: nothing there, not HDF5, or no actions in it.
    """
    if not path.exists():
        raise InputError(f"{path}: no such file or folder; give --data a LIBERO HDF5 file or a folder of them")
    if path.is_file():
        return _read_file(path, path.name)
    try:
        files = sorted(file for file in path.rglob("*") if file.suffix in SUFFIXES and file.is_file())
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); mend its permissions") from None
    if not files:
        raise InputError(f"{path}: holds no {' or '.join(SUFFIXES)} file; give --data a folder of LIBERO HDF5 files")
    return [episode for file in files for episode in _read_file(file, str(file.relative_to(path)))]


def _read_file(path: Path, source: str) -> list[Episode]:
    try:
        with h5py.File(path, "r") as file:
            return _read_demos(file, source)
    except InputError:
        raise
    except PermissionError:
        raise InputError(f"{path}: no permission to read it; mend its permissions") from None
    except (OSError, RuntimeError, KeyError) as error:
        reason = "not an HDF5 file, or cut short" if "open" in str(error) else "damaged or cut short"
        raise InputError(f"{path}: {reason}; download or record it again, or leave it out") from None


def _read_demos(file: h5py.File, source: str) -> list[Episode]:
    group = file.get("data")
    if not isinstance(group, h5py.Group):
        raise InputError(f"{source}: has no group 'data', so it is not a LIBERO demonstration file")
    demos = sorted((key for key in group if isinstance(group[key], h5py.Group)), key=_numeric_order)
    if not demos:
        raise InputError(f"{source}: group 'data' holds no demonstration; leave this file out")
    task = _task_name(group, source)
    return [Episode(_read_actions(group[key], f"{source}, {key}"), task, source, key) for key in demos]


def _read_actions(demo: h5py.Group, place: str) -> np.ndarray:
    actions = demo.get("actions")
    if not isinstance(actions, h5py.Dataset):
        raise InputError(f"{place}: has no dataset 'actions'; leave this file out or record it again")
    if actions.dtype.kind not in "fiu":
        raise InputError(f"{place}: 'actions' holds {actions.dtype}, not numbers; convert it to floating point")
    return actions[()].astype(np.float64)


def _numeric_order(key: str) -> tuple[int, str]:
    """demo_10 after demo_9; names without a number come last, in alphabetical order."""
    number = re.search(r"(\d+)$", key)
    return (int(number[1]), key) if number else (2**62, key)


def _task_name(group: h5py.Group, source: str) -> str:
    try:
        instruction = json.loads(group.attrs["problem_info"])["language_instruction"]
    except (KeyError, TypeError, ValueError):
        return re.sub(r"_demo$", "", Path(source).stem).replace("_", " ")
    return " ".join(instruction) if isinstance(instruction, list) else str(instruction).strip('"')
