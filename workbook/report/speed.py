"""What codecs, their training and whole runs take, as it was measured once, for docs/figures/speed.md.

`python -m benchmarks` measures codecs and training; `python -m workbook.report.speed OUT` notes how long a run took.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from workbook.common.paths import REPOSITORY, OutputFolder, expand, replacing
from workbook.common.table import Table
from workbook.common.terminal import tell
from workbook.report.pages import finished_run

MEASURED = REPOSITORY / "docs" / "benchmarks.json"
RUNS = REPOSITORY / "docs" / "runs.json"
PARTS = ("network", "alike", "codecs", "training", "growth")
SHOWN_BATCHES = {"network": (4096,), "alike": (1, 4096), "codecs": (1, 4096)}  # of the others all
HEADER = ("what", "batch, chunks", "CPU time, ms", "ratio", "to")
RUNS_HEADER = ("command", "recordings", "steps", "cores", "minutes", "cut off and gone on with")
OWN_PATHS = ("--out", "--data")  # options of which nobody else has the value


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


def runs_table(path: Path = RUNS) -> Table:
    """From the data read to the last small policy; a pause does not count."""
    rows = [
        [
            f"`{run['command']}`", run["recordings"], f"{run['steps']:,}", str(run["cores"]),
            f"{run['seconds'] / 60:.1f}", "yes" if run["paused_seconds"] else "no",
        ]
        for run in json.loads(path.read_text(encoding="utf8"))
    ]  # fmt: skip
    return Table(RUNS_HEADER, rows)


def note_run(out: str, path: Path = RUNS) -> None:
    """Add a finished run to those that are told, in the place of one of the same command and number of steps.

    Raises:
        InputError: no finished run is there.
    """
    run = finished_run(OutputFolder(expand(out)))
    provenance, found = run.results["provenance"], json.loads(path.read_text(encoding="utf8")) if path.exists() else []
    noted = {
        "command": _without_paths(provenance["command"]),
        "recordings": "sample" if run.data["origin"]["name"] == "sample" else f"{run.data['episodes']:,} episodes",
        "steps": run.data["steps"],
        "cores": provenance["cores"],
        "seconds": provenance["run_seconds"],
        "paused_seconds": provenance.get("paused_seconds", 0),
        "code": provenance["code"],
    }
    kept = [each for each in found if (each["command"], each["steps"]) != (noted["command"], noted["steps"])]
    with replacing(path) as temporary:
        temporary.write_text(json.dumps([*kept, noted], indent=1) + "\n", encoding="utf8")


def _without_paths(command: str) -> str:
    words = shlex.split(command)
    named = {place + of for place, word in enumerate(words) if word in OWN_PATHS for of in (0, 1)}
    return shlex.join(word for place, word in enumerate(words) if place not in named)


def main(folders: Sequence[str]) -> int:
    def work() -> str:
        for out in folders:
            note_run(out)
        return f"noted: {', '.join(folders)}"

    return tell(work, str(RUNS))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
