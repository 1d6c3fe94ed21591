"""The networks that entries of the catalogue name, and decoders of naive tokens: the work of 03_compare that trains."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from rfsq_robust import CONDITIONINGS, ActionRFSQAE
from workbook.codecs.brought import BroughtCodec, fit_all
from workbook.codecs.catalogue import Fitting, Network, Setting, Unit, catalogue, fitting_chunks
from workbook.codecs.chunk_transformers import MANNERS, ChunkTransformer
from workbook.codecs.learned import QUANTIZERS, LearnedAE, training_loss
from workbook.codecs.other_decoder import ChunkDecoder
from workbook.codecs.rfsq import RFSQCodec
from workbook.common.errors import InputError
from workbook.common.jobs import OnProgress, ProgressStep
from workbook.common.parallel import PROGRESS_STEPS, in_progress_steps, run_jobs
from workbook.data.chunks import Normaliser
from workbook.data.dataset import Dataset
from workbook.training.data import TrainData
from workbook.training.stack import Alone, NetworkStack
from workbook.training.trainer import Job as RFSQJob, TrainConfig, choose_device, fit, train_together

TRANSFORMER_BATCHES = 3000  # of a transformer of chunks, at most: one takes as long as fifty batches of an RFSQ

UnitData = Mapping[Unit, TrainData]


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
    """One network to train, a model for each of the seeds."""

    network: Network
    config: TrainConfig
    seeds: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class DecoderJob:
    """Decoders to train on the frozen tokens of naive models, for steps or for whole chunks: one a model."""

    naive: Sequence[ActionRFSQAE]
    unit: Unit
    config: TrainConfig


def train_baselines(
    dataset: Dataset,
    naive: Sequence[RFSQCodec],
    base: TrainConfig,
    seeds: int,
    config: BaselineConfig,
    on_progress: OnProgress | None = None,
) -> tuple[dict[Network, list[nn.Module]], dict[Unit, list[nn.Module]]]:
    """Every network that the catalogue names, one model a seed, and decoders of naive tokens for option B, one of each
    kind for every naive model.
    """
    of_networks, of_decoders = network_jobs(dataset, base, seeds, config), decoder_jobs(dataset, naive, base, config)
    models = train_jobs(dataset, naive[0].normaliser, [*of_networks, *of_decoders], on_progress)
    networks: dict[Network, list[nn.Module]] = {}
    for job, of_job in zip(of_networks, models, strict=False):
        networks.setdefault(job.network, []).extend(of_job)
    decoders = zip(of_decoders, models[len(of_networks) :], strict=True)
    return networks, {job.unit: of_job for job, of_job in decoders}


def network_jobs(dataset: Dataset, base: TrainConfig, seeds: int, config: BaselineConfig) -> list[NetworkJob]:
    """Every network that the catalogue names, with so many seeds."""
    batches = _batches(dataset, base)
    epochs = base.epochs if config.full else config.epochs(base, batches)
    wanted = dict.fromkeys(network for entry in catalogue().values() for network in entry.networks(config.full))
    return [
        NetworkJob(network, _config_of(network, base, epochs, batches), together)
        for network in wanted
        for together in _together(network, seeds)
    ]


def decoder_jobs(
    dataset: Dataset, naive: Sequence[RFSQCodec], base: TrainConfig, config: BaselineConfig
) -> list[DecoderJob]:
    """Decoders of steps and of whole chunks."""
    short, models = replace(base, epochs=config.epochs(base, _batches(dataset, base))), [each.model for each in naive]
    return [DecoderJob(models, "step", short), DecoderJob(models, "chunk", short)]


def _batches(dataset: Dataset, base: TrainConfig) -> int:
    """Of an epoch."""
    return -(-len(dataset.train_chunks().actions) // base.batch_size)


def train_jobs(
    dataset: Dataset,
    of_naive: Normaliser,
    jobs: Sequence[NetworkJob | DecoderJob],
    on_progress: OnProgress | None = None,
) -> list[list[nn.Module]]:
    """The models of each job. of_naive: by which naive models, of the user's own perhaps, see the data."""
    shared = BaselineData(_data_of(dataset), _data_of(replace(dataset, normaliser=of_naive)))
    return run_jobs(_train, shared, jobs, PROGRESS_STEPS, on_progress)


@dataclass(frozen=True, eq=False)
class BaselineData:
    """What networks learn from, and what decoders of naive tokens do, which see it as the naive models do."""

    networks: UnitData
    decoders: UnitData


def _data_of(dataset: Dataset) -> UnitData:
    return {"step": TrainData.of(dataset), "chunk": TrainData.of_whole_chunks(dataset)}


def _train(shared: BaselineData, job: NetworkJob | DecoderJob, progress_step: ProgressStep) -> list[nn.Module]:
    if isinstance(job, DecoderJob):
        return _train_decoders(shared.decoders, job, progress_step)
    return _train_network(shared.networks, job, progress_step)


def _together(network: Network, seeds: int) -> list[tuple[int, ...]]:
    """Seeds whose models are trained in one stack. Quantizers of the field draw random numbers, each alone; of
    transformers of chunks there is one.
    """
    if network.quantizer in MANNERS:
        return [(0,)]
    every = tuple(range(seeds))
    return [(seed,) for seed in every] if network.quantizer in QUANTIZERS else [every]


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


def _train_network(data: UnitData, job: NetworkJob, progress_step: ProgressStep) -> list[nn.Module]:
    part = data[job.network.unit]
    advance = in_progress_steps(job.config.epochs, progress_step)

    def tell(epoch: int, mses: list[float]) -> None:
        advance(epoch)

    for quantizer in QUANTIZERS:
        if job.network.quantizer == quantizer:
            (seed,) = job.seeds
            torch.manual_seed(seed)
            model = LearnedAE(quantizer, part.train.shape[-1], job.config.hidden_dim)
            fit(Alone(model, part, training_loss), job.config, [seed], part, [quantizer], tell)
            return [model]
    for manner in MANNERS:
        if job.network.quantizer == manner:
            (seed,) = job.seeds
            torch.manual_seed(seed)
            steps, width = data["step"].train.shape[1:]
            transformer = ChunkTransformer(manner, steps, width, job.network.steps_a_token)
            on_device = part.to(choose_device())
            fit(Alone(transformer, on_device), job.config, [seed], on_device, [manner], tell)
            return [transformer]
    conditioning = next(name for name in CONDITIONINGS if name == job.network.quantizer)
    jobs = [RFSQJob(conditioning, seed) for seed in job.seeds]
    return [trained.model for trained in train_together(job.config, jobs, part, tell)]


def _train_decoders(data: UnitData, job: DecoderJob, progress_step: ProgressStep) -> list[nn.Module]:
    part, seeds = data[job.unit], range(len(job.naive))
    advance = in_progress_steps(job.config.epochs, progress_step)
    begin = _begin_of_chunks if job.unit == "chunk" else _begin_of_steps
    begun = [begin(model, seed, part) for seed, model in enumerate(job.naive)]
    stack = NetworkStack(
        [each.network for each in begun], [each.inputs for each in begun], [each.targets for each in begun]
    )
    titles = ["a decoder of naive tokens"] * len(seeds)
    fit(stack, job.config, seeds, part, titles, lambda epoch, mses: advance(epoch))
    return [each.decoder.eval() for each in begun]


@dataclass(frozen=True, eq=False)
class _Begun:
    """A decoder to train, by the network in it that is trained, from latents of tokens that stay as they are."""

    decoder: nn.Module
    network: nn.Sequential
    inputs: TrainData
    targets: TrainData


def _begin_of_steps(naive: ActionRFSQAE, seed: int, data: TrainData) -> _Begun:
    model = copy.deepcopy(naive)
    model.encoder.requires_grad_(False)
    return _Begun(model, model.decoder, data.changed(lambda steps: _latents(naive, steps)), data)


def _begin_of_chunks(naive: ActionRFSQAE, seed: int, data: TrainData) -> _Begun:
    """The network adds to what the naive decoder gives, which is taken off its targets."""
    torch.manual_seed(seed)
    model = ChunkDecoder(naive, data.train.shape[-1] // naive.action_dim)

    def latents(chunks: Tensor) -> Tensor:
        return _latents(naive, chunks.unflatten(-1, (model.steps, -1)))

    @torch.no_grad()
    def left_over(chunks: Tensor) -> Tensor:
        return chunks - naive.decoder(latents(chunks)).flatten(-2)

    inputs = data.changed(lambda chunks: latents(chunks).flatten(-2))
    return _Begun(model, model.context, inputs, data.changed(left_over))


@torch.no_grad()
def _latents(naive: ActionRFSQAE, actions: Tensor) -> Tensor:
    """What the tokens of normalised actions (..., A) stand for: (..., H)."""
    return naive.rfsq.decode_from_indices(naive.rfsq.to_codes(naive.encoder(actions)))
