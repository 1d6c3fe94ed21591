"""A sweep: one training with several conditionings and seeds, here or on many machines, and its one results file."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from rfsq_robust import CONDITIONINGS
from workbook.common import provenance
from workbook.common.errors import InputError
from workbook.common.jobs import OnProgress, ProgressStep
from workbook.common.parallel import run_jobs
from workbook.common.paths import OutputFolder, expand, locked
from workbook.common.slurm import Cluster, Engine, SlurmConfig, run_on_cluster
from workbook.common.stages import write_json
from workbook.data.dataset import prepare_dataset
from workbook.training.runs import FOLDER_OPTION, TrainingRun, check_seeds, run_training
from workbook.training.trainer import Job, choose_device

FILE_NAME = "sweep_results.json"
EVERY = "all"
EXAMPLE = "seeds=5,conditioning=all"


def parse_sweep(text: str, job: Job) -> list[Job]:
    """'seeds=5,conditioning=all', or some conditionings joined by '+' -> one job each, seed after seed.

    What the text does not name is as in `job`, whose seed is the first.

    Raises:
        InputError: another key, no number of seeds, or an unknown conditioning.
    """
    settings: dict[str, str] = {"seeds": "1", "conditioning": job.conditioning}
    for part in text.split(","):
        key, found, value = (word.strip() for word in part.partition("="))
        if not found or key not in settings:
            raise InputError(f"sweep '{text}': cannot read '{part}'; write for example {EXAMPLE}")
        settings[key] = value
    if not settings["seeds"].isascii() or not settings["seeds"].isdigit():
        raise InputError(f"sweep '{text}': seeds is '{settings['seeds']}'; give a number, for example {EXAMPLE}")
    check_seeds(int(settings["seeds"]))
    said = list(CONDITIONINGS) if settings["conditioning"] == EVERY else settings["conditioning"].split("+")
    chosen = [name for name in CONDITIONINGS if name in said]
    if unknown := set(said) - set(chosen):
        raise InputError(
            f"sweep '{text}': conditioning '{sorted(unknown)[0]}' is not one of {EVERY}, {', '.join(CONDITIONINGS)}"
        )
    return [Job(name, job.seed + number) for number in range(int(settings["seeds"])) for name in chosen]


def runs_of(jobs: Sequence[Job], run: TrainingRun) -> list[TrainingRun]:
    """`run` for each job, in the folder `sweep` of its own."""
    folder = str(Path(run.folder) / "sweep")
    return [replace(run, job=job, folder=folder, stem=f"{job.conditioning}_seed{job.seed}") for job in jobs]


def run_here(
    runs: Sequence[TrainingRun], on_progress: OnProgress | None = None, on_fetch: OnProgress | None = None
) -> list[dict[str, Any]]:
    """Every run, one process a core; on CUDA one after the other. Data are fetched once, before they begin.

    Raises:
        InputError: as `run_training`, or another sweep is at work in the folder.
    """
    first = runs[0]
    in_turn = choose_device(first.device) == "cuda"
    with _fetched(runs, on_fetch) as fetched:
        return run_jobs(_run_training, None, fetched, first.train_config.epochs, on_progress, in_turn)


def run_by_jobs(
    runs: Sequence[TrainingRun],
    engine: Engine,
    config: SlurmConfig,
    on_progress: OnProgress | None = None,
    on_fetch: OnProgress | None = None,
) -> list[dict[str, Any]]:
    """Every run, each a job of a cluster, which goes on from its last epoch where it is sent again.

    Data are fetched here, once, to where jobs find them. With `resume` of the runs, jobs that an earlier call has sent
    are gathered.

    Raises:
        InputError, JobError, KeyboardInterrupt: as `run_on_cluster`, and as `run_here`.
    """
    first = runs[0]
    cluster = Cluster(expand(first.folder) / "jobs", config, engine)
    cluster.check()
    with _fetched(runs, on_fetch) as fetched:
        jobs = {run.name: replace(run, folder=str(expand(run.folder)), resume=True) for run in fetched}

        def begin_anew() -> None:
            for run in runs:
                run.resume_state.unlink(missing_ok=True)

        epochs = first.train_config.epochs
        return run_on_cluster(_run_training, None, jobs, epochs, cluster, on_progress, first.resume, begin_anew)


@contextmanager
def _fetched(runs: Sequence[TrainingRun], on_fetch: OnProgress | None) -> Iterator[list[TrainingRun]]:
    """The runs with data that are on the disk, in a folder that is theirs so long."""
    first = runs[0]
    folder = OutputFolder.at(first.folder, FOLDER_OPTION)
    with locked(folder.root / ".sweep.lock"):
        data = prepare_dataset(first.data, first.data_config, on_fetch).origin.name
        yield [replace(run, data=data) for run in runs]


def _run_training(_: None, run: TrainingRun, progress_step: ProgressStep) -> dict[str, Any]:
    return run_training(run, lambda epoch, mse: progress_step())


def gather(outcomes: Sequence[dict[str, Any]], run: TrainingRun) -> dict[str, Any]:
    """The content of the results file: every training, and of each conditioning the spread over its seeds.

    Errors are those of the validation episodes. A choice made among them is to be scored on the test episodes, once.
    """
    return {
        "command": os.environ.get(provenance.COMMAND_VARIABLE, ""),
        "data": run.data,
        "data_config": asdict(run.data_config),
        "train_config": asdict(run.train_config),
        "runs": list(outcomes),
        "conditionings": {
            name: _spread([outcome for outcome in outcomes if outcome["conditioning"] == name])
            for name in dict.fromkeys(outcome["conditioning"] for outcome in outcomes)
        },
    }


def _spread(outcomes: Sequence[dict[str, Any]]) -> dict[str, Any]:
    spread: dict[str, Any] = {"seeds": [outcome["seed"] for outcome in outcomes]}
    for key in ("validation_mse", "validation_mse_tokens"):
        values = [outcome[key] for outcome in outcomes]
        spread[key] = {"mean": float(np.mean(values)), "least": min(values), "greatest": max(values)}
    return spread


def write_results(results: dict[str, Any], folder: str) -> Path:
    path = OutputFolder.at(folder, FOLDER_OPTION).root / FILE_NAME
    write_json(path, results)
    return path
