"""What the embedded recordings say of themselves, for the sample's data card."""

from __future__ import annotations

import json
from pathlib import Path

import h5py

from workbook.common.paths import SAMPLE
from workbook.common.table import Table


def recordings_table(folder: Path = SAMPLE) -> Table:
    """Task, successes kept of the tries that were made, and steps, from the attributes of every file below a folder."""
    rows, versions = [], {}
    for path in sorted(folder.rglob("*.hdf5")):
        with h5py.File(path) as file:
            said = dict(file["data"].attrs)
        suite = str(said["bddl_file_name"]).partition("/")[0]
        text = json.loads(said["problem_info"])["language_instruction"]
        rows.append([suite, text, f"{said['num_demos']} of {said['tries']}", f"{said['total']:,}"])
        versions[said["versions"]] = ", ".join(f"{name} {of}" for name, of in json.loads(said["versions"]).items())
    note = f"Recorded with {' and with '.join(versions.values())}."
    return Table(["suite", "task", "kept of tries", "steps"], rows, note)
