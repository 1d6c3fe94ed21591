"""Work over processes of which any may die."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from workbook.common.errors import InputError
from workbook.common.slurm import VARIABLE, Cluster
from workbook.simulation import workers
from workbook.simulation.workers import Died, run_apart, run_missing


def square(number: int) -> tuple[int, int]:
    return number * number, os.getpid()


def square_or_die(number: int) -> int:
    if number == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return number * number


def square_or_hang(number: int) -> int:
    if number == 1:
        time.sleep(60)
    return number * number


def square_and_die_soon_after(number: int) -> int:
    threading.Timer(0.05, os._exit, (1,)).start()
    return number * number


def fail(number: int) -> int:
    raise ValueError(f"cannot do {number}")


def die(number: int) -> int:
    os._exit(3)


def leave_a_file(number: int) -> str:
    Path("left.txt").write_text("noise")
    return str(Path.cwd())


def is_made(job: tuple[Path, int]) -> bool:
    return job[0].is_file()


def make(job: tuple[Path, int]) -> str:
    """Leave a file, and say that it was made once more in another; of job 2 nothing, and job 3 dies."""
    path, number = job
    with path.with_suffix(".times").open("a") as times:
        times.write(".")
    if number == 2:
        return "not to be made"
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.5)
    path.write_text(str(number))
    return ""


def files(folder: Path, numbers: Sequence[int]) -> list[tuple[Path, int]]:
    return [(folder / f"{number}.made", number) for number in numbers]


def times(job: tuple[Path, int]) -> int:
    return job[0].with_suffix(".times").stat().st_size


def test_results_come_in_the_order_of_jobs_from_so_many_processes() -> None:
    results = run_apart(square, list(range(6)), 60, workers=2)
    assert all(not isinstance(found, Died) for found in results)
    numbers, processes = zip(*results, strict=True)  # type: ignore[arg-type]
    assert list(numbers) == [0, 1, 4, 9, 16, 25]
    assert len(set(processes)) <= 2
    assert os.getpid() not in processes


def test_a_process_that_dies_costs_its_own_job_alone() -> None:
    results = run_apart(square_or_die, list(range(5)), 60, workers=1)
    assert isinstance(results[2], Died)
    assert [found for found in results if not isinstance(found, Died)] == [0, 1, 9, 16]


def test_a_process_that_dies_each_time_ends_all_the_same() -> None:
    assert all(isinstance(found, Died) for found in run_apart(die, list(range(3)), 60, workers=2))


def test_a_process_that_dies_between_two_jobs_costs_none() -> None:
    def dawdle(done: int, total: int) -> None:
        time.sleep(0.5)

    assert run_apart(square_and_die_soon_after, list(range(3)), 60, dawdle, workers=1) == [0, 1, 4]


def test_a_job_that_hangs_is_ended() -> None:
    results = run_apart(square_or_hang, list(range(3)), 8, workers=1)
    assert isinstance(results[1], Died)
    assert (results[0], results[2]) == (0, 4)


def test_what_the_work_raises_is_raised_and_no_process_stays() -> None:
    with pytest.raises(ValueError, match="cannot do"):
        run_apart(fail, list(range(3)), 60, workers=2)
    assert not multiprocessing.active_children()


def test_an_interruption_ends_a_process_that_is_busy() -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_apart(square_or_hang, [1, 1], 60, interrupt, workers=2)
    assert not multiprocessing.active_children()
    assert time.monotonic() - started < 30  # the jobs would take 60 s


def test_progress_is_told_up_to_the_end() -> None:
    told: list[tuple[int, int]] = []
    run_apart(square, list(range(3)), 60, lambda done, total: told.append((done, total)), workers=1)
    assert told[-1] == (3, 3)
    assert told == sorted(told)


def test_what_a_job_leaves_behind_lies_in_no_folder_of_the_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = run_apart(leave_a_file, [0], 60)[0]
    assert isinstance(folder, str)
    assert not list(tmp_path.iterdir())
    assert not Path(folder).exists()


def test_nothing_to_do_is_done_at_once() -> None:
    assert run_apart(square, [], 60) == []


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """Processes of submitit's own, which are sent three jobs at most together."""
    pytest.importorskip("submitit", reason="pip install -e '.[slurm]'")
    monkeypatch.setenv(VARIABLE, "")  # put back as it was at the end
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    monkeypatch.setattr(workers, "SENT_TOGETHER", 3)
    cluster = Cluster(tmp_path / "jobs", engine="local-executor")
    cluster.to_environment()
    return cluster


def test_what_is_done_is_not_done_again_and_counts_as_progress(tmp_path: Path) -> None:
    jobs, told = files(tmp_path, [0, 1, 2, 3]), list[tuple[int, int]]()
    jobs[1][0].write_text("done before")
    said = run_missing(make, jobs, is_made, 60, lambda done, total: told.append((done, total)), workers=1)
    assert said[:3] == ["", "", "not to be made"]
    assert isinstance(said[3], Died)
    assert jobs[1][0].read_text() == "done before"
    assert told == sorted(told)
    assert told[0][0] >= 1
    assert told[-1] == (4, 4)


@pytest.mark.usefixtures("cluster")
def test_jobs_of_a_cluster_make_what_is_missing_and_one_that_dies_costs_itself_alone(tmp_path: Path) -> None:
    jobs, told = files(tmp_path, range(5)), list[tuple[int, int]]()
    jobs[1][0].write_text("done before")
    said = run_missing(make, jobs, is_made, 60, lambda done, total: told.append((done, total)))
    assert [each for each in said if not isinstance(each, Died)] == ["", "", "not to be made", ""]
    assert isinstance(said[3], Died)
    assert jobs[1][0].read_text() == "done before"
    assert [times(jobs[at]) for at in (0, 3, 4)] == [1, 2, 1]  # for what died is tried once more
    assert told[-1] == (5, 5)
    assert run_missing(make, jobs[:2], is_made, 60) == ["", ""]


def test_after_an_interruption_the_same_call_gathers_and_what_is_lost_later_is_made_again(
    cluster: Cluster, tmp_path: Path
) -> None:
    jobs = files(tmp_path, [0, 1, 4, 5])

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_missing(make, jobs, is_made, 60, interrupt)
    assert list(cluster.folder.iterdir()), "what was sent is known"
    assert run_missing(make, jobs, is_made, 60) == [""] * 4
    assert [times(job) for job in jobs] == [1] * 4

    jobs[0][0].unlink()
    with pytest.raises(KeyboardInterrupt):
        run_missing(make, jobs, is_made, 60, interrupt)
    while not is_made(jobs[0]):  # jobs go on
        time.sleep(0.1)
    jobs[0][0].unlink()
    assert run_missing(make, jobs, is_made, 60) == [""] * 4, "though jobs had said that it is done"
    assert [times(job) for job in jobs] == [3, 1, 1, 1]


@pytest.mark.usefixtures("cluster")
def test_a_node_that_rounds_differently_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(workers, "kernels", lambda: "Katmai")
    with pytest.raises(InputError, match="this machine with those for Katmai"):
        run_missing(make, files(tmp_path, [1]), is_made, 60)
