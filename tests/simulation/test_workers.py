"""Work over processes of which any may die."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from workbook.common.errors import InputError
from workbook.common.slurm import VARIABLE, Cluster
from workbook.simulation import workers
from workbook.simulation.workers import Died, run_apart, to_run


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


@pytest.mark.usefixtures("cluster")
def test_neighbouring_jobs_are_one_of_a_cluster_where_one_that_dies_costs_itself_alone() -> None:
    told: list[tuple[int, int]] = []
    results = run_apart(square_or_die, list(range(5)), 60, lambda done, total: told.append((done, total)))
    assert isinstance(results[2], Died)
    assert [found for found in results if not isinstance(found, Died)] == [0, 1, 9, 16]
    assert told[-1] == (5, 5)
    assert told == sorted(told)
    assert run_apart(square, [], 60) == []


@pytest.mark.usefixtures("cluster")
def test_a_node_that_rounds_differently_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "kernels", lambda: "Katmai")
    with pytest.raises(InputError, match="this machine with those for Katmai"):
        run_apart(square_or_die, [1], 60)


def test_a_cluster_is_sent_all_jobs_unless_all_are_done(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    def is_even(number: int) -> bool:
        return number % 2 == 0

    assert to_run([1, 2, 3], is_even) == [1, 2, 3]
    assert to_run([2, 4], is_even) == []
    monkeypatch.delenv(VARIABLE)
    assert to_run([1, 2, 3], is_even) == [1, 3]
