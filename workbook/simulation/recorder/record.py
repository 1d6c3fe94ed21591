"""Records the scripted expert: `python -m workbook.simulation.recorder.record --out FOLDER`.

All that is random in an episode comes from the seed, the task and the number of the try, so the same versions of the
simulator and numpy record the same actions where OpenBLAS uses the same kernels (see `kernels`). Files are written when
all tasks are recorded.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from workbook.common.errors import InputError
from workbook.common.jobs import OnProgress, ProgressStep
from workbook.common.parallel import PROGRESS_STEPS, in_progress_steps, run_jobs
from workbook.common.paths import OutputFolder
from workbook.common.terminal import heed_stops, tell
from workbook.simulation.recorder.demo_file import Kept, Recorded
from workbook.simulation.recorder.expert import Demonstration, demonstrate, settle
from workbook.simulation.recorder.plans import SAMPLE, Recording, find, in_words
from workbook.simulation.scene import Scene, SimulationError, missing_packages, versions
from workbook.simulation.tasks import bddl_text, initial_states

BAR = "{desc} {bar} {percentage:3.0f}% {elapsed}"
TRIES_AN_EPISODE, TRIES_MORE = 2, 5  # after which a task is given up


@dataclass(frozen=True)
class RecordingJob:
    """One task, by its label: plans are functions, which other processes look up for themselves."""

    label: str
    episodes: int


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m workbook.simulation.recorder.record",
        allow_abbrev=False,
        description="Record demonstrations of the scripted expert in the LIBERO simulator, in LIBERO's HDF5 layout.",
        epilog="Only episodes that reach the goal are kept. Exit code 0: all were recorded; 2: bad input; 1: anything "
        "else; 130: interrupted.",
    )
    parser.add_argument("--out", required=True, help="folder for the files, one a task, below that of its suite")
    parser.add_argument(
        "--task",
        action="append",
        default=[],
        metavar="SUITE:INDEX",
        help=f"a task to record, of {in_words(SAMPLE)}; may be given again; default: all of them",
    )
    parser.add_argument("--episodes", type=int, help="episodes of each task; default: as many as the sample has")
    parser.add_argument("--seed", type=int, default=0, help="default: 0, with which the sample was recorded")
    return parser.parse_args(arguments)


def jobs_of(options: argparse.Namespace) -> list[RecordingJob]:
    """What is to be recorded.

    Raises:
        InputError: a task that is unknown or named twice, no episodes, or a seed below 0.
    """
    recordings = [find(label) for label in options.task] or list(SAMPLE)
    if len(set(map(id, recordings))) < len(recordings):
        raise InputError("a task is named twice with --task; name each once")
    if options.episodes is not None and options.episodes < 1:
        raise InputError(f"--episodes {options.episodes}: must be at least 1")
    if options.seed < 0:
        raise InputError(f"--seed {options.seed}: must be at least 0")
    return [RecordingJob(r.task.label, options.episodes or r.episodes) for r in recordings]


def record(jobs: Sequence[RecordingJob], seed: int, on_progress: OnProgress | None = None) -> list[Recorded]:
    """Record tasks, several at a time where there are several cores.

    Raises:
        SimulationError: a task of which too few tries succeed.
    """
    return run_jobs(record_task, seed, jobs, PROGRESS_STEPS, on_progress)


def record_task(seed: int, job: RecordingJob, progress_step: ProgressStep) -> Recorded:
    """As many successful episodes of a task as the job asks for, from the official initial states in turn.

    Raises:
        SimulationError: too few of the tries succeed.
    """
    recording = find(job.label)
    told = in_progress_steps(job.episodes, progress_step)
    with _elsewhere():
        scene = Scene(recording.task.file)
        initial = initial_states(recording.task)
        kept: list[Kept] = []
        attempt = 0
        while len(kept) < job.episodes:
            if attempt == TRIES_AN_EPISODE * job.episodes + TRIES_MORE:
                raise SimulationError(
                    f"{job.label}: the expert reached the goal in {len(kept)} of {attempt} tries, too few for "
                    f"{job.episodes} episodes; ask for fewer with --episodes"
                )
            made = record_try(scene, recording, initial, seed, attempt)
            if made is not None:
                kept.append(Kept(made, attempt, attempt % len(initial)))
                told(len(kept))
            attempt += 1
    return Recorded(
        recording.task, scene.problem, bddl_text(recording.task), scene.objects, seed, attempt, kept, versions()
    )


def record_try(
    scene: Scene, recording: Recording, initial: np.ndarray, seed: int, attempt: int
) -> Demonstration | None:
    """The demonstration of one try, whatever was tried before in this scene; None where it did not succeed.

    initial: (N, S) official initial states of the task.

    Raises:
        SimulationError: an initial state does not fit the task.
    """
    start = settle(scene, initial[attempt % len(initial)])
    rng = np.random.default_rng([seed, recording.task.number, attempt])
    with contextlib.suppress(SimulationError):
        made = demonstrate(scene, recording.plan, start, rng, recording.longest)
        if made.succeeded:
            return made
    return None


@contextlib.contextmanager
def _elsewhere() -> Iterator[None]:
    """Work in a folder that is thrown away: MuJoCo writes its warnings to a file in the current one."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        yield


def main(arguments: Sequence[str] | None = None) -> int:
    """Record, and return the exit code."""
    options = parse_arguments(arguments)
    return tell(lambda: _record_and_save(options), options.out, failure=SimulationError)


def _record_and_save(options: argparse.Namespace) -> str:
    from tqdm import tqdm

    jobs = jobs_of(options)
    missing = missing_packages()
    if missing:
        raise InputError(missing)
    target = OutputFolder.at(options.out)
    with tqdm(total=PROGRESS_STEPS * len(jobs), desc="recording", disable=None, bar_format=BAR) as bar:
        recorded = record(jobs, options.seed, lambda done, total: bar.update(done - bar.n))
    for of_task in recorded:
        of_task.save(target.root)
    return summary(recorded)


def summary(recorded: Sequence[Recorded]) -> str:
    """A table for the terminal."""
    rows = [["task", "kept of tries", "steps", "instruction"]]
    rows += [[r.task.label, f"{len(r.kept)} of {r.tries}", f"{r.steps:,}", r.task.text] for r in recorded]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


if __name__ == "__main__":
    heed_stops()
    sys.exit(main())
