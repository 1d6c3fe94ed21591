"""The line of progress: told to the terminal's follower while there is one, and never a reason to stop."""

import os
from pathlib import Path

import pytest

from workbook.common.paths import OutputFolder
from workbook.common.progress import FILE_VARIABLE, Progress, read_progress
from workbook.common.terminal import live_line


def test_a_file_that_cannot_be_written_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FILE_VARIABLE, str(tmp_path / "gone" / "progress.json"))
    progress = Progress("Training")
    progress(1, 2)
    progress(2, 2)


def test_only_what_runs_under_the_line_tells_its_file(out: OutputFolder) -> None:
    """What runs after it in the same process has no file of a work folder that is gone."""
    with live_line(out, "1/1 notebook"):
        Progress("Training")(1, 4)
        assert read_progress(Path(os.environ[FILE_VARIABLE])) == {"label": "Training", "done": 1, "total": 4}
    assert FILE_VARIABLE not in os.environ
    with pytest.raises(ZeroDivisionError), live_line(out, "1/1 notebook"):
        raise ZeroDivisionError
    assert FILE_VARIABLE not in os.environ
