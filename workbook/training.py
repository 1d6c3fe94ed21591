"""Training of autoencoders: one model, every conditioning and seed, and the cost of a conditioning."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from rfsq_robust import ActionRFSQAE, Conditioning
from workbook.chunks import Chunks
from workbook.dataset import Dataset
from workbook.errors import InputError
from workbook.parallel import OnProgress, Tick, run_jobs

VALIDATION_PART = 1024  # steps scored at once

OnEpoch = Callable[[int, float], None]


@dataclass(frozen=True)
class TrainConfig:
    """The guide's setting. Lengths in epochs and chunks; layers and levels as in `rfsq_robust`."""

    epochs: int = 100
    batch_size: int = 64
    learning_rate: float = 1e-3
    hidden_dim: int = 16
    num_layers: int = 8
    num_levels: int = 7

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("batch_size", 1), ("hidden_dim", 2), ("num_layers", 1), ("num_levels", 2)):
            if getattr(self, name) < least:
                raise InputError(f"{name} is {getattr(self, name)}; give at least {least}")
        if not 0 < self.learning_rate < math.inf:
            raise InputError(f"learning_rate is {self.learning_rate}; give a positive number")


@dataclass(frozen=True, eq=False)
class TrainData:
    """Normalised actions in float32: train chunks (N, C, A), which of their steps are real (N, C), and the
    validation steps (M, A).
    """

    train: Tensor
    train_valid: Tensor
    validation: Tensor

    @staticmethod
    def of_whole_chunks(dataset: Dataset) -> TrainData:
        """A chunk as one vector: (N, 1, C * A) to train on and (M, C * A) to validate on."""

        def vectors(chunks: Chunks) -> Tensor:
            normalised = dataset.normaliser.normalise(chunks.actions)
            return torch.from_numpy(normalised.reshape(len(normalised), 1, -1)).float()

        train = vectors(dataset.train_chunks())
        validation = vectors(dataset.held_out_chunks("validation"))[:, 0]
        return TrainData(train, torch.ones(train.shape[:2], dtype=torch.bool), validation)

    @staticmethod
    def of(dataset: Dataset) -> TrainData:
        chunks = dataset.train_chunks()
        validation = np.concatenate([episode.actions for episode in dataset.part("validation")])
        return TrainData(
            torch.from_numpy(dataset.normaliser.normalise(chunks.actions)).float(),
            torch.from_numpy(chunks.valid),
            torch.from_numpy(dataset.normaliser.normalise(validation)).float(),
        )

    def to(self, device: str) -> TrainData:
        return TrainData(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))


@dataclass(frozen=True)
class Job:
    """One model to train. The same seed starts every conditioning from the same weights and the same batches."""

    conditioning: Conditioning
    seed: int


@dataclass(frozen=True, eq=False)
class TrainedModel:
    """The weights of the best epoch; `mse` is its validation MSE from forward, `curve` that of every epoch."""

    job: Job
    model: ActionRFSQAE
    epoch: int
    mse: float
    curve: tuple[float, ...]
    seconds: float


def build_model(config: TrainConfig, action_dim: int, job: Job) -> ActionRFSQAE:
    torch.manual_seed(job.seed)
    return ActionRFSQAE(
        action_dim, config.hidden_dim, config.num_layers, config.num_levels, conditioning=job.conditioning
    )


Loss = Callable[[Any, Tensor], Tensor]


def reconstruction_loss(model: nn.Module, actions: Tensor) -> Tensor:
    return mse_loss(model(actions)[0], actions)


class _Stepper:
    """A model, its optimizer and one training step."""

    def __init__(self, model: nn.Module, config: TrainConfig, seed: int, data: TrainData, loss: Loss) -> None:
        self.data = data
        self.model = model.to(data.train.device).train()
        self.loss = loss
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=config.learning_rate, fused=True)
        self.batch_size = config.batch_size
        self.generator = torch.Generator().manual_seed(seed)

    def batches(self) -> Iterator[Tensor]:
        order = torch.randperm(len(self.data.train), generator=self.generator)
        yield from order.to(self.data.train.device).split(self.batch_size)

    def step(self, batch: Tensor) -> None:
        loss = self.loss(self.model, self.data.train[batch][self.data.train_valid[batch]])  # (steps, A), no padding
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()


def train(config: TrainConfig, job: Job, data: TrainData, on_epoch: OnEpoch | None = None) -> TrainedModel:
    """Train one model with AdamW and keep the epoch with the least validation MSE.

    on_epoch is called with the epoch (from 1) and its validation MSE.

    Raises:
        InputError: training diverged.
    """
    started = time.perf_counter()
    model = build_model(config, data.train.shape[-1], job)
    curve = fit(model, config, job.seed, data, f"'{job.conditioning}'", on_epoch)
    seconds = time.perf_counter() - started
    best = int(np.argmin(curve))
    return TrainedModel(job, model, best + 1, curve[best], tuple(curve), seconds)


def fit(
    model: nn.Module,
    config: TrainConfig,
    seed: int,
    data: TrainData,
    title: str,
    on_epoch: OnEpoch | None = None,
    loss: Loss = reconstruction_loss,
) -> list[float]:
    """Train a model whose forward gives the reconstruction first, in place, and leave it at its best epoch.

    Returns:
        The validation MSE of every epoch.

    Raises:
        InputError: training diverged.
    """
    stepper = _Stepper(model, config, seed, data, loss)
    curve: list[float] = []
    best_state = stepper.model.state_dict()
    for epoch in range(1, config.epochs + 1):
        mse = _train_epoch(stepper)
        if not math.isfinite(mse):
            raise InputError(f"training of {title} with seed {seed} diverged in epoch {epoch}; lower the learning rate")
        if not curve or mse < min(curve):
            best_state = copy.deepcopy(stepper.model.state_dict())
        curve.append(mse)
        if on_epoch:
            on_epoch(epoch, mse)
    stepper.model.load_state_dict(best_state)
    model.cpu().eval()
    return curve


def _train_epoch(stepper: _Stepper) -> float:
    """One pass over the train chunks; returns the validation MSE, NaN where training diverged."""
    try:
        for batch in stepper.batches():
            stepper.step(batch)
        return validation_mse(stepper.model, stepper.data)
    except IndexError:  # a latent that is NaN has no grid value
        return math.nan


@torch.no_grad()
def validation_mse(model: nn.Module, data: TrainData) -> float:
    """MSE of the forward pass over the validation steps; in parts that stay in a CPU's cache, which halves the time."""
    model.eval()
    parts = data.validation.split(VALIDATION_PART)
    total = sum(float(mse_loss(model(part)[0], part, reduction="sum")) for part in parts)
    model.train()
    return total / data.validation.numel()


def choose_device(device: str = "auto") -> str:
    """'auto' is CUDA where there is one, else the CPU.

    Raises:
        InputError: CUDA was asked for and there is none, or the name is unknown.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise InputError(f"device {device!r} is not one of auto, cpu, cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("device is cuda, but torch sees no CUDA device here; choose auto or cpu")
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return device


def train_all(
    config: TrainConfig,
    jobs: Sequence[Job],
    data: TrainData,
    device: str = "cpu",
    on_progress: OnProgress | None = None,
) -> list[TrainedModel]:
    """Train every job: one after the other on CUDA, one process a core on the CPU; results in the order of jobs.

    on_progress is called with the epochs done and the epochs in all.
    """
    shared = (config, data.to(device))
    return run_jobs(_train_job, shared, jobs, config.epochs, on_progress, in_turn=device == "cuda")


def _train_job(shared: tuple[TrainConfig, TrainData], job: Job, tick: Tick) -> TrainedModel:
    return train(shared[0], job, shared[1], lambda epoch, mse: tick())


def measure_step_seconds(
    config: TrainConfig, conditionings: Sequence[Conditioning], data: TrainData, rounds: int = 60, steps: int = 4
) -> dict[Conditioning, np.ndarray]:
    """Seconds of one training step of each conditioning, (rounds,) each.

    The conditionings take turns within a round, so that whatever else slows the machine slows them alike; compare
    them round by round.
    """
    models = {name: build_model(config, data.train.shape[-1], Job(name, 0)) for name in conditionings}
    steppers = {name: _Stepper(model, config, 0, data, reconstruction_loss) for name, model in models.items()}
    batch = torch.arange(min(config.batch_size, len(data.train)), device=data.train.device)
    seconds: dict[Conditioning, list[float]] = {name: [] for name in conditionings}
    for round_number in range(rounds + 1):
        for name, stepper in steppers.items():
            started = time.perf_counter()
            for _ in range(steps):
                stepper.step(batch)
            if batch.is_cuda:
                torch.cuda.synchronize()
            if round_number:  # the first round warms up
                seconds[name].append((time.perf_counter() - started) / steps)
    return {name: np.array(values) for name, values in seconds.items()}
