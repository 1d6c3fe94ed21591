"""Figures of 03_compare and of the report's first page."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from rfsq_robust import CONDITIONINGS
from workbook.common import targets
from workbook.common.wording import bins_label, less_or_more, number, share
from workbook.data.layout import ActionLayout
from workbook.report.figures.style import BINS_COLOUR, COLOURS, LABELS, THRESHOLD, Plot, canvas

Evidence = dict[str, Any]
GROUPS = (
    ("position_mm", "position error\nin mm a step"),
    ("rotation_deg", "rotation error\nin degrees a step"),
    ("joint_length", "joint error\nin its own units"),
    ("gripper_error_rate", "steps with the gripper\non the wrong side"),
    ("drift_mm", "position drift at the\nend of an episode, mm"),
    ("drift_deg", "rotation drift at the\nend of an episode, degrees"),
    ("gripper_shift_steps", "gripper switch off\nby, steps"),
)


def forward_and_tokens(comparison: Evidence) -> Plot:
    """MSE of every conditioning from forward and from tokens alone, seeds as dots, with the target."""
    models = comparison["models"]
    with canvas(height=3.8) as c:
        axis = c.axes[0]
        for i, name in enumerate(CONDITIONINGS):
            for key, fill, offset in (("forward_mse", "white", -0.12), ("token_mse", COLOURS[name], 0.12)):
                seeds = models[name][key]["per_seed"]
                axis.plot(
                    np.full(len(seeds), i + offset), seeds, "o", markerfacecolor=fill, markeredgecolor=COLOURS[name]
                )
                axis.hlines(models[name][key]["mean"], i + offset - 0.09, i + offset + 0.09, COLOURS[name])
        axis.axhline(targets.MSE_BELOW, **THRESHOLD)
        axis.text(
            len(CONDITIONINGS) - 0.55, targets.MSE_BELOW * 1.2, f"target {targets.MSE_BELOW:g}", ha="right", fontsize=9
        )
        axis.set_xlim(-0.5, len(CONDITIONINGS) - 0.5)
        axis.set_yscale("log")
        axis.set_xticks(range(len(CONDITIONINGS)), [LABELS[name] for name in CONDITIONINGS])
        axis.set_ylabel("held-out MSE\n(normalised units squared)")
        axis.legend(handles=_forward_token_legend(), fontsize=9, loc="upper right")
        layernorm = models["layernorm"]
        ratio = layernorm["token_mse"]["mean"] / layernorm["forward_mse"]["mean"]
        c.title = f"Its own decoder makes {ratio:,.0f} times the error of forward from layernorm's tokens alone"
        means = (f"{LABELS[name]} {number(models[name]['token_mse']['mean'])}" for name in CONDITIONINGS)
        c.description = f"MSE from tokens alone: {', '.join(means)}."
        return c.finish()


def _forward_token_legend() -> list[Line2D]:
    style: dict[str, Any] = {"marker": "o", "linestyle": "", "markeredgecolor": "0.3"}
    return [
        Line2D([], [], markerfacecolor="white", label="from forward (what training reports)", **style),
        Line2D([], [], markerfacecolor="0.3", label="from tokens alone, own decoder", **style),
    ]


def improvements(comparison: Evidence) -> Plot:
    """Improvement over naive, from tokens alone, with 95 % intervals and the target."""
    models = comparison["models"]
    shown = [name for name in CONDITIONINGS if name != "none"]
    floor = -1.0  # an error twice naive's or worse is drawn at the edge
    with canvas(height=3.2) as c:
        axis = c.axes[0]
        for i, name in enumerate(shown):
            gain = models[name]["improvement_tokens"]
            if gain["mean"] < floor:
                axis.plot([i], [floor + 0.06], marker="v", markersize=11, color=COLOURS[name])
                times = f"{1 - gain['mean']:,.0f} times naive's error"
                axis.text(i + 0.08, floor + 0.06, times, va="center", fontsize=9)
                continue
            axis.plot(np.full(len(gain["per_seed"]), i), gain["per_seed"], "o", color=COLOURS[name], alpha=0.35)
            axis.errorbar([i + 0.08], [gain["mean"]], yerr=_spread(gain), fmt="s", color=COLOURS[name], capsize=4)
            axis.text(i + 0.16, gain["mean"], f"{gain['mean']:.1%}", va="center", fontsize=9)
        axis.axhline(targets.IMPROVEMENT_ABOVE, **THRESHOLD)
        axis.text(len(shown) - 0.5, targets.IMPROVEMENT_ABOVE + 0.03, "target 30 %", ha="right", fontsize=9)
        axis.axhline(0, color=COLOURS["none"], linewidth=1)
        axis.text(-0.45, 0.03, "naive", fontsize=9, color=COLOURS["none"])
        axis.set_xlim(-0.5, len(shown) - 0.5)
        axis.set_ylim(floor - 0.05, 1.15)
        axis.set_xticks(range(len(shown)), [LABELS[name] for name in shown])
        axis.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        axis.set_ylabel("MSE below naive's,\nfrom tokens alone")
        gain = models["scale"]["improvement_tokens"]["mean"]
        c.title = f"With as many codes, the fixed scale's tokens carry {less_or_more(gain)} error than naive's"
        means = (f"{LABELS[name]} {share(models[name]['improvement_tokens']['mean'])}" for name in shown)
        c.description = f"Improvement over naive: {', '.join(means)}."
        return c.finish()


def groups(comparison: Evidence) -> Plot:
    """Errors in physical units from tokens alone; what cannot be decoded is left out and said."""
    models = comparison["models"]
    shown = {name: models[name]["token_errors"] for name in CONDITIONINGS if models[name]["decode_error"] == 0}
    colours = {name: COLOURS[name] for name in shown}
    labels = {name: LABELS[name] for name in shown}
    for name, entry in comparison["baselines"].items():
        shown[name], colours[name], labels[name] = (
            entry["token_errors"],
            BINS_COLOUR,
            bins_label(name),
        )
    measured = [(key, label) for key, label in GROUPS if any(e[key]["mean"] is not None for e in shown.values())]
    columns = min(3, len(measured))
    rows = -(-len(measured) // columns)
    with canvas(rows, columns, height=2.8 * rows, sharey=True) as c:
        for axis in c.axes[len(measured) :]:
            axis.set_axis_off()
        for axis, (key, label) in zip(c.axes, measured, strict=False):
            for i, (name, errors) in enumerate(shown.items()):
                _interval_bar(axis, i, errors[key], colours[name])
            axis.set_xlabel(label, fontsize=9)
            axis.set_xlim(left=0)
            axis.locator_params(axis="x", nbins=5)
            axis.set_yticks(range(len(shown)), labels.values(), fontsize=9)
            if not any(errors[key]["mean"] for errors in shown.values()):
                axis.text(0.5, 0.5, "0 for all of them", ha="center", transform=axis.transAxes, fontsize=9)
                axis.set_xticks([0])
        c.axes[0].invert_yaxis()
        first, label = measured[0]
        scale, naive = (number(shown[name][first]["mean"]) for name in ("scale", "none"))
        c.title = f"{_one_line(label)}: {naive} with naive tokens and {scale} with the fixed scale's"
        left_out = [LABELS[name] for name in CONDITIONINGS if name not in shown]
        if left_out:
            c.title += f"; {', '.join(left_out)} does not decode exactly and is left out"
        c.description = f"Bars with 95 % intervals: {'; '.join(_one_line(label) for _, label in measured)}."
        return c.finish()


def _one_line(label: str) -> str:
    """'Position error in mm a step'."""
    words = label.replace("\n", " ")
    return words[0].upper() + words[1:]


def _spread(estimate: Evidence) -> np.ndarray | None:
    """The interval as distances below and above the mean, for an error bar; None where there is no interval."""
    if estimate["low"] is None:
        return None
    return np.abs([[estimate["mean"] - estimate["low"]], [estimate["high"] - estimate["mean"]]])


def _interval_bar(axis: Axes, row: int, estimate: Evidence, colour: str) -> None:
    if estimate["mean"] is None:
        axis.text(0, row, " none in the data", va="center", fontsize=8)
        return
    axis.barh([row], [estimate["mean"]], xerr=_spread(estimate), color=colour, alpha=0.8, error_kw={"elinewidth": 1})


def dimensions(comparison: Evidence) -> Plot:
    """MSE of each dimension from tokens alone."""
    models = comparison["models"]
    names = ActionLayout.parse(comparison["layout"]).names
    shown = [name for name in CONDITIONINGS if models[name]["decode_error"] == 0]
    with canvas(height=3.4) as c:
        axis = c.axes[0]
        for i, name in enumerate(shown):
            errors = models[name]["token_errors"]
            means = [errors[f"mse_{dimension}"]["mean"] for dimension in names]
            at = np.arange(len(names)) + (i - (len(shown) - 1) / 2) * 0.15
            axis.plot(at, means, "o", color=COLOURS[name], label=LABELS[name])
        axis.set_yscale("log")
        axis.set_xticks(range(len(names)), names, rotation=0 if len(names) < 9 else 45)
        axis.set_ylabel("held-out MSE from tokens\n(normalised units squared)")
        axis.legend(fontsize=8, ncols=len(shown))
        naive = models["none"]["token_errors"]
        worst = max(names, key=lambda name: naive[f"mse_{name}"]["mean"])
        c.title = f"Naive loses most in {worst}"
        c.description = "MSE of each action dimension for every conditioning that decodes."
        return c.finish()
