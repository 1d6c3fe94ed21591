"""Tables of 01_data and of the sample's data card."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from workbook.common.numbers import percent
from workbook.common.paths import SAMPLE
from workbook.common.table import Table
from workbook.data.layout import ActionLayout
from workbook.data.sources.hdf5 import opened
from workbook.evaluation.evidence import Evidence
from workbook.report.text import words

STATISTICS = ("mean", "std", "min", "max")


def statistics_table(run: Evidence) -> Table:
    """Per-dimension statistics, beside LIBERO's published ones where the layout is LIBERO's."""
    say, layout = words("data"), ActionLayout.parse(run.data["layout"])
    columns = [*STATISTICS, *(f"published_{key}" for key in STATISTICS if layout.is_libero)]
    rows = []
    for i, (_, row) in enumerate(run.table("dimensions").iterrows()):
        shares = [row.lattice_share, row.zero_share if i in layout.motion else np.nan]
        rows.append([
            row.dimension,
            *(f"{row[column]:.3f}" for column in columns),
            *("-" if np.isnan(share) else percent(share) for share in shares),
            f"{row.clipped_steps:,}",
        ])  # fmt: skip
    published = say.published_header if layout.is_libero else []
    header = ["", *say.statistics_header, *published, *say.shares_header]
    return Table(header, rows, say.published_note if layout.is_libero else say.statistics_note)


def normaliser_table(run: Evidence) -> Table:
    """What the normaliser maps to -1 and 1, fitted on the train episodes."""
    say = words("data")
    rows = [[row.dimension, f"{row.low:.4f}", f"{row.high:.4f}"] for row in run.table("dimensions").itertuples()]
    return Table(say.normaliser_header, rows, say.normaliser_note)


def tasks_table(run: Evidence) -> Table:
    return Table(words("data").tasks_header, _tasks(run))


def counts_table(run: Evidence) -> Table:
    """The same with a row for all of them."""
    say = words("data")
    return Table(say.tasks_header, [*_tasks(run), [say.all_tasks, say.all_episodes(run.data)]])


def _tasks(run: Evidence) -> list[list[str]]:
    return [[row.task, f"{row.episodes}"] for row in run.table("tasks").itertuples()]


def parts_table(run: Evidence) -> Table:
    """What the normaliser, which saw the train part alone, makes of each part."""
    say, card = words("data"), run.data
    rows = [
        [say.parts[part], f"{card['split'][part]}", f"{least:.3f}", f"{greatest:.3f}"]
        for part, (least, greatest) in card["normalised"].items()
    ]
    return Table(say.parts_header, rows, say.parts_note(card["chunks"]))


def left_out_table(run: Evidence) -> Table:
    """Every episode or file that is not used, and why."""
    say = words("data")
    return Table(say.left_out_header, [[one["place"], say.why[one["why"]]] for one in run.data["left_out"]])


def recordings_table(folder: Path = SAMPLE) -> Table:
    """Task, successes kept of the tries that were made, and steps, from the attributes of every file below a folder."""
    say, rows, versions = words("data"), [], {}
    for path in sorted(folder.rglob("*.hdf5")):
        with opened(path) as file:
            said = dict(file["data"].attrs)
        suite = str(said["bddl_file_name"]).partition("/")[0]
        text = json.loads(said["problem_info"])["language_instruction"]
        rows.append([suite, text, say.tries(said["num_demos"], said["tries"]), f"{said['total']:,}"])
        versions[said["versions"]] = ", ".join(f"{name} {of}" for name, of in json.loads(said["versions"]).items())
    return Table(say.recordings_header, rows, say.recordings_note(list(versions.values())))
