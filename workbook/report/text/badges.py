"""Statuses and verdict words as they read in the language that is spoken."""

from __future__ import annotations

from workbook.common.table import Badge
from workbook.report.text import words


def badge(word: str) -> Badge:
    """Of a status ('met') or of a verdict word ('PASS')."""
    return Badge(word, words("phrases").badges[word])
