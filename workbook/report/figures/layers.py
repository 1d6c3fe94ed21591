"""Figures of 04_residual_analysis."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import seaborn as sns

from workbook.codecs.catalogue import Entry, catalogue
from workbook.common import targets
from workbook.evaluation.evidence import Evidence
from workbook.evaluation.layers import WITH_STATISTICS, Layers
from workbook.report.figures.style import THRESHOLD, Plot, canvas
from workbook.report.text import words
from workbook.report.text.codecs import title
from workbook.verdict.criteria import DEPLOYABLE, NAIVE

TOPIC = "layers"


def _analysed(layers: Layers) -> list[Entry]:
    """Codecs with layers, in the order of the catalogue."""
    names = set(layers.rows.codec)
    return [entry for entry in catalogue().values() if entry.name in names]


def _look(entry: Entry) -> dict[str, Any]:
    """A dashed line over a solid one, for both are seen where they are the same."""
    return {"color": entry.colour, "markersize": 4, "zorder": 3 if "--" in entry.line else 2}


def residual_std(run: Evidence) -> Plot:
    """Std of the residual that enters each layer, with the ranges that the guide expects of naive."""
    layers, count, text = run.layers, run.layers.count, words(TOPIC)
    with canvas(height=4.2) as c:
        axis = c.axes[0]
        for entry in _analysed(layers):
            seeds = layers.per_seed(entry.name, "residual_std")[:, :count]
            for seed in seeds:
                axis.plot(seed, color=entry.colour, alpha=0.25, linewidth=0.8)
            mean = seeds.mean(axis=0)
            axis.plot(mean, entry.line, label=title(entry.name), **_look(entry))
        for i, (span, (low, high)) in enumerate(targets.EXPECTED_NAIVE_STD.items()):
            if span[0] >= count:
                continue
            last = min(span[-1], count - 1)
            label = text.expected if i == 0 else None
            axis.fill_between([span[0] - 0.4, last + 0.4], low, high, color="0.85", zorder=0, label=label)
        axis.set_yscale("log")
        axis.set_xticks(range(count), [f"L{k}" for k in range(count)])
        axis.set_xlabel(text.layer_axis)
        axis.set_ylabel(text.std_axis)
        axis.legend(fontsize=8, ncols=2)
        c.title = text.std_title(*(layers.mean(codec, "residual_std")[count - 1] for codec in (NAIVE, DEPLOYABLE)))
        c.description = text.std_alt
        return c.finish()


def entropies(run: Evidence) -> Plot:
    """Mean entropy of the codes of each layer."""
    layers, text = run.layers, words(TOPIC)
    shown, most = _analysed(layers), math.log2(run.scores.cost(NAIVE)["vocabulary"])
    with canvas(height=3.2) as c:
        axis = c.axes[0]
        sns.heatmap(
            np.array([layers.mean(entry.name, "entropy_bits") for entry in shown]),
            ax=axis, annot=True, fmt=".2f", cmap="Blues", vmin=0, vmax=most, cbar_kws={"label": text.bits_a_code},
            xticklabels=[f"L{k}" for k in range(layers.count)], yticklabels=[title(entry.name) for entry in shown],
        )  # fmt: skip
        axis.tick_params(axis="y", rotation=0)
        axis.set_xlabel(text.entropy_axis(most))
        c.title = text.entropies_title(len(layers.dead(NAIVE)), layers.count)
        c.description = text.entropies_alt
        return c.finish()


def prefixes(run: Evidence) -> Plot:
    """Error after the first k layers, and what layer k takes away."""
    layers, count, text = run.layers, run.layers.count, words(TOPIC)
    with canvas(1, 2, height=4.0) as c:
        left, right = c.axes
        for entry in _analysed(layers):
            means = np.array([prefix.mean for prefix in layers.prefix_mse(entry.name)])
            own = title(entry.name)
            label = text.with_statistics(own) if entry.name in WITH_STATISTICS else own
            left.plot(range(1, count + 1), means, entry.line, label=label, **_look(entry))
            share = (means[:-1] - means[1:]) / means[:-1]
            right.plot(range(2, count + 1), share, entry.line, **_look(entry))
        right.legend(handles=left.get_lines(), fontsize=8)
        left.axhline(targets.MSE_BELOW, **THRESHOLD)
        left.text(count, targets.MSE_BELOW * 1.1, text.target(targets.MSE_BELOW), ha="right", fontsize=8)
        left.set_yscale("log")
        left.set_xlabel(text.decoded_axis)
        left.set_ylabel(text.mse_axis)
        right.set_xlabel(text.added_axis)
        right.set_ylabel(text.share_axis)
        right.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        c.title = text.prefixes_title(layers.enough(DEPLOYABLE), count)
        c.description = text.prefixes_alt
        return c.finish()
