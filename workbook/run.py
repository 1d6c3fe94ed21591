"""The command behind run_all.sh: executes the notebooks one after the other and writes the report.

An interrupted or failed run leaves the results of the run before it as they were, and is gone on with by the next.
"""

from __future__ import annotations

import argparse
import logging
import os
import shlex
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from workbook.common import terminal
from workbook.common.errors import InputError
from workbook.common.parallel import prepare
from workbook.common.paths import NOTEBOOKS, REPOSITORY, OutputFolder, locked
from workbook.options import Settings, check_before_start, notebook_parameters, parse_arguments
from workbook.publish import publish


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
        said = "interrupted; the results in the output folder are as they were"
        if options.on == "slurm":
            said += "; jobs that were sent go on: the same command gathers what they do, scancel ends them"
        print(f"\n{said}", file=sys.stderr)  # noqa: T201
        return 130
    except OSError as error:
        print(f"error: {error.filename or options.out}: {error.strerror}", file=sys.stderr)  # noqa: T201
        return 1


def _run(options: argparse.Namespace) -> int:
    from workbook.common.stages import read_stage
    from workbook.unfinished import going_on, identity_of

    started = time.monotonic()
    target = OutputFolder.at(options.out)
    _choose_where_jobs_run(options, target)
    checked = check_before_start(options)
    settings = checked.settings
    # A tokenizer of the user's own may have been edited since, so a run with one is never gone on with.
    identity = (
        "" if options.codec else identity_of([settings, checked.read, options.folds, sorted(vars(options).items())])
    )
    with locked(target.root / ".lock"), _scratch(options), going_on(target, identity) as run:
        prepare("workbook.report.pages")  # on a core that has nothing to do yet
        _keep_finished_run(target, settings)
        work = run.work
        folds = [work, *(OutputFolder.at(f"{work.root}/folds/{fold}") for fold in range(1, options.folds))]
        for fold, folder in enumerate(folds):
            decided = read_stage(work, "comparison")["decided"] if fold else ""
            notebooks = notebook_parameters(options, settings["data"]["data"], folder, target, fold, decided)
            for position, (stem, parameters) in enumerate(notebooks.items(), start=1):
                name = _name(stem, fold, options.folds)
                label = f"{position}/{len(notebooks)} {name}"
                if name in run.done:
                    print(f"{label}: done before", flush=True)  # noqa: T201
                    continue
                path = folder.root / "notebooks" / f"{stem}.ipynb"
                with terminal.kernel_noise(work), terminal.live_line(work, label):
                    error = _execute(stem, path, parameters)
                if error is not None:
                    return _explain(stem, error, work)
                run.add(name)
        if options.folds:
            run.forget()  # for folds cannot be pooled twice
            _pool(work, folds[1:])
        lines = publish(work, target)
    terminal.say(target, lines, time.monotonic() - started)
    return 0


def _name(stem: str, fold: int, folds: int) -> str:
    """Of a notebook, which every fold has executed."""
    return f"{stem}, fold {fold}" if folds else stem


def _choose_where_jobs_run(options: argparse.Namespace, target: OutputFolder) -> None:
    """For `run_jobs` in the kernels. What is sent lies in the output folder, which every node is to see."""
    from workbook.common.slurm import VARIABLE, Cluster, read_slurm_config

    os.environ.pop(VARIABLE, None)
    if options.on == "slurm":
        config = read_slurm_config(options.slurm_config)
        cluster = Cluster(target.root / ".jobs", config, again="the same command")
        cluster.check()
        cluster.to_environment()


@contextmanager
def _scratch(options: argparse.Namespace) -> Iterator[None]:
    """A folder for what kernels keep for the moment, for they are killed. Nodes of a cluster have a place of theirs."""
    before = os.environ.get("TMPDIR")
    with tempfile.TemporaryDirectory(prefix="workbook-", ignore_cleanup_errors=True) as folder:
        if options.on == "here":
            os.environ["TMPDIR"] = folder
        try:
            yield
        finally:
            os.environ.pop("TMPDIR", None)
            if before is not None:
                os.environ["TMPDIR"] = before


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


def _execute(stem: str, path: Path, parameters: Settings) -> Exception | None:
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
            shutdown_kernel="immediate",  # asked to stop, it waits for seconds for helpers that do not heed it
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


if __name__ == "__main__":
    terminal.heed_stops()
    # Kernels of this interpreter, before any that the user has installed under the same name.
    os.environ["JUPYTER_PATH"] = str(Path(sys.prefix) / "share" / "jupyter")
    os.environ["WORKBOOK_PREFIX"] = sys.prefix
    os.environ["MPLBACKEND"] = "Agg"  # the figures need no backend, and a user's setting must not matter
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # small matrices: more threads only wait for each other
    sys.exit(main())
