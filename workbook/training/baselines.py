"""The codecs that are held against each other at equal bits: which settings, and how each comes to be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import nn

from rfsq_robust import CONDITIONINGS, ActionRFSQAE
from workbook.codecs.bins import UniformBins
from workbook.codecs.fast import FastCodec, quantile_normaliser
from workbook.codecs.klt import fit_klt
from workbook.codecs.klt_rfsq import BRANCHES, FixedLength, KltRFSQ, VariableLength
from workbook.codecs.learned import NUM_QUANTIZERS, QUANTIZERS, LearnedAE, LearnedCodec, training_loss
from workbook.codecs.protocol import Codec
from workbook.codecs.rfsq import RFSQCodec, WholeChunkRFSQ
from workbook.common.array import Array
from workbook.common.errors import InputError
from workbook.common.parallel import PROGRESS_STEPS, OnProgress, ProgressStep, in_progress_steps, run_jobs
from workbook.common.wording import count_of
from workbook.data.chunks import cut_chunks
from workbook.data.dataset import Dataset
from workbook.training.trainer import Job as RFSQJob, TrainConfig, TrainData, fit, train

Unit = Literal["step", "chunk"]
POLICY_RATES = (40, 60, 80, 100, 120, 140, 160, 180)  # bits a chunk, at which codecs are held against each other
FITTED_RATES = (24, 32, *POLICY_RATES, 200, 224)
FAST_SCALES = (0.5, 1, 2, 3, 4, 5, 7, 10, 14, 20, 28, 40, 56, 80, 112)
FAST_QUANTILE_SCALES = (2, 5, 10, 20)
BIN_COUNTS = (4, 8, 16, 32, 64, 128, 256)
CHUNK_LATENTS, CHUNK_LEVELS = 24, 7  # of the guide's RFSQ on whole chunks
SWEEP_LATENTS, SWEEP_LEVELS = (4, 8, 16, 32), (3, 5, 7, 15)
CONDITIONINGS_SHOWN = tuple(name for name in CONDITIONINGS if name in ("none", "scale"))


@dataclass(frozen=True)
class Family:
    """Codecs that differ in one setting. fixed_length: every chunk costs the same; prefix: the first tokens decode."""

    title: str
    fixed_length: bool
    prefix: bool


FAMILIES = {
    "rfsq_none": Family("RFSQ naive, a step", True, True),
    "rfsq_scale": Family("RFSQ scale, a step", True, True),
    "chunk_none": Family("RFSQ naive, whole chunk", True, True),
    "chunk_scale": Family("RFSQ scale, whole chunk", True, True),
    "klt_rfsq_fixed": Family("KLT-RFSQ of fixed length", True, True),
    "klt_rfsq": Family("KLT-RFSQ of variable length", False, False),
    "bins": Family("equal bins", True, False),
    "klt": Family("KLT, allocated levels", True, False),
    "fast": Family("FAST-style", False, False),
    "fast_quantile": Family("FAST-style, q01-q99", False, False),
    "residual_vq": Family("ResidualVQ", True, True),
    "grouped_residual_fsq": Family("GroupedResidualFSQ", True, True),
}


@dataclass(frozen=True, eq=False)
class Setting:
    """One setting of a family, with a codec for each seed."""

    family: str
    text: str
    codecs: Sequence[Codec]


@dataclass(frozen=True)
class RateConfig:
    """Parameters of 03_compare.

    baseline_steps: batches that a baseline is trained for, and RFSQ of whole chunks for twice as many; full: the
    complete sweep over latents and levels, in which baselines are trained for as many epochs as the RFSQ.
    """

    baseline_steps: int = 1000
    full: bool = False

    def __post_init__(self) -> None:
        if self.baseline_steps < 1:
            raise InputError(f"baseline_steps is {self.baseline_steps}; give at least 1")


@dataclass(frozen=True)
class RateJob:
    """One model to train: a learned quantizer, or an RFSQ conditioning."""

    quantizer: str
    unit: Unit
    config: TrainConfig
    seed: int


def train_baselines(
    dataset: Dataset, base: TrainConfig, seeds: int, config: RateConfig, on_progress: OnProgress | None = None
) -> list[Setting]:
    """Learned quantizers of single steps and RFSQ of whole chunks, at every prefix; with `full` RFSQ's sweep too."""
    jobs = _rate_jobs(dataset, base, seeds, config)
    data = {"step": TrainData.of(dataset), "chunk": TrainData.of_whole_chunks(dataset)}
    models = run_jobs(_fit_job, data, jobs, PROGRESS_STEPS, on_progress)
    groups: dict[RateJob, list[nn.Module]] = {}
    for job, model in zip(jobs, models, strict=True):
        groups.setdefault(replace(job, seed=0), []).append(model)
    return [setting for job, group in groups.items() for setting in _settings(job, group, dataset)]


def _rate_jobs(dataset: Dataset, base: TrainConfig, seeds: int, config: RateConfig) -> list[RateJob]:
    batches = -(-len(dataset.train_chunks().actions) // base.batch_size)
    epochs = base.epochs if config.full else max(1, min(base.epochs, round(config.baseline_steps / batches)))
    baseline = replace(base, epochs=epochs)
    # A chunk is one vector here, and a batch an eighth of the work: twice the steps cost less than a baseline's.
    of_chunks = replace(
        baseline, epochs=min(base.epochs, 2 * epochs), hidden_dim=CHUNK_LATENTS, num_levels=CHUNK_LEVELS
    )
    jobs = [RateJob(name, "step", baseline, 0) for name in QUANTIZERS]
    jobs += [RateJob(name, "chunk", of_chunks, 0) for name in CONDITIONINGS_SHOWN]
    for latents in SWEEP_LATENTS if config.full else ():
        for levels in SWEEP_LEVELS:
            swept = replace(base, hidden_dim=latents, num_levels=levels)
            jobs += [RateJob(name, "step", swept, 0) for name in CONDITIONINGS_SHOWN]
            jobs += [RateJob(name, "chunk", swept, 0) for name in CONDITIONINGS_SHOWN]
    return [replace(job, seed=seed) for job in dict.fromkeys(jobs) for seed in range(seeds)]


def _fit_job(data: dict[str, TrainData], job: RateJob, progress_step: ProgressStep) -> nn.Module:
    part = data[job.unit]
    advance = in_progress_steps(job.config.epochs, progress_step)
    for quantizer in QUANTIZERS:
        if job.quantizer == quantizer:
            torch.manual_seed(job.seed)
            model = LearnedAE(quantizer, part.train.shape[-1], job.config.hidden_dim)
            fit(model, job.config, job.seed, part, quantizer, lambda epoch, mse: advance(epoch), training_loss)
            return model
    conditioning = next(name for name in CONDITIONINGS if name == job.quantizer)
    return train(job.config, RFSQJob(conditioning, job.seed), part, lambda epoch, mse: advance(epoch)).model


def _settings(job: RateJob, models: Sequence[nn.Module], dataset: Dataset) -> list[Setting]:
    learned = [model for model in models if isinstance(model, LearnedAE)]
    if learned:
        return [
            Setting(
                job.quantizer,
                count_of(count, "quantizer"),
                [LearnedCodec(model, dataset.normaliser, count) for model in learned],
            )
            for count in range(1, NUM_QUANTIZERS + 1)
        ]
    rfsq = [model for model in models if isinstance(model, ActionRFSQAE)]
    if job.unit == "step":
        return step_settings([RFSQCodec(job.quantizer, model, dataset.normaliser) for model in rfsq])
    return [
        Setting(
            f"chunk_{job.quantizer}",
            _rfsq_text(rfsq[0], layers),
            [WholeChunkRFSQ(model, dataset.normaliser, layers) for model in rfsq],
        )
        for layers in range(1, job.config.num_layers + 1)
    ]


def step_settings(codecs: Sequence[RFSQCodec]) -> list[Setting]:
    """A trained RFSQ of single steps, decoded from its first 1, 2, ... layers."""
    model = codecs[0].model
    return [
        Setting(
            f"rfsq_{model.conditioning}", _rfsq_text(model, layers), [replace(codec, layers=layers) for codec in codecs]
        )
        for layers in range(1, model.rfsq.num_layers + 1)
    ]


def _rfsq_text(model: ActionRFSQAE, layers: int) -> str:
    return f"{model.hidden_dim} latents, {model.rfsq.num_levels} levels, {count_of(layers, 'layer')}"


def fit_closed_form(dataset: Dataset, variable: Sequence[VariableLength]) -> list[Setting]:
    """Codecs that are fitted to train chunks without gradients, and so without seeds; KLT-RFSQ is given."""
    train, model = fitting_chunks(dataset), variable[0].model
    normaliser = dataset.normaliser
    quantiles = quantile_normaliser(np.concatenate([episode.actions for episode in dataset.part("train")]))
    settings = [Setting("bins", f"{count} bins", [UniformBins(count, normaliser)]) for count in BIN_COUNTS]
    for rate, klt in zip(FITTED_RATES, fit_klt(train, normaliser, FITTED_RATES), strict=True):
        settings.append(Setting("klt", f"at most {rate} bits", [klt]))
    for scale in FAST_SCALES:
        settings.append(Setting("fast", f"scale {scale}", [FastCodec.fit(train, normaliser, scale)]))
    for scale in FAST_QUANTILE_SCALES:
        settings.append(
            Setting("fast_quantile", f"scale {scale}", [FastCodec.fit(train, quantiles, scale, clips=True)])
        )
    for count in dict.fromkeys(codes_at(model, rate) for rate in FITTED_RATES):
        settings.append(Setting("klt_rfsq_fixed", f"{count} residual codes", [FixedLength(model, count)]))
    for codec in variable:
        settings.append(Setting("klt_rfsq", f"about {codec.rate:.0f} bits", [codec]))
    return settings


def codes_at(model: KltRFSQ, rate: float) -> int:
    """How many residual codes of a fixed length fit into a rate in bits."""
    return min(max(0, int((rate - model.gripper_bits) / np.log2(BRANCHES))), len(model.residual_codes))


def fitting_chunks(dataset: Dataset) -> Array:
    """(N, C, A) train chunks that start every other step, for what is fitted in closed form."""
    stride = min(2, dataset.chunk_len)
    return cut_chunks([episode.actions for episode in dataset.part("train")], dataset.chunk_len, stride).actions
