"""What 03_compare trains, fits and saves, before anything is scored."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

import torch

from rfsq_robust import Checkpoint, save_checkpoint
from workbook.codecs.catalogue import Fitting, Setting, catalogue, klt_rfsq_of
from workbook.codecs.klt_rfsq_file import FILE_NAME, save_klt_rfsq
from workbook.codecs.rfsq import RFSQCodec
from workbook.common.jobs import OnProgress
from workbook.common.paths import OutputFolder
from workbook.data.dataset import Dataset
from workbook.training.baselines import BaselineConfig, brought_codecs, train_baselines
from workbook.training.runs import RETRAINED_FILE, load_rfsq, retrained_name, save_transformers
from workbook.training.trainer import TrainConfig


def fit_catalogue(
    out: OutputFolder,
    dataset: Dataset,
    training: dict[str, Any],
    config: BaselineConfig,
    progress: Callable[[str], OnProgress],
) -> Fitting:
    """Train and fit what the catalogue names, and write what can be used afterwards.

    training: the stage of 02_train_robust; progress: label of a part of the work -> what is told of it.

    Raises:
        InputError: a checkpoint of that stage is missing or damaged, or as `fit_brought`.
    """
    rfsq = load_rfsq(out, training, dataset)
    base = TrainConfig(**training["config"])
    networks, decoders = train_baselines(
        dataset, rfsq["none"], base, len(rfsq["scale"]), config, progress("Training baselines")
    )
    brought = brought_codecs(dataset, config)
    given = Setting.parse(config.decided)
    fitting = Fitting(dataset, rfsq, networks, decoders, brought=brought, full=config.full, decided=given)
    save_klt_rfsq(out.checkpoints / FILE_NAME, klt_rfsq_of(fitting))
    _save_retrained(out, dataset, training, fitting)
    save_transformers(out, networks)
    return fitting


def _save_retrained(out: OutputFolder, dataset: Dataset, training: dict[str, Any], fitting: Fitting) -> None:
    """Naive encoders with their retrained decoders, as checkpoints like any other; the best has a name of its own."""
    codecs = catalogue()["naive_by_retrained"].codecs(fitting, Setting.of(layers=fitting.layers))
    for position, codec in enumerate(codecs):
        assert isinstance(codec, RFSQCodec)
        bounds = {"min": torch.from_numpy(codec.normaliser.low), "max": torch.from_numpy(codec.normaliser.high)}
        origin = {"seed": position, "retrained": "decoder", "dataset_sha256": dataset.sha256}
        save_checkpoint(out.seeds / retrained_name(position), Checkpoint(codec.model, None, None, bounds, origin))
    seeds = [run["seed"] for run in training["conditionings"]["none"]["runs"]]
    best = seeds.index(training["best"]["none"]["seed"])
    shutil.copyfile(out.seeds / retrained_name(best), out.checkpoints / RETRAINED_FILE)
