"""Makes every page of a finished run anew from its files, without computing anything.

python -m workbook.report OUT
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from workbook.common.parallel import prepare
from workbook.common.paths import OutputFolder, expand, locked
from workbook.common.terminal import tell


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m workbook.report",
        allow_abbrev=False,
        description="Make every page of a finished run anew from its files, after words or layout have changed.",
        epilog="Exit code 0: the pages are in OUT/reports; 2: bad input; 1: anything else; 130: interrupted.",
    )
    parser.add_argument("out", help="the folder of a finished run")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    out = parse_arguments(arguments).out
    return tell(lambda: f"report: {render(OutputFolder(expand(out)))}", out)


def render(out: OutputFolder) -> Path:
    """Write the pages into a temporary folder, and put them in the place of those before; returns the first.

    Raises:
        InputError: no finished run is there, or one of an older version.
    """
    prepare("workbook.report.pages")
    from workbook.report.pages import finished_run, write_reports

    run = finished_run(out)
    lock = out.root / ".lock"
    with (
        locked(lock) if lock.exists() else nullcontext(),
        tempfile.TemporaryDirectory(prefix=".run-", dir=out.root) as name,  # killed, it is removed by the next run
    ):
        made = Path(name) / "reports"
        write_reports(run, made)
        if out.reports.exists():
            out.reports.rename(Path(name) / "before")
        made.rename(out.reports)
    return out.reports / "index.html"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
