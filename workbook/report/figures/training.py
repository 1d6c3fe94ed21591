"""Figures of 02_train_robust."""

from __future__ import annotations

from typing import Any

import numpy as np

from rfsq_robust import CONDITIONINGS
from workbook.common import targets
from workbook.common.wording import less_or_more
from workbook.report.figures.style import COLOURS, LABELS, THRESHOLD, Plot, canvas


def curves(training: dict[str, Any]) -> Plot:
    """Validation MSE of every model over the epochs, beside the guide's expectation."""
    with canvas(height=4.4) as c:
        axis = c.axes[0]
        for name in CONDITIONINGS:
            seeds = [run["curve"] for run in training["conditionings"][name]["runs"] if run["curve"]]
            if not seeds:
                continue
            epochs = np.arange(1, len(seeds[0]) + 1)
            for curve in seeds:
                axis.plot(epochs, curve, color=COLOURS[name], alpha=0.25, linewidth=0.8)
            style = "--" if name == "learned_scale" else "-"
            axis.plot(epochs, np.median(seeds, axis=0), style, color=COLOURS[name], label=LABELS[name], linewidth=1.8)
        expected = targets.EXPECTED_CURVE
        axis.plot(list(expected), list(expected.values()), "k^", markersize=7, label="guide expects (robust)")
        axis.axhline(targets.MSE_BELOW, label=f"target {targets.MSE_BELOW:g}", **THRESHOLD)
        axis.set_yscale("log")
        axis.set_xlabel("epoch")
        axis.set_ylabel("validation MSE from forward\n(normalised units squared)")
        axis.legend(fontsize=8, ncols=2)
        c.title = _curves_title(training)
        c.description = "Validation error falls over the epochs; thin lines are seeds, thick lines their median."
        return c.finish()


def _curves_title(training: dict[str, Any]) -> str:
    best = {
        name: float(np.median([run["mse"] for run in training["conditionings"][name]["runs"]]))
        for name in ("layernorm", "scale")
    }
    ratio = targets.EXPECTED_MSE / max(best.values())
    if ratio >= 1:
        return f"In forward, layernorm and scale end at least {ratio:,.0f} times below the guide's expectation"
    return f"In forward, layernorm or scale ends {1 / ratio:.1f} times above the guide's expectation"


def costs(training: dict[str, Any]) -> Plot:
    """Training time of each model, and the time of a step against naive's."""
    names = [name for name in CONDITIONINGS if name != "none"]
    overheads = {name: training["conditionings"][name]["overhead"] for name in names}
    with canvas(1, 2, height=3.2) as c:
        left, right = c.axes
        for i, name in enumerate(CONDITIONINGS):
            seconds = [run["seconds"] for run in training["conditionings"][name]["runs"] if run["seconds"] is not None]
            left.plot(seconds, [i] * len(seconds), "o", color=COLOURS[name], alpha=0.7)
        left.set_yticks(range(len(CONDITIONINGS)), [LABELS[name] for name in CONDITIONINGS])
        left.set_xlim(left=0)
        left.set_xlabel("training time of one model in s, other models beside it")
        for i, name in enumerate(names):
            entry = overheads[name]
            spread = [[entry["mean"] - entry["low"]], [entry["high"] - entry["mean"]]]
            right.errorbar([entry["mean"]], [i], xerr=spread, fmt="o", color=COLOURS[name], capsize=3)
        right.axvline(targets.OVERHEAD_UP_TO, **THRESHOLD)
        right.text(targets.OVERHEAD_UP_TO, len(names) - 0.55, " guide: 5 %", fontsize=9)
        right.set_yticks(range(len(names)), [LABELS[name] for name in names])
        right.set_ylim(-0.5, len(names) - 0.3)
        right.xaxis.set_major_formatter(lambda value, _: f"{value:+.0%}")
        right.set_xlabel("time of a training step over naive's")
        for axis in c.axes:
            axis.invert_yaxis()
        layernorm = overheads["layernorm"]["mean"]
        c.title = f"A LayerNorm training step takes {less_or_more(-layernorm)} time than a naive one"
        c.description = "Left: seconds of training of each model. Right: overhead of a step, with 95 % intervals."
        return c.finish()
