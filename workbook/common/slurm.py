"""Many independent jobs over the nodes of a SLURM cluster, by submitit, behind the interface of `run_jobs`.

A job that dies without a result (scancel, a node that fails, memory) is sent again; one that is preempted or whose time
is up is queued again by SLURM itself (https://github.com/facebookincubator/submitit/blob/main/docs/checkpointing.md).
"""

from __future__ import annotations

import io
import json
import logging
import os
import pickle
import shutil
import subprocess
import time
import tomllib
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr, suppress
from dataclasses import dataclass, field, fields, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from workbook.common.digest import digest
from workbook.common.errors import InputError
from workbook.common.jobs import Job, OnProgress, ProgressStep, Result, Shared
from workbook.common.paths import expand, replacing

# slurm, or processes of submitit's own on this machine, to try out what slurm does.
Engine = Literal["slurm", "local-executor"]
# Of jobs that SLURM still has: pending, running, suspended, completing, configuring.
ALIVE = "PD,R,S,CG,CF"
POLL_SECONDS: dict[Engine, float] = {"slurm": 5.0, "local-executor": 0.5}
# What another node wrote may be seen only so much later, as on NFS.
LATE_SECONDS: dict[Engine, float] = {"slurm": 15.0, "local-executor": 1.0}
RECORD, TASK = "jobs.json", "task.pickle"
VARIABLE = "WORKBOOK_ON"  # where `run_jobs` sends its jobs; set by the runner, and not in a job


class JobError(RuntimeError):
    """A job failed, or died too often. The message is one sentence that names the job and its log."""


@dataclass(frozen=True)
class SlurmConfig:
    """What every job asks SLURM for; "" and 0 leave it to the cluster.

    gpus, cpus: of a job; minutes: after which it is queued again and goes on; at_once: jobs that run at the same time;
    sendings: of a job that dies or runs out of time, before it is given up; setup: lines of shell before Python, as
    `module load`; sbatch: any other option of sbatch, without its dashes.
    """

    partition: str = ""
    account: str = ""
    gpus: int = 0
    cpus: int = 1
    memory_gb: int = 0
    minutes: int = 60
    at_once: int = 256
    sendings: int = 4
    setup: tuple[str, ...] = ()
    sbatch: Mapping[str, str | int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("cpus", "minutes", "at_once", "sendings"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; give at least 1")
        for name in ("gpus", "memory_gb"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} is {getattr(self, name)}; give at least 0")

    def as_submitit(self, engine: Engine) -> dict[str, Any]:
        """As parameters of submitit's executor."""
        if engine == "local-executor":
            return {"timeout_min": self.minutes, "gpus_per_node": self.gpus, "setup": list(self.setup)}
        asked = {
            "partition": self.partition, "account": self.account, "gpus_per_node": self.gpus,
            "mem": f"{self.memory_gb}GB" if self.memory_gb else "", "setup": list(self.setup),
            "additional_parameters": dict(self.sbatch),
        }  # fmt: skip
        always = {"cpus_per_task": self.cpus, "time": self.minutes, "array_parallelism": self.at_once}
        return {"job_name": "robust-rfsq", **always, **{name: value for name, value in asked.items() if value}}


def read_slurm_config(path: str) -> SlurmConfig:
    """The settings in a TOML file; "" gives those of the cluster.

    Raises:
        InputError: no such file, not TOML, an unknown key, or a value that cannot be.
    """
    if not path:
        return SlurmConfig()
    try:
        said = tomllib.loads(expand(path).read_text(encoding="utf8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); name a TOML file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f'{path}: is not TOML ({error}); write for example partition = "gpu"') from None
    known = {each.name for each in fields(SlurmConfig)}
    if unknown := sorted(said.keys() - known):
        raise InputError(f"{path}: '{unknown[0]}' is not one of {', '.join(sorted(known))}")
    default = SlurmConfig()
    for name, value in said.items():
        if wrong := _wrong(value, getattr(default, name)):
            raise InputError(f"{path}: {name} is {value!r}; give {wrong}")
    if "setup" in said:
        said["setup"] = tuple(said["setup"])
    try:
        return SlurmConfig(**said)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _wrong(value: Any, default: Any) -> str:
    """What is to be given instead; "" where the value is of the kind of the default."""
    if isinstance(default, str):
        return "" if isinstance(value, str) else "a text in quotes"
    if isinstance(default, int):
        return "" if type(value) is int else "a whole number"
    if isinstance(default, tuple):
        fits = isinstance(value, list) and all(isinstance(line, str) for line in value)
        return "" if fits else 'lines of shell, as ["module load cuda"]'
    fits = isinstance(value, dict) and all(type(each) in (str, int) for each in value.values())
    return "" if fits else "a table of texts and whole numbers"


@dataclass(frozen=True)
class Cluster:
    """folder: for what is sent and what comes back, on a disk that every node sees; again: what gathers it later."""

    folder: Path
    config: SlurmConfig = SlurmConfig()
    engine: Engine = "slurm"
    again: str = "the same command with --resume"

    @staticmethod
    def of_environment() -> Cluster | None:
        """That which `to_environment` named, in this process or one that started it."""
        said = os.environ.get(VARIABLE)
        return pickle.loads(bytes.fromhex(said)) if said else None  # of our own runner

    def to_environment(self) -> None:
        os.environ[VARIABLE] = pickle.dumps(self).hex()

    def apart(self, work: Callable[..., Any], shared: Any) -> Cluster:
        """With a folder that is of this work alone."""
        return replace(self, folder=self.folder / digest((work, shared))[:16])

    def check(self) -> None:
        """Raises InputError where nothing can be sent from here."""
        if not find_spec("submitit"):
            raise InputError(f"--on {self.engine}: needs the package submitit; pip install -e '.[slurm]'")
        if self.engine == "slurm" and not (shutil.which("sbatch") and shutil.which("srun")):
            raise InputError("--on slurm: there is no sbatch here; call it on a login node of the cluster")

    def executor(self) -> Any:
        """Of submitit; raises as `check`."""
        self.check()
        import submitit

        kind: Any = submitit.SlurmExecutor if self.engine == "slurm" else submitit.LocalExecutor
        executor = kind(self.folder, max_num_timeout=self.config.sendings)
        executor.update_parameters(**self.config.as_submitit(self.engine))
        return executor


def run_on_cluster(
    work: Callable[[Shared, Job, ProgressStep], Result],
    shared: Shared,
    jobs: Mapping[str, Job],
    progress_steps: int,
    cluster: Cluster,
    on_progress: OnProgress | None = None,
    resume: bool = False,
    begin_anew: Callable[[], None] = lambda: None,
) -> list[Result]:
    """work(shared, job, progress_step) of every job, each a job of the cluster; results in the order of jobs.

    As `run_jobs`, but that work may be called again for a job that died, and is then to go on. jobs: by names, which
    are told. resume: gather what an earlier call has sent; else begin_anew is called before all is sent.

    Raises:
        InputError: that of a job; sbatch refuses; or jobs of an earlier call still run, and are not what is asked for.
        JobError: a job failed, or died too often.
        KeyboardInterrupt: with a message that says what goes on. Jobs that were sent do so after every error, too.
    """
    of_all = digest((work, shared))
    wanted = {name: _Work(cluster.folder, name, job, digest((of_all, job))) for name, job in jobs.items()}
    sent = _Sent(cluster, wanted)
    sent.attach(resume)
    if not resume:
        shutil.rmtree(cluster.folder, ignore_errors=True)
        begin_anew()
    cluster.folder.mkdir(parents=True, exist_ok=True)
    (cluster.folder / TASK).write_bytes(pickle.dumps((work, shared)))
    try:
        sent.send([name for name in wanted if name not in sent.jobs])
        found = sent.gather(progress_steps, on_progress or (lambda done, total: None))
    except KeyboardInterrupt:
        raise KeyboardInterrupt(sent.what_goes_on()) from None
    shutil.rmtree(cluster.folder, ignore_errors=True)
    return [found[name] for name in jobs]


@dataclass(frozen=True)
class _Work:
    """What a job runs, and all that it is, as a hash. Having `checkpoint`, submitit has it queued again in time."""

    folder: Path
    name: str
    job: Any
    sha256: str

    @property
    def steps(self) -> Path:
        """A byte for each step of its progress."""
        return self.folder / f"{self.name}.steps"

    def __call__(self) -> Any:
        import torch

        os.environ.pop(VARIABLE, None)
        torch.set_num_threads(1)  # as in the workers of `run_jobs`, so that results are the same
        work, shared = pickle.loads((self.folder / TASK).read_bytes())  # of our own client
        with self.steps.open("wb", buffering=0) as file:
            try:
                return work(shared, self.job, lambda: file.write(b"."))
            except InputError as error:
                return error

    def checkpoint(self) -> Any:
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


class _Sent:
    """The jobs of one call, by name: which the cluster has, which are back, and which are to be sent again."""

    def __init__(self, cluster: Cluster, works: Mapping[str, _Work]) -> None:
        self.cluster = cluster
        self.works = works
        self.executor = cluster.executor()
        self.jobs: dict[str, Any] = {}  # of submitit
        self.sendings: dict[str, int] = dict.fromkeys(works, 0)
        self.found: dict[str, Any] = {}

    def attach(self, resume: bool) -> None:
        """Take over what an earlier call has sent, where that is asked for and it is the same.

        Raises:
            InputError: something else still runs, which would write to the same files.
        """
        others = {}
        for name, said in self._recorded().items():
            job = self.executor.job_class(self.cluster.folder, said["id"])
            if not (resume and name in self.works and said["sha256"] == self.works[name].sha256):
                others[name] = job
            elif not _failed(job.paths.result_pickle):
                self.jobs[name], self.sendings[name] = job, 1
        if running := self._running(others):
            raise InputError(
                f"{self.cluster.folder}: {_listed(running, 'of an earlier call still run')}; "
                f"{self.cluster.again}, unchanged, gathers what they do, and scancel ends them"
            )

    def _recorded(self) -> dict[str, Any]:
        file = self.cluster.folder / RECORD
        return json.loads(file.read_text(encoding="utf8")) if file.is_file() else {}

    def send(self, names: Sequence[str]) -> None:
        """Send them, all at once, and write down that they were.

        Raises:
            InputError: sbatch refuses.
        """
        from submitit.core.utils import FailedJobError

        if not names:
            return
        for name in names:
            self.works[name].steps.unlink(missing_ok=True)
        try:
            with redirect_stderr(io.StringIO()):  # where submitit repeats what the error says
                jobs = self.executor.submit_array([self.works[name] for name in names])
        except FailedJobError as error:
            said = [line.removeprefix("sbatch: error: ") for line in str(error).splitlines() if line.strip()]
            raise InputError(f"sbatch refused the jobs ({'; '.join(said)}); correct --slurm-config") from None
        for name, job in zip(names, jobs, strict=True):
            self.jobs[name] = job
            self.sendings[name] += 1
        record = {name: {"id": job.job_id, "sha256": self.works[name].sha256} for name, job in self.jobs.items()}
        with replacing(self.cluster.folder / RECORD) as temporary:
            temporary.write_text(json.dumps(record, indent=1), encoding="utf8")

    def gather(self, progress_steps: int, report: OnProgress) -> dict[str, Any]:
        """Wait for every result, and send again what dies.

        Raises:
            InputError, JobError: as `run_on_cluster`.
        """
        while True:
            queued = self._queued(self.jobs)  # before results are looked for, which come before a job leaves the queue
            for name in [name for name in self.works if name not in self.found]:
                gone = queued is not None and self.jobs[name].job_id not in queued
                if self._is_back(name, LATE_SECONDS[self.cluster.engine] if gone else 0):
                    self.found[name] = self._result(name)
                elif gone:
                    self._send_again(name)
            report(sum(self._steps(name, progress_steps) for name in self.works), progress_steps * len(self.works))
            if len(self.found) == len(self.works):
                return self.found
            time.sleep(POLL_SECONDS[self.cluster.engine])

    def _is_back(self, name: str, patience: float) -> bool:
        file = self.jobs[name].paths.result_pickle
        until = time.monotonic() + patience
        while not file.exists():
            if time.monotonic() >= until:
                return False
            time.sleep(0.1)
            list(file.parent.iterdir())  # has NFS look again
        return True

    def _result(self, name: str) -> Any:
        file = self.jobs[name].paths.result_pickle
        outcome, value = pickle.loads(file.read_bytes())  # of our own jobs
        if isinstance(value, InputError):
            raise InputError(f"{value}{self._others()}")
        if outcome == "error":
            said = value.strip().splitlines()[-1]
            raise JobError(f"{self._named(name)} failed ({said}); its log is {self._log(name)}{self._others()}")
        return value

    def _send_again(self, name: str) -> None:
        died = self._named(name)
        if self.sendings[name] >= self.cluster.config.sendings:
            raise JobError(
                f"{died} died without a result, after {self.sendings[name]} sendings; "
                f"its log is {self._log(name)}{self._others()}"
            )
        self.send([name])
        logging.getLogger(__name__).warning("%s died without a result; sent again as %s", died, self._named(name))

    def _named(self, name: str) -> str:
        return f"job {self.jobs[name].job_id} ({name})"

    def _log(self, name: str) -> Path:
        return self.jobs[name].paths.stderr

    def _steps(self, name: str, most: int) -> int:
        if name in self.found:
            return most
        with suppress(FileNotFoundError):
            return min(self.works[name].steps.stat().st_size, most)
        return 0

    def _others(self) -> str:
        """To end the sentence of an error: what nobody waits for any more."""
        running = self._running(self.jobs)
        return f"; {_listed(running, 'go')} on, gathered by {self.cluster.again}" if running else ""

    def what_goes_on(self) -> str:
        """A sentence for who stops waiting."""
        running = self._running(self.jobs)
        if not running:
            return f"no job goes on; {self.cluster.again} sends again what is missing"
        them = "it" if len(running) == 1 else "them"
        return f"{_listed(running, 'go')} on; {self.cluster.again} gathers {them}, scancel ends {them}"

    def _running(self, jobs: Mapping[str, Any]) -> list[str]:
        """Ids of those that the cluster has, or may have, and that are not back."""
        queued = self._queued(jobs) if jobs else None
        ids = [job.job_id for job in jobs.values() if not job.paths.result_pickle.exists()]
        return [each for each in ids if queued is None or each in queued]

    def _queued(self, jobs: Mapping[str, Any]) -> set[str] | None:
        """Ids of jobs that have not ended; None where the cluster does not say."""
        if self.cluster.engine == "local-executor":
            return {job.job_id for job in jobs.values() if _runs_here(job)}
        line = ["squeue", "--noheader", "--array", f"--states={ALIVE}", f"--user={os.getuid()}", "--format=%i"]
        try:
            return set(subprocess.run(line, capture_output=True, text=True, timeout=60, check=True).stdout.split())
        except subprocess.SubprocessError:
            return None


def _failed(result: Path) -> bool:
    """Whether a job came back with an error, and is to be sent anew."""
    if not result.exists():
        return False
    outcome, value = pickle.loads(result.read_bytes())
    return outcome == "error" or isinstance(value, InputError)


def _runs_here(job: Any) -> bool:
    """Whether the process of a job of submitit's local executor has not ended; its id is that of the process."""
    process = int(job.job_id)
    with suppress(ChildProcessError):
        if os.waitpid(process, os.WNOHANG)[0]:  # our own, which stays until it is waited for
            return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def _listed(ids: Sequence[str], do: str) -> str:
    """The jobs that do something, as in 'job 3 goes' and 'jobs 3, 4 go'; the verb stands last."""
    return f"job {ids[0]} {do}{'es' if do.endswith('o') else 's'}" if len(ids) == 1 else f"jobs {', '.join(ids)} {do}"
