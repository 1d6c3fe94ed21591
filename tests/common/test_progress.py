"""The line of progress: one for all that a cell does, told to the terminal's follower, and never a reason to stop."""

import os
from pathlib import Path

import pytest

from workbook.common import progress as module
from workbook.common.paths import OutputFolder
from workbook.common.progress import FILE_VARIABLE, Progress, read_progress
from workbook.common.terminal import live_line


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Of each line in the notebook everything that it has shown, in turn; and no time passes unasked."""
    found: list[list[str]] = []

    class Handle:
        def __init__(self, line: list[str]) -> None:
            self.line = line

        def update(self, output: object) -> None:
            self.line.append(output.data)

    def display(output: object, display_id: bool) -> Handle:
        assert display_id
        found.append([output.data])
        return Handle(found[-1])

    monkeypatch.setattr(module, "display", display)
    monkeypatch.delenv(FILE_VARIABLE, raising=False)
    return found


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the time is, in its only element."""
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_a_file_that_cannot_be_written_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FILE_VARIABLE, str(tmp_path / "gone" / "progress.json"))
    with Progress() as progress:
        tell = progress("Training")
        tell(1, 2)
        tell(2, 2)


def test_only_what_runs_under_the_line_tells_its_file(out: OutputFolder) -> None:
    """What runs after it in the same process has no file of a work folder that is gone."""
    with live_line(out, "1/1 notebook"):
        Progress()("Training")(1, 4)
        assert read_progress(Path(os.environ[FILE_VARIABLE])) == {"label": "Training", "done": 0.25, "total": 1}
    assert FILE_VARIABLE not in os.environ
    with pytest.raises(ZeroDivisionError), live_line(out, "1/1 notebook"):
        raise ZeroDivisionError
    assert FILE_VARIABLE not in os.environ


def test_the_end_of_one_part_is_not_told_as_the_end(lines: list[list[str]], clock: list[float]) -> None:
    with Progress() as progress:
        tell = progress("Training")
        for seconds, done in ((0, 0), (10, 1), (10.1, 2), (20, 3), (30, 4)):
            clock[0] = 100 + seconds
            tell(done, 4)
        clock[0] = 132
    assert lines == [[
        "Training: 0%", "Training: 25%, about 30 s left", "Training: 75%, about 7 s left", "Training: 100%",
        "Training: done in 32 s",
    ]]  # fmt: skip


def test_several_parts_share_one_line_and_one_bar(
    lines: list[list[str]], clock: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "progress.json"
    monkeypatch.setenv(FILE_VARIABLE, str(file))
    shares = []
    with Progress(parts=2) as progress:
        for label, seconds in (("Training", 8), ("Scoring", 2)):
            tell = progress(label)
            for done in (1, 2):
                clock[0] += seconds / 2
                tell(done, 2)
                told = read_progress(file)
                assert told is not None
                shares.append(told["done"] / told["total"])
    assert shares == [0.25, 0.5, 0.75, 1.0]
    assert lines == [[
        "Part 1 of 2, Training: 50%, about 4 s left of this part", "Part 1 of 2, Training: 100%",
        "Part 2 of 2, Scoring: 50%, about 1 s left of this part", "Part 2 of 2, Scoring: 100%",
        "Done in 10 s: Training 8 s, Scoring 2 s",
    ]]  # fmt: skip


def test_what_is_cut_off_does_not_say_that_it_is_done(lines: list[list[str]]) -> None:
    def work() -> None:
        with Progress() as progress:
            progress("Training")(1, 4)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    assert lines[0][-1] == "Training: stopped at 25%"


def test_where_nothing_is_counted_there_is_no_line(lines: list[list[str]]) -> None:
    with Progress() as progress:
        progress("Fetching actions")
    assert lines == []
