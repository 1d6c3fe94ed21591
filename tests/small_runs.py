"""The calls of the notebooks, in their order, on a few small random walks and with small models."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rfsq_robust import ActionRFSQAE
from workbook.common import parallel
from workbook.common.paths import OutputFolder
from workbook.common.stages import write_stage
from workbook.data.card import describe
from workbook.data.chunks import Normaliser
from workbook.data.cleaning import Changes, Outliers, clip_episodes
from workbook.data.dataset import Dataset, Prepared, load_dataset, save_dataset
from workbook.data.episodes import Episode, Origin
from workbook.data.layout import LIBERO, ActionLayout
from workbook.data.split import split_episodes
from workbook.evaluation.comparison import Comparison, compare
from workbook.evaluation.evidence import Evidence
from workbook.evaluation.policy.probe import ProbeConfig, probe
from workbook.training import runs as variants
from workbook.training.baselines import BaselineConfig
from workbook.training.overhead import measure_step_seconds
from workbook.training.runs import load_fitting, train_variants
from workbook.training.trainer import TrainConfig
from workbook.verdict.results import assemble

SMALL = TrainConfig(epochs=2, batch_size=16, learning_rate=5e-3, hidden_dim=6, num_layers=4)


def _walk(number: int, rng: np.random.Generator) -> Episode:
    steps = int(rng.integers(20, 40))
    motion = np.clip(np.cumsum(rng.normal(0, 0.1, (steps, 6)), axis=0), -0.9, 0.9)
    motion[::9] = 0.0
    gripper = np.where((np.arange(steps) // 9 + number) % 2, 1.0, -1.0)
    return Episode(np.column_stack([motion, gripper]), f"task {number % 2}", "walks.hdf5", f"demo_{number}")


def make_dataset(episodes: int = 10, layout: ActionLayout = LIBERO) -> Dataset:
    rng = np.random.default_rng(0)
    walks = tuple(_walk(number, rng) for number in range(episodes))
    split = split_episodes(walks, 0)
    normaliser = Normaliser.fit(np.concatenate([walks[position].actions for position in split.train]))
    return Dataset(layout, walks, split, normaliser, 8, 8)


def prepared_walks(layout: ActionLayout = LIBERO) -> Prepared:
    dataset = make_dataset(layout=layout)
    changes = Changes((), (), (), None, Outliers(0, (), False), clip_episodes(list(dataset.episodes), layout)[1])
    return Prepared(dataset, changes, Origin("random walks", "walks"), len(dataset.episodes))


@dataclass(frozen=True)
class Run:
    """What the notebooks leave behind."""

    out: OutputFolder
    prepared: Prepared
    dataset: Dataset  # as it was loaded
    training: dict[str, Any]
    evidence: Evidence

    @property
    def layout(self) -> ActionLayout:
        return self.dataset.layout

    @property
    def written(self) -> dict[str, Any]:
        """The content of results.json."""
        return json.loads(self.out.results.read_text(encoding="utf8"))


@contextmanager
def quickly() -> Iterator[None]:
    """One thread, as in the workers, but no worker processes, and a short measurement of the training step."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("WORKBOOK_PREFIX", raising=False)
        patch.setattr(parallel, "available_cores", lambda: 1)
        patch.setattr(variants, "measure_step_seconds", partial(measure_step_seconds, rounds=5, steps=1))
        yield
    torch.set_num_threads(threads)


def plant_old_checkpoints(folder: Path) -> list[Path]:
    """Files as an earlier run with more seeds would have left them."""
    seeds = folder / "checkpoints" / "seeds"
    seeds.mkdir(parents=True)
    old = [seeds / "none_seed9.pt", seeds / "scale_seed9.pt", seeds / "none_given.pt", seeds.parent / "rfsq_best.pt"]
    for path in old:
        path.write_bytes(b"old")
    return old


def same_weights(first: ActionRFSQAE, second: ActionRFSQAE) -> bool:
    one, other = first.state_dict(), second.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def train_into(folder: Path, config: TrainConfig = SMALL, seeds: int = 1, naive: str = "") -> dict[str, Any]:
    with quickly():
        return train_variants(OutputFolder.at(str(folder)), make_dataset(), config, seeds, "cpu", naive)[0]


def compare_in(folder: Path, training: dict[str, Any], config: BaselineConfig) -> Comparison:
    """03_compare on what `train_into` left in a folder."""
    with quickly():
        return compare(OutputFolder.at(str(folder)), make_dataset(), training, config, lambda label: ignore_progress)


def run_notebooks(
    folder: Path,
    prepared: Prepared,
    config: TrainConfig = SMALL,
    seeds: int = 2,
    naive: str = "",
    policies: bool = True,
) -> Run:
    """All notebooks but 05_policy_in_the_loop; without policies only the first three, and nothing is decided."""
    out = OutputFolder.at(str(folder))
    with quickly():
        save_dataset(prepared.dataset, out)
        dataset = load_dataset(out)
        write_stage(out, "data", {"data": prepared.origin.name}, *describe(prepared))
        content, curves = train_variants(out, dataset, config, seeds, "cpu", naive)
        parameters = {"seeds": seeds, "device": "cpu"}
        parameters |= {"naive_checkpoint": content["naive_checkpoint"]} if naive else {}
        training = write_stage(out, "training", parameters, content, curves)
        found = compare(out, dataset, training, BaselineConfig(baseline_steps=2), lambda label: ignore_progress)
        tables = {"scores": found.scores, **found.tables}
        write_stage(out, "comparison", {"baseline_steps": 2, "full": False}, found.values, tables)
        run = Run(out, prepared, dataset, training, Evidence(out.root))
        if policies:
            _predict_and_decide(run)
        return run


def _predict_and_decide(run: Run) -> None:
    fitting = load_fitting(run.out, run.training, run.dataset)
    found = probe(fitting, ProbeConfig(policy_steps=2), ignore_progress)
    write_stage(run.out, "policy", {}, found.values, {"probe": found.rows, **found.tables})
    assemble(run.evidence)


def ignore_progress(done: int, total: int) -> None:
    pass
