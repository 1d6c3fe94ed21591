"""How results take their place: made in a hidden folder of the output folder, moved all at once, results.json last."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from workbook.common.paths import PARTS, OutputFolder
from workbook.common.terminal import STOPS


def publish(work: OutputFolder, target: OutputFolder) -> list[str]:
    """Write the pages, move everything into place, and return the lines that say the verdict."""
    from workbook.common.stages import ROWS, table_path
    from workbook.evaluation.evidence import Evidence
    from workbook.report.pages import write_reports
    from workbook.report.tables.verdict import verdict_lines

    run = Evidence(work.root)
    write_reports(run)
    lines = verdict_lines(run)
    with _not_to_be_stopped():
        target.results.unlink(missing_ok=True)  # from here to its return the folder holds no result
        for part in PARTS:
            shutil.rmtree(target.root / part, ignore_errors=True)
            (work.root / part).rename(target.root / part)
        for rows in ROWS:
            table_path(target, rows).unlink(missing_ok=True)
            if table_path(work, rows).exists():
                table_path(work, rows).rename(table_path(target, rows))
        work.results.rename(target.results)
    return lines


@contextmanager
def _not_to_be_stopped() -> Iterator[None]:
    """Put off interruption for the moment in which old results make way for new ones."""
    previous = {stop: signal.signal(stop, signal.SIG_IGN) for stop in STOPS}
    try:
        yield
    finally:
        for stop, handler in previous.items():
            signal.signal(stop, handler)
