"""Tables of what tokens cost the policy that predicts them, and Phase 3."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from workbook.common.numbers import number, percent
from workbook.common.table import Table
from workbook.evaluation.evidence import Evidence
from workbook.evaluation.phase3 import DRAFT_COST, Phase3, phase3, speed_up
from workbook.evaluation.token_costs import THIRDS, TIMED
from workbook.report.text import words
from workbook.report.text.codecs import title

TOPIC = "token_costs"
# What runs tell since they measure it, and how it is written.
MORE: dict[str, Callable[[float], str]] = {
    **dict.fromkeys(THIRDS, number),
    "decodes": percent,
    **dict.fromkeys(TIMED, lambda milliseconds: f"{milliseconds:.2g}"),
}


def token_costs_table(run: Evidence) -> Table:
    """Every codec whose costs are told, in the order of the catalogue; means over seeds."""
    text, rows = words(TOPIC), []
    means = run.table("token_costs").groupby(["codec", "setting"], sort=False).mean(numeric_only=True)
    shown = [name for name in MORE if name in means]
    for (codec, setting), row in means.iterrows():
        dead = f" ({row.dead:,.0f})" if round(row.dead) else ""
        rows.append([
            title(codec, setting), f"{row.tokens:,.0f}{dead}", f"{row.words:,.1f}",
            *(f"{row[name]:,.0f}" for name in ("bits", "entropy_bits")), number(row.mse), number(row.mse_wrong),
            *(text.nothing if np.isnan(row[name]) else f"{row[name]:.2f}" for name in ("overlap", "border")),
            *(text.nothing if np.isnan(row[name]) else MORE[name](row[name]) for name in shown),
        ])  # fmt: skip
    truth = means.border_truth.dropna()
    header = [*text.costs_header, *(text.costs_more[name] for name in shown)]
    note = text.costs_note(float(truth.iloc[0]) if len(truth) else None)
    return Table(header, rows, f"{note} {text.costs_more_note()}" if shown else note)


def phase3_table(run: Evidence) -> Table:
    """Passes of a network a chunk, and what speculative decoding saves."""
    text = words(TOPIC)
    return Table(text.phase3_header, [_phase3_row(one) for one in phase3(run.policy)], text.phase3_note(DRAFT_COST))


def _phase3_row(one: Phase3) -> list[str]:
    text, share = words(TOPIC), words("phrases").share
    found = one.acceptance
    shares = [] if found is None else [found.own, found.other, found.left]
    drafted = [*map(share, shares), *(f"{speed_up(each):.2f}" for each in shares[::2])] or [text.nothing] * 5
    return [title(*one.codec), f"{one.layers}", f"{one.tokens:,}", number(one.perplexity), *drafted]
