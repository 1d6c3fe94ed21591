"""Many independent jobs over processes: one a core, stopped together, with progress in steps of equal work."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbook.common.digest import digest
from workbook.common.jobs import Job, OnProgress, ProgressStep, Result, Shared
from workbook.common.paths import replacing
from workbook.common.slurm import Cluster, run_on_cluster

KEPT_VARIABLE = "WORKBOOK_KEPT_JOBS"  # a folder of our own for results of jobs, set by the runner: none is done twice
PROGRESS_STEPS = 20  # of a job whose steps are too quick to be told one by one
_how_workers_start = {"method": "spawn"}


def prepare(*modules: str) -> None:
    """Have workers be copies of a process that begins, in the background, to import these modules; the first call says
    which.

    For a command, in which no code changes any more: copies would not see it. Where there can be no such process,
    workers go on to import for themselves; a module that is not there is left out.
    """
    if sys.platform != "linux" or available_cores() < 2:  # elsewhere a copy of a process with torch in it is not safe
        return
    from multiprocessing import forkserver  # which not every system has

    forkserver.set_forkserver_preload(list(modules))
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # which it would heed until it has imported all
    try:
        forkserver.ensure_running()
    except OSError:  # of its socket, whose path may be too long
        return
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    _how_workers_start["method"] = "forkserver"


def run_jobs(
    work: Callable[[Shared, Job, ProgressStep], Result],
    shared: Shared,
    jobs: Sequence[Job],
    progress_steps: int,
    on_progress: OnProgress | None = None,
    in_turn: bool = False,
    here: bool = False,
    kept: bool = True,
) -> list[Result]:
    """work(shared, job, progress_step) of every job, in the order of jobs.

    work is a function of a module, and shared, jobs and results can be pickled. It is to call progress_step
    `progress_steps` times in each job; on_progress gets the progress steps done and those in all. `in_turn` keeps the
    work in this process, as a CUDA device asks for. Where the environment names a cluster, each job is one of its own
    there, unless the work is to be done `here`. Where it names a folder, results are kept there, and taken from there,
    unless they are not to be `kept`.
    """
    if not (in_turn or here) and (cluster := Cluster.of_environment()):
        named = {str(number): job for number, job in enumerate(jobs)}
        return run_on_cluster(
            work, shared, named, progress_steps, cluster.apart(work, shared), on_progress, resume=True
        )
    report = on_progress or (lambda done, total: None)
    folder = os.environ.get(KEPT_VARIABLE) if kept else None
    if not folder:
        return _run(work, shared, jobs, progress_steps, report, in_turn)
    of_all = digest((work, shared))
    paths = [Path(folder) / digest((of_all, job)) for job in jobs]
    missing = [(job, path) for job, path in zip(jobs, paths, strict=True) if not _is_whole(path)]
    before, total = progress_steps * (len(jobs) - len(missing)), progress_steps * len(jobs)
    report(before, total)
    _run(_Keeping(work), shared, missing, progress_steps, lambda done, _: report(before + done, total), in_turn)
    return [pickle.loads(path.read_bytes()) for path in paths]  # of our own jobs


def _is_whole(path: Path) -> bool:
    """Whether a result is there, and not cut short as by a power failure."""
    try:
        pickle.loads(path.read_bytes())  # of our own jobs
    except Exception:  # a damaged pickle can raise nearly anything
        return False
    return True


@dataclass(frozen=True)
class _Keeping:
    """Work of which nothing is returned: its result is left in a file."""

    work: Callable[..., Any]

    def __call__(self, shared: Any, job: tuple[Any, Path], progress_step: ProgressStep) -> None:
        with replacing(job[1]) as temporary:
            temporary.write_bytes(pickle.dumps(self.work(shared, job[0], progress_step)))


def _run(
    work: Callable[[Shared, Job, ProgressStep], Result],
    shared: Shared,
    jobs: Sequence[Job],
    progress_steps: int,
    report: OnProgress,
    in_turn: bool,
) -> list[Result]:
    total = progress_steps * len(jobs)
    workers = min(available_cores(), len(jobs))
    if in_turn or workers <= 1:
        return _run_in_turn(work, shared, jobs, total, report)
    context = multiprocessing.get_context(_how_workers_start["method"])
    done, stop = context.Value("i", 0), context.Event()
    # As bytes, because torch would send each tensor as an open file, of which a process may have too few.
    start = pickle.dumps((work, shared)), dict(os.environ), done, stop
    with ProcessPoolExecutor(workers, context, _start_worker, start) as pool:
        try:
            futures = [pool.submit(_run_in_worker, pickle.dumps(job)) for job in jobs]
            while (state := wait(futures, timeout=0.5, return_when=FIRST_EXCEPTION)).not_done:
                report(done.value, total)
                for future in state.done:
                    future.result()  # raises what a worker raised
            report(done.value, total)
            return [pickle.loads(future.result()) for future in futures]  # of our own workers
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise


def in_progress_steps(steps: int, progress_step: ProgressStep) -> Callable[[int], None]:
    """What to call with the number of steps done, to tell a job of any length as PROGRESS_STEPS parts of equal work."""
    told = 0

    def after(step: int) -> None:
        nonlocal told
        while told < PROGRESS_STEPS * step // steps:
            told += 1
            progress_step()

    return after


def _run_in_turn(
    work: Callable[[Shared, Job, ProgressStep], Result],
    shared: Shared,
    jobs: Sequence[Job],
    total: int,
    report: OnProgress,
) -> list[Result]:
    done = 0

    def progress_step() -> None:
        nonlocal done
        done += 1
        report(done, total)

    return [work(shared, job, progress_step) for job in jobs]


def available_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_worker: dict[str, Any] = {}


def _start_worker(task: bytes, environment: dict[str, str], done: Any, stop: Any) -> None:
    import torch  # which takes seconds, and whoever counts cores here may need none

    os.environ.clear()  # for the process that this is a copy of may have begun with another
    os.environ.update(environment)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # for the same reason as torch gets one thread: there is one core
    torch.set_num_threads(1)
    work, shared = pickle.loads(task)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides, through `stop`
    threading.Thread(target=exit_with_parent, daemon=True).start()
    _worker.update(work=work, shared=shared, done=done, stop=stop)


def exit_with_parent() -> None:
    """A kernel that is killed must not leave its workers behind."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _run_in_worker(job: bytes) -> bytes:
    def progress_step() -> None:
        if _worker["stop"].is_set():
            raise RuntimeError("the work was stopped")
        with _worker["done"].get_lock():
            _worker["done"].value += 1

    return pickle.dumps(_worker["work"](_worker["shared"], pickle.loads(job), progress_step))
