"""Live progress of a cell: one line in a notebook, and a file that the runner on the terminal follows."""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from math import inf
from pathlib import Path
from types import TracebackType
from typing import Any

from IPython.display import DisplayHandle, Markdown, display

from workbook.common.jobs import OnProgress
from workbook.common.paths import replacing

FILE_VARIABLE = "WORKBOOK_PROGRESS"  # set by the runner
EVERY = 0.5  # seconds, between two looks of the line


class Progress:
    """The one line of all that is done within its block, part after part.

    Call it with a label to begin a part, and what that gives with what is done and what there is to do. `done` is told
    when the block ends, so it leaves room for work that counts nothing. Where nothing is counted there is no line.
    """

    def __init__(self, parts: int = 1) -> None:
        self.parts = parts
        self.begun: list[tuple[str, float]] = []  # labels, and when
        self.share = 0.0  # of the newest part
        self.shown = -inf
        self.handle: DisplayHandle | None = None
        name = os.environ.get(FILE_VARIABLE)
        self.file = Path(name) if name else None

    def __enter__(self) -> Progress:
        return self

    def __call__(self, label: str) -> OnProgress:
        """Begin the next part."""
        self.begun.append((label, time.monotonic()))
        self.share, self.shown = 0.0, -inf
        return self._tell

    def __exit__(self, error: type[BaseException] | None, value: object, traceback: TracebackType | None) -> None:
        if self.handle:
            self._show(f"{self._label()}: stopped at {self.share:.0%}" if error else self._done())

    def _tell(self, done: int, total: int) -> None:
        now, part = time.monotonic(), len(self.begun)
        self.share = done / total if total else 1.0
        if now - self.shown < EVERY and done < total:
            return
        self.shown = now
        if self.file:
            told = {"label": self.begun[-1][0], "done": part - 1 + self.share, "total": max(self.parts, part)}
            with suppress(OSError), replacing(self.file) as temporary:  # a line of progress is no reason to stop
                temporary.write_text(json.dumps(told), encoding="utf8")
        self._show(f"{self._label()}: {self.share:.0%}{self._left(now)}")

    def _label(self) -> str:
        label, part = self.begun[-1][0], len(self.begun)
        return label if self.parts == 1 else f"Part {part} of {self.parts}, {label}"

    def _left(self, now: float) -> str:
        """Of the newest part, as its share so far has gone."""
        if not 0 < self.share < 1:
            return ""
        seconds = (now - self.begun[-1][1]) / self.share * (1 - self.share)
        return f", about {seconds:.0f} s left" + (" of this part" if self.parts > 1 else "")

    def _done(self) -> str:
        """How long it took, and each of several parts; work between two parts counts to the first."""
        started = [when for _, when in self.begun]
        ended = [*started[1:], time.monotonic()]
        seconds = [f"{label} {end - start:.0f} s" for (label, start), end in zip(self.begun, ended, strict=True)]
        whole = f"done in {ended[-1] - started[0]:.0f} s"
        return f"{self.begun[0][0]}: {whole}" if self.parts == 1 else f"{whole.capitalize()}: {', '.join(seconds)}"

    def _show(self, text: str) -> None:
        line = Markdown(text)
        if self.handle:
            self.handle.update(line)
        else:
            self.handle = display(line, display_id=True)


def read_progress(file: Path) -> dict[str, Any] | None:
    """The newest {'label', 'done', 'total'} in the file, or None."""
    try:
        return json.loads(file.read_text(encoding="utf8"))
    except (OSError, ValueError):
        return None
