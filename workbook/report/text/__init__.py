"""Words: whatever a person reads as a sentence, a header, a label or a title, in templates, a folder a language.

A template holds labels (`{% set ... %}`) and sentences (macros), and gets values. Another language is another folder
with the same files; nothing else has to change. `with speaking("zh"):` another language is spoken for a while.

    words("claims").sentence(...)            one sentence, white space folded
    words("claims").sentences("remarks", ...)  several, of a macro that separates them by blank lines
    words("claims").labels                   whatever the template sets
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from typing import Any

import jinja2

from workbook.common.errors import InputError
from workbook.common.note import Note
from workbook.common.numbers import number, percent

FOLDER = Path(__file__).parent
LANGUAGE_VARIABLE = "WORKBOOK_LANGUAGE"
ENGLISH = "en"  # spoken where nothing names another
_spoken: ContextVar[str] = ContextVar("spoken", default="")
BESIDE_FULL_WIDTH = re.compile("(?<=[\u3000-\u303f\uff01-\uff60]) | (?=[\u3000-\u303f\uff01-\uff60])")  # punctuation


class Words:
    """The labels and sentences of one template."""

    def __init__(self, template: jinja2.Template) -> None:
        self._template = template

    def __getattr__(self, name: str) -> Any:
        """A label as it is set, or a macro as a function of values that gives one sentence.

        Raises:
            AttributeError: the template has no such name.
        """
        if name.startswith("__"):
            raise AttributeError(name)
        found = getattr(self._template.module, name, None)
        if found is None:
            raise AttributeError(f"{self._template.filename} has neither a label nor a sentence '{name}'")
        return (lambda *values, **named: _folded(found(*values, **named))) if callable(found) else found

    def of_note(self, note: Note) -> str:
        """The sentence that a note asks for, with its values."""
        return getattr(self, note["key"])(**note["values"])

    def sentences(self, name: str, *values: Any, **named: Any) -> list[str]:
        """What a macro says, one entry for each of its paragraphs."""
        text = getattr(self._template.module, name)(*values, **named)
        return [_folded(paragraph) for paragraph in re.split(r"\n\s*\n", text) if paragraph.strip()]


def _folded(text: str) -> str:
    """On one line, and no space beside punctuation that is as wide as a Chinese character, for it brings its own."""
    return BESIDE_FULL_WIDTH.sub("", " ".join(str(text).split()))


def languages() -> list[str]:
    """The languages that have templates, English first."""
    found = sorted(path.name for path in FOLDER.iterdir() if any(path.glob("*.j2")))
    return sorted(found, key=lambda language: language != ENGLISH)


@contextmanager
def speaking(language: str) -> Iterator[None]:
    """Within the block words are of this language, whatever WORKBOOK_LANGUAGE names; '' changes nothing."""
    before = _spoken.set(language or _spoken.get())
    try:
        yield
    finally:
        _spoken.reset(before)


def words(topic: str) -> Words:
    """The words of a topic, in the language of `speaking`, else of WORKBOOK_LANGUAGE, else in English."""
    return _words(topic, _spoken.get() or os.environ.get(LANGUAGE_VARIABLE) or ENGLISH)


@cache
def _words(topic: str, language: str) -> Words:
    return Words(_environment(language).get_template(f"{topic}.j2"))


@cache
def _environment(language: str) -> jinja2.Environment:
    if not (FOLDER / language).is_dir():
        known = ", ".join(languages())
        raise InputError(f"{LANGUAGE_VARIABLE} is {language!r}; give one of {known}, or a folder of templates")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER / language), undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    environment.filters.update(number=number, percent=percent)
    return environment
