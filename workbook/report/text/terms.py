"""Terms that a reader may not know: documents and pages show those that they use, each explained in the same words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from workbook.common.table import Bullets
from workbook.report.text import words


@dataclass(frozen=True)
class Term:
    """What is called so, what it means, and a pattern of how it is written."""

    name: str
    means: str
    written: re.Pattern[str]


def terms() -> list[Term]:
    """All of them, in the language of `words`; one is explained by those before it."""
    return [
        Term(each["name"], each["means"], re.compile(rf"(?<![A-Za-z])(?:{each['written']})(?![A-Za-z])"))
        for each in words("terms").terms.values()
    ]


def used(text: str) -> list[Term]:
    """The terms of a text and of their own explanations, in the order in which one can read them."""
    found: list[Term] = []
    for term in reversed(terms()):
        if term.written.search(text):
            text = f"{text} {term.means}"
            found.insert(0, term)
    return found


def glossary(found: Sequence[Term]) -> Bullets:
    return Bullets([words("terms").entry(term.name, term.means) for term in found])
