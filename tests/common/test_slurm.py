"""Jobs of a cluster: sent again where they die, gathered by a later call, and told of where they cannot be.

On processes of submitit's local executor, and against programs that stand for those of SLURM.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch

from workbook.common import slurm
from workbook.common.errors import InputError
from workbook.common.jobs import ProgressStep
from workbook.common.parallel import run_jobs
from workbook.common.slurm import Cluster, JobError, SlurmConfig, read_slurm_config, run_on_cluster

pytest.importorskip("submitit", reason="pip install -e '.[slurm]'")
STEPS = 3
SECONDS = 120  # within which a job does something, even on a busy machine


@dataclass(frozen=True)
class Task:
    """does: what becomes of the job until there is a file `mended`, or, as 'die once', the first time."""

    name: str
    does: str = ""
    weights: torch.Tensor | None = field(default=None, repr=False)


def work(folder: Path, task: Task, progress_step: ProgressStep) -> tuple[str, int]:
    with (folder / f"{task.name}.calls").open("a") as file:
        file.write(f"{os.getpid()}\n")
    progress_step()
    if task.does == "die" or (task.does == "die once" and len(calls(folder, task.name)) == 1):
        os.kill(os.getpid(), signal.SIGKILL)
    if task.does == "wait":
        wait_for(lambda: mended(folder).exists())
    if not mended(folder).exists():
        if task.does == "refuse":
            raise InputError("x.pt: no such file; give another")
        if task.does == "fail":
            raise ZeroDivisionError("in vain")
    progress_step()
    progress_step()
    return task.name.upper(), torch.get_num_threads()


def where_from(folder: Path, task: Task, progress_step: ProgressStep) -> tuple[str, int, bool]:
    """Also which process it is, and whether that would send jobs."""
    return work(folder, task, progress_step)[0], os.getpid(), Cluster.of_environment() is not None


def mended(folder: Path) -> Path:
    return folder / "mended"


def calls(folder: Path, name: str) -> list[str]:
    """The process of each time that a job was begun."""
    file = folder / f"{name}.calls"
    return file.read_text().splitlines() if file.exists() else []


def wait_for(happened: Callable[[], bool]) -> None:
    until = time.monotonic() + SECONDS
    while not happened():
        assert time.monotonic() < until
        time.sleep(0.05)


def by_name(**does: str) -> dict[str, Task]:
    return {name: Task(name, said) for name, said in does.items()}


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """On this machine, where jobs find this file."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
    return Cluster(tmp_path / "with space" / "jobs", SlurmConfig(sendings=2), "local-executor")


def result(name: str) -> tuple[str, int]:
    return name.upper(), 1


def test_results_are_in_order_and_what_died_was_sent_again(
    cluster: Cluster, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[tuple[int, int]] = []
    begun: list[str] = []
    jobs = by_name(late="die once", early="")
    found = run_on_cluster(
        work, tmp_path, jobs, STEPS, cluster, lambda *done: told.append(done), begin_anew=lambda: begun.append("anew")
    )
    assert found == [result("late"), result("early")]
    assert [len(calls(tmp_path, name)) for name in jobs] == [2, 1]
    assert len([line for line in caplog.messages if "sent again" in line]) == 1
    assert told[-1] == (2 * STEPS, 2 * STEPS)
    assert max(told) == told[-1]
    assert begun == ["anew"]
    assert not cluster.folder.exists()


def test_a_job_that_dies_too_often_is_told(cluster: Cluster, tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"^job \d+ \(mortal\) died without a result, after 2 sendings; its log is /.*$"):
        run_on_cluster(work, tmp_path, by_name(mortal="die"), STEPS, cluster)
    assert len(calls(tmp_path, "mortal")) == 2


@pytest.mark.parametrize(
    ("does", "kind", "words"),
    [
        ("refuse", InputError, r"x\.pt: no such file; give another; job \d+ goes on, "),
        (
            "fail",
            JobError,
            r"job \d+ \(bad\) failed \(ZeroDivisionError: in vain\); its log is \S.*; job \d+ goes on, ",
        ),
    ],
)
def test_an_error_is_told_at_once_and_a_later_call_gathers_the_others(
    cluster: Cluster, tmp_path: Path, does: str, kind: type[Exception], words: str
) -> None:
    jobs = by_name(bad=does, slow="wait")
    with pytest.raises(kind, match=f"^{words}gathered by the same command with --resume$"):
        run_on_cluster(work, tmp_path, jobs, STEPS, cluster)
    mended(tmp_path).touch()
    assert run_on_cluster(work, tmp_path, jobs, STEPS, cluster, resume=True) == [result("bad"), result("slow")]
    assert [len(calls(tmp_path, name)) for name in jobs] == [2, 1]


def test_who_stops_waiting_is_told_what_goes_on_and_gathers_it_later(cluster: Cluster, tmp_path: Path) -> None:
    jobs = by_name(slow="wait")

    def stop(done: int, total: int) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match=r"^job \d+ goes on; the same command with --resume gathers it, "):
        run_on_cluster(work, tmp_path, jobs, STEPS, cluster, stop)
    trained = {"slow": replace(jobs["slow"], weights=torch.ones(2))}
    for resume, others in ((False, jobs), (True, trained), (True, by_name(slow="fail")), (True, by_name(another=""))):
        with pytest.raises(InputError, match=r"jobs: job \d+ of an earlier call still runs; "):
            run_on_cluster(work, tmp_path, others, STEPS, cluster, resume=resume)
    mended(tmp_path).touch()
    assert run_on_cluster(work, tmp_path, jobs, STEPS, cluster, resume=True) == [result("slow")]
    assert len(calls(tmp_path, "slow")) == 1


def test_a_job_whose_time_is_up_is_queued_again(
    cluster: Cluster, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """By the signal that SLURM sends before it ends or preempts a job."""

    def end(done: int, total: int) -> None:
        if len(begun := calls(tmp_path, "long")) == 1 and done:
            os.kill(int(begun[0]), signal.SIGUSR2)
            mended(tmp_path).touch()
            wait_for(lambda: len(calls(tmp_path, "long")) == 2)

    assert run_on_cluster(work, tmp_path, by_name(long="wait"), STEPS, cluster, end) == [result("long")]
    assert caplog.messages == []


def test_run_jobs_sends_what_the_environment_says(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each job in a process of its own, which itself sends none."""
    monkeypatch.setenv(slurm.VARIABLE, "")  # put back as it was at the end
    jobs = [Task("one"), Task("two")]
    cluster.to_environment()
    assert Cluster.of_environment() == cluster
    told: list[tuple[int, int]] = []
    found = run_jobs(where_from, tmp_path, jobs, STEPS, lambda *done: told.append(done))
    assert [name for name, _, _ in found] == ["ONE", "TWO"]
    assert len({process for _, process, _ in found} - {os.getpid()}) == 2
    assert [sends for _, _, sends in found] == [False, False]
    assert told[-1] == (2 * STEPS, 2 * STEPS)
    (here, *_) = run_jobs(where_from, tmp_path, jobs, STEPS, in_turn=True)
    assert here == ("ONE", os.getpid(), True)


class TestSlurm:
    """Programs that stand for SLURM's write down what they are asked."""

    @pytest.fixture
    def programs(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        folder = tmp_path / "bin"
        folder.mkdir()
        self.write(folder / "srun", "exit 1")
        monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
        monkeypatch.setitem(slurm.POLL_SECONDS, "slurm", 0.01)
        monkeypatch.setitem(slurm.LATE_SECONDS, "slurm", 0.0)
        return folder

    @staticmethod
    def write(program: Path, script: str) -> None:
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)

    @staticmethod
    def send(tmp_path: Path, config: SlurmConfig, names: Mapping[str, Task], most_polls: int = 5) -> None:
        polls: list[int] = []

        def stop(done: int, total: int) -> None:
            polls.append(done)
            if len(polls) == most_polls:
                raise KeyboardInterrupt

        run_on_cluster(work, tmp_path, names, STEPS, Cluster(tmp_path / "jobs", config), stop)

    def test_asks_for_what_the_file_says(self, programs: Path, tmp_path: Path) -> None:
        (tmp_path / "slurm.toml").write_text(
            'partition = "gpu"\naccount = "robots"\ngpus = 2\ncpus = 4\nmemory_gb = 16\nminutes = 90\nat_once = 1\n'
            'setup = ["module load cuda"]\n[sbatch]\nconstraint = "a100"\n'
        )
        self.write(programs / "sbatch", f'cp "$1" {tmp_path}/asked; echo Submitted batch job 7')
        self.write(programs / "squeue", "echo 7_0; echo 7_1")
        with pytest.raises(KeyboardInterrupt, match=r"^jobs 7_0, 7_1 go on"):
            self.send(tmp_path, read_slurm_config(str(tmp_path / "slurm.toml")), by_name(one="", two=""))
        asked = (tmp_path / "asked").read_text().splitlines()
        options = ("partition=gpu", "account=robots", "gpus-per-node=2", "cpus-per-task=4", "mem=16GB", "time=90",
                   "array=0-1%1", "constraint=a100")  # fmt: skip
        assert {f"#SBATCH --{option}" for option in options} <= set(asked)
        assert asked.index("module load cuda") < next(i for i, line in enumerate(asked) if line.startswith("srun"))

    def test_leaves_to_the_cluster_what_nothing_says(self, programs: Path, tmp_path: Path) -> None:
        self.write(programs / "sbatch", f'cp "$1" {tmp_path}/asked; echo Submitted batch job 7')
        self.write(programs / "squeue", "echo 7")
        with pytest.raises(KeyboardInterrupt, match=r"^job 7 goes on"):
            self.send(tmp_path, SlurmConfig(), by_name(one=""))
        asked = (tmp_path / "asked").read_text()
        assert not any(option in asked for option in ("partition", "account", "gpus", "--mem"))

    def test_tells_what_sbatch_refuses(self, programs: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        self.write(programs / "sbatch", "echo 'sbatch: error: invalid partition specified: x' >&2; exit 1")
        with pytest.raises(InputError, match=r"^sbatch refused the jobs \(invalid partition specified: x\); "):
            self.send(tmp_path, SlurmConfig(partition="x"), by_name(one="", two=""))
        assert capfd.readouterr().err == ""

    @pytest.mark.parametrize(("squeue", "sendings"), [("exit 1", 1), ("exit 0", 2)])
    def test_sends_again_only_where_slurm_says_that_a_job_is_gone(
        self, programs: Path, tmp_path: Path, squeue: str, sendings: int
    ) -> None:
        self.write(programs / "sbatch", f"echo >> {tmp_path}/sent; echo Submitted batch job 7")
        self.write(programs / "squeue", squeue)
        with pytest.raises((KeyboardInterrupt, JobError)):
            self.send(tmp_path, SlurmConfig(sendings=2), by_name(one=""))
        assert len((tmp_path / "sent").read_text().splitlines()) == sendings

    def test_is_told_where_it_is_not(self, programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", str(programs))
        with pytest.raises(InputError, match=r"^--on slurm: there is no sbatch here"):
            self.send(tmp_path, SlurmConfig(), by_name(one=""))


def test_a_missing_package_is_told(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slurm, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"needs the package submitit; pip install -e '\.\[slurm\]'"):
        run_on_cluster(work, tmp_path, by_name(one=""), STEPS, cluster)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('partitoin = "gpu"', "'partitoin' is not one of account, at_once, cpus, gpus, "),
        ("partition = gpu", "is not TOML"),
        ("partition = 3", "partition is 3; give a text in quotes"),
        ('gpus = "two"', "gpus is 'two'; give a whole number"),
        ("gpus = true", "gpus is True; give a whole number"),
        ("gpus = -1", "gpus is -1; give at least 0"),
        ("minutes = 0", "minutes is 0; give at least 1"),
        ('setup = "module load cuda"', "setup is 'module load cuda'; give lines of shell"),
        ("sbatch = 3", "sbatch is 3; give a table"),
        ("[sbatch]\nqos = [1]", "give a table"),
    ],
)
def test_a_bad_file_is_told_in_a_sentence(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "slurm.toml"
    path.write_text(text)
    with pytest.raises(InputError) as told:
        read_slurm_config(str(path))
    assert str(told.value).startswith(f"{path}: ")
    assert words in str(told.value)
    assert "\n" not in str(told.value)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.toml: cannot be read \(No such file or directory\)"):
        read_slurm_config(str(tmp_path / "nowhere.toml"))
    assert read_slurm_config("") == SlurmConfig()


def test_what_is_sent_is_written_down(cluster: Cluster, tmp_path: Path) -> None:
    with pytest.raises(JobError):
        run_on_cluster(work, tmp_path, by_name(one="fail"), STEPS, cluster)
    assert json.loads((cluster.folder / "jobs.json").read_text()).keys() == {"one"}
