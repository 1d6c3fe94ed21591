"""Tables of what the user's own Phase 2 predicts."""

from __future__ import annotations

import pandas as pd

from workbook.common.numbers import number
from workbook.common.table import Table
from workbook.evaluation.evidence import Evidence
from workbook.evaluation.policy.evidence import CODEC
from workbook.evaluation.predictions.evidence import ACCEPTANCES, METRICS
from workbook.report.text import words

NONE = "-"


def rules_table(run: Evidence) -> Table:
    """Error of every decode rule, and how much less it is than by the pipeline's own."""
    found, said = run.predictions, words("predictions")
    if not found.given:
        return Table(said.rules_header, [])
    with_interval, share = words("phrases").with_interval, words("phrases").share
    rows = [[said.rules[CODEC], with_interval(found.error(CODEC)), *[NONE] * (len(METRICS) + 1)]]
    for number_of, rule in enumerate(found.rules):
        gains = [said.gain(found.gain(rule, metric)) if number_of else NONE for metric in METRICS]
        rows.append([said.rules[rule], with_interval(found.error(rule)), *gains, share(found.codec_share(rule).mean)])
    return Table(said.rules_header, rows, said.rules_note)


def layers_table(run: Evidence) -> Table:
    """Accuracy and calibration of each layer's tokens, and what of the main model's is the draft's."""
    found, said = run.predictions, words("predictions")
    if not found.given:
        return Table(said.layers_header, [])
    shares = found.acceptances.groupby("layer").apply(_weighed)
    rows = []
    for model in ("main", "draft"):
        for row in found.of_model(model).fillna({"copied": False}).itertuples():
            told = shares.loc[row.layer] if model == "main" and row.layer in shares.index else {}
            figures = (row.accuracy, row.majority_share, row.confidence, row.calibration_error)
            rows.append([
                said.models[model], f"{row.layer}", *map(said.share, figures), f"{row.cross_entropy_bits:.2f}",
                number(row.mse), *(said.share(told.get(name)) for name in ACCEPTANCES), said.kind(row.dead, row.copied),
            ])  # fmt: skip
    return Table(said.layers_header, rows, said.layers_note)


def _weighed(rows: pd.DataFrame) -> pd.Series:
    """Means of the shares over moments."""
    shares = rows[list(ACCEPTANCES)]
    return shares.mul(rows.moments, axis=0).sum(min_count=1) / rows.moments.sum()
