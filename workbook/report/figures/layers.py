"""Figures of 04_residual_analysis."""

from __future__ import annotations

from typing import Any

import numpy as np
import seaborn as sns

from rfsq_robust import CONDITIONINGS
from workbook.common import targets
from workbook.report.figures.style import COLOURS, LABELS, LINES, THRESHOLD, Plot, canvas

Evidence = dict[str, Any]


def residual_std(residuals: Evidence) -> Plot:
    """Std of the residual that enters each layer, with the ranges that the guide expects of naive."""
    with canvas(height=4.2) as c:
        axis = c.axes[0]
        layers = len(residuals["none"]["prefix_mse"])
        for name in CONDITIONINGS:
            seeds = np.array(residuals[name]["residual_std"])[:, :layers]
            for seed in seeds:
                axis.plot(seed, color=COLOURS[name], alpha=0.25, linewidth=0.8)
            axis.plot(seeds.mean(axis=0), LINES[name], color=COLOURS[name], label=LABELS[name], markersize=4)
        for i, (span, (low, high)) in enumerate(targets.EXPECTED_NAIVE_STD.items()):
            if span[0] >= layers:
                continue
            label = "guide expects of naive" if i == 0 else None
            last = min(span[-1], layers - 1)
            axis.fill_between([span[0] - 0.4, last + 0.4], low, high, color="0.85", zorder=0, label=label)
        axis.set_yscale("log")
        axis.set_xticks(range(layers), [f"L{k}" for k in range(layers)])
        axis.set_xlabel("layer")
        axis.set_ylabel("std of the residual that enters\nthe layer (latent units)")
        axis.legend(fontsize=8, ncols=2)
        naive = np.mean(residuals["none"]["residual_std"], axis=0)
        scale = np.mean(residuals["scale"]["residual_std"], axis=0)
        c.title = (
            f"The std of the residual that enters the last layer is {naive[layers - 1]:.2g} for naive "
            f"and {scale[layers - 1]:.1g} for the fixed scale"
        )
        c.description = "Residual std by layer for each conditioning, on a logarithmic axis."
        return c.finish()


def entropies(residuals: Evidence) -> Plot:
    """Mean entropy of the codes of each layer."""
    table = np.array([np.mean(residuals[name]["entropy"], axis=0) for name in CONDITIONINGS])
    layers = table.shape[1]
    dead = residuals["none"]["dead_layers"]
    with canvas(height=3.2) as c:
        axis = c.axes[0]
        sns.heatmap(
            table, ax=axis, annot=True, fmt=".2f", cmap="Blues", vmin=0, vmax=residuals["none"]["entropy_max"],
            cbar_kws={"label": "bits a code"}, xticklabels=[f"L{k}" for k in range(layers)],
            yticklabels=[LABELS[name] for name in CONDITIONINGS],
        )  # fmt: skip
        axis.tick_params(axis="y", rotation=0)
        axis.set_xlabel(f"layer ({residuals['none']['entropy_max']:.2f} bits are the most a code can carry)")
        c.title = f"{len(dead)} of {layers} naive layers say nothing"
        c.description = "Entropy in bits of the codes of each layer, for every conditioning."
        return c.finish()


def prefixes(residuals: Evidence) -> Plot:
    """Error after the first k layers, and what layer k takes away."""
    with canvas(1, 2, height=4.0) as c:
        left, right = c.axes
        layers = len(residuals["none"]["prefix_mse"])
        for name in CONDITIONINGS:
            means = np.array([prefix["mean"] for prefix in residuals[name]["prefix_mse"]])
            label = LABELS[name] + (" (with statistics)" if residuals[name]["prefix_needs_statistics"] else "")
            left.plot(range(1, layers + 1), means, LINES[name], color=COLOURS[name], label=label, markersize=4)
            share = (means[:-1] - means[1:]) / means[:-1]
            right.plot(range(2, layers + 1), share, LINES[name], color=COLOURS[name], markersize=4)
        left.axhline(targets.MSE_BELOW, **THRESHOLD)
        left.text(layers, targets.MSE_BELOW * 1.1, f"target {targets.MSE_BELOW:g}", ha="right", fontsize=8)
        left.set_yscale("log")
        left.set_xlabel("layers decoded")
        left.set_ylabel("held-out MSE\n(normalised units squared)")
        right.legend(handles=left.get_lines()[:-1], fontsize=8)
        right.set_xlabel("layer added")
        right.set_ylabel("share of the error that it takes away")
        right.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        enough = residuals["scale"]["layers_enough"]
        c.title = f"The fixed scale comes within 5 % of its final error with {enough} of {layers} layers"
        c.description = "Left: error after each prefix of layers. Right: share of the error that each layer removes."
        return c.finish()
