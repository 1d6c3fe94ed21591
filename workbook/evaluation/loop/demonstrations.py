"""What policies in the loop learn from: demonstrations, played once more to see what a policy would have seen."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from workbook.common.array import Array
from workbook.common.jobs import OnProgress
from workbook.common.paths import replacing
from workbook.data.dataset import Dataset
from workbook.data.episodes import Start
from workbook.evaluation.policy.network import Observations
from workbook.simulation import observation
from workbook.simulation.observation import observe
from workbook.simulation.playback import Playback
from workbook.simulation.scene import SimulationError, scene_of
from workbook.simulation.workers import run_missing

SECONDS_A_DEMONSTRATION = 300.0
STRIDE = 2  # steps between the chunks that a policy learns from


@dataclass(frozen=True, eq=False)
class Demonstration:
    """actions (T, A), and what is seen before each: (T, D)."""

    task: str
    actions: Array
    seen: Array


def task_files(dataset: Dataset) -> dict[str, str]:
    """Task -> its file in the simulator, of the tasks of which a test episode's start is known."""
    found = {dataset.episodes[at].task: start.task_file for at, start in dataset.test_starts.items()}
    return dict(sorted(found.items()))


def chosen(dataset: Dataset, part: str, tasks: Sequence[str], count: int) -> list[int]:
    """Positions of the first `count` episodes of each task in a part of which the start is known."""
    found: dict[str, list[int]] = {task: [] for task in tasks}
    for at in dataset.split.parts()[part]:
        task = dataset.episodes[at].task
        if at in dataset.starts and task in found and len(found[task]) < count:
            found[task].append(at)
    return [at for of in found.values() for at in of]


def record(
    dataset: Dataset, positions: Sequence[int], folder: Path, on_progress: OnProgress | None = None
) -> dict[int, Demonstration]:
    """What was seen in these episodes; those that cannot be played are left out. folder: of what was seen before."""
    jobs = []
    for at in positions:
        playback = Playback(dataset.starts[at], dataset.episodes[at].actions)
        jobs.append((playback.start, playback.actions, folder / f"seen-{_key(playback)}.npz"))
    by_scene = sorted(jobs, key=lambda job: job[0].task_file)
    run_missing(_record_job, by_scene, _is_recorded, SECONDS_A_DEMONSTRATION, on_progress)
    found = {at: (dataset.episodes[at], _load(path)) for at, (*_, path) in zip(positions, jobs, strict=True)}
    return {
        at: Demonstration(episode.task, episode.actions, seen)
        for at, (episode, seen) in found.items()
        if seen is not None
    }


def _key(playback: Playback) -> str:
    return hashlib.sha256(playback.key.encode() + Path(observation.__file__).read_bytes()).hexdigest()


def _load(path: Path) -> Array | None:
    try:
        with np.load(path, allow_pickle=False) as saved:
            return np.asarray(saved["seen"])
    except Exception:  # a damaged archive can raise nearly anything, and is simply made again
        return None


def _is_recorded(job: tuple[Start, Array, Path]) -> bool:
    return _load(job[2]) is not None


def _record_job(job: tuple[Start, Array, Path]) -> str:
    """Play a demonstration and keep what is seen in it; '' or why it could not be played."""
    start, actions, path = job
    try:
        seen = observe(scene_of(start.task_file), start, actions)
    except SimulationError as error:
        return str(error)
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, seen=seen)
    return ""


def inputs_at(seen: Array, before: Array | None, task: str, tasks: Sequence[str]) -> Array:
    """What a policy gets: what is seen, what was seen a step before, and the task, (2 D + number of tasks,)."""
    return np.concatenate([seen, seen if before is None else before, [float(task == name) for name in tasks]])


def windows(demonstrations: Sequence[Demonstration], tasks: Sequence[str], length: int, stride: int) -> Observations:
    """Chunks of `length` steps that start every `stride` steps, padded as in `cut_chunks`, and what is seen before."""
    inputs, chunks = [], []
    for one in demonstrations:
        for start in range(0, len(one.actions), stride):
            before = one.seen[start - 1] if start else None
            inputs.append(inputs_at(one.seen[start], before, one.task, tasks))
            chunks.append(one.actions[np.minimum(np.arange(start, start + length), len(one.actions) - 1)])
    return Observations(np.stack(inputs), np.stack(chunks))
