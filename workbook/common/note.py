"""Something to be said in a report, as values: the sentence of a template that says it, and what stands in it."""

from __future__ import annotations

from typing import Any, TypedDict


class Note(TypedDict):
    key: str
    values: dict[str, Any]


def note(key: str, **values: Any) -> Note:
    """values: as JSON holds them, by the names that the sentence gives them."""
    return Note(key=key, values=values)
