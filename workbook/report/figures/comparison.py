"""Figures of 03_compare and of the report's first page."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from workbook.codecs.catalogue import catalogue
from workbook.common import targets
from workbook.common.array import Array
from workbook.common.intervals import Estimate
from workbook.common.numbers import percent
from workbook.data.layout import ActionLayout
from workbook.evaluation.evidence import Evidence
from workbook.evaluation.score import ENCODER, TOKENS
from workbook.report.figures.style import THRESHOLD, Plot, canvas
from workbook.report.tables.comparison import Compared, compared, exact, trained
from workbook.report.text import words
from workbook.report.text.codecs import title
from workbook.verdict.criteria import DEPLOYABLE, GUIDES, NAIVE

GROUPS = (
    "position_mm", "rotation_deg", "joint_length", "gripper_error_rate", "drift_mm", "drift_deg", "gripper_shift_steps",
)  # fmt: skip
FLOOR = -1.0  # an error twice naive's or worse is drawn at the edge
TOPIC = "comparison"


def forward_and_tokens(run: Evidence) -> Plot:
    """MSE of every trained model with encoder statistics and from tokens alone, seeds as dots, with the target."""
    scores, models, text = run.scores, trained(run), words(TOPIC)
    with canvas(height=3.8) as c:
        axis = c.axes[0]
        for i, one in enumerate(models):
            for decoding, fill, offset in ((ENCODER, "white", -0.12), (TOKENS, one.colour, 0.12)):
                mse = one.estimate(scores, "mse", decoding)
                seeds = mse.per_seed
                axis.plot(np.full(len(seeds), i + offset), seeds, "o", markerfacecolor=fill, markeredgecolor=one.colour)
                axis.hlines(mse.mean or 0.0, i + offset - 0.09, i + offset + 0.09, one.colour)
        axis.axhline(targets.MSE_BELOW, **THRESHOLD)
        label = text.target(targets.MSE_BELOW)
        axis.text(len(models) - 0.55, targets.MSE_BELOW * 1.2, label, ha="right", fontsize=9)
        axis.set_xlim(-0.5, len(models) - 0.5)
        axis.set_yscale("log")
        axis.set_xticks(range(len(models)), [one.title for one in models])
        axis.set_ylabel(text.mse_axis)
        axis.legend(handles=_encoder_tokens_legend(), fontsize=9, loc="upper right")
        of_tokens, of_encoder = (scores.estimate("mse", GUIDES, decoding=way).mean for way in (TOKENS, ENCODER))
        c.title = text.encoder_and_tokens_title((of_tokens or 0.0) / of_encoder if of_encoder else 1.0)
        c.description = text.encoder_and_tokens_alt({one.title: one.estimate(scores, "mse").mean for one in models})
        return c.finish()


def _encoder_tokens_legend() -> list[Line2D]:
    text, style = words(TOPIC), {"marker": "o", "linestyle": "", "markeredgecolor": "0.3"}
    fills: dict[str, Any] = {"white": text.encoder_legend, "0.3": text.tokens_legend}
    return [Line2D([], [], markerfacecolor=fill, label=label, **style) for fill, label in fills.items()]  # type: ignore[arg-type]


def improvements(run: Evidence) -> Plot:
    """Improvement over naive, from tokens alone, with 95 % intervals and the target."""
    scores, text = run.scores, words(TOPIC)
    gains = {one: scores.improvement(one.codec) for one in trained(run) if one.codec != NAIVE}
    with canvas(height=3.2) as c:
        axis = c.axes[0]
        for i, (one, gain) in enumerate(gains.items()):
            _improvement(axis, i, gain, one.colour)
        axis.axhline(targets.IMPROVEMENT_ABOVE, **THRESHOLD)
        label = text.target_share(targets.IMPROVEMENT_ABOVE)
        axis.text(len(gains) - 0.5, targets.IMPROVEMENT_ABOVE + 0.03, label, ha="right", fontsize=9)
        grey = catalogue()[NAIVE].colour
        axis.axhline(0, color=grey, linewidth=1)
        axis.text(-0.45, 0.03, title(NAIVE), fontsize=9, color=grey)
        axis.set_xlim(-0.5, len(gains) - 0.5)
        axis.set_ylim(FLOOR - 0.05, 1.15)
        axis.set_xticks(range(len(gains)), [one.title for one in gains])
        axis.yaxis.set_major_formatter(lambda value, _: percent(value, 0))
        axis.set_ylabel(text.improvement_axis)
        c.title = text.improvements_title(scores.improvement(DEPLOYABLE).mean or 0.0)
        share = words("phrases").share
        c.description = text.improvements_alt({one.title: share(gain.mean) for one, gain in gains.items()})
        return c.finish()


def _improvement(axis: Axes, place: int, gain: Estimate, colour: str) -> None:
    """A square with its interval and the seeds behind it; a mark at the edge where the error is far greater."""
    if gain.mean is None:
        return
    if gain.mean < FLOOR:
        axis.plot([place], [FLOOR + 0.06], marker="v", markersize=11, color=colour)
        axis.text(place + 0.08, FLOOR + 0.06, words(TOPIC).times_naives(1 - gain.mean), va="center", fontsize=9)
        return
    axis.plot(np.full(len(gain.per_seed), place), gain.per_seed, "o", color=colour, alpha=0.35)
    axis.errorbar([place + 0.08], [gain.mean], yerr=spread(gain), fmt="s", color=colour, capsize=4)
    axis.text(place + 0.16, gain.mean, percent(gain.mean), va="center", fontsize=9)


def groups(run: Evidence) -> Plot:
    """Errors in physical units from tokens alone; what does not decode exactly is left out and said."""
    scores, text = run.scores, words(TOPIC)
    listed = compared(scores)
    shown = [one for one in listed if exact(run, one.codec)]
    estimates = {key: [one.estimate(scores, key) for one in shown] for key in GROUPS}
    measured = {key: row for key, row in estimates.items() if any(each.mean is not None for each in row)}
    columns = min(3, len(measured))
    rows = -(-len(measured) // columns)
    with canvas(rows, columns, height=3.2 * rows, sharey=True) as c:
        for axis in c.axes[len(measured) :]:
            axis.set_axis_off()
        for axis, (key, row) in zip(c.axes, measured.items(), strict=False):
            for place, (one, estimate) in enumerate(zip(shown, row, strict=True)):
                _interval_bar(axis, place, estimate, one.colour)
            axis.set_xlabel(text.groups[key], fontsize=9)
            axis.set_xlim(left=0)
            axis.locator_params(axis="x", nbins=5)
            axis.set_yticks(range(len(shown)), [one.title for one in shown], fontsize=8)
            if not any(estimate.mean for estimate in row):
                axis.text(0.5, 0.5, text.zero_for_all, ha="center", transform=axis.transAxes, fontsize=9)
                axis.set_xticks([0])
        c.axes[0].invert_yaxis()
        labels = [text.groups[key].replace("\n", " ") for key in measured]
        naive, fixed = (scores.estimate(next(iter(measured)), codec).mean for codec in (NAIVE, DEPLOYABLE))
        left_out = [one.title for one in listed if one not in shown]
        c.title = text.groups_title(labels[0], naive, fixed, left_out)
        c.description = text.groups_alt(labels)
        return c.finish()


def spread(estimate: Estimate) -> Array | None:
    """The interval as distances below and above the mean, for an error bar; None where there is no interval."""
    if estimate.mean is None or estimate.low is None or estimate.high is None:
        return None
    return np.abs([[estimate.mean - estimate.low], [estimate.high - estimate.mean]])


def _interval_bar(axis: Axes, row: int, estimate: Estimate, colour: str) -> None:
    if estimate.mean is None:
        axis.text(0, row, f" {words(TOPIC).none_in_the_data}", va="center", fontsize=8)
        return
    axis.barh([row], [estimate.mean], xerr=spread(estimate), color=colour, alpha=0.8, error_kw={"elinewidth": 1})


def dimensions(run: Evidence) -> Plot:
    """MSE of each dimension from tokens alone."""
    scores, text = run.scores, words(TOPIC)
    names = ActionLayout.parse(run.comparison["layout"]).names
    shown = [one for one in trained(run) if exact(run, one.codec)]
    with canvas(height=3.4) as c:
        axis = c.axes[0]
        for i, one in enumerate(shown):
            at = np.arange(len(names)) + (i - (len(shown) - 1) / 2) * 0.15
            axis.plot(at, [_mse_of(run, one, name) for name in names], "o", color=one.colour, label=one.title)
        axis.set_yscale("log")
        axis.set_xticks(range(len(names)), names, rotation=0 if len(names) < 9 else 45)
        axis.set_ylabel(text.token_mse_axis)
        axis.legend(fontsize=8, ncols=len(shown))
        c.title = text.dimensions_title(max(names, key=lambda name: scores.estimate(f"mse_{name}", NAIVE).mean or 0.0))
        c.description = text.dimensions_alt
        return c.finish()


def _mse_of(run: Evidence, one: Compared, dimension: str) -> float:
    return one.estimate(run.scores, f"mse_{dimension}").mean or 0.0
