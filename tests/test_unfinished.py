"""Going on with a run that was cut off: what is taken over, when it is not, and that nothing is left at the end."""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from workbook import run, unfinished
from workbook.common.parallel import KEPT_VARIABLE
from workbook.common.paths import OutputFolder
from workbook.common.provenance import PAUSED_VARIABLE
from workbook.unfinished import RECORD, going_on

PLAN: dict[str, dict[str, Any]] = {name: {"of": {"size": 1, "pair": [1, 2]}} for name in ("a", "b", "c", "d")}


@pytest.fixture
def target(tmp_path: Path) -> OutputFolder:
    return OutputFolder.at(str(tmp_path / "out"))


def cut_off(target: OutputFolder, *done: str, plan: dict[str, dict[str, Any]] = PLAN) -> Path:
    """A run that stops after these notebooks, with a result of a job of the next one; its folder."""
    with suppress(KeyboardInterrupt), going_on(target, plan) as begun:
        begun.work.stages.mkdir(exist_ok=True)
        for name in done:
            begun.add(name, plan[name])
        (begun.jobs / "one").write_text("kept")
        raise KeyboardInterrupt
    return begun.work.root


class TestGoingOn:
    def test_the_next_of_the_same_goes_on(self, target: OutputFolder, capsys: pytest.CaptureFixture[str]) -> None:
        left = cut_off(target, "a", "b")
        assert "goes on after b" in capsys.readouterr().err
        with going_on(target, PLAN) as next_run:
            assert next_run.work.root == left
            assert [name for name in PLAN if next_run.has(name)] == ["a", "b"]
            assert (next_run.jobs / "one").read_text() == "kept"
            assert os.environ[KEPT_VARIABLE] == str(next_run.jobs)
            next_run.add("c", PLAN["c"])
            assert not list(next_run.jobs.iterdir())
            next_run.end()
        assert not left.exists()
        assert KEPT_VARIABLE not in os.environ

    def test_so_little_is_begun_anew(self, target: OutputFolder) -> None:
        assert not cut_off(target, "a").exists()

    def test_no_further_than_the_settings_are_the_same(self, target: OutputFolder) -> None:
        left = cut_off(target, "a", "b", "c")
        with going_on(target, PLAN | {"c": {"of": {"size": 2}}}) as next_run:
            assert next_run.work.root == left
            assert [name for name in PLAN if next_run.has(name)] == ["a", "b"]
            next_run.end()

    @pytest.mark.parametrize("changed", ["first", "order", "code", "published", "damaged"])
    def test_what_is_of_another_run_goes(
        self, target: OutputFolder, changed: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        left, plan = cut_off(target, "a", "b", "c"), dict(PLAN)
        if changed == "first":
            plan["a"] = {"of": {"size": 2}}
        elif changed == "order":
            plan = {name: plan[name] for name in ("b", "a", "c", "d")}
        elif changed == "code":
            monkeypatch.setattr(unfinished, "code_sha256", lambda: "another")
        elif changed == "published":
            (left / "stages").rmdir()
        else:
            (left / RECORD).write_text("{")
        with going_on(target, plan) as next_run:
            assert not left.exists()
            assert not any(map(next_run.has, PLAN))
            next_run.end()
        assert not list(target.root.glob(".run-*"))

    def test_the_pause_is_known_and_adds_up(self, target: OutputFolder) -> None:
        left = cut_off(target, "a", "b")
        for seconds in (100, 250):
            for path in (left, *left.glob("*.json")):
                os.utime(path, (time.time() - seconds,) * 2)
            cut_off(target)
        assert json.loads((left / RECORD).read_text())["paused"] == pytest.approx(350, abs=5)
        with going_on(target, PLAN) as next_run:
            assert int(os.environ[PAUSED_VARIABLE]) == pytest.approx(350, abs=5)
            next_run.end()

    def test_code_is_what_notebooks_and_modules_are(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for folder in ("workbook/data", "notebooks"):
            (tmp_path / folder).mkdir(parents=True)
        files = [tmp_path / name for name in ("rfsq_robust.py", "workbook/data/a.py", "notebooks/01.ipynb")]
        for path in files:
            path.write_text("1")
        monkeypatch.setattr(unfinished, "REPOSITORY", tmp_path)
        monkeypatch.setattr(unfinished, "NOTEBOOKS", tmp_path / "notebooks")
        seen = [unfinished.code_sha256()]
        assert unfinished.code_sha256() == seen[0]
        for path in files:
            path.write_text("2")
            seen.append(unfinished.code_sha256())
        assert len(set(seen)) == 4


@pytest.fixture
def executed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The runner without its notebooks; their names, as they would be executed. The first 04 is interrupted."""
    names: list[str] = []

    def execute(stem: str, path: Path, parameters: dict[str, Any]) -> None:
        Path(parameters["out"], "stages").mkdir(exist_ok=True)
        names.append(stem)
        if stem.startswith("04") and names.count(stem) == 1:
            raise KeyboardInterrupt

    settings = {"data": {"data": "sample"}, "training": {}, "comparison": {"steps": 1}, "policy": {}}
    monkeypatch.setattr(run, "_execute", execute)
    monkeypatch.setattr(run, "publish", lambda work, target: [])
    monkeypatch.setattr(run, "check_before_start", lambda options: settings)
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


def test_a_tokenizer_of_ones_own_is_compared_anew(executed: list[str], tmp_path: Path) -> None:
    command = ["--out", str(tmp_path / "out"), "--codec", "own.module:Codec"]
    assert (run.main(command), run.main(command)) == (130, 0)
    assert [stem[:2] for stem in executed] == ["01", "02", "03", "04", "03", "04"]
