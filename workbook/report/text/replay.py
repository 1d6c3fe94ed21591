"""The replays in words."""

from __future__ import annotations

from workbook.codecs.catalogue import quoted_rate
from workbook.common import targets
from workbook.evaluation.evidence import Evidence
from workbook.evaluation.replay.evidence import END_BETWEEN_KERNELS_MM
from workbook.report.text import words
from workbook.report.text.codecs import title


def title_of(codec: str, setting: str) -> str:
    """As `title`; of codecs that are played in two ways, in which."""
    return words("replay").title(codec, title(codec, setting))


def why_not(run: Evidence) -> str:
    """Why there is no replay, and how to come by one; '' where there is."""
    return "" if run.replays.played else words("replay").why_not(run.replays)


def verdict_sentence(run: Evidence) -> str:
    """'of N test episodes ..., naive tokens succeed in n of N, ...': the counts that the decision needs."""
    replays = run.replays
    if not replays.played:
        return why_not(run)
    few, quoted = replays.settings_of("fixed_scale")[-1], quoted_rate(replays.settings_of("fast"))
    return words("replay").verdict(
        replays, replays.of("fixed_scale", few), title("fixed_scale", few).split(", ")[-1], quoted,
        replays.contrast("fixed_scale").difference, targets.EXPECTED_FINE_MANIPULATION,
    )  # fmt: skip


def remarks(run: Evidence) -> list[str]:
    """What to know beside the counts: what was left out, what predicts failure, and what open loop does not say."""
    if not run.replays.played:
        return [words("replay").not_run(run.replays)]
    return words("replay").sentences("remarks", run.replays, END_BETWEEN_KERNELS_MM)
