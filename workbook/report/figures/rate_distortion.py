"""Rate and distortion of every codec."""

from __future__ import annotations

from typing import Any

from workbook.common import targets
from workbook.report.figures.style import BINS_COLOUR, COLOURS, KLT_COLOUR, THRESHOLD, Plot, canvas
from workbook.training.baselines import FAMILIES, POLICY_RATES

Evidence = dict[str, Any]
# family: colour, line and marker
LOOKS = {
    "rfsq_none": (COLOURS["none"], "o-"),
    "chunk_none": (COLOURS["none"], "v--"),
    "rfsq_scale": (COLOURS["scale"], "o-"),
    "chunk_scale": (COLOURS["scale"], "v--"),
    "klt_rfsq_fixed": (KLT_COLOUR, "D--"),
    "klt_rfsq": (KLT_COLOUR, "D-"),
    "bins": (BINS_COLOUR, "s-"),
    "klt": ("#999933", "x:"),
    "fast": (COLOURS["layernorm"], "^-"),
    "fast_quantile": (COLOURS["layernorm"], "^:"),
    "residual_vq": (COLOURS["frozen_layernorm"], "P-"),
    "grouped_residual_fsq": (COLOURS["learned_scale"], "P-"),
}


def rate_distortion(rates: Evidence) -> Plot:
    """MSE from tokens against bits a chunk: lower left is better."""
    with canvas(height=5.2) as c:
        axis = c.axes[0]
        for family, (colour, line) in LOOKS.items():
            points = sorted((e["bits"], e["errors"]["mse"]["mean"]) for e in rates["codecs"] if e["family"] == family)
            if not points:
                continue
            front = [point for i, point in enumerate(points) if point[1] <= min(mse for _, mse in points[: i + 1])]
            axis.plot(*zip(*points, strict=True), line[0], color=colour, markersize=3)
            axis.plot(*zip(*front, strict=True), line, color=colour, markersize=4, label=FAMILIES[family].title)
        reference = [(p["bits"], p["mse"]) for p in rates["gaussian"] if p["bits"] > 1]
        if reference:
            axis.plot(
                *zip(*reference, strict=True), "-", color="black", linewidth=0.8, label="Gaussian reference, no gripper"
            )
        axis.axvspan(POLICY_RATES[0], POLICY_RATES[-1], color="0.94", zorder=0)
        axis.axhline(targets.MSE_BELOW, **THRESHOLD)
        axis.set_xscale("log", base=2)
        axis.set_yscale("log")
        axis.set_xlim(left=12)
        floor = min(e["errors"]["mse"]["mean"] for e in rates["codecs"])
        axis.set_ylim(bottom=max(floor / 2, 1e-8))
        axis.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axis.set_xlabel("bits a chunk (lower left is better; grey: the rates of policies)")
        axis.set_ylabel("held-out MSE from tokens\n(normalised units squared)")
        axis.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
        c.title = _rate_title(rates)
        c.description = (
            "Every codec by the bits it spends on a chunk and the error that its tokens leave; "
            f"dashed line: target {targets.MSE_BELOW:g}."
        )
        return c.finish()


def _rate_title(rates: Evidence) -> str:
    gains = [row["rfsq"]["less_than_fast"]["mean"] for row in rates["against_fast"]]
    known = [gain for gain in gains if gain is not None]
    if not known:
        return "No RFSQ and FAST-style tokens at the same bits"
    titles = {FAMILIES[row["rfsq"]["family"]].title for row in rates["against_fast"] if row["rfsq"]["family"]}
    best = titles.pop() if len(titles) == 1 else "RFSQ's best"
    span = f"{POLICY_RATES[0]} to {POLICY_RATES[-1]} bits a chunk"
    if min(known) >= 0:
        return f"{best} has {min(known):.0%} to {max(known):.0%} less error than FAST-style tokens at {span}"
    worse = [
        row["rate"] for row, gain in zip(rates["against_fast"], gains, strict=True) if gain is not None and gain < 0
    ]
    return f"{best} has more error than FAST-style tokens at {', '.join(map(str, worse))} bits a chunk"
