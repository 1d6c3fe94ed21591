"""The Modal app, as far as it can be without an account: its functions, its arguments, its body run here."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from scripts import load_script

from workbook.common.paths import REPOSITORY
from workbook.training.runs import TrainingRun

modal = pytest.importorskip("modal", reason="pip install -e '.[modal]'")
command = load_script("train_rfsq_robust")
GUIDE = shlex.split("--use-layernorm True --num-episodes 50 --epochs 100 --batch-size 64")


class Function:
    """Stands for what Modal makes of `train_in_cloud`: takes runs, runs none."""

    def __init__(self, gpu: str = "none") -> None:
        self.gpu = gpu
        self.runs: list[TrainingRun] = []
        self.chosen: Function | None = None

    def with_options(self, gpu: str) -> Function:
        self.chosen = Function(gpu)
        return self.chosen

    def remote(self, run: TrainingRun) -> dict[str, Any]:
        self.runs.append(run)
        return {
            "conditioning": run.job.conditioning, "seed": run.job.seed, "device": "cuda", "epochs": 1, "bytes": 1,
            "best_epoch": 1, "validation_mse": 0.5, "validation_mse_tokens": 0.5, "curve": [0.5], "seconds": 1.0,
            "concerns": {"doubts": [], "left_out": [], "outliers": {"count": 0}, "trembling": []},
        }  # fmt: skip

    def map(self, runs: Iterable[TrainingRun]) -> Iterator[dict[str, Any]]:
        return map(self.remote, runs)


def test_the_app_has_one_function_and_one_entry_point() -> None:
    assert isinstance(command.app, modal.App)
    assert isinstance(command.train_in_cloud, modal.Function)
    assert isinstance(command.main_in_cloud, modal.app.LocalEntrypoint)


def test_the_guides_command_trains_what_it_trains_here() -> None:
    function = Function()
    assert command.run_in_cloud(GUIDE, function) == 0
    assert function.chosen
    (run,) = function.chosen.runs
    here = command.run_of(command.parse_arguments([*GUIDE, "--models-dir", "/models"]))
    assert run == here
    assert function.chosen.gpu == "T4"


@pytest.mark.parametrize(("said", "gpu"), [("A10G", "A10G"), ("H100", "H100"), ("none", None)])
def test_the_gpu_is_chosen_by_a_flag(said: str, gpu: str | None) -> None:
    function = Function()
    assert command.run_in_cloud([*GUIDE, "--gpu", said], function) == 0
    assert (function.chosen and function.chosen.gpu) == gpu
    assert len((function.chosen or function).runs) == 1


def test_a_sweep_is_mapped_over_containers_and_gathered_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    function = Function()
    assert command.run_in_cloud(["--sweep", "seeds=5,conditioning=all"], function) == 0
    assert function.chosen
    assert len(function.chosen.runs) == 25
    assert {run.folder for run in function.chosen.runs} == {"/models/sweep"}
    assert (tmp_path / "sweep_results.json").is_file()


def test_what_would_be_lost_with_the_container_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    function = Function()
    assert command.run_in_cloud([*GUIDE, "--models-dir", "models"], function) == 2
    assert "--models-dir models: is lost with the container; name one in /models" in capsys.readouterr().err
    assert function.chosen is None


@pytest.mark.filterwarnings("ignore:The train_in_cloud function is executing locally")
def test_the_body_of_a_container_trains(tmp_path: Path) -> None:
    line = ["--num-episodes", "16", "--epochs", "2", "--models-dir", str(tmp_path)]
    outcome = command.train_in_cloud.local(command.run_of(command.parse_arguments(line)))
    assert outcome["epochs"] == 2
    assert (tmp_path / "rfsq_robust_best.pt").is_file()


def test_what_the_image_takes_along_is_enough_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that sees only that reads the sample and trains."""
    taken = [*command.REQUIREMENTS, *command.MODULES, *command.FOLDERS]
    for name in taken:
        copy = shutil.copytree if (REPOSITORY / name).is_dir() else shutil.copy
        copy(REPOSITORY / name, tmp_path / name)
    program = (
        "import sys, rfsq_tokenizer, workbook\n"
        "from workbook.training.runs import run_training, TrainingRun\n"
        "from workbook.training.trainer import Job, TrainConfig\n"
        "assert workbook.__file__.startswith(sys.argv[1]), workbook.__file__\n"
        "run_training(TrainingRun(Job('scale', 0), TrainConfig(epochs=1), folder=sys.argv[1]))"
    )
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    line = [sys.executable, "-c", program, str(tmp_path)]
    done = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert not {".git", ".venv", "out", "tests", "recordings"} & set(taken)


def test_the_image_installs_what_the_project_asks_for() -> None:
    said = subprocess.run(
        ["bash", "-c", command.DEPENDENCIES], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf8"))["project"]
    assert said.stdout.split() == project["dependencies"]
    assert isinstance(command.image_of(REPOSITORY), modal.Image)


def test_the_entry_point_ends_without_an_exit_that_modal_takes_for_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "train_in_cloud", Function())
    command.main_in_cloud.info.raw_f(*GUIDE)
    with pytest.raises(SystemExit, match="2"):
        command.main_in_cloud.info.raw_f("--models-dir", "here")


def test_modal_itself_reads_the_arguments_and_asks_for_an_account(tmp_path: Path) -> None:
    """The real command line, which ends where an account is wanted."""
    line = [sys.executable, "-m", "modal", "run", str(REPOSITORY / "train_rfsq_robust.py"), *GUIDE]
    environment = {"PATH": str(tmp_path), "HOME": str(tmp_path), "MODAL_CONFIG_PATH": str(tmp_path / "none.toml")}
    done = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert "Token missing" in done.stdout + done.stderr


def test_without_modal_the_command_works_all_the_same(tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules['modal'] = None; sys.path.insert(0, sys.argv.pop(1)); sys.argv[0] = 'train'\n"
        "import importlib.util as util\n"
        "found = util.find_spec\n"
        "util.find_spec = lambda name, *rest: None if name == 'modal' else found(name, *rest)\n"
        "import train_rfsq_robust as command\n"
        "assert not hasattr(command, 'app')\n"
        "sys.exit(command.main())"
    )
    line = [sys.executable, "-c", program, str(REPOSITORY), "--num-episodes", "16", "--epochs", "1"]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "rfsq_robust_best.pt").is_file()
