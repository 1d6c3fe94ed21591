"""A sweep over jobs of a cluster: one of them is killed and sent again, and the rows are those of a sweep here."""

from __future__ import annotations

import json
import os
import pickle
import shlex
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pytest
from documented import blocks
from scripts import load_script

from workbook import run
from workbook.common.paths import REPOSITORY
from workbook.common.slurm import read_slurm_config

pytest.importorskip("submitit", reason="pip install -e '.[slurm]'")
script = load_script("train_rfsq_robust")
SAMPLE = REPOSITORY / "docs" / "slurm.sbatch"
ONE_NODE = REPOSITORY / "tests" / "slurm" / "one_node.sh"
SWEEP = ["--sweep", "seeds=3,conditioning=none+scale", "--num-episodes", "16"]
# So many that a job is still at work when it ends: scancel lets it go on for some seconds.
EPOCHS = {"local-executor": "1000", "slurm": "3000"}
VICTIM = "none_seed0"
SECONDS = 900  # within which every step is done, even on a busy machine
OF_A_MACHINE = {"seconds", "provenance"}


def command(folder: Path, engine: str, *options: str) -> list[str]:
    line = [*SWEEP, "--epochs", EPOCHS[engine], "--models-dir", str(folder), *options]
    return [sys.executable, str(REPOSITORY / "train_rfsq_robust.py"), *line]


def rows(folder: Path) -> list[dict[str, Any]]:
    runs = json.loads((folder / "sweep_results.json").read_text())["runs"]
    return [{key: value for key, value in run.items() if key not in OF_A_MACHINE} for run in runs]


def wait_for_epochs(log: Path, epochs: int) -> None:
    until = time.monotonic() + SECONDS
    while not log.is_file() or log.read_text().count("\n") <= epochs:
        assert time.monotonic() < until, f"{log} has not so many epochs"
        time.sleep(0.02)


@dataclass(frozen=True)
class Swept:
    engine: str
    folder: Path
    code: int
    told: str
    asked: Any  # the training that the job which was killed had been sent


def sweep_and_kill(folder: Path, engine: str, kill: list[str] | None) -> Swept:
    """Sweep by jobs, and kill one in the middle by a command or, with none, as submitit's local executor does."""
    sweep = folder / "sweep"
    sweep.mkdir()
    (sweep / "scale_seed1.resume").write_bytes(b"of an earlier sweep, which is not asked for")
    with (folder / "told").open("w") as file:
        process = subprocess.Popen(command(folder, engine, "--on", engine), stderr=file, stdout=file)
        wait_for_epochs(sweep / f"{VICTIM}_log.csv", 5)
        victim = json.loads((sweep / "jobs" / "jobs.json").read_text())[VICTIM]["id"]
        asked = pickle.loads((sweep / "jobs" / f"{victim}_submitted.pkl").read_bytes()).function.job
        if kill:
            subprocess.run([*kill, victim], check=True)
        else:
            os.kill(int(victim), signal.SIGINT)
        code = process.wait(timeout=SECONDS)
    return Swept(engine, folder, code, (folder / "told").read_text(), asked)


@pytest.fixture(scope="module")
def one_node_slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    if not shutil.which("slurmctld", path=f"{os.environ['PATH']}:/usr/sbin"):
        pytest.skip("apt-get install slurmctld slurmd slurm-client munge")
    folder = tmp_path_factory.mktemp("one_node")
    subprocess.run([ONE_NODE, "start", folder], check=True, timeout=SECONDS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
        yield
    subprocess.run([ONE_NODE, "stop", folder], check=True, timeout=SECONDS)


@pytest.fixture(
    scope="module", params=["local-executor", pytest.param("slurm", marks=[pytest.mark.slurm, pytest.mark.slow])]
)
def swept(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Swept:
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "slurm":
        request.getfixturevalue("one_node_slurm")
        return sweep_and_kill(folder, "slurm", ["scancel"])
    return sweep_and_kill(folder, "local-executor", None)


@pytest.fixture(scope="module")
def here(swept: Swept, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same sweep without jobs."""
    folder = tmp_path_factory.mktemp("here")
    subprocess.run(command(folder, swept.engine), check=True, capture_output=True, timeout=SECONDS)
    return folder


def test_a_sweep_by_jobs_has_the_rows_of_one_here(swept: Swept, here: Path) -> None:
    assert swept.code == 0, swept.told
    assert len(rows(swept.folder)) == 6
    assert rows(swept.folder) == rows(here)


def test_what_was_killed_is_sent_again_and_nothing_else(swept: Swept) -> None:
    again = [line for line in swept.told.replace("\r", "\n").splitlines() if "sent again" in line]
    assert len(again) == 1
    assert VICTIM in again[0]


def test_a_job_goes_on_wherever_it_is_sent_again(swept: Swept) -> None:
    """Though the sweep was begun anew, without --resume, and what lay there before is gone."""
    assert swept.asked.resume
    assert Path(swept.asked.folder).is_absolute()


def test_jobs_leave_what_a_sweep_here_leaves(swept: Swept, here: Path) -> None:
    def names(folder: Path) -> set[str]:
        return {path.name for path in (folder / "sweep").iterdir()}

    assert names(swept.folder) == names(here)


def test_a_single_training_is_a_job_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["--models-dir", str(tmp_path), "--num-episodes", "16", "--epochs", "1", "--on", "local-executor"]
    assert script.main(line) == 0
    assert (tmp_path / "rfsq_robust_best.pt").is_file()
    assert "validation MSE" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (["--data", "nowhere"], "nowhere: no such file or directory"),
        (["--slurm-config", "nowhere.toml"], "nowhere.toml: cannot be read"),
        (["--device", "tpu"], "device 'tpu' is not one of"),
    ],
)
def test_bad_input_gets_the_sentence_that_it_gets_here(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], line: list[str], words: str
) -> None:
    assert script.main(["--models-dir", str(tmp_path), "--on", "local-executor", *line]) == 2
    (told,) = [said for said in capsys.readouterr().err.splitlines() if said.startswith("error: ")]
    assert words in told


def test_a_cluster_that_is_not_there_is_told_before_data_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert script.main(["--models-dir", str(tmp_path), "--data", "nowhere", "--on", "slurm"]) == 2
    assert "there is no sbatch here" in capsys.readouterr().err


def test_the_documents_settings_are_read(tmp_path: Path) -> None:
    ((_, shown),) = blocks("toml")
    path = tmp_path / "slurm.toml"
    path.write_text(shown)
    config = read_slurm_config(str(path))
    assert {each.name for each in fields(config)} == tomllib.loads(shown).keys(), "every setting is shown"


def test_the_sample_of_a_whole_run_as_one_job_calls_what_there_is(tmp_path: Path) -> None:
    """By a shell in which modules load, and whose srun tells what it was asked for."""
    program = tmp_path / "srun"
    program.write_text('#!/bin/sh\necho "$@" > asked\n')
    program.chmod(0o755)
    ready = f"module() {{ test $1 != load || echo $* > loaded; }}; export -f module; export PATH={tmp_path}:$PATH"
    environment = os.environ | {"SLURM_SUBMIT_DIR": str(tmp_path)}
    subprocess.run(
        ["bash", "-c", f"{ready}; bash {shlex.quote(str(SAMPLE))}"], env=environment, cwd=tmp_path, check=True
    )
    asked = (tmp_path / "asked").read_text().split()
    assert asked[0] == "./run_all.sh"
    assert run.parse_arguments(asked[1:]).full
    assert (tmp_path / "loaded").exists()


@pytest.mark.slurm
@pytest.mark.slow
@pytest.mark.usefixtures("one_node_slurm")
def test_slurm_reads_the_sample(tmp_path: Path) -> None:
    """Without the names that every cluster has of its own, and more than a small node has."""
    of_a_cluster = ("--partition", "--account", "--gpus", "--cpus", "--mem")
    lines = [line for line in SAMPLE.read_text().splitlines() if not any(name in line for name in of_a_cluster)]
    (tmp_path / "slurm.sbatch").write_text("\n".join(lines))
    done = subprocess.run(
        ["sbatch", "--test-only", tmp_path / "slurm.sbatch"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slurm
@pytest.mark.slow
@pytest.mark.usefixtures("one_node_slurm")
def test_a_partition_that_is_not_there_is_refused_in_a_sentence(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "slurm.toml").write_text('partition = "nowhere"')
    line = ["--models-dir", str(tmp_path), "--on", "slurm", "--slurm-config", str(tmp_path / "slurm.toml")]
    assert script.main([*line, "--num-episodes", "16"]) == 2
    told = capfd.readouterr().err
    assert "sbatch refused the jobs (invalid partition specified: nowhere" in told
    assert told.count("\n") == 1
