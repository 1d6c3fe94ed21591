"""Jobs over processes: the same results as in turn, progress steps counted, errors told, and no process left."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import torch

from workbook.common import parallel
from workbook.common.jobs import ProgressStep
from workbook.common.parallel import KEPT_VARIABLE, PROGRESS_STEPS, in_progress_steps, run_jobs

TICKS_A_JOB = 3
JOBS = [5, -2, 0, 9, 4]
OFFSET = {"offset": 100}


def squared(shared: dict[str, int], job: int, progress_step: ProgressStep) -> tuple[int, int]:
    """The earlier of the jobs take longer; also tells the process."""
    for _ in range(TICKS_A_JOB):
        time.sleep(0.01 * (job == JOBS[0]))
        progress_step()
    return shared["offset"] + job * job, os.getpid()


def failing_first(shared: None, job: int, progress_step: ProgressStep) -> int:
    """The first job fails; the second would go on for ten minutes."""
    if job == 0:
        raise LookupError(f"job {job} went wrong")
    for _ in range(60_000):
        time.sleep(0.01)
        progress_step()
    return job


def dying(shared: None, job: int, progress_step: ProgressStep) -> int:
    os._exit(3)


@dataclass(frozen=True)
class Done:
    results: list[tuple[int, int]]
    progress: list[tuple[int, int]]


@pytest.fixture(scope="module")
def over_processes() -> Done:
    progress: list[tuple[int, int]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parallel, "available_cores", lambda: 2)
        results = run_jobs(squared, OFFSET, JOBS, TICKS_A_JOB, lambda done, total: progress.append((done, total)))
    return Done(results, progress)


@pytest.fixture
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "available_cores", lambda: 2)


class TestOverProcesses:
    def test_results_are_in_the_order_of_jobs(self, over_processes: Done) -> None:
        assert [result for result, _ in over_processes.results] == [125, 104, 100, 181, 116]

    def test_in_turn_it_is_the_same(self, over_processes: Done) -> None:
        in_turn = run_jobs(squared, OFFSET, JOBS, TICKS_A_JOB, in_turn=True)
        assert [result for result, _ in in_turn] == [result for result, _ in over_processes.results]
        assert {process for _, process in in_turn} == {os.getpid()}

    def test_the_work_is_done_by_other_processes(self, over_processes: Done) -> None:
        processes = {process for _, process in over_processes.results}
        assert os.getpid() not in processes
        assert len(processes) <= 2

    def test_ticks_rise_to_the_total(self, over_processes: Done) -> None:
        done = [done for done, _ in over_processes.progress]
        assert {total for _, total in over_processes.progress} == {TICKS_A_JOB * len(JOBS)}
        assert done == sorted(done)
        assert done[-1] == TICKS_A_JOB * len(JOBS)

    def test_no_process_is_left(self, over_processes: Done) -> None:
        assert over_processes.results
        assert multiprocessing.active_children() == []


METHODS = ["spawn", *(["forkserver"] if sys.platform == "linux" else [])]


def variable(name: str, job: int, progress_step: ProgressStep) -> str | None:
    return os.environ.get(name)


@pytest.mark.usefixtures("two_cores")
@pytest.mark.parametrize("method", METHODS)
def test_workers_have_the_environment_of_the_moment(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(parallel._how_workers_start, "method", method)
    monkeypatch.setenv("OF_THE_MOMENT", "first")
    found = [run_jobs(variable, "OF_THE_MOMENT", [0, 1], 1)]
    monkeypatch.setenv("OF_THE_MOMENT", "second")
    found.append(run_jobs(variable, "OF_THE_MOMENT", [0, 1], 1))
    monkeypatch.delenv("OF_THE_MOMENT")
    found.append(run_jobs(variable, "OF_THE_MOMENT", [0, 1], 1))
    assert found == [["first"] * 2, ["second"] * 2, [None] * 2]


@pytest.mark.usefixtures("two_cores")
class TestErrors:
    def test_one_in_a_worker_surfaces_stops_the_others_and_leaves_no_process(self) -> None:
        started = time.monotonic()
        with pytest.raises(LookupError, match="job 0 went wrong"):
            run_jobs(failing_first, None, [0, 1], 60_000)
        assert time.monotonic() - started < 300
        assert multiprocessing.active_children() == []

    def test_one_in_the_report_of_progress_surfaces_and_leaves_no_process(self) -> None:
        def interrupted(done: int, total: int) -> None:
            if done:
                raise KeyboardInterrupt

        started = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            run_jobs(failing_first, None, [1, 2], 60_000, interrupted)
        assert time.monotonic() - started < 300
        assert multiprocessing.active_children() == []

    def test_a_worker_that_dies_is_told_and_leaves_no_process(self) -> None:
        with pytest.raises(BrokenProcessPool):
            run_jobs(dying, None, [0, 1], 1)
        assert multiprocessing.active_children() == []


SCRIPT = """
import os, sys, time
from workbook.common import parallel
def work(shared, job, progress_step):
    open(f"{shared}/{os.getpid()}", "w").close()
    time.sleep(job)
    return parallel.multiprocessing.current_process().__class__.__name__
if __name__ == "__main__":
    parallel.available_cores = lambda: 2
    if "prepared" in sys.argv:
        parallel.prepare("workbook.common.paths", "no.such.module")
    print(parallel.run_jobs(work, os.path.dirname(__file__), [float(sys.argv[1])] * 2, 1))
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """Of two jobs, each of which leaves its process's number as a file beside it and then takes its time."""
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    return path


@pytest.mark.parametrize("more", [[], ["prepared"]], ids=["", "prepared"])
def test_no_process_outlives_one_that_is_killed(script: Path, more: list[str]) -> None:
    started = time.monotonic()
    killed = subprocess.Popen([sys.executable, str(script), "600", *more])

    def within(seconds: float, wanted: Callable[[], bool]) -> bool:
        while not (met := wanted()) and time.monotonic() - started < seconds:
            time.sleep(0.1)
        return met

    assert within(120, lambda: len(list(script.parent.glob("[0-9]*"))) == 2)
    workers = {int(path.name) for path in script.parent.glob("[0-9]*")}
    everyone = {child.pid for child in psutil.Process(killed.pid).children(recursive=True)}
    assert everyone >= workers
    killed.kill()
    killed.wait()
    assert within(240, lambda: not any(map(psutil.pid_exists, everyone)))


@pytest.mark.skipif(sys.platform != "linux", reason="workers are no copies there")
@pytest.mark.parametrize("folder", ["", "long" * 30])
def test_workers_are_copies_of_what_was_prepared_where_they_can_be(script: Path, folder: str) -> None:
    """A socket's path may be too long for it."""
    temporary = script.parent / folder if folder else Path("/tmp")
    temporary.mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, str(script), "0", "prepared"], env=os.environ | {"TMPDIR": str(temporary)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    kind = "SpawnProcess" if folder else "ForkServerProcess"
    assert done.stdout == f"['{kind}', '{kind}']\n"
    assert done.stderr == ""


class TestInTurn:
    def test_every_tick_is_told_at_once(self) -> None:
        progress: list[tuple[int, int]] = []
        run_jobs(squared, OFFSET, JOBS, TICKS_A_JOB, lambda done, total: progress.append((done, total)), in_turn=True)
        assert progress == [(done, 15) for done in range(1, 16)]

    def test_one_core_or_one_job_stays_in_this_process(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(parallel, "available_cores", lambda: 1)
        assert {process for _, process in run_jobs(squared, OFFSET, JOBS, TICKS_A_JOB)} == {os.getpid()}
        monkeypatch.setattr(parallel, "available_cores", lambda: 8)
        assert run_jobs(squared, OFFSET, JOBS[:1], TICKS_A_JOB) == [(125, os.getpid())]

    def test_no_jobs_have_no_results(self) -> None:
        assert run_jobs(squared, OFFSET, [], TICKS_A_JOB) == []

    def test_an_error_ends_it_before_the_next_job(self) -> None:
        begun: list[int] = []

        def work(shared: None, job: int, progress_step: ProgressStep) -> int:
            begun.append(job)
            return 1 // job

        with pytest.raises(ZeroDivisionError):
            run_jobs(work, None, [2, 0, 1], 1, in_turn=True)
        assert begun == [2, 0]


class TestProgressStepsOfALongJob:
    @pytest.mark.parametrize("steps", [1, 3, PROGRESS_STEPS, 33, 250])
    def test_are_as_many_whatever_the_steps(self, steps: int) -> None:
        told: list[int] = []
        tell = in_progress_steps(steps, lambda: told.append(1))
        after = []
        for step in range(1, steps + 1):
            tell(step)
            after.append(len(told))
        assert after == [PROGRESS_STEPS * step // steps for step in range(1, steps + 1)]
        assert after[-1] == PROGRESS_STEPS


def make_model(width: int, job: int, progress_step: ProgressStep) -> torch.nn.Module:
    return torch.nn.Sequential(*(torch.nn.Linear(width, width) for _ in range(20)))


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="open files are counted in /proc")
def test_models_do_not_come_back_as_open_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "available_cores", lambda: 2)
    before = len(list(Path("/proc/self/fd").iterdir()))
    models = run_jobs(make_model, 4, range(3), 1)
    assert len(models) == 3
    assert len(list(Path("/proc/self/fd").iterdir())) < before + 30  # of 120 tensors


def counted(shared: str, job: int, progress_step: ProgressStep) -> int:
    """Leaves a mark of every call in a folder; job 3 fails while the folder lacks a file named 'well'."""
    if job == 3 and not Path(shared, "well").exists():
        raise LookupError("not yet")
    Path(shared, f"{job}-{time.monotonic_ns()}").touch()
    progress_step()
    return job * job


class TestKept:
    """Results in a folder that the environment names."""

    @pytest.mark.parametrize("in_turn", [True, False])
    def test_nothing_is_done_twice(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, two_cores: None, in_turn: bool
    ) -> None:
        marks, kept = tmp_path / "marks", tmp_path / "kept"
        marks.mkdir()
        kept.mkdir()
        monkeypatch.setenv(KEPT_VARIABLE, str(kept))
        with pytest.raises(LookupError, match="not yet"):
            run_jobs(counted, str(marks), [1, 2, 3], 1, in_turn=in_turn)
        done = len(list(kept.iterdir()))
        (marks / "well").touch()
        told: list[tuple[int, int]] = []
        assert run_jobs(counted, str(marks), [1, 2, 3], 1, lambda *of: told.append(of), in_turn) == [1, 4, 9]
        assert told[-1] == (3, 3)
        assert all(before >= done for before, _ in told)
        assert run_jobs(counted, str(marks), [3, 1], 1, in_turn=in_turn) == [9, 1]
        assert sorted(path.name[0] for path in marks.glob("*-*")) == ["1", "2", "3"]
        for path in kept.iterdir():
            path.write_bytes(b"")  # as after a power failure
        assert run_jobs(counted, str(marks), [1, 2, 3], 1, in_turn=in_turn) == [1, 4, 9]
        assert len(list(marks.glob("*-*"))) == 6
        run_jobs(counted, str(marks), [4], 1, in_turn=in_turn, kept=False)
        assert len(list(kept.iterdir())) == 3

    def test_another_shared_part_or_job_is_another_result(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(KEPT_VARIABLE, str(tmp_path))
        first = run_jobs(squared, {"offset": 0}, [2], TICKS_A_JOB, in_turn=True)
        other = run_jobs(squared, {"offset": 1}, [2, 3], TICKS_A_JOB, in_turn=True)
        assert [value for value, _ in first + other] == [4, 5, 10]
        assert len(list(tmp_path.iterdir())) == 3
