"""Going on with a run that was cut off: what is taken over, when it is not, and that nothing is left at the end."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from workbook import run, unfinished
from workbook.common.parallel import KEPT_VARIABLE
from workbook.common.paths import OutputFolder
from workbook.common.provenance import PAUSED_VARIABLE
from workbook.common.stages import stage_path, write_stage
from workbook.options import Checked
from workbook.unfinished import RECORD, going_on, identity_of

SAME = "the same"


@pytest.fixture
def target(tmp_path: Path) -> OutputFolder:
    return OutputFolder.at(str(tmp_path / "out"))


def cut_off(target: OutputFolder, *done: str, identity: str = SAME) -> Path:
    """A run that stops after these notebooks, with a result of a job of the next one; its folder."""
    with suppress(KeyboardInterrupt), going_on(target, identity) as begun:
        begun.work.stages.mkdir(exist_ok=True)
        for name in done:
            begun.add(name)
        (begun.jobs / "one").write_text("kept")
        raise KeyboardInterrupt
    return begun.work.root


class TestGoingOn:
    def test_the_next_of_the_same_goes_on(self, target: OutputFolder, capsys: pytest.CaptureFixture[str]) -> None:
        left = cut_off(target, "a", "b")
        said = capsys.readouterr().err
        assert "goes on after b" in said
        assert str(left) in said
        with going_on(target, SAME) as next_run:
            assert (next_run.work.root, next_run.done) == (left, ["a", "b"])
            assert (next_run.jobs / "one").read_text() == "kept"
            assert os.environ[KEPT_VARIABLE] == str(next_run.jobs)
            next_run.add("c")
            assert not list(next_run.jobs.iterdir())
            next_run.work.stages.rmdir()  # as publishing does, which moves it
        assert not left.exists()
        assert KEPT_VARIABLE not in os.environ

    @pytest.mark.parametrize(("done", "identity"), [(("a",), SAME), (("a", "b"), "")])
    def test_so_little_or_without_identity_it_is_begun_anew(
        self, target: OutputFolder, done: tuple[str, ...], identity: str
    ) -> None:
        assert not cut_off(target, *done, identity=identity).exists()

    def test_after_it_is_forgotten_nothing_is_left(self, target: OutputFolder) -> None:
        with suppress(KeyboardInterrupt), going_on(target, SAME) as begun:
            begun.work.stages.mkdir()
            begun.add("a")
            begun.add("b")
            begun.forget()
            raise KeyboardInterrupt
        assert not begun.work.root.exists()

    @pytest.mark.parametrize("changed", ["identity", "published", "no JSON", "other keys", "stage"])
    def test_what_is_of_another_run_or_damaged_goes(
        self, target: OutputFolder, changed: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        left = cut_off(target, "01_data", "02_train_robust")
        if changed == "published":
            (left / "stages").rmdir()
        elif changed == "no JSON":
            (left / RECORD).write_text("{")
        elif changed == "other keys":
            (left / RECORD).write_text("{}")
        elif changed == "stage":
            write_stage(OutputFolder(left), "data", {}, {})
            write_stage(OutputFolder(left), "training", {}, {})
            stage_path(OutputFolder(left), "data").write_text("{}")
        with going_on(target, "another" if changed == "identity" else SAME) as next_run:
            assert not left.exists()
            assert next_run.done == []
        assert not list(target.root.glob(".run-*"))
        assert ("had done up to 02_train_robust goes" in capsys.readouterr().out) == (changed in ("identity", "stage"))

    def test_the_pause_is_known_and_adds_up(self, target: OutputFolder) -> None:
        left = cut_off(target, "a", "b")
        for seconds in (100, 250):
            for path in (left, *left.glob("*.json")):
                os.utime(path, (time.time() - seconds,) * 2)
            cut_off(target)
        assert json.loads((left / RECORD).read_text())["paused"] == pytest.approx(350, abs=5)
        with going_on(target, SAME) as next_run:
            assert int(os.environ[PAUSED_VARIABLE]) == pytest.approx(350, abs=5)
            next_run.forget()

    def test_identity_is_what_was_read_and_what_reads_it(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for folder in ("workbook/data", "notebooks"):
            (tmp_path / folder).mkdir(parents=True)
        names = ("rfsq_robust.py", "workbook/data/a.py", "workbook/words.j2", "notebooks/01.ipynb")
        files = [tmp_path / name for name in names]
        for path in files:
            path.write_text("1")
        (tmp_path / "workbook" / ".#a.py").symlink_to("nobody@nowhere")  # of an editor
        monkeypatch.setattr(unfinished, "REPOSITORY", tmp_path)
        monkeypatch.setattr(unfinished, "NOTEBOOKS", tmp_path / "notebooks")
        seen = [identity_of([np.arange(3)])]
        assert identity_of([np.arange(3)]) == seen[0]
        seen.append(identity_of([np.arange(4)]))
        for path in files:
            path.write_text("2")
            seen.append(identity_of([np.arange(3)]))
        monkeypatch.setenv("OMP_NUM_THREADS", "7")
        seen.append(identity_of([np.arange(3)]))
        assert len(set(seen)) == len(files) + 3


Execute = Callable[[str, Path, dict[str, Any]], None]


@pytest.fixture
def executed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The runner without its notebooks; their names, as they would be executed. The first 04 is interrupted."""
    names: list[str] = []

    def execute(stem: str, path: Path, parameters: dict[str, Any]) -> None:
        Path(parameters["out"], "stages").mkdir(exist_ok=True)
        names.append(stem)
        if stem.startswith("04") and names.count(stem) == 1:
            raise KeyboardInterrupt

    def publish(work: OutputFolder, target: OutputFolder) -> list[str]:
        work.stages.rmdir()
        return []

    settings: dict[str, dict[str, Any]] = {"data": {"data": "sample"}, "training": {}, "comparison": {}, "policy": {}}
    monkeypatch.setattr(run, "_execute", execute)
    monkeypatch.setattr(run, "publish", publish)
    monkeypatch.setattr(run, "check_before_start", lambda options: Checked(settings, ()))
    return names


def test_a_command_that_is_given_again_executes_what_is_left(
    executed: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["--out", str(tmp_path / "out")]
    assert run.main(command) == 130
    assert "goes on after 03_compare" in capsys.readouterr().err
    assert run.main(command) == 0
    assert [stem[:2] for stem in executed] == ["01", "02", "03", "04", "04"]
    assert capsys.readouterr().out.count("done before") == 3
    assert not list((tmp_path / "out").glob(".run-*"))
    assert run.main(command) == 0  # a finished run is no unfinished one
    assert len(executed) == 9


@pytest.mark.parametrize("more", [["--full"], ["--policy-steps", "5"], ["--with-replay"]])
def test_another_command_begins_anew(executed: list[str], tmp_path: Path, more: list[str]) -> None:
    command = ["--out", str(tmp_path / "out")]
    assert (run.main(command), run.main([*command, *more])) == (130, 0)
    assert [stem[:2] for stem in executed][:5] == ["01", "02", "03", "04", "01"]


def test_with_a_tokenizer_of_ones_own_nothing_is_taken_over(executed: list[str], tmp_path: Path) -> None:
    command = ["--out", str(tmp_path / "out"), "--codec", "own.module:Codec"]
    assert (run.main(command), run.main(command)) == (130, 0)
    assert [stem[:2] for stem in executed] == ["01", "02", "03", "04"] * 2
