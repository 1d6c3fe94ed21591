"""The networks that entries of the catalogue name, and decoders of naive tokens: the work of 03_compare that trains."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from rfsq_robust import CONDITIONINGS, ActionRFSQAE
from workbook.codecs.brought import BroughtCodec, fit_all
from workbook.codecs.catalogue import Fitting, Network, Setting, Unit, catalogue, fitting_chunks
from workbook.codecs.chunk_transformers import MANNERS, ChunkTransformer
from workbook.codecs.learned import QUANTIZERS, LearnedAE, training_loss
from workbook.codecs.other_decoder import ChunkDecoder
from workbook.codecs.rfsq import RFSQCodec
from workbook.common.errors import InputError
from workbook.common.parallel import PROGRESS_STEPS, OnProgress, ProgressStep, in_progress_steps, run_jobs
from workbook.data.dataset import Dataset
from workbook.training.trainer import Job as RFSQJob, TrainConfig, TrainData, choose_device, fit, train

TRANSFORMER_BATCHES = 3000  # of a transformer of chunks, at most: one takes as long as fifty batches of an RFSQ


@dataclass(frozen=True)
class BaselineConfig:
    """Parameters of 03_compare.

    baseline_steps: batches that a baseline is trained for, and RFSQ of whole chunks for twice as many; full: the
    complete sweep over latents and levels, in which baselines are trained for as many epochs as the RFSQ; codecs:
    tokenizers that are brought, with commas between them; trust_remote_code: whether a folder's code may run; decided:
    settings that data decide, where another fold has decided them (`catalogue.decided`).
    """

    baseline_steps: int = 1000
    full: bool = False
    codecs: str = ""
    trust_remote_code: bool = False
    decided: str = ""

    def __post_init__(self) -> None:
        if self.baseline_steps < 1:
            raise InputError(f"baseline_steps is {self.baseline_steps}; give at least 1")
        try:
            Setting.parse(self.decided)
        except ValueError:
            raise InputError(f"decided is {self.decided!r}; give names with values, as 'naive=2'") from None

    @property
    def brought(self) -> list[str]:
        return [spec.strip() for spec in self.codecs.split(",") if spec.strip()]

    def epochs(self, base: TrainConfig, batches: int) -> int:
        """As many as come to so many batches, where `base` has them."""
        return max(1, min(base.epochs, round(self.baseline_steps / batches)))


def brought_codecs(dataset: Dataset, config: BaselineConfig) -> list[BroughtCodec]:
    """The tokenizers that are brought, fitted on the train part.

    Raises:
        InputError: as `fit_brought`.
    """
    if not config.brought:
        return []
    train = fitting_chunks(Fitting(dataset))
    return fit_all(config.brought, train, dataset.normaliser, config.trust_remote_code)


@dataclass(frozen=True)
class NetworkJob:
    """One model to train."""

    network: Network
    config: TrainConfig
    seed: int


def train_networks(
    dataset: Dataset, base: TrainConfig, seeds: int, config: BaselineConfig, on_progress: OnProgress | None = None
) -> dict[Network, list[nn.Module]]:
    """Every network that the catalogue names, one model a seed."""
    wanted = [network for entry in catalogue().values() for network in entry.networks(config.full)]
    batches = -(-len(dataset.train_chunks().actions) // base.batch_size)
    epochs = base.epochs if config.full else config.epochs(base, batches)
    jobs = [
        NetworkJob(network, _config_of(network, base, epochs, batches), seed)
        for network in dict.fromkeys(wanted)
        for seed in range(1 if network.quantizer in MANNERS else seeds)
    ]
    data: dict[Unit, TrainData] = {"step": TrainData.of(dataset), "chunk": TrainData.of_whole_chunks(dataset)}
    models = run_jobs(_train_network, data, jobs, PROGRESS_STEPS, on_progress)
    trained: dict[Network, list[nn.Module]] = {}
    for job, model in zip(jobs, models, strict=True):
        trained.setdefault(job.network, []).append(model)
    return trained


def _config_of(network: Network, base: TrainConfig, epochs: int, batches: int) -> TrainConfig:
    """batches: of an epoch."""
    if network.quantizer in MANNERS:
        return replace(base, epochs=max(1, min(base.epochs, TRANSFORMER_BATCHES // batches)))
    sized = replace(
        base,
        hidden_dim=network.hidden_dim or base.hidden_dim,
        num_levels=network.num_levels or base.num_levels,
    )
    if network.swept:
        return sized
    # A chunk is one vector here, and a batch an eighth of the work: twice the steps cost less than a baseline's.
    return replace(sized, epochs=min(base.epochs, 2 * epochs) if network.unit == "chunk" else epochs)


def _train_network(data: dict[Unit, TrainData], job: NetworkJob, progress_step: ProgressStep) -> nn.Module:
    part = data[job.network.unit]
    advance = in_progress_steps(job.config.epochs, progress_step)
    for quantizer in QUANTIZERS:
        if job.network.quantizer == quantizer:
            torch.manual_seed(job.seed)
            model = LearnedAE(quantizer, part.train.shape[-1], job.config.hidden_dim)
            fit(model, job.config, job.seed, part, quantizer, lambda epoch, mse: advance(epoch), training_loss)
            return model
    for manner in MANNERS:
        if job.network.quantizer == manner:
            torch.manual_seed(job.seed)
            steps, width = data["step"].train.shape[1:]
            transformer = ChunkTransformer(manner, steps, width, job.network.steps_a_token)
            fit(transformer, job.config, job.seed, part.to(choose_device()), manner, lambda epoch, mse: advance(epoch))
            return transformer
    conditioning = next(name for name in CONDITIONINGS if name == job.network.quantizer)
    return train(job.config, RFSQJob(conditioning, job.seed), part, lambda epoch, mse: advance(epoch)).model


@dataclass(frozen=True, eq=False)
class DecoderJob:
    """A decoder to train on the frozen tokens of a naive model, for steps or for whole chunks."""

    naive: ActionRFSQAE
    unit: Unit
    config: TrainConfig
    seed: int


def train_decoders(
    dataset: Dataset, naive: Sequence[RFSQCodec], base: TrainConfig, config: BaselineConfig, on_progress: OnProgress
) -> dict[Unit, list[nn.Module]]:
    """Decoders of naive tokens for option B, one of each kind for every naive model."""
    normalised = replace(dataset, normaliser=naive[0].normaliser)  # that of a user's own model may be another
    data: dict[Unit, TrainData] = {
        "step": TrainData.of(normalised),
        "chunk": TrainData.of_whole_chunks(normalised),
    }
    short = replace(base, epochs=config.epochs(base, -(-len(data["chunk"].train) // base.batch_size)))
    jobs = [DecoderJob(codec.model, unit, short, seed) for unit in data for seed, codec in enumerate(naive)]
    models = run_jobs(_train_decoder, data, jobs, PROGRESS_STEPS, on_progress)
    return {"step": models[: len(naive)], "chunk": models[len(naive) :]}


def _train_decoder(data: dict[Unit, TrainData], job: DecoderJob, progress_step: ProgressStep) -> nn.Module:
    torch.manual_seed(job.seed)
    part = data[job.unit]
    model: nn.Module
    if job.unit == "chunk":
        model = ChunkDecoder(job.naive, part.train.shape[-1] // job.naive.action_dim)
    else:
        model = copy.deepcopy(job.naive)
        model.encoder.requires_grad_(False)
    advance = in_progress_steps(job.config.epochs, progress_step)
    fit(model, job.config, job.seed, part, "a decoder of naive tokens", lambda epoch, mse: advance(epoch))
    return model
