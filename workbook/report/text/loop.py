"""Policies in the loop in words."""

from __future__ import annotations

from workbook.evaluation.evidence import Evidence
from workbook.evaluation.loop.episodes import MOST_STEPS
from workbook.evaluation.loop.evidence import PlayedArm
from workbook.evaluation.policy.evidence import OWN
from workbook.report.text import words
from workbook.report.text.codecs import title


def arm_title(arm: PlayedArm, briefly: bool = False) -> str:
    """'fixed scale, 3 layers: expected value'."""
    regresses = arm.kind == "regression"
    own = "" if regresses else title(arm.codec, arm.setting)
    other = "" if arm.decoder == OWN else title(arm.decoder, arm.setting if regresses else "")
    said = words("loop")
    return (said.arm_briefly if briefly else said.arm)(arm.kind, own, arm.rule, other)


def remarks(run: Evidence) -> list[str]:
    """What to know beside the counts."""
    if not run.loop.played:
        return [words("loop").not_run(run.loop)]
    titles = [title(each["codec"], each["setting"]) for each in run.loop.values.get("sequences", [])]
    not_predicted = {title(name): why for name, why in run.loop.values.get("not_predicted", {}).items()}
    return words("loop").sentences("remarks", run.loop, MOST_STEPS, titles, not_predicted)
