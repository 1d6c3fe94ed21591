"""Jobs over worker processes of which any may die: that costs the job it was at, and nothing else.

`workbook.common.parallel` lets one failure end the whole work, which is right for training; a simulator written in C
can take its process down with it, and the other episodes still count.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from itertools import chain
from typing import Generic, TypeVar

from workbook.common.digest import digest
from workbook.common.errors import InputError
from workbook.common.jobs import OnProgress, ProgressStep
from workbook.common.parallel import PROGRESS_STEPS, available_cores, exit_with_parent, in_progress_steps, run_jobs
from workbook.common.slurm import Cluster
from workbook.simulation.kernels import kernels

SENT_TOGETHER = 40  # episodes, as one job of a cluster: about a minute on a core, with its scenes built

Job = TypeVar("Job")
Result = TypeVar("Result")


class Died:
    """Stands for the result of a job whose worker died, or took too long and was ended."""


def run_apart(
    work: Callable[[Job], Result],
    jobs: Sequence[Job],
    seconds: float,
    on_progress: OnProgress | None = None,
    workers: int | None = None,
) -> list[Result | Died]:
    """work(job) of every job, in the order of jobs, each in a process of one of the workers.

    Neighbouring jobs run in the same process where they can, so that it may keep what they share. work is a function
    of a module, and jobs and results can be pickled. A job that takes longer than `seconds` counts as dead.
    """
    report = on_progress or (lambda done, total: None)
    results: list[Result | Died] = [Died()] * len(jobs)
    waiting = deque(range(len(jobs)))
    opened = [
        _Worker(work, seconds, waiting.popleft if number % 2 == 0 else waiting.pop)
        for number in range(min(workers or available_cores(), len(jobs)))
    ]
    done = 0
    try:
        running = [worker for worker in opened if worker.take(waiting, jobs)]
        while running:
            wait([worker.future for worker in running], timeout=0.5, return_when=FIRST_COMPLETED)
            for worker in list(running):
                if not worker.is_done():
                    continue
                results[worker.at] = worker.result()
                done += 1
                if not worker.take(waiting, jobs):
                    running.remove(worker)
            report(done, len(jobs))
        return results
    finally:
        for worker in opened:
            worker.close()


def run_missing(
    work: Callable[[Job], str],
    jobs: Sequence[Job],
    is_done: Callable[[Job], bool],
    seconds: float,
    on_progress: OnProgress | None = None,
    workers: int | None = None,
) -> list[str | Died]:
    """As `run_apart`, of the jobs that are not done: '' where one is then, and else why not.

    work leaves a job done, in a file, or says why it could not. Where the environment names a cluster, neighbouring
    jobs are sent there together.
    """
    report = on_progress or (lambda done, total: None)
    before = [is_done(job) for job in jobs]
    if not all(before) and Cluster.of_environment():
        return _run_on_cluster(work, jobs, is_done, seconds, report)
    missing = [job for job, done in zip(jobs, before, strict=True) if not done]
    found = iter(
        run_apart(work, missing, seconds, lambda done, _: report(sum(before) + done, len(jobs)), workers=workers)
    )
    return ["" if done else next(found) for done in before]


def _run_on_cluster(
    work: Callable[[Job], str],
    jobs: Sequence[Job],
    is_done: Callable[[Job], bool],
    seconds: float,
    report: OnProgress,
) -> list[str | Died]:
    """Parts of all jobs are sent, for a call that gathers what an interrupted one has sent is to name the same.

    What jobs of a cluster have said may be older than a file that was lost since, or come before a file is seen here;
    then they are sent once more, as are those of which one died, and begin by looking what is done.
    """
    parts = [jobs[first : first + SENT_TOGETHER] for first in range(0, len(jobs), SENT_TOGETHER)]
    shared = work, is_done, seconds, kernels(), digest(list(jobs))

    def told(done: int, total: int) -> None:
        report(len(jobs) * done // total, len(jobs))

    for _ in range(2):
        said = chain.from_iterable(run_jobs(_run_part, shared, parts, PROGRESS_STEPS, told))
        found = ["" if is_done(job) else each or Died() for job, each in zip(jobs, said, strict=True)]
        if not any(isinstance(each, Died) for each in found):
            break
    return found


def _run_part(
    shared: tuple[Callable[[Job], str], Callable[[Job], bool], float, str, str],
    jobs: Sequence[Job],
    progress_step: ProgressStep,
) -> list[str | Died]:
    """On a node, over the cores that it gives.

    Raises:
        InputError: the simulator's linear algebra rounds differently there.
    """
    work, is_done, seconds, wanted, _ = shared
    if kernels() != wanted:
        raise InputError(
            f"a node of the cluster computes with kernels for {kernels()}, this machine with those for {wanted}, and "
            f"they round differently; call the command with OPENBLAS_CORETYPE=Haswell, which sbatch hands on"
        )
    tell = in_progress_steps(len(jobs), progress_step)
    cores = min(available_cores(), int(os.environ.get("SLURM_CPUS_PER_TASK", available_cores())))
    return run_missing(work, jobs, is_done, seconds, lambda done, _: tell(done), workers=cores)


class _Worker(Generic[Job, Result]):
    """A process that works on one job at a time, replaced when it dies."""

    def __init__(self, work: Callable[[Job], Result], seconds: float, next_job: Callable[[], int]) -> None:
        self.work, self.seconds, self.next_job = work, seconds, next_job
        self.at = -1
        self.future: Future[Result] = Future()
        self._open()

    def _open(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.folder = tempfile.TemporaryDirectory()  # the simulator writes its warnings to a file where it is
        self.pool = ProcessPoolExecutor(1, context, _start_worker, (self.folder.name,))
        self.process = self.pool.submit(os.getpid)

    def take(self, waiting: deque[int], jobs: Sequence[Job]) -> bool:
        """Begin the next job; False where none is left."""
        if not waiting:
            return False
        self.at = self.next_job()
        self.deadline = time.monotonic() + self.seconds
        try:
            self.future = self.pool.submit(self.work, jobs[self.at])
        except BrokenProcessPool:  # it died after its last job
            self.close()
            self._open()
            self.future = self.pool.submit(self.work, jobs[self.at])
        return True

    def is_done(self) -> bool:
        """Whether the job is over. One past its time is ended from here: a process that hangs ends nothing itself."""
        if time.monotonic() > self.deadline and not self.future.done():
            self._kill()
        return self.future.done()

    def result(self) -> Result | Died:
        """The result of a job that is done; raises what the work raised."""
        try:
            return self.future.result()
        except BrokenProcessPool:
            self.close()
            self._open()
            return Died()

    def close(self) -> None:
        """End the process, whatever it is doing."""
        self._kill()
        self.pool.shutdown(cancel_futures=True)
        self.folder.cleanup()

    def _kill(self) -> None:
        with suppress(BrokenProcessPool, ProcessLookupError):
            os.kill(self.process.result(), signal.SIGKILL)


def _start_worker(folder: str) -> None:
    os.chdir(folder)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    threading.Thread(target=exit_with_parent, daemon=True).start()
