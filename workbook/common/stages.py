"""The files between the notebooks: each stage writes one, and it names the one that it was made from."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from pathlib import Path
from typing import Any

from workbook.common import provenance
from workbook.common.errors import InputError
from workbook.common.paths import OutputFolder, replacing

# stage: the notebook that writes it
STAGES = {
    "data": "01_data",
    "training": "02_train_robust",
    "comparison": "03_compare",
    "rates": "03_compare",
    "option_b": "03_compare",
    "residuals": "04_residual_analysis",
    "phase2": "04_residual_analysis",
    "replay": "05_replay",
}
OPTIONAL = "replay"  # the only one that results.json can do without: it needs a simulator


def write_json(path: Path, content: Any) -> None:
    """Write JSON whole or not at all; NaN and infinities, which JSON lacks, become null."""
    path.parent.mkdir(exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(_without_nan(content), indent=1, allow_nan=False) + "\n", encoding="utf8")


def write_stage(out: OutputFolder, name: str, parameters: dict[str, Any], content: dict[str, Any]) -> dict[str, Any]:
    """Write a stage file, tied to the stage before it by that file's hash; returns the content.

    Results and reports of an earlier run go, for they no longer follow from what lies beside them.
    """
    out.results.unlink(missing_ok=True)
    shutil.rmtree(out.reports, ignore_errors=True)
    before = _stage_before(name)
    document = {
        "stage": name,
        "made_from": None if before is None else _hash(stage_path(out, before)),
        "parameters": parameters,
        "provenance": provenance.collect(),
        "content": content,
    }
    write_json(stage_path(out, name), document)
    return content


def read_stage(out: OutputFolder, name: str) -> dict[str, Any]:
    """The content of a stage file.

    Raises:
        InputError: the file is not there, or was made from another run of an earlier stage.
    """
    return read_document(out, name)["content"]


def read_document(out: OutputFolder, name: str) -> dict[str, Any]:
    """A whole stage file: 'parameters', 'provenance', 'content'; checked as in `read_stage`."""
    path = stage_path(out, name)
    if not path.exists():
        raise InputError(f"{path}: not there yet; run {STAGES[name]} with the same `out` first")
    try:
        document = json.loads(path.read_text(encoding="utf8"))
    except ValueError:
        raise InputError(f"{path}: damaged; run {STAGES[name]} again") from None
    before = _stage_before(name)
    if before is not None:
        read_document(out, before)
        if document["made_from"] != _hash(stage_path(out, before)):
            raise InputError(f"{path}: was made before the newest run of {STAGES[before]}; run {STAGES[name]} again")
    return document


def read_optional(out: OutputFolder) -> dict[str, Any] | None:
    """The whole stage file that need not be there, or None.

    Raises:
        InputError: it is there, but damaged, or older than the stages before.
    """
    return read_document(out, OPTIONAL) if stage_path(out, OPTIONAL).exists() else None


def _stage_before(name: str) -> str | None:
    names = list(STAGES)
    position = names.index(name)
    return names[position - 1] if position else None


def stage_path(out: OutputFolder, name: str) -> Path:
    return out.stages / f"{name}.json"


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
