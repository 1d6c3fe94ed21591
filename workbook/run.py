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
from pathlib import Path
from typing import Any

from workbook import terminal
from workbook.arguments import parse_arguments
from workbook.errors import InputError
from workbook.paths import NOTEBOOKS, REPOSITORY, OutputFolder, expand, locked

# What a run leaves in the output folder, in the order in which it is put there; results.json comes last of all.
PARTS = ("stages", "checkpoints", "notebooks", "reports")
STOPS = (signal.SIGINT, signal.SIGTERM)
DATA_OPTIONS = ("num_episodes", "chunk_len", "stride", "layout", "gripper_open", "drop_noops")
REPLAY_OPTIONS = ("replay_episodes", "replay_seeds")


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
    started = time.monotonic()
    target = OutputFolder.at(options.out)
    data = _check_before_start(options)
    with locked(target.root / ".lock"), _work_folder(target) as work:
        executed = {}
        notebooks = _notebook_parameters(options, data, work, target)
        for position, (stem, parameters) in enumerate(notebooks.items(), start=1):
            path = work.root / "notebooks" / f"{stem}.ipynb"
            with terminal.kernel_noise(work), terminal.live_line(work, f"{position}/{len(notebooks)} {stem}"):
                error = _execute(stem, path, parameters)
            if error is not None:
                return _explain(stem, error, work)
            executed[stem] = path
        verdict = _publish(work, target, executed)
    terminal.say(target, verdict, time.monotonic() - started)
    return 0


def _check_before_start(options: argparse.Namespace) -> str:
    """Meet bad input before the first kernel starts; the notebooks check the same things for those run by hand.

    Returns what names the data, with the revision that was fetched where it comes from the hub.
    """
    from workbook.dataset import DataConfig, prepare_dataset
    from workbook.layout import ActionLayout
    from workbook.phase2 import ProbeConfig
    from workbook.replay.replay import ReplayConfig, unplayable
    from workbook.rivals import RateConfig
    from workbook.simulation.scene import missing_packages
    from workbook.sources.mirror import CACHE_VARIABLE
    from workbook.training import TrainConfig, choose_device
    from workbook.variants import check_naive_checkpoint, check_seeds

    if os.environ.get(CACHE_VARIABLE):  # the kernels start in another folder
        os.environ[CACHE_VARIABLE] = str(expand(os.environ[CACHE_VARIABLE]))
    config = TrainConfig(
        options.epochs, hidden_dim=options.hidden_dim, num_layers=options.num_layers, num_levels=options.num_levels
    )
    check_seeds(options.seeds)
    RateConfig(options.rival_steps, options.full)
    ProbeConfig(options.policy_steps, options.full)
    ReplayConfig(options.replay_episodes, options.replay_seeds)
    choose_device(options.device)
    if options.naive_checkpoint:
        check_naive_checkpoint(options.naive_checkpoint, config, ActionLayout.parse(options.layout).dim)
    with terminal.fetching() as on_progress:
        prepared = prepare_dataset(
            options.data, DataConfig(**{name: getattr(options, name) for name in DATA_OPTIONS}), on_progress
        )
    problem = missing_packages() or unplayable(prepared.dataset)
    if options.with_replay and problem:
        print(f"replay: will not be run, for {problem}", flush=True)  # noqa: T201
    origin = prepared.origin
    if origin.revision and origin.name != options.data:  # the notebooks read the commit, and cannot say how it came
        print(f"data: {origin.name}. {' '.join(origin.notes)}", flush=True)  # noqa: T201
    return origin.name


def _notebook_parameters(
    options: argparse.Namespace, data: str, work: OutputFolder, target: OutputFolder
) -> dict[str, dict[str, Any]]:
    """Notebook -> the parameters that it is given, in the order of execution."""
    out = str(work.root)
    naive = options.naive_checkpoint and str(expand(options.naive_checkpoint))
    # Models in training and finished replays outlive a run that is interrupted, so they lie where results are left.
    replay = {
        "out": out,
        "replays": str(target.replays),
        **{name: getattr(options, name) for name in REPLAY_OPTIONS},
    }
    return {
        "01_data": {
            "out": out,
            "data": data,
            **{name: getattr(options, name) for name in DATA_OPTIONS},
        },
        "02_train_robust": {
            "out": out,
            "epochs": options.epochs,
            "seeds": options.seeds,
            "hidden_dim": options.hidden_dim,
            "num_layers": options.num_layers,
            "num_levels": options.num_levels,
            "device": options.device,
            "naive_checkpoint": naive,
            "unfinished": str(target.unfinished),
        },
        "03_compare": {"out": out, "rival_steps": options.rival_steps, "full": options.full},
        "04_residual_analysis": {"out": out, "policy_steps": options.policy_steps, "full": options.full},
        **({"05_replay": replay} if options.with_replay else {}),
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


def _publish(work: OutputFolder, target: OutputFolder, executed: dict[str, Path]) -> dict[str, Any]:
    """Write the reports, move everything into place, and return the verdict."""
    import json

    from workbook.report import write_reports

    results = json.loads(work.results.read_text(encoding="utf8"))
    write_reports(work, results, executed)
    with _not_to_be_stopped():
        target.results.unlink(missing_ok=True)  # from here to its return the folder holds no result
        for part in PARTS:
            shutil.rmtree(target.root / part, ignore_errors=True)
            (work.root / part).rename(target.root / part)
        work.results.rename(target.results)
    return results["verdict"]


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
