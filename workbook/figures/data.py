"""Figures of 01_data."""

from __future__ import annotations

from typing import Any

import numpy as np
import seaborn as sns

from workbook.chunks import Array
from workbook.data_card import autocorrelation, published_statistics
from workbook.dataset import Dataset
from workbook.episodes import CONTROL_RATE_HZ, DIMENSION_NAMES
from workbook.figures.style import COLOURS, THRESHOLD, Plot, canvas

PART_COLOURS = {"train": "#0072b2", "validation": "#e69f00", "test": "#d55e00"}
DIMENSION_COLOURS = sns.color_palette("colorblind", 7)


def distributions(dataset: Dataset) -> Plot:
    """Histogram of each dimension beside LIBERO's published 1 % to 99 % range, mean and std."""
    actions = np.concatenate([episode.actions for episode in dataset.episodes])
    published = published_statistics()["all_suites"]
    ratio = actions[:, :6].std(axis=0) / np.array(published["std"][:6])
    with canvas(2, 4, height=4.8, sharey=True) as c:
        for i, name in enumerate(DIMENSION_NAMES):
            axis = c.axes[i]
            limit = 1.0 if i < 3 or i == 6 else max(0.4, float(np.abs(actions[:, i]).max()))
            axis.hist(
                actions[:, i],
                bins=list(np.linspace(-limit, limit, 41)),
                weights=np.full(len(actions), 1 / len(actions)),
                color=COLOURS["scale"],
                alpha=0.8,
            )
            mean, std = published["mean"][i], published["std"][i]
            axis.axvspan(published["q01"][i], published["q99"][i], color="0.88", zorder=0)
            axis.errorbar([mean], [0.9], xerr=[[std], [std]], fmt="o", color="black", capsize=3, markersize=4)
            axis.set_title(name, fontsize=10)
            axis.set_ylim(1e-4, 1.5)
            axis.set_yscale("log")
        for axis in (c.axes[0], c.axes[4]):
            axis.set_ylabel("share of steps")
        c.axes[7].set_axis_off()
        c.axes[7].text(
            0,
            0.95,
            "blue: these recordings\ngrey: LIBERO, 1 % to 99 %\nblack: LIBERO, mean and std\n\n"
            "x axis: action in controller\nunits; 1 = 50 mm in position,\n0.5 rad in rotation, per step",
            va="top",
            fontsize=9,
            transform=c.axes[7].transAxes,
        )
        c.title = f"Motion spreads {ratio.min():.2g} to {ratio.max():.2g} times as wide as LIBERO's published actions"
        c.description = "Histograms of the seven action dimensions with LIBERO's published range behind them."
        return c.finish()


def lengths_and_split(dataset: Dataset) -> Plot:
    """Episode lengths, stacked by part of the split."""
    parts = {name: np.array([len(e.actions) for e in dataset.part(name)]) for name in PART_COLOURS}
    everything = np.concatenate(list(parts.values()))
    with canvas(height=3.2) as c:
        axis = c.axes[0]
        axis.hist(
            list(parts.values()),
            bins=list(np.linspace(everything.min(), everything.max() + 1, 31)),
            stacked=True,
            color=list(PART_COLOURS.values()),
            label=[f"{name}: {len(lengths)} episodes" for name, lengths in parts.items()],
        )
        axis.set_xlabel(f"episode length in steps ({CONTROL_RATE_HZ:.0f} steps a second)")
        axis.set_ylabel("episodes")
        axis.legend()
        c.title = (
            f"{len(everything)} episodes of {everything.min():,} to {everything.max():,} steps; "
            "whole episodes are held out"
        )
        c.description = "Histogram of episode lengths, coloured by train, validation and test."
        return c.finish()


def autocorrelations(dataset: Dataset) -> Plot:
    """How long each dimension remembers itself."""
    values = autocorrelation([episode.actions for episode in dataset.episodes])
    lag = dataset.chunk_len
    moving = [i for i in range(7) if not np.isnan(values[0, i])]
    at_chunk = values[min(lag, len(values) - 1), moving]
    with canvas(height=3.4) as c:
        axis = c.axes[0]
        for i in moving:
            axis.plot(values[:, i], label=DIMENSION_NAMES[i], color=DIMENSION_COLOURS[i])
        axis.axvline(lag, **THRESHOLD)
        axis.text(lag + 0.4, 0.02, "one chunk", fontsize=9)
        axis.set_xlabel("lag in steps (50 ms each)")
        axis.set_ylabel("autocorrelation")
        axis.legend(ncols=2, fontsize=8)
        c.title = (
            f"One chunk later, actions still correlate by {np.nanmin(at_chunk):.2f} to {np.nanmax(at_chunk):.2f}: "
            "a per-step codec leaves that unused"
        )
        c.description = "Autocorrelation of each action dimension against the lag in steps."
        return c.finish()


def example_episode(dataset: Dataset) -> Plot:
    """One train episode over time."""
    episode = dataset.part("train")[0]
    seconds = np.arange(len(episode.actions)) / CONTROL_RATE_HZ
    groups: tuple[tuple[str, range], ...] = (
        ("position", range(3)),
        ("rotation", range(3, 6)),
        ("gripper", range(6, 7)),
    )
    with canvas(3, 1, height=4.6, sharex=True) as c:
        for axis, (name, dimensions) in zip(c.axes, groups, strict=True):
            for i in dimensions:
                _trace(axis, seconds, episode.actions[:, i], i)
            axis.set_ylabel(name)
            axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=9)
        c.axes[-1].set_xlabel("time in s")
        c.title = f"An episode: {episode.task}"
        c.description = "The seven action dimensions of one train episode over time, in controller units."
        return c.finish()


def _trace(axis: Any, seconds: Array, values: Array, dimension: int) -> None:
    axis.step(seconds, values, where="post", label=DIMENSION_NAMES[dimension], color=DIMENSION_COLOURS[dimension])
