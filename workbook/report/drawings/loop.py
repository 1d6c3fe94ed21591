"""Success of policies in the loop."""

from __future__ import annotations

from collections.abc import Sequence

from workbook.codecs.catalogue import catalogue
from workbook.evaluation.evidence import Evidence
from workbook.evaluation.loop.evidence import PlayedArm
from workbook.evaluation.policy.evidence import OWN
from workbook.report.drawings import WITHOUT_TOKENS, Dot, Drawing, dots
from workbook.report.text import words
from workbook.report.text.loop import arm_title

TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)


def success_of_arms(run: Evidence) -> Drawing:
    """Share of episodes that succeed, arm by arm, the best on top; the arms of question A stand out."""
    return _success(run, run.loop.arms)


def success_of_asked(run: Evidence) -> Drawing:
    """The same of the arms that the questions are about, and of the regression."""
    asked = {arm for contrast in run.loop.contrasts for arm in (contrast.arm, contrast.over)}
    return _success(
        run, [arm for arm in run.loop.arms if arm in asked or (arm.kind, arm.decoder) == ("regression", OWN)]
    )


def _success(run: Evidence, arms: Sequence[PlayedArm]) -> Drawing:
    said, found, codecs = words("loop"), run.loop, catalogue()
    asked = found.contrast("new_tokens")
    rows = []
    for arm in arms:
        share = found.success(arm)
        if share.mean is None or share.low is None or share.high is None:
            continue
        shown = words("decision").succeeded_of(found.counts(arm), share.mean)
        colour = codecs[arm.codec].colour if arm.codec in codecs else WITHOUT_TOKENS
        strong = asked is not None and arm in (asked.arm, asked.over)
        rows.append(Dot(arm_title(arm, briefly=True), share.mean, share.low, share.high, shown, colour, strong))
    rows.sort(key=lambda row: -row.value)
    title = said.success_title((rows[0].label, rows[0].value), (rows[-1].label, rows[-1].value))
    return dots(rows, [(tick, f"{tick:.0%}") for tick in TICKS], title, said.success_axis)
