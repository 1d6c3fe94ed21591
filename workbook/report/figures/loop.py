"""Success of policies in the loop."""

from __future__ import annotations

import numpy as np

from workbook.codecs.catalogue import catalogue
from workbook.evaluation.evidence import Evidence
from workbook.report.figures.style import Plot, canvas
from workbook.report.text import words
from workbook.report.text.loop import arm_title


def success_of_arms(run: Evidence) -> Plot:
    """Share of episodes that succeed, arm by arm, the best on top."""
    said, found = words("loop"), run.loop
    success = {arm: found.success(arm) for arm in found.arms}
    ends = {arm: (of.low, of.mean, of.high) for arm, of in success.items()}
    shown = {arm: np.array(of, dtype=float) for arm, of in ends.items() if of[1] is not None}
    ordered = sorted(shown, key=lambda arm: shown[arm][1])
    with canvas(height=1.2 + 0.34 * len(ordered)) as c:
        axis, codecs = c.axes[0], catalogue()
        for place, arm in enumerate(ordered):
            low, mean, high = shown[arm]
            colour = codecs[arm.codec].colour if arm.codec in codecs else "black"
            axis.plot([low, high], [place, place], color=colour, linewidth=1.5)
            axis.plot([mean], [place], "o", color=colour, markersize=6)
        axis.set_yticks(range(len(ordered)), [arm_title(arm) for arm in ordered], fontsize=9)
        axis.set_xlim(-0.02, 1.02)
        axis.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        axis.set_xlabel(said.success_axis)
        c.title = said.success_title(*((arm_title(arm), shown[arm][1]) for arm in (ordered[-1], ordered[0])))
        c.description = "; ".join(f"{arm_title(arm)} {shown[arm][1]:.0%}" for arm in reversed(ordered))
        return c.finish()
