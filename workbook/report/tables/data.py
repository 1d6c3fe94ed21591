"""Tables of 01_data."""

from __future__ import annotations

from typing import Any

from workbook.common.table import Table
from workbook.data.card import ALL_SUITES, published_statistics
from workbook.data.layout import ActionLayout

Card = dict[str, Any]
NORMALISER_NOTE = "Controller units, joints in their own; least and greatest value of the train part."
STATISTICS = ("mean", "std", "min", "max")


def statistics_table(card: Card) -> Table:
    """Per-dimension statistics, beside LIBERO's published ones where the layout is LIBERO's."""
    layout = ActionLayout.parse(card["layout"])
    pooled = published_statistics()[ALL_SUITES]
    rows = []
    for i, name in enumerate(layout.names):
        published = [f"{pooled[key][i]:.3f}" for key in STATISTICS] if layout.is_libero else []
        lattice = card["lattice_share"][i]
        zero = card["zero_share"][i] if i in layout.motion else None
        rows.append([
            name,
            *(f"{card['statistics'][key][i]:.3f}" for key in STATISTICS),
            *published,
            "-" if lattice is None or lattice != lattice else f"{lattice:.1%}",
            "-" if zero is None else f"{zero:.1%}",
            f"{card['clipping']['steps'][i]:,}",
        ])  # fmt: skip
    header = ["", *STATISTICS, *(["LIBERO mean", *STATISTICS[1:]] if layout.is_libero else [])]
    note = "Controller units; joints in their own."
    if layout.is_libero:
        note = "Controller units. LIBERO: published statistics of 1,693 demonstrations, no-op steps left out."
    return Table([*header, "on lattice", "exactly 0", "clipped"], rows, note)


def normaliser_table(card: Card) -> Table:
    """What the normaliser maps to -1 and 1, fitted on the train episodes."""
    bounds = card["normaliser"]
    names = ActionLayout.parse(card["layout"]).names
    rows = [[name, *(f"{bounds[end][i]:.4f}" for end in ("low", "high"))] for i, name in enumerate(names)]
    return Table(
        ["", "maps to -1", "maps to 1"],
        rows,
        NORMALISER_NOTE,
    )


def tasks_table(card: Card) -> Table:
    return Table(["task", "episodes"], [[task, f"{count}"] for task, count in card["tasks"].items()])
