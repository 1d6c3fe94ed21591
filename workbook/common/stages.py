"""The files between the notebooks: each stage writes one, and it names the one that it was made from."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from workbook.common import provenance
from workbook.common.errors import InputError
from workbook.common.paths import OutputFolder, replacing

# stage: the notebook that writes it
STAGES = {
    "data": "01_data",
    "training": "02_train_robust",
    "comparison": "03_compare",
    "policy": "04_residual_analysis",
    "replay": "05_policy_in_the_loop",
    "loop": "05_policy_in_the_loop",
    "predictions": "04_residual_analysis",
}
BESIDE = {"predictions": "policy"}  # stage: the one that it was made from; no other is made from it
ROWS = ("scores", "probe", "replays", "policies")  # what lies beside results.json; all other tables lie in tables/
NOT_ASKED_FOR, OUT_OF_DATE = "not_asked_for", "out_of_date"  # why an optional stage is none, where it does not say it
# Those that results.json can do without: they need a simulator, or a file of the user's own.
OPTIONAL = ("replay", "loop", "predictions")


def write_json(path: Path, content: Any) -> None:
    """Write JSON whole or not at all; NaN and infinities, which JSON lacks, become null."""
    path.parent.mkdir(exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(_without_nan(content), indent=1, allow_nan=False) + "\n", encoding="utf8")


def write_stage(
    out: OutputFolder,
    name: str,
    parameters: dict[str, Any],
    content: dict[str, Any],
    tables: Mapping[str, pd.DataFrame] | None = None,
) -> dict[str, Any]:
    """Write a stage: its tables as parquet, and its file, tied to the stage before and to the tables by their hashes.

    Results and reports of an earlier run go, for they no longer follow from what lies beside them. Returns the content.
    """
    out.results.unlink(missing_ok=True)
    shutil.rmtree(out.reports, ignore_errors=True)
    chain = [each for each in STAGES if each not in BESIDE]
    later = chain[chain.index(name) :] if name in chain else [name]
    for notebook in (STAGES[each] for each in later):  # executed by an earlier run
        (out.root / "notebooks" / f"{notebook}.ipynb").unlink(missing_ok=True)
    _write_document(out, name, {"parameters": parameters, "provenance": provenance.collect()}, content, tables or {})
    return content


def _write_document(
    out: OutputFolder, name: str, made: dict[str, Any], content: dict[str, Any], tables: Mapping[str, pd.DataFrame]
) -> None:
    before = _stage_before(name)
    document = {
        "stage": name,
        "made_from": None if before is None else _hash(stage_path(out, before)),
        "tables": {table: write_table(out, table, rows) for table, rows in tables.items()},
        **made,
        "content": content,
    }
    write_json(stage_path(out, name), document)


def pool_stage(
    out: OutputFolder, name: str, documents: Sequence[dict[str, Any]], content: dict[str, Any],
    tables: Mapping[str, pd.DataFrame],
) -> None:  # fmt: skip
    """Write a stage of several runs, of which the first is in `out`: with its parameters and the last one's times."""
    made = {"parameters": documents[0]["parameters"], "provenance": documents[-1]["provenance"]}
    _write_document(out, name, made, content, tables)


def table_path(out: OutputFolder, name: str) -> Path:
    return (out.root if name in ROWS else out.tables) / f"{name}.parquet"


def write_table(out: OutputFolder, name: str, rows: pd.DataFrame) -> str:
    """Write a table whole or not at all; returns its hash.

    Figures are stored with their bytes apart, which packs random mantissas a third smaller.
    """
    path = table_path(out, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    figures = [column for column in rows if rows[column].dtype.kind == "f"]
    with replacing(path) as temporary:
        pq.write_table(
            pa.Table.from_pandas(rows, preserve_index=False), temporary, compression="zstd", compression_level=19,
            use_dictionary=[column for column in rows if column not in figures],
            column_encoding=dict.fromkeys(figures, "BYTE_STREAM_SPLIT"),
        )  # fmt: skip
    return _hash(path)


def read_table(out: OutputFolder, name: str) -> pd.DataFrame:
    """A table, as the stage that names it wrote it.

    Raises:
        InputError: no stage names it, or one of the stages up to it is missing, changed or older than the one before.
    """
    for stage in STAGES:
        if stage_path(out, stage).exists() and name in read_document(out, stage).get("tables", {}):
            return pd.read_parquet(table_path(out, name))
    raise InputError(f"{table_path(out, name)}: no notebook has written it; run ./run_all.sh --out {out.root} first")


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
    for table, wanted in document.get("tables", {}).items():
        file = table_path(out, table)
        if not file.is_file() or _hash(file) != wanted:
            raise InputError(f"{file}: not there, or not as {STAGES[name]} wrote it; run {STAGES[name]} again")
    return document


def read_optional(out: OutputFolder, name: str) -> dict[str, Any] | None:
    """The whole file of a stage that need not be there, or None.

    Raises:
        InputError: it is there, but damaged, or older than the stages before.
    """
    return read_document(out, name) if stage_path(out, name).exists() else None


def read_simulated(out: OutputFolder, name: str, tables: Sequence[str]) -> tuple[dict[str, Any], list[pd.DataFrame]]:
    """Values and tables of a stage that need not be there; then 'not_run' says why there are no tables, '' else.

    Of the tables, those that it did not write are left out; they stand last.
    """
    try:
        document = read_optional(out, name)
    except InputError:
        return {"not_run": OUT_OF_DATE}, []
    values = {"not_run": NOT_ASKED_FOR} if document is None else document["content"]
    if document is None or values["not_run"]:
        return values, []
    return values, [pd.read_parquet(table_path(out, table)) for table in tables if table in document["tables"]]


def _stage_before(name: str) -> str | None:
    if name in BESIDE:
        return BESIDE[name]
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
