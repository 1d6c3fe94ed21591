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
    rows, said = _rows(run, run.loop.arms), words("loop")
    return _drawn(rows, said.success_title(*((row.label, row.value) for row in (rows[0], rows[-1]))), said.success_axis)


def success_of_asked(run: Evidence) -> Drawing:
    """The same of the arms that the questions are about, of Phase 2's own design, and of the regression."""
    loop, said = run.loop, words("decision")
    asked = {arm for contrast in loop.contrasts for arm in (contrast.arm, contrast.over)}
    beside = {(kind, OWN) for kind in ("regression", "phase2")}
    rows = _rows(run, [arm for arm in loop.arms if arm in asked or (arm.kind, arm.decoder) in beside])
    question, heads = loop.contrast("new_tokens"), loop.contrast("heads")
    if question is None:
        return _drawn(rows, words("loop").success_axis, said.asked_axis)
    best, by_argmax = (
        None if each is None else [loop.success(arm).mean for arm in (each.arm, each.over)]
        for each in (question, heads)
    )
    assert best is not None
    return _drawn(rows, said.asked_title(*best, by_argmax), said.asked_axis)


def _drawn(rows: Sequence[Dot], title: str, axis: str) -> Drawing:
    return dots(rows, [(tick, f"{tick:.0%}") for tick in TICKS], title, axis)


def _rows(run: Evidence, arms: Sequence[PlayedArm]) -> list[Dot]:
    found, codecs = run.loop, catalogue()
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
    return sorted(rows, key=lambda row: -row.value)
