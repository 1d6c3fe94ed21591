"""Live progress of a long call: one line in a notebook, and a file that the runner on the terminal follows."""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from IPython.display import DisplayHandle, Markdown, display

from workbook.common.paths import replacing

FILE_VARIABLE = "WORKBOOK_PROGRESS"  # set by the runner


class Progress:
    """Call it with what is done and what there is to do; the line it leaves behind reads well in a report.

    Without a call there is no line.
    """

    def __init__(self, label: str) -> None:
        self.label = label
        self.started = time.monotonic()
        self.shown = -1.0
        self.handle: DisplayHandle | None = None
        name = os.environ.get(FILE_VARIABLE)
        self.file = Path(name) if name else None

    def __call__(self, done: int, total: int) -> None:
        elapsed = time.monotonic() - self.started
        if done < total and elapsed - self.shown < 0.5:
            return
        self.shown = elapsed
        if self.file:
            with suppress(OSError), replacing(self.file) as temporary:  # a line of progress is no reason to stop
                temporary.write_text(json.dumps({"label": self.label, "done": done, "total": total}), encoding="utf8")
        line = Markdown(self._line(done, total, elapsed))
        if self.handle:
            self.handle.update(line)
        else:
            self.handle = display(line, display_id=True)

    def _line(self, done: int, total: int, elapsed: float) -> str:
        if done >= total:
            return f"{self.label}: done in {elapsed:.0f} s"
        left = f", about {elapsed / done * (total - done):.0f} s left" if done else ""
        return f"{self.label}: {done / total:.0%}{left}"


def read_progress(file: Path) -> dict[str, Any] | None:
    """The newest {'label', 'done', 'total'} in the file, or None."""
    try:
        return json.loads(file.read_text(encoding="utf8"))
    except (OSError, ValueError):
        return None
