#!/usr/bin/env python3
"""Trains one RFSQ autoencoder, or a sweep of them, here, on a cluster or in the cloud.

    python train_rfsq_robust.py --use-layernorm True --num-episodes 50 --epochs 100 --batch-size 64
    modal run train_rfsq_robust.py --use-layernorm True --num-episodes 50 --epochs 100 --batch-size 64

The first writes rfsq_robust_best.pt into the current folder; with `--use-layernorm False` it is rfsq_best.pt. The
second does the same in a container of Modal (https://modal.com), if the package `modal` is installed.
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

# The workbook is imported where it is used, so that --help and a mistyped option do not wait for torch.
if TYPE_CHECKING:
    from workbook.common.slurm import Engine
    from workbook.training.runs import TrainingRun

MODELS, DATA = "/models", "/data"  # where the volumes of the cloud are mounted
SWEEP = "seeds=5,conditioning=all"
MOST_SEED = 2**31
Outcome = dict[str, Any]


def parse_arguments(arguments: Sequence[str], in_cloud: bool = False) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=f"{'modal run' if in_cloud else 'python'} train_rfsq_robust.py",
        allow_abbrev=False,
        description="Train one RFSQ autoencoder, or a sweep of them.",
        epilog="Exit code 0: trained; 2: bad input; 1: anything else; 130: interrupted, go on with --resume.",
    )
    parser.add_argument(
        "--use-layernorm", type=_truth, default=True, metavar="True|False", help="LayerNorm, or naive; default: True"
    )
    parser.add_argument(
        "--conditioning",
        help="none, layernorm, frozen_layernorm, learned_scale or scale, which decodes from its tokens; stands over "
        "--use-layernorm",
    )
    parser.add_argument("--data", default="sample", help="as for run_all.sh; default: sample")
    parser.add_argument("--num-episodes", type=int, default=0, help="use only so many episodes; default: 0, all")
    parser.add_argument("--epochs", type=int, default=100, help="passes over the train episodes; default: 100")
    parser.add_argument("--batch-size", type=int, default=64, help="chunks in a batch; default: 64")
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="of AdamW; default: 0.001")
    parser.add_argument("--seed", type=int, default=0, help="of weights and batches, the first of a sweep; default: 0")
    parser.add_argument("--chunk-len", type=int, default=8, help="steps in a chunk; default: 8")
    parser.add_argument("--layout", default="libero", help="what the numbers of an action are, as for run_all.sh")
    parser.add_argument("--hidden-dim", type=int, default=16, help="latent numbers a step; default: 16")
    parser.add_argument("--num-layers", type=int, default=8, help="residual layers; default: 8")
    parser.add_argument("--num-levels", type=int, default=7, help="grid values a number and layer; default: 7")
    parser.add_argument(
        "--models-dir",
        default=MODELS if in_cloud else ".",
        help=f"for checkpoints, logs and the state to go on from; default: {MODELS if in_cloud else 'here'}",
    )
    parser.add_argument(
        "--resume",
        type=_truth,
        nargs="?",
        const=True,
        default=False,
        metavar="True|False",
        help="go on from the last epoch of a training that was cut off, if there is one",
    )
    parser.add_argument(
        "--sweep",
        metavar=SWEEP,
        help="train several, and gather one results file; what it does not name is as the other options say",
    )
    if in_cloud:
        parser.add_argument("--gpu", default="T4", help="of Modal, or 'none'; default: T4")
    else:
        parser.add_argument("--device", default="auto", help="auto (default), cpu or cuda")
        parser.add_argument(
            "--on",
            choices=("here", "slurm", "local-executor"),
            default="here",
            help="where a training runs, each a job of its own; local-executor is this machine, to try out what slurm "
            "does; default: here",
        )
        parser.add_argument("--slurm-config", default="", metavar="FILE", help="TOML: partition, account, gpus, ...")
    return parser.parse_args(arguments)


def _truth(word: str) -> bool:
    if word.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"'{word}' is neither True nor False")
    return word.lower() == "true"


def run_of(options: argparse.Namespace) -> TrainingRun:
    """What the options ask for.

    Raises:
        InputError: a value that cannot be.
    """
    from rfsq_robust import resolve_conditioning
    from workbook.common.errors import InputError
    from workbook.data.config import DataConfig
    from workbook.training.runs import TrainingRun
    from workbook.training.trainer import Job, TrainConfig

    if not 0 <= options.seed < MOST_SEED:
        raise InputError(f"seed is {options.seed}; give 0 to {MOST_SEED - 1}")
    try:
        conditioning = resolve_conditioning(options.use_layernorm, options.conditioning)
    except ValueError as error:
        raise InputError(f"--{error}") from None
    return TrainingRun(
        Job(conditioning, options.seed),
        TrainConfig(
            options.epochs,
            options.batch_size,
            options.learning_rate,
            options.hidden_dim,
            options.num_layers,
            options.num_levels,
        ),
        options.data,
        DataConfig(options.num_episodes, options.chunk_len, options.chunk_len, layout=options.layout),
        getattr(options, "device", "auto"),
        options.models_dir,
        options.resume,
    )


def run_command(
    options: argparse.Namespace,
    train_one: Callable[[TrainingRun], Outcome],
    train_many: Callable[[Sequence[TrainingRun]], list[Outcome]],
    results_folder: str,
) -> str:
    """Train what the options ask for, by the given means; says what came of it."""
    from workbook.report.tables.training import sweep_table
    from workbook.report.text.data import concerns
    from workbook.training.sweep import gather, parse_sweep, runs_of, write_results

    run = run_of(options)
    if options.sweep:
        results = gather(train_many(runs_of(parse_sweep(options.sweep, run.job), run)), run)
        said = [*concerns(results["runs"][0]["concerns"]), sweep_table(results).markdown]
        return "\n".join([*said, f"results: {write_results(results, results_folder)}"])
    return in_words(run, train_one(run))


def in_words(run: TrainingRun, outcome: Outcome) -> str:
    from workbook.report.tables.training import epochs_table
    from workbook.report.text import words
    from workbook.report.text.data import concerns

    conditioning = run.job.conditioning
    said = words("training").sentences("outcome", outcome, conditioning, str(run.checkpoint))
    return "\n".join([*concerns(outcome["concerns"]), epochs_table(outcome["curve"], conditioning).markdown, "", *said])


def train_here(run: TrainingRun) -> Outcome:
    from workbook.common.terminal import fetching
    from workbook.report.text import words
    from workbook.training.runs import run_training

    progress = words("training").progress
    with fetching() as on_fetch, _bar(f"training '{run.job.conditioning}'", run.train_config.epochs) as bar:
        return run_training(run, lambda epoch, mse: bar.show(epoch, progress(mse)), bar.begin, on_fetch)


def train_many_here(runs: Sequence[TrainingRun]) -> list[Outcome]:
    from workbook.common.terminal import fetching
    from workbook.training.sweep import run_here

    total = len(runs) * runs[0].train_config.epochs
    with fetching() as on_fetch, _bar(f"training {len(runs)} models", total) as bar:
        return run_here(runs, lambda done, total: bar.show(done, ""), on_fetch)


def train_many_by_jobs(runs: Sequence[TrainingRun], engine: Engine, config: str) -> list[Outcome]:
    from tqdm.contrib.logging import logging_redirect_tqdm

    from workbook.common.slurm import read_slurm_config
    from workbook.common.terminal import fetching
    from workbook.training.sweep import run_by_jobs

    asked = read_slurm_config(config)
    title, total = f"training by {len(runs)} jobs", len(runs) * runs[0].train_config.epochs
    # What is sent again is logged, on a line of its own beside the bar.
    with fetching() as on_fetch, logging_redirect_tqdm(), _bar(title, total) as bar:
        return run_by_jobs(runs, engine, asked, lambda done, total: bar.show(done, ""), on_fetch)


class _Bar:
    """A bar of epochs, from the beginning of the training; bad input is told without one."""

    def __init__(self, title: str, total: int) -> None:
        self.title = title
        self.total = total
        self.bar: Any = None

    def begin(self, done: int = 0) -> None:
        """done: epochs of an earlier process, which tell nothing of the time that is left."""
        from tqdm import tqdm

        self.bar = tqdm(total=self.total, initial=done, desc=self.title, unit="epoch", file=sys.stderr)

    def show(self, done: int, words: str) -> None:
        if self.bar is None:
            self.begin()
        self.bar.set_postfix_str(words, refresh=False)
        self.bar.update(max(done - self.bar.n, 0))


@contextmanager
def _bar(title: str, total: int) -> Iterator[_Bar]:
    bar = _Bar(title, total)
    try:
        yield bar
    finally:
        if bar.bar is not None:
            bar.bar.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """Train here, and return the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = parse_arguments(given)
    os.environ["WORKBOOK_COMMAND"] = shlex.join(["python", "train_rfsq_robust.py", *given])

    def by_jobs(runs: Sequence[TrainingRun]) -> list[Outcome]:
        return train_many_by_jobs(runs, options.on, options.slurm_config)

    def one_by_jobs(run: TrainingRun) -> Outcome:
        return by_jobs([run])[0]

    train_one, train_many = (train_here, train_many_here) if options.on == "here" else (one_by_jobs, by_jobs)
    return _tell(lambda: run_command(options, train_one, train_many, options.models_dir), options.models_dir)


def _tell(work: Callable[[], str], models_dir: str) -> int:
    from workbook.common.slurm import JobError
    from workbook.common.terminal import tell

    return tell(work, models_dir, "--resume goes on from the last epoch", JobError)


if find_spec("modal"):
    import modal

    HERE = Path(__file__).resolve().parent
    SOURCE = "/opt/robust-rfsq-workbook"  # in the image
    REQUIREMENTS = ("pyproject.toml", "constraints.txt", "README.md")
    MODULES = ("rfsq_robust.py", "rfsq_tokenizer.py")
    FOLDERS = ("workbook", "sample")
    # The packages first, in a layer that a change of the code leaves as it is.
    DEPENDENCIES = (
        "python -c \"import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'])\""
    )

    def image_of(repository: Path) -> modal.Image:
        image = modal.Image.debian_slim(python_version="3.11")
        for name in REQUIREMENTS:
            image = image.add_local_file(repository / name, f"{SOURCE}/{name}", copy=True)
        image = image.run_commands(f"cd {SOURCE} && pip install --constraint constraints.txt $({DEPENDENCIES})")
        for name in MODULES:
            image = image.add_local_file(repository / name, f"{SOURCE}/{name}", copy=True)
        for name in FOLDERS:
            image = image.add_local_dir(repository / name, f"{SOURCE}/{name}", copy=True, ignore=["**/__pycache__"])
        return image.run_commands(f"cd {SOURCE} && pip install --no-deps --editable .")

    models = modal.Volume.from_name("rfsq-models", create_if_missing=True)
    data = modal.Volume.from_name("rfsq-data", create_if_missing=True)
    # A container reads this file again, and has its image already.
    app = modal.App("robust-rfsq", image=image_of(HERE) if modal.is_local() else None)

    # Few containers at a time, for all of them write to one volume.
    @app.function(volumes={MODELS: models, DATA: data}, timeout=24 * 3600, max_containers=5)
    def train_in_cloud(run: TrainingRun) -> Outcome:
        """The body of a container; what it writes to a volume outlives it."""
        outcome = train_here(run)
        if not modal.is_local():
            models.commit()
        return outcome

    def run_in_cloud(arguments: Sequence[str], function: Any) -> int:
        """Train by a function of Modal, with the GPU that is asked for, and return the exit code."""
        options = parse_arguments(arguments, in_cloud=True)
        os.environ["WORKBOOK_COMMAND"] = shlex.join(["modal", "run", "train_rfsq_robust.py", *arguments])
        if not PurePosixPath(options.models_dir).is_relative_to(MODELS):
            print(  # noqa: T201
                f"error: --models-dir {options.models_dir}: is lost with the container; name one in {MODELS}",
                file=sys.stderr,
            )
            return 2
        chosen = function if options.gpu.lower() == "none" else function.with_options(gpu=options.gpu)
        return _tell(
            lambda: run_command(options, chosen.remote, lambda runs: list(chosen.map(runs)), "."), options.models_dir
        )

    @app.local_entrypoint()
    def main_in_cloud(*arguments: str) -> None:
        if code := run_in_cloud(arguments, train_in_cloud):
            sys.exit(code)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
