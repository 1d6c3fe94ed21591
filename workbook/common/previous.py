"""A finished run is kept before one with other settings takes its place in the output folder."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import Any

from workbook.common.errors import InputError
from workbook.common.paths import PARTS, OutputFolder
from workbook.common.stages import ROWS, table_path

Settings = Mapping[str, Any]  # the parameters of a stage, with `dataset_sha256` where it reads the data


def keep_finished_run(out: OutputFolder, stages: Mapping[str, Settings | None]) -> Path | None:
    """Copy a finished run to OUT.previous, OUT.previous-2, ... where its stages had other settings than these.

    stages: those that are about to be written; None for one that goes and is not made anew. The run stays where it is,
    for later stages read what earlier ones wrote. Finished replays and models in training are not copied: nothing
    removes them.

    Returns:
        The folder with the copy, of this call or an earlier one; None where there was nothing to keep.

    Raises:
        InputError: the folder beside cannot be written.
    """
    if _marks(out) == [None, None] or not _differ(out, stages):
        return None
    names = (f"{out.root.name}.previous{f'-{number}' if number > 1 else ''}" for number in count(1))
    for path in map(out.root.with_name, names):
        if not path.exists():
            return _copy(out, path)
        if _marks(OutputFolder(path)) == _marks(out):
            return path
    raise AssertionError("names do not end")


def _marks(out: OutputFolder) -> list[bytes | None]:
    """What tells a finished run from every other, for it holds when it was made."""
    files = (out.results, out.reports / "index.html")
    return [path.read_bytes() if path.is_file() else None for path in files]


def _differ(out: OutputFolder, stages: Mapping[str, Settings | None]) -> bool:
    """Whether stages of the finished run had other settings; true where it does not say which."""
    try:
        provenance = json.loads(out.results.read_text(encoding="utf8"))["provenance"]
        finished = provenance["parameters"]
        finished["data"] = finished["data"] | {"dataset_sha256": provenance["dataset_sha256"]}
    except (OSError, ValueError, TypeError, KeyError):
        return True
    return any(stages[name] != settings for name, settings in finished.items() if name in stages)


def _copy(out: OutputFolder, path: Path) -> Path:
    """Copy the parts of a run whole or not at all."""
    files = [out.results, *(table_path(out, name) for name in ROWS)]
    try:
        with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as name:
            copy = Path(name) / "copy"
            copy.mkdir()
            for folder in (out.root / part for part in PARTS):
                if folder.is_dir():
                    shutil.copytree(folder, copy / folder.name)
            for file in files:
                if file.is_file():
                    shutil.copy2(file, copy)
            copy.rename(path)
    except OSError as error:
        raise InputError(
            f"{path}: the finished run in {out.root} cannot be kept here ({error.strerror or error}); "
            "name another folder with `out`"
        ) from None
    return path
