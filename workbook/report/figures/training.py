"""Figures of 02_train_robust."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

from workbook.codecs.catalogue import CONDITIONED, catalogue
from workbook.common import targets
from workbook.evaluation.evidence import Evidence
from workbook.report.figures.style import THRESHOLD, Plot, canvas
from workbook.report.text import words
from workbook.report.text.codecs import title


def curves(run: Evidence) -> Plot:
    """Validation MSE of every model over the epochs, beside the guide's expectation."""
    say = words("training")
    with canvas(height=4.4) as c:
        axis = c.axes[0]
        for codec, rows in run.table("training").groupby("codec", sort=False):
            entry, by_seed = catalogue()[codec], rows.pivot(index="epoch", columns="seed", values="validation_mse")
            axis.plot(by_seed, color=entry.colour, alpha=0.25, linewidth=0.8)
            style = entry.line.lstrip("oX")
            axis.plot(by_seed.median(axis=1), style, color=entry.colour, label=title(codec), linewidth=1.8)
        expected = targets.EXPECTED_CURVE
        axis.plot(list(expected), list(expected.values()), "k^", markersize=7, label=say.guide_expects)
        axis.axhline(targets.MSE_BELOW, label=say.target(targets.MSE_BELOW), **THRESHOLD)
        axis.set_yscale("log")
        axis.set_xlabel(say.epoch_axis)
        axis.set_ylabel(say.mse_axis)
        axis.legend(fontsize=8, ncols=2)
        c.title = _curves_title(run)
        c.description = say.curves_alt
        return c.finish()


def _curves_title(run: Evidence) -> str:
    of_robust = (run.training["conditionings"][name]["runs"] for name in ("layernorm", "scale"))
    ratio = targets.EXPECTED_MSE / max(float(np.median([model["mse"] for model in models])) for models in of_robust)
    say = words("training")
    return say.curves_below(ratio) if ratio >= 1 else say.curves_above(1 / ratio)


def costs(run: Evidence) -> Plot:
    """Training time of each model, and the time of a step against naive's."""
    say = words("training")
    with canvas(1, 2, height=3.2) as c:
        _seconds(run, c.axes[0])
        _overheads(run, c.axes[1])
        for axis in c.axes:
            axis.invert_yaxis()
        c.title = say.costs_title(run.training["conditionings"]["layernorm"]["overhead"]["mean"])
        c.description = say.costs_alt
        return c.finish()


def _seconds(run: Evidence, axis: Axes) -> None:
    for i, (conditioning, codec) in enumerate(CONDITIONED.items()):
        models = run.training["conditionings"][conditioning]["runs"]
        seconds = [model["seconds"] for model in models if model["seconds"] is not None]
        axis.plot(seconds, [i] * len(seconds), "o", color=catalogue()[codec].colour, alpha=0.7)
    axis.set_yticks(range(len(CONDITIONED)), list(map(title, CONDITIONED.values())))
    axis.set_xlim(left=0)
    axis.set_xlabel(words("training").seconds_axis)


def _overheads(run: Evidence, axis: Axes) -> None:
    say, others = words("training"), {name: codec for name, codec in CONDITIONED.items() if codec != "naive"}
    for i, (conditioning, codec) in enumerate(others.items()):
        entry = run.training["conditionings"][conditioning]["overhead"]
        spread = [[entry["mean"] - entry["low"]], [entry["high"] - entry["mean"]]]
        axis.errorbar([entry["mean"]], [i], xerr=spread, fmt="o", color=catalogue()[codec].colour, capsize=3)
    axis.axvline(targets.OVERHEAD_UP_TO, **THRESHOLD)
    guides = f" {say.guides_overhead(targets.OVERHEAD_UP_TO)}"
    axis.text(targets.OVERHEAD_UP_TO, len(others) - 0.55, guides, fontsize=9)
    axis.set_yticks(range(len(others)), list(map(title, others.values())))
    axis.set_ylim(-0.5, len(others) - 0.3)
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:+.0%}")
    axis.set_xlabel(say.step_axis)
