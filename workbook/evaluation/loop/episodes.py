"""Lets trained policies act from held-out starts, each episode once and for all."""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from workbook.common.array import Array
from workbook.common.jobs import OnProgress
from workbook.common.paths import replacing
from workbook.common.slurm import Cluster
from workbook.data.dataset import Dataset
from workbook.data.episodes import Start
from workbook.data.sources.files import one_line
from workbook.evaluation.loop.arms import Actor, Arm
from workbook.evaluation.loop.demonstrations import inputs_at
from workbook.evaluation.replay.evidence import DIED
from workbook.simulation import observation, scene as scene_module
from workbook.simulation.kernels import kernels
from workbook.simulation.observation import Observer, jitter
from workbook.simulation.scene import SimulationError, scene_of, versions
from workbook.simulation.workers import Died, run_missing

MOST_STEPS = 220  # LIBERO's own limit for libero_spatial, its shortest
JITTER_RADIANS = 0.02  # of each joint of the arm, in starts beyond the recorded ones
SECONDS_AN_EPISODE = 300.0  # after which one counts as hung


@dataclass(frozen=True)
class HeldOutStart:
    """A start that no policy has seen. number: of the task's starts; shaken: times that all recorded ones were used."""

    start: Start
    task: str
    number: int
    shaken: int


def held_out_starts(dataset: Dataset, tasks: Sequence[str], count: int, seed: int) -> list[HeldOutStart]:
    """`count` starts of each task, others for every seed: those of the test episodes, then the same shaken."""
    found = []
    for task in tasks:
        recorded = [start for at, start in dataset.test_starts.items() if dataset.episodes[at].task == task]
        for number in range(seed * count, (seed + 1) * count):
            shaken, place = divmod(number, len(recorded))
            found.append(HeldOutStart(recorded[place], task, number, shaken))
    return found


def play_all(
    actors: Mapping[tuple[Arm, int], Actor],
    keys: Mapping[tuple[Arm, int], str],
    starts: Sequence[Sequence[HeldOutStart]],
    tasks: Sequence[str],
    folder: Path,
    on_progress: OnProgress,
) -> pd.DataFrame:
    """A row for every arm, seed and start. keys: what says all that an actor does; folder: of what is finished."""
    asked = []
    scratch = folder / "actors"
    if not Cluster.of_environment():  # whose jobs may still read them
        shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(exist_ok=True)
    for (arm, seed), actor in actors.items():
        file = scratch / f"{hashlib.sha256(keys[arm, seed].encode()).hexdigest()}.pickle"
        with replacing(file) as temporary:
            temporary.write_bytes(pickle.dumps((actor, tuple(tasks))))
        for start in starts[seed]:
            path = folder / f"episode-{_episode_key(keys[arm, seed], start)}.json"
            asked.append((arm, seed, start, (file, start, path)))
    jobs = sorted((job for *_, job in asked), key=lambda job: (job[1].start.task_file, str(job[0])))
    problems = run_missing(_play_job, jobs, _is_played, SECONDS_AN_EPISODE, on_progress)
    on_progress(len(asked), len(asked))
    shutil.rmtree(scratch, ignore_errors=True)  # a node may still hold a file of it open
    reasons = {
        job[2]: DIED if isinstance(problem, Died) else problem for job, problem in zip(jobs, problems, strict=True)
    }
    return pd.DataFrame([
        {
            **arm.keys, "seed": seed, "task": start.task, "episode": f"start {start.number}",
            **(_finished(path) or {"succeeded": None, "steps": 0, "not_played": reasons.get(path, DIED)}),
        }
        for arm, seed, start, (_, _, path) in asked
    ]).astype({"succeeded": "boolean", "steps": "int64"})  # fmt: skip


def _episode_key(actor: str, start: HeldOutStart) -> str:
    made_by = {"code": _code_sha256(), "kernels": kernels(), **versions()}
    said = {"actor": actor, "shaken": start.shaken, "number": start.number, "fixtures": start.start.fixtures, **made_by}
    digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode())
    digest.update(np.ascontiguousarray(start.start.state, dtype=np.float64).tobytes())
    return digest.hexdigest()


def _finished(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf8"))
        return {"succeeded": bool(found["succeeded"]), "steps": int(found["steps"]), "not_played": ""}
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _is_played(job: tuple[Path, HeldOutStart, Path]) -> bool:
    return _finished(job[2]) is not None


def _play_job(job: tuple[Path, HeldOutStart, Path]) -> str:
    """Play one episode and keep its result; '' or why it could not be played."""
    file, start, path = job
    try:
        actor, tasks = _actor_of(file)
        succeeded, steps = _episode(actor, start, tasks)
    except SimulationError as error:
        return str(error)
    except Exception as error:  # whatever the simulator's packages raise costs this episode alone
        return f"{start.start.task_file}: cannot be played ({type(error).__name__}: {one_line(error)})"
    with replacing(path) as temporary:
        temporary.write_text(json.dumps({"succeeded": succeeded, "steps": steps}), encoding="utf8")
    return ""


@lru_cache(maxsize=2)
def _actor_of(file: Path) -> tuple[Actor, tuple[str, ...]]:
    torch.set_num_threads(1)
    return pickle.loads(file.read_bytes())  # written by this run


def _episode(actor: Actor, held_out: HeldOutStart, tasks: Sequence[str]) -> tuple[bool, int]:
    """LIBERO's rule: success at the first step at which the goal holds. A chunk is played out before the next."""
    scene, start = scene_of(held_out.start.task_file), held_out.start
    if held_out.shaken:
        start = jitter(scene, start, JITTER_RADIANS, (held_out.shaken, held_out.number))
    scene.begin(start.state, start.fixtures)
    observer = Observer(scene)
    before: Array | None = None
    chunk = np.zeros((0, 0))
    for step in range(MOST_STEPS):
        seen = observer.look()
        if step % actor.chunk_len == 0:
            chunk = actor.act(inputs_at(seen, before, held_out.task, tasks)[None])[0]
        before = seen
        if scene.advance(np.clip(chunk[step % actor.chunk_len], -1, 1)):
            return True, step + 1
    return False, MOST_STEPS


@cache
def _code_sha256() -> str:
    """Hash of the code that plays."""
    files = [Path(__file__), *(Path(str(module.__file__)) for module in (observation, scene_module))]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
