"""Rate and distortion of every codec."""

from __future__ import annotations

from workbook.codecs.catalogue import POLICY_RATES, catalogue
from workbook.common import targets
from workbook.evaluation.evidence import Evidence
from workbook.evaluation.rate_distortion import against_fast, front, points
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
        axis.axvspan(POLICY_RATES[0], POLICY_RATES[-1], color="0.94", zorder=0)
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
    text, rows = words(TOPIC), against_fast(run.scores, run.validation)
    gains = {row.rate: row.rfsq_gain.mean for row in rows if row.rfsq_gain.mean is not None}
    if not gains:
        return text.title_without
    codecs = {row.rfsq.codec for row in rows if row.rfsq}
    best = title(codecs.pop()) if len(codecs) == 1 else text.best
    worse = [rate for rate, gain in gains.items() if gain < 0]
    if worse:
        return text.title_more(best, worse)
    return text.title_less(best, min(gains.values()), max(gains.values()), POLICY_RATES[0], POLICY_RATES[-1])
