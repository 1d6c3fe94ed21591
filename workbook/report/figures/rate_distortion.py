"""Rate and distortion of every codec."""

from __future__ import annotations

from workbook.codecs.catalogue import POLICY_CODES, POLICY_RATES, Setting, at_steps, catalogue
from workbook.common import targets
from workbook.evaluation.against_fast import against_fast
from workbook.evaluation.evidence import Evidence
from workbook.evaluation.rate_distortion import front, points
from workbook.report.figures.style import THRESHOLD, Plot, canvas
from workbook.report.text import words
from workbook.report.text.codecs import title

TOPIC = "rate_distortion"


def rate_distortion(run: Evidence) -> Plot:
    """MSE from tokens against bits a chunk: lower left is better. Small markers: settings that are off the front."""
    scores, text = run.scores, words(TOPIC)
    curves = {codec: points(scores, [codec]) for codec in dict.fromkeys(name for name, _ in scores.listed("measured"))}
    with canvas(height=5.2) as c:
        axis = c.axes[0]
        for codec, found in curves.items():
            entry, best = catalogue()[codec], front(found)
            all_bits, all_errors = [one.bits for one in found], [one.mean for one in found]
            axis.plot(all_bits, all_errors, entry.line[0], color=entry.colour, markersize=3)
            bits, errors = [one.bits for one in best], [one.mean for one in best]
            axis.plot(bits, errors, entry.line, color=entry.colour, markersize=4, label=title(codec))
        reference = run.table("gaussian").query("bits > 1")
        if len(reference):
            axis.plot(reference.bits, reference.mse, "-", color="black", linewidth=0.8, label=text.gaussian)
        least, most = (at_steps(rate, run.steps) for rate in (POLICY_RATES[0], POLICY_RATES[-1]))
        axis.axvspan(least, most, color="0.94", zorder=0)
        axis.axhline(targets.MSE_BELOW, **THRESHOLD)
        axis.set_xscale("log", base=2)
        axis.set_yscale("log")
        axis.set_xlim(left=12)
        axis.set_ylim(bottom=max(min(one.mean for found in curves.values() for one in found) / 2, 1e-8))
        axis.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axis.set_xlabel(text.bits_axis)
        axis.set_ylabel(text.mse_axis)
        axis.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
        c.title = _title(run)
        c.description = text.alt(targets.MSE_BELOW)
        return c.finish()


def _title(run: Evidence) -> str:
    """Of KLT-RFSQ as small policies predict it."""
    text, quoted = words(TOPIC), ("klt_rfsq_fixed", str(Setting.of(codes=at_steps(POLICY_CODES, run.steps))))
    for row in against_fast(run.table("against_fast")):
        gains = {equal: fast.gain.mean for equal, fast in row.equal.items() if fast and fast.gain.mean is not None}
        if (row.codec, row.setting) == quoted and gains:
            return text.title_gains(title(*quoted), row.bits, gains)
    return text.title_without
