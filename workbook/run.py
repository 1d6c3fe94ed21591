"""The command behind run_all.sh: executes the notebooks one after the other and writes the report.

Everything is made in a hidden folder inside the output folder and moved into place at the end, results.json last, so
that an interrupted or failed run leaves the results of the run before it as they were.
"""

from __future__ import annotations

import argparse
import logging
import os
import shlex
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from workbook.common import terminal
from workbook.common.errors import InputError
from workbook.common.paths import NOTEBOOKS, PARTS, REPOSITORY, OutputFolder, expand, locked, whole_path
from workbook.data.config import add_options, config_of
from workbook.data.sources import DATA_KINDS

SMOKE = {
    "epochs": 2, "seeds": 2, "num_episodes": 24, "baseline_steps": 20, "policy_steps": 20, "replay_episodes": 2,
    "replay_seeds": 1, "loop_seeds": 1, "loop_starts": 1, "demonstrations": 2, "loop_steps": 20,
}  # fmt: skip


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="./run_all.sh",
        allow_abbrev=False,
        description="Run the notebooks headless and write the report that the verdict is read from.",
        epilog="Results go to OUT/reports/index.html, OUT/results.json and OUT/checkpoints/. "
        "Exit code 0: the run is complete, whatever the verdict; 2: bad input; 1: anything else; 130: interrupted.",
    )
    parser.add_argument("--data", default="sample", help=f"{DATA_KINDS}; default: sample")
    parser.add_argument("--out", default="", help="folder for results; default: out/ in the repository")
    parser.add_argument("--epochs", type=int, default=100, help="passes over the train episodes; default: 100")
    parser.add_argument("--seeds", type=int, default=5, help="models of each conditioning; default: 5")
    add_options(parser, "stride", "split_seed", "fold")
    parser.add_argument(
        "--stride", type=int, default=0, help="steps between train chunks; default: 0, the chunk length"
    )
    parser.add_argument("--hidden-dim", type=int, default=16, help="latent numbers a step; default: 16")
    parser.add_argument("--num-layers", type=int, default=8, help="residual layers; default: 8")
    parser.add_argument("--num-levels", type=int, default=7, help="grid values a number and layer; default: 7")
    parser.add_argument(
        "--baseline-steps", type=int, default=1000, help="batches for each of the field's quantizers; default: 1000"
    )
    parser.add_argument(
        "--policy-steps", type=int, default=1600, help="most batches for each small policy; default: 1600"
    )
    parser.add_argument(
        "--with-replay",
        action="store_true",
        help="also play the test episodes in LIBERO's simulator, exactly and as every codec's tokens decode; installs "
        "the simulator (0.8 GB to download, 2.1 GB on disk)",
    )
    parser.add_argument(
        "--with-simulator",
        action="store_true",
        help="with the replays, and with policies that learn to predict each codec's tokens and act in the simulator",
    )
    parser.add_argument(
        "--replay-episodes", type=int, default=0, help="play only so many test episodes; default: 0, all"
    )
    parser.add_argument(
        "--replay-seeds", type=int, default=0, help="play only so many models of a trained codec; default: 0, all"
    )
    parser.add_argument("--loop-seeds", type=int, default=3, help="policies of each kind in the loop; default: 3")
    parser.add_argument("--loop-starts", type=int, default=4, help="starts of each task and seed; default: 4")
    parser.add_argument(
        "--demonstrations", type=int, default=8, help="of each task, from which policies in the loop learn; default: 8"
    )
    parser.add_argument(
        "--loop-steps", type=int, default=2000, help="batches for each policy in the loop; default: 2000"
    )
    parser.add_argument("--device", default="auto", help="auto (default), cpu or cuda")
    parser.add_argument("--naive-checkpoint", default="", help="a naive Phase-1 checkpoint to take naive's place")
    parser.add_argument(
        "--codec",
        action="append",
        default=[],
        help="a tokenizer of your own with FAST's interface, compared with the "
        "others: package.module:Class, path/to/file.py:Class, or a folder that save_pretrained wrote; may be repeated",
    )
    parser.add_argument(
        "--trust-remote-code", action="store_true", help="let the code in a folder that --codec names run"
    )
    parser.add_argument(
        "--predictions",
        default="",
        metavar="FILE",
        help="what your own Phase 2 predicts (.h5, .npz or .pt), judged without retraining; INTEGRATION_TO_PHASE2.md "
        "shows how to write it",
    )
    parser.add_argument(
        "--predictions-checkpoint",
        default="",
        metavar="FILE",
        help="the codec of these predictions; default: the one that their file names",
    )
    parser.add_argument(
        "--full", action="store_true", help="the complete sweep of codecs and policies; takes hours on 2 cores"
    )
    parser.add_argument(
        "--on",
        choices=("here", "slurm"),
        default="here",
        help="where networks and policies are trained; slurm makes each a job of its own; default: here",
    )
    parser.add_argument("--slurm-config", default="", metavar="FILE", help="TOML: partition, account, minutes, ...")
    parser.add_argument("--smoke", action="store_true", help="a rehearsal in about a minute; its result is no evidence")
    if "--smoke" in arguments:  # what is said besides it stands
        parser.set_defaults(**SMOKE)
    options = parser.parse_args(arguments)
    options.with_replay |= options.with_simulator
    options.stride = options.stride or options.chunk_len
    options.codec = [whole_path(spec) for spec in options.codec]
    return options


STOPS = (signal.SIGINT, signal.SIGTERM)
Settings = dict[str, Any]  # of a stage
REPLAY_OPTIONS = ("replay_episodes", "replay_seeds")
LOOP_OPTIONS = ("loop_seeds", "loop_starts", "demonstrations", "loop_steps")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, and return the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = parse_arguments(given)
    os.environ["WORKBOOK_COMMAND"] = shlex.join(["./run_all.sh", *given])
    try:
        return _run(options)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return 2
    except KeyboardInterrupt:
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # of the cell that was cut off
        print("\ninterrupted; the results in the output folder are as they were", file=sys.stderr)  # noqa: T201
        return 130
    except OSError as error:
        print(f"error: {error.filename or options.out}: {error.strerror}", file=sys.stderr)  # noqa: T201
        return 1


def _run(options: argparse.Namespace) -> int:
    from workbook.common.stages import read_stage

    started = time.monotonic()
    target = OutputFolder.at(options.out)
    _choose_where_jobs_run(options, target)
    settings = _check_before_start(options)
    with locked(target.root / ".lock"), _work_folder(target) as work:
        _keep_finished_run(target, settings)
        folds = [work, *(OutputFolder.at(f"{work.root}/folds/{fold}") for fold in range(1, options.folds))]
        for fold, folder in enumerate(folds):
            decided = read_stage(work, "comparison")["decided"] if fold else ""
            notebooks = _notebook_parameters(options, settings["data"]["data"], folder, target, fold, decided)
            for position, (stem, parameters) in enumerate(notebooks.items(), start=1):
                label = f"{position}/{len(notebooks)} {stem}" + (f", fold {fold}" if options.folds else "")
                path = folder.root / "notebooks" / f"{stem}.ipynb"
                with terminal.kernel_noise(work), terminal.live_line(work, label):
                    error = _execute(stem, path, parameters)
                if error is not None:
                    return _explain(stem, error, work)
        if options.folds:
            _pool(work, folds[1:])
        lines = _publish(work, target, {path.stem: path for path in sorted((work.root / "notebooks").glob("*.ipynb"))})
    terminal.say(target, lines, time.monotonic() - started)
    return 0


def _choose_where_jobs_run(options: argparse.Namespace, target: OutputFolder) -> None:
    """For `run_jobs` in the kernels. What is sent lies in the output folder, which every node is to see."""
    from workbook.common.slurm import VARIABLE, Cluster, read_slurm_config

    os.environ.pop(VARIABLE, None)
    if options.on == "slurm":
        config = read_slurm_config(options.slurm_config)
        cluster = Cluster(target.root / ".jobs", config, again="the same command")
        cluster.check()
        cluster.to_environment()


def _pool(work: OutputFolder, others: Sequence[OutputFolder]) -> None:
    from workbook.evaluation.evidence import Evidence
    from workbook.evaluation.folds import pool_folds
    from workbook.verdict.results import assemble

    pool_folds(work, others)
    assemble(Evidence(work.root))


def _keep_finished_run(target: OutputFolder, settings: dict[str, Settings]) -> None:
    """Say where a finished run goes whose place this one will take; a run of the same settings is replaced."""
    from workbook.common.previous import keep_finished_run
    from workbook.common.stages import STAGES

    kept = keep_finished_run(target, {name: settings.get(name) for name in STAGES})
    if kept:
        print(f"{target.root}: holds a finished run with other settings, which is kept in {kept}", flush=True)  # noqa: T201


def _check_before_start(options: argparse.Namespace) -> dict[str, Settings]:
    """Meet bad input before the first kernel starts; the notebooks check the same things for those run by hand.

    Returns the settings of every stage. Data of the hub are named with the revision that was fetched.
    """
    from workbook.data.dataset import prepare_dataset
    from workbook.data.layout import ActionLayout
    from workbook.data.sources.mirror import CACHE_VARIABLE
    from workbook.evaluation.loop.play import LoopConfig
    from workbook.evaluation.policy.probe import ProbeConfig
    from workbook.evaluation.predictions.read import PredictionsConfig, read_predictions
    from workbook.evaluation.replay.replay import ReplayConfig, unplayable
    from workbook.report.text import words
    from workbook.simulation.scene import missing_packages
    from workbook.training.baselines import BaselineConfig, brought_codecs
    from workbook.training.runs import check_naive_checkpoint, check_seeds, naive_settings
    from workbook.training.trainer import TrainConfig, choose_device

    if os.environ.get(CACHE_VARIABLE):  # the kernels start in another folder
        os.environ[CACHE_VARIABLE] = str(expand(os.environ[CACHE_VARIABLE]))
    config = TrainConfig(
        options.epochs, hidden_dim=options.hidden_dim, num_layers=options.num_layers, num_levels=options.num_levels
    )
    check_seeds(options.seeds)
    if options.folds and (options.with_replay or options.naive_checkpoint):
        raise InputError("--folds trains and tests every model anew; leave out the simulator and --naive-checkpoint")
    training = {
        "seeds": 1 if options.folds else options.seeds,
        "first_seed": 0,
        "device": options.device,
    } | naive_settings(options.naive_checkpoint)
    baselines = BaselineConfig(options.baseline_steps, options.full, ",".join(options.codec), options.trust_remote_code)
    settings: dict[str, Settings] = {
        "training": asdict(config) | training,
        "comparison": asdict(baselines),
        "policy": asdict(ProbeConfig(options.policy_steps, options.full)),
    }
    replay = asdict(ReplayConfig(options.replay_episodes, options.replay_seeds))
    loop = asdict(LoopConfig(**{name: getattr(options, name) for name in (*LOOP_OPTIONS, "full")}))
    predictions = PredictionsConfig(options.predictions, options.predictions_checkpoint)
    choose_device(options.device)
    if options.naive_checkpoint:
        check_naive_checkpoint(options.naive_checkpoint, config, ActionLayout.parse(options.layout).dim)
    with terminal.fetching() as on_progress:
        data_config = config_of(options, split_seed=0, fold=0)
        prepared = prepare_dataset(options.data, data_config, on_progress)
    brought_codecs(prepared.dataset, baselines)
    if predictions.settings:
        read_predictions(predictions, prepared.dataset.layout, prepared.dataset.normaliser)
        settings["predictions"] = predictions.settings
    problem = missing_packages() or unplayable(prepared.dataset)
    if options.with_replay and problem:
        print(f"replay: will not be run, for {words('replay').reason(problem)}", flush=True)  # noqa: T201
    origin = prepared.origin
    if origin.revision and origin.name != options.data:  # the notebooks read the commit, and cannot say how it came
        print(f"data: {origin.name}. {' '.join(map(words('data').of_note, origin.notes))}", flush=True)  # noqa: T201
    data = {"data": origin.name, "dataset_sha256": prepared.dataset.sha256} | asdict(data_config)
    settings |= {"replay": replay} if options.with_replay else {}
    settings |= {"loop": loop} if options.with_simulator else {}
    return {"data": data} | settings


def _notebook_parameters(
    options: argparse.Namespace,
    data: str,
    work: OutputFolder,
    target: OutputFolder,
    fold: int = 0,
    decided: str = "",
) -> dict[str, dict[str, Any]]:
    """Notebook -> the parameters that it is given, in the order of execution; decided: settings of fold 0."""
    out = str(work.root)
    named = ("naive_checkpoint", "predictions", "predictions_checkpoint")  # the kernels start in another folder
    given = {name: "" if fold else getattr(options, name) for name in named}  # judged once
    files = {name: path and str(expand(path)) for name, path in given.items()}
    # Models in training and finished replays outlive a run that is interrupted, so they lie where results are left.
    replay = {
        "out": out,
        "replays": str(target.replays),
        "with_policies": options.with_simulator,
        "loop": str(target.loop),
        **{name: getattr(options, name) for name in (*REPLAY_OPTIONS, *LOOP_OPTIONS, "full")},
    }
    return {
        "01_data": {
            "out": out,
            "data": data,
            **asdict(config_of(options, split_seed=0, fold=fold)),
        },
        "02_train_robust": {
            "out": out,
            "epochs": options.epochs,
            "seeds": 1 if options.folds else options.seeds,
            "first_seed": fold,
            "hidden_dim": options.hidden_dim,
            "num_layers": options.num_layers,
            "num_levels": options.num_levels,
            "device": options.device,
            "naive_checkpoint": files.pop("naive_checkpoint"),
            "unfinished": str(target.unfinished),
        },
        "03_compare": {
            "out": out,
            "baseline_steps": options.baseline_steps,
            "full": options.full,
            "codecs": ",".join(options.codec),
            "trust_remote_code": options.trust_remote_code,
            "decided": decided,
        },
        "04_residual_analysis": {"out": out, "policy_steps": options.policy_steps, "full": options.full, **files},
        **({"05_policy_in_the_loop": replay} if options.with_replay else {}),
    }


def _execute(stem: str, path: Path, parameters: dict[str, Any]) -> Exception | None:
    """Execute one notebook from its committed source; the error of a cell, or a kernel's death, is returned.

    Raises:
        RuntimeError: a parameter that the notebook does not have.
    """
    import papermill
    from nbclient.exceptions import DeadKernelError

    source = NOTEBOOKS / f"{stem}.ipynb"
    unknown = set(parameters) - set(papermill.inspect_notebook(str(source)))
    if unknown:
        raise RuntimeError(f"{source.name} has no parameter named {', '.join(sorted(unknown))}")
    path.parent.mkdir(exist_ok=True)
    try:
        papermill.execute_notebook(
            str(source),
            str(path),
            parameters,
            kernel_name="python3",
            progress_bar=False,
            cwd=str(REPOSITORY),
            extra_arguments=["--log-level=50"],  # the kernel greets with a warning, and leaves with a traceback
        )
    except (papermill.PapermillExecutionError, DeadKernelError) as error:
        return error
    return None


def _explain(stem: str, error: Exception, work: OutputFolder) -> int:
    """Say why a notebook failed: one sentence for bad input, the traceback for anything else."""
    name, value = getattr(error, "ename", None), getattr(error, "evalue", None)
    if name is None:
        last_words = (work.root / terminal.KERNEL_LOG).read_text(encoding="utf8", errors="replace")[-2000:]
        sentence = f"error: {stem} failed: its kernel died, most often for want of memory"
        print(f"{last_words}\n{sentence}", file=sys.stderr)  # noqa: T201
        return 1
    if name == "InputError":
        print(f"error: {value}", file=sys.stderr)  # noqa: T201
        return 2
    if name == "KeyboardInterrupt":
        raise KeyboardInterrupt
    print(f"{error}\nerror: {stem} failed: {name}: {value}", file=sys.stderr)  # noqa: T201
    return 1


def _publish(work: OutputFolder, target: OutputFolder, executed: dict[str, Path]) -> list[str]:
    """Write the reports, move everything into place, and return the lines that say the verdict."""
    from workbook.common.stages import ROWS, table_path
    from workbook.evaluation.evidence import Evidence
    from workbook.report.pages import write_reports
    from workbook.report.tables.verdict import verdict_lines

    run = Evidence(work.root)
    write_reports(run, executed)
    lines = verdict_lines(run)
    with _not_to_be_stopped():
        target.results.unlink(missing_ok=True)  # from here to its return the folder holds no result
        for part in PARTS:
            shutil.rmtree(target.root / part, ignore_errors=True)
            (work.root / part).rename(target.root / part)
        for rows in ROWS:
            table_path(target, rows).unlink(missing_ok=True)
            if table_path(work, rows).exists():
                table_path(work, rows).rename(table_path(target, rows))
        work.results.rename(target.results)
    return lines


@contextmanager
def _not_to_be_stopped() -> Iterator[None]:
    """Put off interruption for the moment in which old results make way for new ones."""
    previous = {stop: signal.signal(stop, signal.SIG_IGN) for stop in STOPS}
    try:
        yield
    finally:
        for stop, handler in previous.items():
            signal.signal(stop, handler)


@contextmanager
def _work_folder(target: OutputFolder) -> Iterator[OutputFolder]:
    """A hidden folder for the run, removed at its end; those of killed runs go first."""
    for stale in target.root.glob(".run-*"):
        shutil.rmtree(stale, ignore_errors=True)
    root = Path(tempfile.mkdtemp(prefix=".run-", dir=target.root))
    try:
        yield OutputFolder.at(str(root))
    finally:
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    # Even where the shell started this in the background, with interrupts ignored, being stopped must clean up.
    for stop in STOPS:
        signal.signal(stop, signal.default_int_handler)
    # Kernels of this interpreter, before any that the user has installed under the same name.
    os.environ["JUPYTER_PATH"] = str(Path(sys.prefix) / "share" / "jupyter")
    os.environ["WORKBOOK_PREFIX"] = sys.prefix
    os.environ["MPLBACKEND"] = "Agg"  # the figures need no backend, and a user's setting must not matter
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # small matrices: more threads only wait for each other
    sys.exit(main())
