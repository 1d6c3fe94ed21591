"""Figures of 01_data."""

from __future__ import annotations

from typing import Any

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes

from workbook.common.array import Array
from workbook.data.card import ALL_SUITES, PUBLISHED, distance, published_statistics
from workbook.data.dataset import Dataset
from workbook.data.layout import UNCLIPPED, ActionLayout
from workbook.data.motion import LONGEST_LAG, autocorrelation
from workbook.report.figures.style import THRESHOLD, Plot, canvas
from workbook.report.text import words

PART_COLOURS = {"train": "#0072b2", "validation": "#e69f00", "test": "#d55e00"}
PALETTE = sns.color_palette("colorblind", 10)
DASHES = ("-", "--", ":", "-.")
COLUMNS = 4  # of histograms
MOST_NAMED = 20  # lines that a legend has room for
SMALLEST_LIMIT = 0.4  # of a rotation's axis, LIBERO's largest; a wider one would hide what is there


def _line(dimension: int) -> dict[str, Any]:
    """Colour and dash of a dimension; no two of the first 40 are drawn alike."""
    rank = dimension // len(PALETTE)
    return {"color": PALETTE[dimension % len(PALETTE)], "linestyle": DASHES[rank % len(DASHES)]}


def distributions(dataset: Dataset) -> Plot:
    """Histogram of each dimension, beside LIBERO's published 1 % to 99 % range, mean and std where it has the same."""
    layout, say = dataset.layout, words("data")
    actions = np.concatenate([episode.actions for episode in dataset.episodes])
    rows = layout.dim // COLUMNS + 1  # one place more than dimensions, for the legend
    with canvas(rows, COLUMNS, height=2.4 * rows, sharey=True) as c:
        for i, name in enumerate(layout.names):
            _histogram(c.axes[i], actions[:, i], _axis_range(actions[:, i], layout, i))
            if layout.is_libero:
                _published(c.axes[i], i)
            c.axes[i].set_title(name, fontsize=10)
        for axis in c.axes[::COLUMNS]:
            axis.set_ylabel(say.share_of_steps)
        for axis in c.axes[layout.dim :]:
            axis.set_axis_off()
        c.axes[layout.dim].text(0, 0.95, _legend(layout), va="top", fontsize=9, transform=c.axes[layout.dim].transAxes)
        c.title = _distributions_title(actions, layout)
        c.description = say.distributions_alt(layout.dim, layout.is_libero)
        return c.finish()


def _axis_range(values: Array, layout: ActionLayout, dimension: int) -> tuple[float, float]:
    """What is there, of what has units of its own; else a range around 0 that is the same for all of a kind, nearly."""
    if dimension in layout.indices(*UNCLIPPED):
        low, high = float(values.min()), float(values.max())
        return (low, high) if high > low else (low - 1, low + 1)
    largest = max(SMALLEST_LIMIT, float(np.abs(values).max())) if dimension in layout.indices("rotation") else 1.0
    return -largest, largest


def _histogram(axis: Axes, values: Array, span: tuple[float, float]) -> None:
    axis.hist(
        values,
        bins=list(np.linspace(*span, 41)),
        weights=np.full(len(values), 1 / len(values)),
        color=PART_COLOURS["train"],
        alpha=0.8,
    )
    axis.set_ylim(1e-4, 1.5)
    axis.set_yscale("log")


def _published(axis: Axes, dimension: int) -> None:
    everything = published_statistics()[ALL_SUITES]
    pooled = {key: everything[key][dimension] for key in PUBLISHED}
    axis.axvspan(pooled["q01"], pooled["q99"], color="0.88", zorder=0)
    spread = [[pooled["std"]], [pooled["std"]]]
    axis.errorbar([pooled["mean"]], [0.9], xerr=spread, fmt="o", color="black", capsize=3, markersize=4)


def _legend(layout: ActionLayout) -> str:
    say = words("data")
    marks = [say.legend, *([say.legend_libero] if layout.is_libero else [])]
    return "\n".join([*marks, "", say.legend_joints if layout.of_kind(*UNCLIPPED) else say.legend_units])


def _distributions_title(actions: Array, layout: ActionLayout) -> str:
    if layout.is_libero:
        ratio = distance(actions)["std_ratio"]
        return words("data").distributions_libero(min(ratio), max(ratio))
    shown = layout.motion if len(layout.motion) else layout.grippers
    std = actions[:, shown].std(axis=0)
    return words("data").distributions_title(layout.names[shown[int(np.argmax(std))]], std.max())


def lengths_and_split(dataset: Dataset) -> Plot:
    """Episode lengths, stacked by part of the split."""
    say = words("data")
    parts = {name: np.array([len(e.actions) for e in dataset.part(name)]) for name in PART_COLOURS}
    everything = np.concatenate(list(parts.values()))
    with canvas(height=3.2) as c:
        axis = c.axes[0]
        axis.hist(
            list(parts.values()),
            bins=list(np.linspace(everything.min(), everything.max() + 1, 31)),
            stacked=True,
            color=list(PART_COLOURS.values()),
            label=[say.part_legend(name, len(lengths)) for name, lengths in parts.items()],
        )
        axis.set_xlabel(say.length_axis(dataset.control_rate_hz))
        axis.set_ylabel(say.episodes_axis)
        axis.legend()
        c.title = say.lengths_title(len(everything), everything.min(), everything.max())
        c.description = say.lengths_alt
        return c.finish()


def autocorrelations(dataset: Dataset) -> Plot:
    """How long each dimension remembers itself."""
    layout, lag, say = dataset.layout, dataset.chunk_len, words("data")
    values = autocorrelation([episode.actions for episode in dataset.episodes], max(LONGEST_LAG, lag))
    moving = [i for i in range(layout.dim) if not np.isnan(values[0, i])]
    with canvas(height=3.4) as c:
        axis = c.axes[0]
        for i in moving:
            axis.plot(values[:, i], label=layout.names[i], **_line(i))
        axis.axvline(lag, **THRESHOLD)
        axis.text(lag + 0.4, 0.02, say.one_chunk, fontsize=9)
        axis.set_xlabel(say.lag_axis(dataset.control_rate_hz))
        axis.set_ylabel(say.autocorrelation_axis)
        if 0 < len(moving) <= MOST_NAMED:
            axis.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
        c.title = _autocorrelation_title(values[lag, moving])
        c.description = say.autocorrelation_alt
        return c.finish()


def _autocorrelation_title(at_chunk: Array) -> str:
    known = at_chunk[~np.isnan(at_chunk)]
    say = words("data")
    return say.autocorrelation_title(known.min(), known.max()) if len(known) else say.nothing_moves


def example_episode(dataset: Dataset) -> Plot:
    """One train episode over time, a panel for each group of the layout."""
    layout, say = dataset.layout, words("data")
    episode = dataset.part("train")[0]
    seconds = np.arange(len(episode.actions)) / dataset.control_rate_hz
    with canvas(len(layout.groups), 1, height=max(2.0, 1.55 * len(layout.groups)), sharex=True) as c:
        for axis, group in zip(c.axes, layout.groups, strict=True):
            for i in range(group.start, group.start + group.size):
                axis.step(seconds, episode.actions[:, i], where="post", label=layout.names[i], **_line(i))
            axis.set_ylabel(group.kind)
            if group.size <= MOST_NAMED:
                axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=9, ncols=-(-group.size // 7))
        c.axes[-1].set_xlabel(say.time_axis)
        c.title = say.episode_title(episode.task)
        c.description = say.episode_alt(layout.dim)
        return c.finish()
