"""What was found, in sentences."""

from __future__ import annotations

from collections.abc import Iterable

from workbook.evaluation.evidence import Evidence
from workbook.report.text import words
from workbook.verdict.findings import Finding, against, discrepancies


def against_text(run: Evidence) -> list[str]:
    """What speaks against the robust RFSQ."""
    return sentences(against(run))


def discrepancies_text(run: Evidence) -> list[str]:
    """Where the guide's account and the measurement part ways."""
    return sentences(discrepancies(run))


def sentences(findings: Iterable[Finding]) -> list[str]:
    """A sentence or two each, by the macro of the finding's name."""
    text = words("findings")
    return [getattr(text, finding.key)(**finding.values) for finding in findings]
