"""Whether the codec that can be deployed gains what the guide says in task success, judged by the replays."""

from __future__ import annotations

from collections.abc import Sequence

from workbook.common import targets
from workbook.evaluation.replay.evidence import Replays
from workbook.verdict.criteria import DEPLOYABLE, WORDS, Word


def success_word(replays: Replays, missing: Sequence[object]) -> Word:
    """missing: what keeps the rest of the run from being evidence."""
    if not replays.played:
        return "NOT RUN"
    if missing or replays.shortfalls:
        return "NOT SHOWN"
    return WORDS[targets.GAINS_SUCCESS.judge(replays.contrast(DEPLOYABLE).difference.as_json())]
