"""What a whole run says before it sends jobs to SLURM, and where its kernels find that."""

from __future__ import annotations

from pathlib import Path

import pytest

from workbook import run
from workbook.common import slurm
from workbook.common.slurm import Cluster, SlurmConfig


@pytest.fixture(autouse=True)
def _nothing_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(slurm.VARIABLE, "")  # put back as it was at the end
    monkeypatch.setattr(run, "check_before_start", lambda options: pytest.fail("data are read"))


@pytest.fixture
def sbatch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("sbatch", "srun"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))


@pytest.mark.usefixtures("sbatch")
def test_the_kernels_are_told_where_jobs_go_and_the_user_that_they_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("submitit", reason="pip install -e '.[slurm]'")
    told: list[Cluster | None] = []

    def end(options: object) -> None:
        told.append(Cluster.of_environment())
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "check_before_start", end)
    (tmp_path / "slurm.toml").write_text('partition = "long"\nsetup = ["module load cuda"]\n[sbatch]\nqos = "x"\n')
    line = ["--out", str(tmp_path / "out")]
    assert run.main([*line, "--on", "slurm", "--slurm-config", str(tmp_path / "slurm.toml")]) == 130
    assert "scancel ends them" in capsys.readouterr().err
    assert run.main(line) == 130
    assert "scancel" not in capsys.readouterr().err
    config = SlurmConfig("long", setup=("module load cuda",), sbatch={"qos": "x"})
    assert told == [Cluster(tmp_path / "out" / ".jobs", config, again="the same command"), None]


@pytest.mark.usefixtures("sbatch")
def test_a_bad_file_is_told_before_data_are_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["--out", str(tmp_path / "out"), "--on", "slurm", "--slurm-config", str(tmp_path / "nowhere.toml")]
    assert run.main(line) == 2
    assert "nowhere.toml: cannot be read" in capsys.readouterr().err


def test_a_cluster_that_is_not_there_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(slurm, "find_spec", lambda name: True)
    assert run.main(["--out", str(tmp_path / "out"), "--on", "slurm"]) == 2
    assert "there is no sbatch here" in capsys.readouterr().err
