"""What codecs and their training take, as `python -m benchmarks` measured it once, for docs/figures/speed.md."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from workbook.common.paths import REPOSITORY
from workbook.common.table import Table

MEASURED = REPOSITORY / "docs" / "benchmarks.json"
PARTS = ("network", "codecs", "training", "growth")
SHOWN_BATCHES = {"network": (4096,), "codecs": (1, 4096)}  # of the others all
HEADER = ("what", "batch, chunks", "CPU time, ms", "ratio", "to")


def speed_table(part: str, path: Path = MEASURED) -> Table:
    """The rows of one part, as in the file that the command wrote with --out."""
    rows = json.loads(path.read_text(encoding="utf8"))["rows"]
    batches = SHOWN_BATCHES.get(part)
    shown = [row for row in rows if row["part"] == part and (batches is None or row["batch"] in batches)]
    if part == "codecs":
        shown = [row for row in shown if row["what"].endswith("round trip")]
    return Table(HEADER, [_cells(row) for row in shown])


def _cells(row: Mapping[str, Any]) -> list[str]:
    return [
        row["what"], f"{row['batch']:,}", f"{1000 * row['seconds']:,.3g}", f"{row['ratio']:.2f}", row["against"],
    ]  # fmt: skip
