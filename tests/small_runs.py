"""The calls of the four notebooks, in their order, on a few small random walks and with small models."""

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
from workbook.common.stages import read_stage, write_stage
from workbook.common.table import Table
from workbook.data.card import describe
from workbook.data.chunks import Normaliser
from workbook.data.cleaning import Changes, clip_episodes
from workbook.data.dataset import Dataset, Prepared, load_dataset, save_dataset
from workbook.data.episodes import Episode, Origin
from workbook.data.layout import LIBERO, ActionLayout
from workbook.data.split import split_episodes
from workbook.evaluation.decoders import measure_option_b
from workbook.evaluation.layers import analyse
from workbook.evaluation.policy.probe import ProbeConfig, probe
from workbook.evaluation.rate_distortion import measure_rates
from workbook.evaluation.score import compare
from workbook.report.figures.style import Plot
from workbook.report.tables import comparison as tables, data as data_tables, decision as evidence_tables
from workbook.training import runs as variants
from workbook.training.baselines import RateConfig
from workbook.training.overhead import measure_step_seconds
from workbook.training.runs import train_variants
from workbook.training.trainer import TrainConfig
from workbook.verdict.results import assemble

Evidence = dict[str, Any]
PNG = b"\x89PNG\r\n\x1a\n"
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
    changes = Changes((), (), None, clip_episodes(list(dataset.episodes), layout)[1])
    return Prepared(dataset, changes, Origin("random walks", "walks"), len(dataset.episodes))


@dataclass(frozen=True)
class Run:
    """What the four notebooks leave behind."""

    out: OutputFolder
    prepared: Prepared
    dataset: Dataset  # as it was loaded
    data: Evidence
    training: Evidence
    comparison: Evidence
    rates: Evidence
    option_b: Evidence
    residuals: Evidence
    phase2: Evidence
    results: Evidence

    @property
    def layout(self) -> ActionLayout:
        return self.dataset.layout

    @property
    def written(self) -> Evidence:
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


def train_into(folder: Path, config: TrainConfig = SMALL, seeds: int = 1, naive: str = "") -> Evidence:
    with quickly():
        return train_variants(OutputFolder.at(str(folder)), make_dataset(), config, seeds, "cpu", naive)


def run_notebooks(
    folder: Path, prepared: Prepared, config: TrainConfig = SMALL, seeds: int = 2, naive: str = ""
) -> Run:
    out = OutputFolder.at(str(folder))
    with quickly():
        save_dataset(prepared.dataset, out)
        dataset = load_dataset(out)
        data = write_stage(out, "data", {"data": prepared.origin.name}, describe(prepared))
        content = train_variants(out, dataset, config, seeds, "cpu", naive)
        parameters = {"seeds": seeds, "device": "cpu"}
        parameters |= {"naive_checkpoint": content["naive_checkpoint"]} if naive else {}
        trained = write_stage(out, "training", parameters, content)
        comparison = write_stage(out, "comparison", {}, compare(out, dataset, trained, ignore_progress))
        found = measure_rates(out, dataset, trained, RateConfig(baseline_steps=2), ignore_progress)
        rates = write_stage(out, "rates", {"baseline_steps": 2, "full": False}, found)
        option_b = write_stage(out, "option_b", {}, measure_option_b(out, dataset, trained, 2, ignore_progress))
        residuals = write_stage(out, "residuals", {}, analyse(out, dataset, read_stage(out, "training")))
        probed = probe(out, dataset, trained, option_b, ProbeConfig(policy_steps=2), ignore_progress)
        phase2 = write_stage(out, "phase2", {}, probed)
        evidence = (comparison, rates, option_b, residuals, phase2)
        return Run(out, prepared, dataset, data, trained, *evidence, assemble(out))


def ignore_progress(done: int, total: int) -> None:
    pass


def assert_is_picture(plot: Plot) -> None:
    assert isinstance(plot, Plot)
    assert plot.png.startswith(PNG)
    assert plot.alt.strip()


def tables_of(run: Run) -> list[Table]:
    """Every table of the notebooks and the report."""
    return [
        data_tables.statistics_table(run.written["data"]),
        data_tables.statistics_table(run.data),
        data_tables.normaliser_table(run.written["data"]),
        data_tables.tasks_table(run.written["data"]),
        tables.training_table(run.training),
        tables.guide_epochs_table(run.training),
        tables.closing_table(run.training, run.comparison),
        tables.criteria_table(run.results["criteria"], "layernorm"),
        tables.criteria_table(run.results["criteria"], "scale"),
        tables.bits_table(run.comparison),
        tables.physical_table(run.comparison),
        tables.dimension_table(run.comparison),
        tables.layers_table(run.residuals),
        tables.options_table(run.results["options"]),
        evidence_tables.rules_table(run.results["recommendation"]),
        evidence_tables.claims_table(run.results["guide_claims"]),
        evidence_tables.equal_bits_table(run.rates),
        evidence_tables.codecs_table(run.rates["codecs"]),
        evidence_tables.option_b_table(run.option_b),
        evidence_tables.policy_table(run.phase2),
        evidence_tables.accuracy_table(run.phase2),
        evidence_tables.draft_table(run.phase2),
        tables.provenance_table(run.written["provenance"]),
    ]
