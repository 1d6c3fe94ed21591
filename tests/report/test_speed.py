"""How long runs took, as the documents tell it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from workbook.common.errors import InputError
from workbook.report.documents import SAMPLE_RUN
from workbook.report.speed import note_run, runs_table


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return tmp_path / "runs.json"


def run_of(folder: Path, command: str, seconds: float, paused: int) -> str:
    """The documents' run with another command and time."""
    folder.mkdir()
    for path in SAMPLE_RUN.iterdir():
        (folder / path.name).symlink_to(path)
    results = json.loads((SAMPLE_RUN / "results.json").read_text())
    results["provenance"] |= {"command": command, "run_seconds": seconds, "paused_seconds": paused, "cores": 2}
    (folder / "results.json").unlink()
    (folder / "results.json").write_text(json.dumps(results))
    return str(folder)


def test_a_run_is_told_without_the_paths_of_its_machine(tmp_path: Path, runs: Path) -> None:
    note_run(run_of(tmp_path / "a", "./run_all.sh --full --out '/my own/out' --seeds 5", 750, 0), runs)
    note_run(run_of(tmp_path / "b", "./run_all.sh --data /mine", 90, 60), runs)
    first, second = runs_table(runs).rows
    assert first == ["`./run_all.sh --full --seeds 5`", "sample", "25,881", "2", "12.5", "no"]
    assert (second[0], second[4:]) == ("`./run_all.sh`", ["1.5", "yes"])
    assert "/my" not in runs.read_text()


def test_the_same_run_again_takes_its_place(tmp_path: Path, runs: Path) -> None:
    for name, seconds in (("a", 60), ("b", 120)):
        note_run(run_of(tmp_path / name, "./run_all.sh", seconds, 0), runs)
    assert [row[4] for row in runs_table(runs).rows] == ["2.0"]


def test_without_a_finished_run_nothing_is_noted(tmp_path: Path, runs: Path) -> None:
    with pytest.raises(InputError):
        note_run(str(tmp_path), runs)
    assert not runs.exists()
