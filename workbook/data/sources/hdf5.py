"""Opens HDF5 files to be read, on file systems without locks too, and says what prevents it."""

from __future__ import annotations

import importlib
from contextlib import suppress
from functools import cache
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from workbook.common.errors import InputError
from workbook.data.sources.files import UnreadableError, check_is_file, one_line, or_refuse

OPEN_FOR_WRITING = "already open for write"  # HDF5's words for the mark that a writer sets in files of newer formats
NO_LOCK = "unable to lock"


def opened(path: Path) -> h5py.File:
    """The file, open for reading. Reading needs no lock, so a file system that has none (NFS, Lustre) is no obstacle.

    Raises:
        UnreadableError: no HDF5 file, damaged, or being written by another process.
        InputError: no permission, or locks that were asked for where there are none.
    """
    check_is_file(path)
    _register_filters()
    try:
        return h5py.File(path, "r")
    except BlockingIOError:
        raise UnreadableError(
            f"{path}: another process has it open for writing; leave it out until that is done, or, if nothing writes "
            "to it, set HDF5_USE_FILE_LOCKING=FALSE"
        ) from None
    except PermissionError:
        raise InputError(f"{path}: no permission to read it; fix its permissions") from None
    except (OSError, ValueError) as error:
        if NO_LOCK not in str(error):
            raise _refusal(path, error) from None
    try:
        return h5py.File(path, "r", locking=False)
    except (OSError, ValueError) as error:
        if NO_LOCK in str(error):
            raise InputError(
                f"{path}: the file system has no locks, which HDF5_USE_FILE_LOCKING asks for; leave that unset"
            ) from None
        raise _refusal(path, error) from None


def _refusal(path: Path, error: Exception) -> UnreadableError:
    if OPEN_FOR_WRITING in str(error):
        return UnreadableError(
            f"{path}: is marked as open for writing, by a process that writes it or one that broke off; leave it out "
            "until that is done, or clear the mark of one that broke off with h5clear -s"
        )
    return UnreadableError(
        f"{path}: not an HDF5 file, cut short, or open for writing elsewhere; download it again, or leave it out"
    )


@cache
def _register_filters() -> None:
    """Compressions that HDF5 lacks, where the package that has them is installed."""
    with suppress(ImportError):
        importlib.import_module("hdf5plugin")


def read_numbers(group: h5py.Group, name: str, place: str) -> NDArray[np.float64]:
    """A dataset of numbers as float64.

    Raises:
        UnreadableError: there is none, it holds other than numbers, or is damaged.
        InputError: it is compressed in a way that is not installed.
    """
    found = or_refuse(place, lambda: group.get(name))
    if not isinstance(found, h5py.Dataset) or found.shape is None:
        raise UnreadableError(f"{place}: has no dataset '{name}'; leave this file out or record it again")
    kind = or_refuse(place, lambda: found.dtype)
    if kind.kind not in "fiu":
        raise UnreadableError(f"{place}: '{name}' holds {kind}, not numbers; convert it to floating point")
    try:
        return or_refuse(place, lambda: found[()].astype(np.float64))
    except UnreadableError:
        lacking = or_refuse(place, lambda: _lacking_filters(found))
        if not lacking:
            raise
        raise InputError(
            f"{place}: '{name}' is compressed with {', '.join(lacking)}, which is not installed here; "
            "give HDF5 its filters: pip install hdf5plugin"
        ) from None


def _lacking_filters(dataset: h5py.Dataset) -> list[str]:
    made_with = dataset.id.get_create_plist()
    filters = [made_with.get_filter(number) for number in range(made_with.get_nfilters())]
    return [
        one_line(name.decode("utf8", "replace")) or f"filter {code}"
        for code, _, _, name in filters
        if not h5py.h5z.filter_avail(code)
    ]
