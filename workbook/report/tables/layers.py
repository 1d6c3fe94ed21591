"""Tables of what each RFSQ layer gets, says and is worth."""

from __future__ import annotations

import math

from workbook.common.numbers import number
from workbook.common.table import Table
from workbook.evaluation.evidence import Evidence
from workbook.report.tables.comparison import with_interval
from workbook.report.text import words
from workbook.report.text.codecs import title
from workbook.verdict.criteria import DEPLOYABLE, GUIDES, NAIVE

TOPIC = "layers"


def layers_table(run: Evidence) -> Table:
    """Per layer: residual std, entropy, and error of the prefix that ends there, naive beside the two robust ones."""
    text, layers, shown = words(TOPIC), run.layers, (NAIVE, GUIDES, DEPLOYABLE)
    rows = [[f"L{k}"] for k in range(layers.count)]
    for codec in shown:
        std, entropy = (layers.mean(codec, column) for column in ("residual_std", "entropy_bits"))
        prefixes, dead = layers.prefix_mse(codec), layers.dead(codec)
        for k, row in enumerate(rows):
            row += [number(float(std[k])), text.entropy(entropy[k], k in dead), number(prefixes[k].mean)]
    return Table(text.sentences("layers_header", [title(codec) for codec in shown]), rows, text.layers_note)


def layers_needed_table(run: Evidence) -> Table:
    """What each prefix of the codec that can be deployed costs and leaves."""
    prefixes = enumerate(run.layers.prefix_mse(DEPLOYABLE), 1)
    rows = [
        [f"{k}", f"{run.scores.cost(DEPLOYABLE, f'layers={k}')['bits']:,.0f}", with_interval(mse)]
        for k, mse in prefixes
    ]
    return Table(words(TOPIC).needed_header, rows)


def left_over_table(run: Evidence) -> Table:
    """What the last naive layer leaves, beside the std of what is uniform within half a grid step."""
    measured = float(run.layers.mean(NAIVE, "residual_std")[-1])
    step = 2 / (run.scores.cost(NAIVE)["vocabulary"] - 1)
    said = words(TOPIC)
    return Table(said.left_over_header, [[said.left_over, f"{measured:.4f}", f"{step / math.sqrt(12):.4f}"]])
