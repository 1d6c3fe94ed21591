"""Replays in the simulator: success against bits, how far the hand strays, and its path seen from above."""

from __future__ import annotations

from textwrap import wrap

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from workbook.codecs.catalogue import catalogue
from workbook.common.intervals import LEVEL
from workbook.evaluation.evidence import Evidence
from workbook.evaluation.replay.evidence import CodecReplays, Replays
from workbook.evaluation.replay.rows import GROUND_TRUTH, shown as shown_of
from workbook.report.figures.style import Plot, canvas, wrapped
from workbook.report.text import words
from workbook.report.text.replay import title_of


def success_against_bits(run: Evidence) -> Plot:
    """Share of episodes that still succeed, against the bits of a chunk: upper left is better."""
    said, replays = words("replay"), run.replays
    with canvas(height=4.6) as c:
        axis = c.axes[0]
        for name in dict(replays.keys):
            entry = catalogue()[name]
            found = sorted((of for of in replays.codecs if of.codec == name and of.played), key=lambda of: of.bits)
            if not found:
                continue
            ends = [(of.success.low, of.success.mean, of.success.high) for of in found]
            low, mean, high = np.array(ends, dtype=float).T
            axis.errorbar(
                [of.bits for of in found], mean, yerr=[mean - low, high - mean], fmt=entry.line, color=entry.colour,
                markersize=4, linewidth=1.2, elinewidth=0.6, capsize=2, label=title_of(name, ""),
            )  # fmt: skip
        axis.axhline(1.0, color="black", linewidth=1, linestyle=":")
        axis.set_xscale("log", base=2)
        axis.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axis.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        axis.set_ylim(-0.03, 1.05)
        axis.set_xlabel(said.success_x)
        axis.set_ylabel(said.success_y)
        axis.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
        c.title = said.success_title(_least_without_loss(replays))
        c.description = "; ".join(said.success_of(title_of(of.codec, of.setting), of) for of in replays.codecs)
        return c.finish()


def _least_without_loss(replays: Replays) -> CodecReplays | None:
    """The cheapest codec of which it is not shown that it loses episodes, and not the luckiest one."""
    good = [of for of in replays.codecs if of.played and of.p_against_ground_truth > 1 - LEVEL]
    return min(good, key=lambda of: of.bits, default=None)


def drift(run: Evidence) -> Plot:
    """How far the hand is from where the ground-truth replay has it, as episodes go on."""
    said, replays = words("replay"), run.replays
    shown = [of for key in shown_of(replays.keys) if len((of := replays.of(*key)).drift)]
    with canvas(1, 2, height=3.6) as c:
        for axis, metric in zip(c.axes, ("position_mm", "rotation_deg"), strict=True):
            for of in shown:
                look, along = catalogue()[of.codec], of.drift.progress
                label = title_of(of.codec, of.setting)
                axis.plot(along, of.drift[metric], look.line, color=look.colour, markersize=3, label=label)
                axis.plot(along, of.drift[f"{metric}_p90"], ":", color=look.colour, linewidth=0.8)
            axis.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
            axis.set_ylim(bottom=0)
            axis.set_xlabel(said.drift_x)
            axis.set_ylabel(f"{said.drift_y(metric)}\n{said.drift_below}")
        c.axes[0].legend(fontsize=8)
        ends = [said.drift_end(title_of(of.codec, of.setting), of) for of in shown]
        c.title, c.description = said.drift_title(ends), said.drift_description(ends)
        return c.finish()


def paths(run: Evidence) -> Plot:
    """Strips of the hand's path from above, decoded over true: a row an episode, a column a codec."""
    said, rows = words("replay"), run.replays.paths
    tasks = list(dict.fromkeys(rows.task))
    keys = [key for key in dict.fromkeys(zip(rows.codec, rows.setting, strict=True)) if key[0] != GROUND_TRUTH]
    found = {key: path for key, path in rows.groupby(["task", "codec", "setting"])}  # noqa: C416 - keys are tuples
    with canvas(max(len(tasks), 1), max(len(keys), 1), height=2.1 * max(len(tasks), 1) + 0.6) as c:
        for number, task in enumerate(tasks):
            of_task = c.axes[number * len(keys) : (number + 1) * len(keys)]
            for axis, key in zip(of_task, keys, strict=True):
                _draw_path(axis, found[task, GROUND_TRUTH, ""], found.get((task, *key)))
            of_task[0].set_ylabel(wrapped(task, 26), fontsize=7, parse_math=False)
        c.title = said.paths_title
        c.description = " ".join(
            said.paths_of(task, [(title_of(*key), found[task, *key].succeeded.all()) for key in keys
                                 if (task, *key) in found])
            for task in tasks
        )  # fmt: skip
        return c.finish()


def _draw_path(axis: Axes, truth: pd.DataFrame, decoded: pd.DataFrame | None) -> None:
    axis.plot(truth.x_mm, truth.y_mm, color="0.75", linewidth=3)
    if decoded is not None:
        codec, setting, succeeded, x, y = decoded[["codec", "setting", "succeeded", "x_mm", "y_mm"]].iloc[-1]
        colour = catalogue()[codec].colour
        axis.plot(decoded.x_mm, decoded.y_mm, color=colour, linewidth=1.2)
        axis.plot(x, y, "o" if succeeded else "x", color=colour, markersize=6)
        lines = [*wrap(title_of(codec, setting), 24), words("replay").ended(succeeded)]
        axis.set_title("\n".join(lines), fontsize=7)
    axis.set_aspect("equal", adjustable="datalim")
    axis.tick_params(labelsize=7)


def predictors(run: Evidence) -> Plot:
    """How well each error that needs no simulator tells failed replays from others."""
    said, found = words("replay"), run.replays.predictors
    aucs = {name: one.auc for name, one in found.each.items() if one.auc.mean is not None}
    ordered = sorted(aucs, key=lambda name: aucs[name].mean or 0.0)
    with canvas(height=0.4 * max(len(ordered), 2) + 1.2) as c:
        axis = c.axes[0]
        for place, name in enumerate(ordered):
            low, mean, high = (
                float(end) for end in (aucs[name].low, aucs[name].mean, aucs[name].high) if end is not None
            )
            colour = catalogue()["fixed_scale" if name == found.best else "naive"].colour
            axis.errorbar([mean], [place], xerr=[[mean - low], [high - mean]], fmt="o", color=colour, capsize=3)
        axis.axvline(0.5, color="black", linewidth=1, linestyle="--")
        axis.set_yticks(range(len(ordered)), [said.predictors[name] for name in ordered], fontsize=8)
        axis.set_xlabel(said.predictors_x)
        c.title = said.predictors_title(found.best)
        c.description = "; ".join(said.predictor_of(name, aucs[name]) for name in reversed(ordered))
        return c.finish()
