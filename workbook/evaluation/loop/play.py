"""The stage: observe demonstrations, train every policy and seed, and let every arm act from the same held-out starts.

Whatever is finished is kept in a folder under the hash of everything that decides it, as replays are: what was seen in
a demonstration, a trained policy, an episode.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from workbook.codecs.catalogue import COARSE_LAYERS, Fitting
from workbook.codecs.token_spaces import TokenSpace
from workbook.common.array import Array
from workbook.common.errors import InputError
from workbook.common.parallel import PROGRESS_STEPS, OnProgress, ProgressStep, in_progress_steps, run_jobs
from workbook.common.paths import replacing
from workbook.data.chunks import Normaliser
from workbook.data.dataset import Dataset
from workbook.data.episodes import Start
from workbook.data.sources.files import one_line
from workbook.evaluation.loop.arms import Actor, Arm, PolicyKey, Space, arms_of
from workbook.evaluation.loop.demonstrations import (
    STRIDE,
    chosen,
    inputs_at,
    record,
    scene_of,
    task_files,
    windows,
)
from workbook.evaluation.loop.phase2 import ParallelHeads
from workbook.evaluation.policy.network import (
    Observations,
    PolicyConfig,
    RegressionPolicy,
    Standardiser,
    TokenPolicy,
    train_policy,
)
from workbook.evaluation.replay.evidence import DIED, NO_STATES, OTHER_LAYOUT
from workbook.simulation import scene as scene_module
from workbook.simulation.kernels import kernels
from workbook.simulation.observation import Observer, jitter
from workbook.simulation.scene import SimulationError, missing_packages, versions
from workbook.simulation.workers import Died, run_apart

MOST_STEPS = 220  # LIBERO's own limit for libero_spatial, its shortest
LONGEST_DEMONSTRATION = 200  # steps; tasks with longer ones would not end within MOST_STEPS
JITTER_RADIANS = 0.02  # of each joint of the arm, in starts beyond the recorded ones
VALIDATION_EPISODES = 3  # of each task, by which rules are chosen
SECONDS_AN_EPISODE = 300.0  # after which one counts as hung
DRAFT_SEEDS = 1000  # added to the seed of a main model


@dataclass(frozen=True)
class LoopConfig:
    """Parameters of the closed loop.

    loop_seeds: policies of each kind; loop_starts: of each task and seed; demonstrations: of each task that a policy
    learns from; loop_steps: batches.
    """

    loop_seeds: int = 3
    loop_starts: int = 4
    demonstrations: int = 8
    loop_steps: int = 2000

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value < 1:
                raise InputError(f"{name} is {value}; give at least 1")

    @property
    def policy(self) -> PolicyConfig:
        return PolicyConfig(
            steps=self.loop_steps, width=256, learning_rate=1.5e-3, weight_decay=1e-3, noise=0.02, features=512,
            head_weights=100_000, warm_up=0.1, averaging=0.03, clip=1.0,
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class LoopStage:
    """values: what is no row; 'not_run' is why nothing was played, '' where it was. tables: `policies`, by episode, and
    `loop_policies`, by arm and seed.
    """

    values: dict[str, Any]
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Shared:
    """What every training needs."""

    config: PolicyConfig
    normaliser: Normaliser
    train: Observations
    validation: Observations
    spaces: Mapping[tuple[str, str], Space]
    folder: Path


@dataclass(frozen=True)
class Job:
    policy: PolicyKey
    seed: int


@dataclass(frozen=True)
class HeldOutStart:
    """A start that no policy has seen. number: of the task's starts; shaken: times that all recorded ones were used."""

    start: Start
    task: str
    number: int
    shaken: int


def play_policies(
    dataset: Dataset,
    fitting: Fitting,
    config: LoopConfig,
    folder: Path,
    on_progress: Callable[[str], OnProgress],
) -> LoopStage:
    """Train and play every arm of the catalogue. What keeps an episode from being played is told, and raises nothing.

    folder: of what is finished; on_progress: of a part of the work, by its name.
    """
    started = time.monotonic()
    tasks = task_files(dataset)
    problem = missing_packages() or ("" if dataset.layout.is_libero else OTHER_LAYOUT) or ("" if tasks else NO_STATES)
    if problem:
        return LoopStage({"not_run": problem})
    folder.mkdir(parents=True, exist_ok=True)
    short, long = _by_length(dataset, tasks)
    if not short:
        return LoopStage({"not_run": "too_long"})
    seen = {
        part: record(dataset, chosen(dataset, part, short, count), folder, on_progress(f"observe_{part}"))
        for part, count in (("train", config.demonstrations), ("validation", VALIDATION_EPISODES))
    }
    train = list(seen["train"].values())
    held_out = list(seen["validation"].values()) or train
    arms, spaces = arms_of(fitting)
    length = dataset.chunk_len
    shared = Shared(
        config.policy, dataset.normaliser, windows(train, short, length, STRIDE),
        windows(held_out, short, length, length), spaces, folder,
    )  # fmt: skip
    policies = list(dict.fromkeys(arm.policy for arm in arms))
    jobs = [Job(policy, seed) for seed in range(config.loop_seeds) for policy in policies]
    paths = dict(zip(jobs, run_jobs(_train, shared, jobs, PROGRESS_STEPS, on_progress("train")), strict=True))
    actors, keys = {}, {}
    for arm in arms:
        for seed in range(config.loop_seeds):
            path = paths[Job(arm.policy, seed)]
            actors[arm, seed] = _actor(shared, arm, seed, path)
            keys[arm, seed] = f"{path.name} {arm.rule} {_says(shared, actors[arm, seed].space)}"
    starts = [_starts(dataset, short, config.loop_starts, seed) for seed in range(config.loop_seeds)]
    rows = _play(actors, keys, starts, short, folder, on_progress("play"))
    values = {
        "not_run": "",
        "tasks": short,
        "left_out_tasks": long,
        "demonstrations": len(train),
        "policy": asdict(config.policy),
        "versions": versions(),
        "kernels": kernels(),
        "seconds": time.monotonic() - started,
    }
    return LoopStage(values, {"policies": rows, "loop_policies": _of_policies(shared, actors)})


def _by_length(dataset: Dataset, tasks: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Tasks whose demonstrations are short enough, and the others."""
    longest = {
        task: max(len(each.actions) for each in dataset.part("train") if each.task == task)
        for task in tasks
        if any(each.task == task for each in dataset.part("train"))
    }
    short = [task for task, steps in longest.items() if steps <= LONGEST_DEMONSTRATION]
    return short, [task for task in tasks if task not in short]


# Training


def _train(shared: Shared, job: Job, progress_step: ProgressStep) -> Path:
    """Train one policy, or take what an earlier call has trained; the file of its weights."""
    standardise = Standardiser.fit(shared.train.inputs)
    inputs, targets = standardise.apply(shared.train.inputs), _targets(shared, job)
    path = shared.folder / f"policy-{_training_key(shared.config, job, inputs, targets)}.pt"
    on_step = in_progress_steps(shared.config.steps, progress_step)
    networks = _networks(shared, job)
    if _load_weights(path, networks):
        on_step(shared.config.steps)
        return path
    for number, network in enumerate(networks):
        after = on_step if number == len(networks) - 1 else (lambda step: None)
        train_policy(network, inputs, targets, shared.config, job.seed + number * DRAFT_SEEDS, after)
    with replacing(path) as temporary:
        torch.save([network.state_dict() for network in networks], temporary)
    return path


def _targets(shared: Shared, job: Job) -> list[Tensor]:
    chunks = shared.train.chunks
    if job.policy.kind == "regression":
        return [torch.from_numpy(shared.normaliser.normalise(chunks)).float().flatten(1)]
    space = shared.spaces[job.policy.codec, job.policy.setting].of(job.seed)
    return [torch.from_numpy(layer) for layer in space.tokens(chunks)]


def _networks(shared: Shared, job: Job) -> list[Any]:
    """Untrained, with weights that follow from the seed."""
    config, dimensions = shared.config, shared.train.inputs.shape[1]
    sizes = config.width, config.head_weights, config.features
    torch.manual_seed(job.seed)
    if job.policy.kind == "regression":
        outputs = int(np.prod(shared.train.chunks.shape[1:]))
        return [RegressionPolicy(dimensions, outputs, *sizes, absolute=True)]
    space = shared.spaces[job.policy.codec, job.policy.setting].of(job.seed)
    if job.policy.kind == "tokens":
        return [TokenPolicy(dimensions, space.groups, space.sizes, *sizes)]
    draft = ParallelHeads(dimensions, space.groups, space.sizes[:COARSE_LAYERS], config, given=False)
    return [draft, ParallelHeads(dimensions, space.groups, space.sizes, config, given=True)]


def _training_key(config: PolicyConfig, job: Job, inputs: Tensor, targets: Sequence[Tensor]) -> str:
    """Hash of all that decides what comes of a training, but the processor."""
    said = {"config": asdict(config), "policy": job.policy, "seed": job.seed, "code": _code()}
    digest = hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode())
    for each in (inputs, *targets):
        digest.update(np.ascontiguousarray(each.numpy()).tobytes())
    return digest.hexdigest()


@cache
def _code() -> str:
    """Hash of the code that trains and plays."""
    from workbook.evaluation.loop import arms, phase2
    from workbook.evaluation.policy import network
    from workbook.simulation import observation

    modules = (arms, phase2, network, observation, scene_module)
    files = [Path(__file__), *(Path(str(module.__file__)) for module in modules)]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def _load_weights(path: Path, networks: Sequence[nn.Module]) -> bool:
    try:
        states = torch.load(path, map_location="cpu", weights_only=True)
        for network, state in zip(networks, states, strict=True):
            network.load_state_dict(state)
            network.eval()
    except Exception:  # not there, or damaged, and then simply trained again
        return False
    return True


def _actor(shared: Shared, arm: Arm, seed: int, path: Path) -> Actor:
    networks = _networks(shared, Job(arm.policy, seed))
    if not _load_weights(path, networks):
        raise InputError(f"{path}: a policy that was just trained is gone; run the notebook again")
    return Actor(
        arm.rule, Standardiser.fit(shared.train.inputs), shared.normaliser, shared.train.chunks.shape[1],
        tuple(networks), None if arm.space is None else shared.spaces[arm.space].of(seed),
    )  # fmt: skip


def _says(shared: Shared, space: TokenSpace | None) -> str:
    """Hash of what tokens are made of held-out chunks, and of how they and even probabilities decode."""
    if space is None:
        return ""
    tokens = space.tokens(shared.validation.chunks)
    even = [np.full((1, space.groups, *size), 1 / size[1]) for size in space.sizes]
    digest = hashlib.sha256()
    for each in (*tokens, space.decode(tokens), space.expected(even)):
        digest.update(np.ascontiguousarray(each).tobytes())
    return digest.hexdigest()


def _of_policies(shared: Shared, actors: Mapping[tuple[Arm, int], Actor]) -> pd.DataFrame:
    """Of every arm and seed the error on validation chunks, by which rules are chosen, and the size of its networks."""
    truth = shared.normaliser.normalise(shared.validation.chunks)
    rows = []
    for (arm, seed), actor in actors.items():
        predicted = shared.normaliser.normalise(actor.act(shared.validation.inputs))
        weights = sum(parameter.numel() for network in actor.networks for parameter in network.parameters())
        error = float(((predicted - truth) ** 2).mean())
        rows.append({**_keys(arm), "seed": seed, "validation_mse": error, "weights": weights})
    return pd.DataFrame(rows)


def _keys(arm: Arm) -> dict[str, str]:
    return {**arm.policy._asdict(), "rule": arm.rule, "decoder": arm.decoder}


# Playing


def _starts(dataset: Dataset, tasks: Sequence[str], count: int, seed: int) -> list[HeldOutStart]:
    """`count` starts of each task, others for every seed: those of the test episodes, then the same shaken."""
    found = []
    for task in tasks:
        recorded = [start for at, start in dataset.test_starts.items() if dataset.episodes[at].task == task]
        for number in range(seed * count, (seed + 1) * count):
            shaken, place = divmod(number, len(recorded))
            found.append(HeldOutStart(recorded[place], task, number, shaken))
    return found


def _play(
    actors: Mapping[tuple[Arm, int], Actor],
    keys: Mapping[tuple[Arm, int], str],
    starts: Sequence[Sequence[HeldOutStart]],
    tasks: Sequence[str],
    folder: Path,
    on_progress: OnProgress,
) -> pd.DataFrame:
    """A row for every arm, seed and start. keys: what says all that an actor does."""
    with tempfile.TemporaryDirectory() as scratch:
        asked = []
        for number, ((arm, seed), actor) in enumerate(actors.items()):
            file = Path(scratch) / f"{number}.pickle"
            file.write_bytes(pickle.dumps((actor, tuple(tasks))))
            for start in starts[seed]:
                path = folder / f"episode-{_episode_key(keys[arm, seed], start)}.json"
                asked.append((arm, seed, start, (file, start, path)))
        missing = [job for *_, job in asked if _finished(job[2]) is None]
        missing.sort(key=lambda job: (job[1].start.task_file, str(job[0])))
        done = len(asked) - len(missing)
        problems = run_apart(
            _play_job, missing, SECONDS_AN_EPISODE, lambda some, _: on_progress(done + some, len(asked))
        )
        on_progress(len(asked), len(asked))
        reasons = {
            job[2]: DIED if isinstance(problem, Died) else problem
            for job, problem in zip(missing, problems, strict=True)
        }
        return pd.DataFrame([
            {
                **_keys(arm), "seed": seed, "task": start.task, "episode": f"start {start.number}",
                **(_finished(path) or {"succeeded": None, "steps": 0, "not_played": reasons.get(path, DIED)}),
            }
            for arm, seed, start, (_, _, path) in asked
        ]).astype({"succeeded": "boolean", "steps": "int64"})  # fmt: skip


def _episode_key(actor: str, start: HeldOutStart) -> str:
    made_by = {"code": _code(), "kernels": kernels(), **versions()}
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
