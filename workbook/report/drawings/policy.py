"""Errors of small policies, offline."""

from __future__ import annotations

from math import inf

from matplotlib.ticker import MaxNLocator

from workbook.codecs.catalogue import catalogue
from workbook.evaluation.evidence import Evidence
from workbook.evaluation.policy.evidence import FIXED_SCALE, NAIVE
from workbook.evaluation.policy.network import RULES
from workbook.report.drawings import WITHOUT_TOKENS, Dot, Drawing, dots
from workbook.report.text import words
from workbook.report.text.codecs import title

MOST_CODECS = 4


def at_two_rules(run: Evidence) -> Drawing:
    """Error of the regression, and of a few codecs' policies by parallel argmax and by the best rule; the least on top.

    Of the codecs those that the questions are about, and then the best: tables have the others.
    """
    said, policy = words("policy"), run.policy
    regression, asked = policy.regression(), {policy.of(NAIVE), policy.new_codec}
    by_error = sorted(policy.codecs, key=lambda codec: policy.best_error(codec).mean or inf)
    shown = list(dict.fromkeys([policy.of(NAIVE), policy.new_codec, policy.of(FIXED_SCALE), *by_error]))[:MOST_CODECS]
    found = [(said.regression, regression, WITHOUT_TOKENS, False)]
    for codec in shown:
        best = policy.best_rule(codec)
        for rule in dict.fromkeys((best, RULES[0])):
            label = words("decision").with_rule(title(*codec, briefly=True), said.rule_labels[rule])
            colour = catalogue()[codec.codec].colour
            found.append((label, policy.error(codec, rule), colour, codec in asked and rule == best))
    rows = [
        Dot(label, mse.mean, mse.mean if mse.low is None else mse.low, mse.mean if mse.high is None else mse.high,
            words("decision").mse(mse.mean), colour, strong)
        for label, mse, colour, strong in found
        if mse.mean is not None
    ]  # fmt: skip
    rows.sort(key=lambda row: row.value)
    ticks = [(tick, f"{tick:g}") for tick in MaxNLocator(4).tick_values(0, max(row.high for row in rows))]
    gain = policy.contrasts()["new_for_naive"].mean
    heading = words("decision").offline_title(title(*policy.new_codec), gain)
    return dots(rows, ticks, heading, words("decision").offline_axis, regression.mean)
