"""The closed loop: observe demonstrations, train every policy and seed, let every arm act from the same starts.

Whatever is finished is kept in a folder under the hash of everything that decides it, as replays are: what was seen in
a demonstration, a trained policy, an episode.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from workbook.codecs.catalogue import Fitting, not_predicted
from workbook.common.errors import InputError
from workbook.common.jobs import OnProgress
from workbook.common.parallel import PROGRESS_STEPS, run_jobs
from workbook.data.dataset import Dataset
from workbook.data.layout import ActionLayout
from workbook.evaluation.loop.arms import Actor, Arm, PolicyKey, line_up
from workbook.evaluation.loop.demonstrations import STRIDE, chosen, record, task_files, windows
from workbook.evaluation.loop.episodes import held_out_starts, play_all
from workbook.evaluation.loop.evidence import TABLES
from workbook.evaluation.loop.offline import acceptance, measure
from workbook.evaluation.loop.sequence import SequencePolicy, why_not_trained
from workbook.evaluation.loop.train import Job, Shared, key_of, train_job, trained_actor
from workbook.evaluation.policy.network import PolicyConfig
from workbook.evaluation.replay.evidence import DIED, NO_STATES, OTHER_LAYOUT
from workbook.simulation.kernels import kernels
from workbook.simulation.scene import missing_packages, versions

LONGEST_DEMONSTRATION = 200  # steps; tasks with longer ones would not end within the time that policies have
FULL_STARTS = 3  # times as many, under `full`
VALIDATION_EPISODES = 3  # of each task, by which rules are chosen


@dataclass(frozen=True)
class LoopConfig:
    """Parameters of the closed loop.

    loop_seeds: policies of each kind; loop_starts: of each task and seed; demonstrations: of each task that a policy
    learns from; loop_steps: batches; full: more arms, all demonstrations, and three times the starts.
    """

    loop_seeds: int = 3
    loop_starts: int = 4
    demonstrations: int = 8
    loop_steps: int = 2000
    full: bool = False

    def __post_init__(self) -> None:
        for name in ("loop_seeds", "loop_starts", "demonstrations", "loop_steps"):
            value = getattr(self, name)
            if value < 1:
                raise InputError(f"{name} is {value}; give at least 1")

    @property
    def starts(self) -> int:
        return self.loop_starts * (FULL_STARTS if self.full else 1)

    @property
    def policy(self) -> PolicyConfig:
        return PolicyConfig(
            steps=self.loop_steps, width=256, learning_rate=1.5e-3, weight_decay=1e-3, noise=0.02, features=512,
            head_weights=100_000, warm_up=0.1, averaging=0.03, clip=1.0,
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class LoopStage:
    """values: what is no row; 'not_run' is why nothing was played, '' where it was. tables: `policies`, by episode, and
    others of `evidence.TABLES`, by arm and seed, or by layer of a draft.
    """

    values: dict[str, Any]
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)


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
    demonstrations = len(dataset.episodes) if config.full else config.demonstrations
    seen = {
        part: record(dataset, chosen(dataset, part, short, count), folder, on_progress(f"Observing, {part}"))
        for part, count in (("train", demonstrations), ("validation", VALIDATION_EPISODES))
    }
    train = list(seen["train"].values())
    if not train:
        return LoopStage({"not_run": DIED})
    held_out = list(seen["validation"].values()) or train
    fitting = replace(fitting, full=config.full)
    lineup = line_up(fitting)
    length = dataset.chunk_len
    shared = Shared(
        config.policy, dataset.normaliser, windows(train, short, length, STRIDE),
        windows(held_out, short, length, length), lineup, folder,
    )  # fmt: skip
    policies = list(dict.fromkeys(arm.policy for arm in lineup.arms))
    jobs = [Job(policy, seed) for seed in range(config.loop_seeds) for policy in policies]
    paths = dict(
        zip(
            jobs,
            run_jobs(train_job, shared, jobs, PROGRESS_STEPS, on_progress("Training policies"), kept=False),
            strict=True,
        )
    )  # they keep what they make themselves
    actors, keys = {}, {}
    for arm in lineup.arms:
        for seed in range(config.loop_seeds):
            path = paths[Job(arm.policy, seed)]
            actors[arm, seed] = trained_actor(shared, arm, seed, path)
            keys[arm, seed] = key_of(shared, actors[arm, seed], path)
    sequences = _sequences(shared, actors)
    refused = {PolicyKey(one["kind"], one["codec"], one["setting"]) for one in sequences if one["not_trained"]}
    actors = {(arm, seed): actor for (arm, seed), actor in actors.items() if arm.policy not in refused}
    starts = [held_out_starts(dataset, short, config.starts, seed) for seed in range(config.loop_seeds)]
    rows = play_all(actors, keys, starts, short, folder, on_progress("Playing"))
    values = {
        "not_run": "",
        "tasks": short,
        "left_out_tasks": long,
        "demonstrations": len(train),
        "policy": asdict(config.policy),
        "versions": versions(),
        "kernels": kernels(),
        "sequences": sequences,
        "not_predicted": {
            name: why for name, why in not_predicted(fitting).items() if name not in {each.codec for each in policies}
        },
        "part": "validation" if seen["validation"] else "train",
        "seconds": time.monotonic() - started,
    }
    policies, offline = _of_policies(shared, actors, dataset.layout)
    drafts = acceptance(actors, shared.validation.inputs, len(short))
    return LoopStage(values, dict(zip(TABLES, (rows, policies, offline, drafts), strict=True)))


def _by_length(dataset: Dataset, tasks: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Tasks whose demonstrations are short enough, and the others."""
    longest = {
        task: max(len(each.actions) for each in dataset.part("train") if each.task == task)
        for task in tasks
        if any(each.task == task for each in dataset.part("train"))
    }
    short = [task for task, steps in longest.items() if steps <= LONGEST_DEMONSTRATION]
    return short, [task for task in tasks if task not in short]


def _sequences(shared: Shared, actors: Mapping[tuple[Arm, int], Actor]) -> list[dict[str, Any]]:
    """Of every policy of sequences and seed why it is not trained, '' where it is, and the figures that say so.

    Where one seed is not trained, none plays.
    """
    normalise, truth = shared.normaliser.normalise, shared.validation.chunks
    mean_mse = float(((normalise(shared.train.chunks).mean(axis=0) - normalise(truth)) ** 2).mean())
    found = []
    for (arm, seed), actor in actors.items():
        network = actor.networks[0]
        if isinstance(network, SequencePolicy):
            predicted, malformed = actor.greedy(shared.validation.inputs)
            mse = float(((normalise(predicted) - normalise(truth)) ** 2).mean())
            figures = {"mse": mse, "mean_mse": mean_mse, "malformed": malformed}
            why = why_not_trained(network, mse, mean_mse)
            found.append({**arm.policy._asdict(), "seed": seed, "not_trained": why, **figures})
    return found


def _of_policies(
    shared: Shared, actors: Mapping[tuple[Arm, int], Actor], layout: ActionLayout
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Of every arm and seed the error on validation chunks, by which rules are chosen, and the size of its networks;
    and all figures that need no simulator.
    """
    rows, offline = [], []
    for (arm, seed), actor in actors.items():
        keys, figures = {**arm.keys, "seed": seed}, measure(actor, shared.validation, layout)
        weights = sum(parameter.numel() for network in actor.networks for parameter in network.parameters())
        rows.append({**keys, "validation_mse": figures["mse"], "weights": weights})
        offline.append(keys | figures)
    return pd.DataFrame(rows), pd.DataFrame(offline)
