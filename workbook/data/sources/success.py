"""Demonstrations that their data mark as failed: counted, and left out where that is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from workbook.common.note import Note, note
from workbook.data.episodes import LeftOut


def left_out_as_failed(place: str) -> LeftOut:
    return LeftOut(place, "failed", f"{place}: is marked as failed; leave out --only-successful to keep it")


def notes_of_success(succeeded: Sequence[bool | None], only_successful: bool) -> Iterator[Note]:
    """succeeded: of every demonstration, None where it does not say it; only_successful: the failed are left out."""
    if only_successful and set(succeeded) <= {None}:
        yield note("success_not_said")
    elif not only_successful and False in succeeded:
        yield note("marked_failed", failed=succeeded.count(False), of=len(succeeded))
