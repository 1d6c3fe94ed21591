"""Training of one autoencoder; one that was cut off goes on where it stood."""

from __future__ import annotations

import copy
import hashlib
import io
import json
import math
import pickle
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

import rfsq_robust
from rfsq_robust import ActionRFSQAE, Conditioning
from workbook.common.errors import InputError
from workbook.common.paths import replacing
from workbook.data.chunks import Chunks
from workbook.data.dataset import Dataset

SUFFIX = ".resume"
KEYS = {"of", "model", "optimizer", "generator", "curve", "best", "seconds"}
# What torch raises on bytes that are not its own.
NOT_TORCH = (RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError, zipfile.BadZipFile)


@dataclass(frozen=True)
class ResumeState:
    """path: the file. of: what is trained, as plain values; a training that goes on from the file must be of the same.
    every_seconds: between two writes; 0 writes after every epoch.
    """

    path: Path
    of: Mapping[str, Any]
    every_seconds: float = 0.0

    @staticmethod
    def within(folder: Path, name: str, of: Mapping[str, Any], every_seconds: float) -> ResumeState:
        """A file whose name tells apart what is trained, so that no training meets another's."""
        digest = hashlib.sha256(json.dumps(dict(of), sort_keys=True).encode()).hexdigest()
        return ResumeState(folder / f"{name}_{digest[:12]}{SUFFIX}", of, every_seconds)

    def read(self, epochs: int) -> dict[str, Any] | None:
        """The state that was written last; None where there is none.

        Raises:
            InputError: the file is damaged, of another training, or of more than so many epochs.
        """
        if not self.path.exists():
            return None
        content = self._load()
        for key, now in self.of.items():
            before = content["of"].get(key)
            if before != now:
                raise InputError(
                    f"{self.path}: this training was begun with {key} {before}, not {now}; "
                    "go on with what it was begun with, or begin anew without --resume"
                )
        done = len(content["curve"])
        if done > epochs:
            raise InputError(
                f"{self.path}: this training has done {done} epochs, more than {epochs}; "
                f"ask for {done} or more, or begin anew without --resume"
            )
        return content

    def _load(self) -> dict[str, Any]:
        try:
            digest, _, state = self.path.read_bytes().partition(b"\n")
            if digest == _digest(state):
                content = torch.load(io.BytesIO(state), map_location="cpu", weights_only=True)
                if isinstance(content, dict) and content.keys() == KEYS and isinstance(content["of"], dict):
                    return content
        except (OSError, *NOT_TORCH):
            pass
        raise InputError(f"{self.path}: not the state of a training, or damaged; remove it to begin anew")

    def write(self, state: Mapping[str, Any]) -> None:
        """Replace the file as a whole, so that a process that is killed leaves this state or the one before.

        The hash before it tells a damaged state, and keeps it from passing for a checkpoint.
        """
        buffer = io.BytesIO()
        torch.save({"of": dict(self.of), **state}, buffer)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(self.path) as temporary:
            temporary.write_bytes(_digest(buffer.getvalue()) + b"\n" + buffer.getvalue())

    def remove_halves(self) -> None:
        """Remove what killed processes left half-written of this file."""
        for half in self.path.parent.glob(f".{self.path.name}.*"):
            half.unlink(missing_ok=True)


def _digest(state: bytes) -> bytes:
    return hashlib.sha256(state).hexdigest().encode()


def remove_resume_states(folder: Path) -> None:
    """Remove the resume states in a folder, what killed processes left half-written, and the folder if it is empty."""
    for path in [*folder.glob(f"*{SUFFIX}"), *folder.glob(f".*{SUFFIX}.*")]:
        path.unlink(missing_ok=True)
    with suppress(OSError):
        folder.rmdir()


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

    @property
    def sha256(self) -> str:
        digest = hashlib.sha256()
        for name in self.__dataclass_fields__:
            digest.update(getattr(self, name).cpu().numpy().tobytes())
        return digest.hexdigest()


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


class Stepper:
    """A model, its optimizer and one training step."""

    def __init__(self, model: nn.Module, config: TrainConfig, seed: int, data: TrainData, loss: Loss) -> None:
        self.data = data
        self.model = model.to(data.train.device).train()
        self.loss = loss
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=config.learning_rate, fused=True)
        self.batch_size = config.batch_size
        self.generator = torch.Generator().manual_seed(seed)

    def state(self) -> dict[str, Any]:
        """All that the next epoch depends on: no other random numbers are drawn than those of the generator."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"])

    def batches(self) -> Iterator[Tensor]:
        order = torch.randperm(len(self.data.train), generator=self.generator)
        yield from order.to(self.data.train.device).split(self.batch_size)

    def step(self, batch: Tensor) -> None:
        loss = self.loss(self.model, self.data.train[batch][self.data.train_valid[batch]])  # (steps, A), no padding
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()


def train(
    config: TrainConfig,
    job: Job,
    data: TrainData,
    on_epoch: OnEpoch | None = None,
    resume_state: ResumeState | None = None,
) -> TrainedModel:
    """Train one model with AdamW and keep the epoch with the least validation MSE.

    on_epoch, resume_state: as in `fit`.

    Raises:
        InputError: training diverged, or the resume state is of another training.
    """
    model = build_model(config, data.train.shape[-1], job)
    fitted = fit(model, config, job.seed, data, f"'{job.conditioning}'", on_epoch, resume_state=resume_state)
    best = int(np.argmin(fitted.curve))
    return TrainedModel(job, model, best + 1, fitted.curve[best], fitted.curve, fitted.seconds)


@dataclass(frozen=True)
class Fitted:
    """The validation MSE of every epoch, and the seconds that they took, in however many sittings."""

    curve: tuple[float, ...]
    seconds: float


def fit(
    model: nn.Module,
    config: TrainConfig,
    seed: int,
    data: TrainData,
    title: str,
    on_epoch: OnEpoch | None = None,
    loss: Loss = reconstruction_loss,
    resume_state: ResumeState | None = None,
) -> Fitted:
    """Train a model whose forward gives the reconstruction first, in place, and leave it at its best epoch.

    on_epoch is called with every epoch (from 1) and its validation MSE. resume_state holds where the training stands,
    and is written after an epoch: if it is there, the training goes on from it, and on_epoch hears of the epochs
    that were done before. On the same machine, with as many threads, the weights then are those of an uninterrupted
    one to the last bit.

    Raises:
        InputError: training diverged, or the resume state is of another training.
    """
    stepper = Stepper(model, config, seed, data, loss)
    course = _Course(stepper)
    if resume_state and (kept := resume_state.read(config.epochs)):
        course.go_on(kept)
    for epoch, mse in enumerate(course.curve, start=1):
        (on_epoch or _nobody)(epoch, mse)
    for epoch in range(len(course.curve) + 1, config.epochs + 1):
        mse = _train_epoch(stepper)
        if not math.isfinite(mse):
            raise InputError(f"training of {title} with seed {seed} diverged in epoch {epoch}; lower the learning rate")
        course.add(mse)
        if resume_state:
            course.keep(resume_state, last=epoch == config.epochs)
        (on_epoch or _nobody)(epoch, mse)
    stepper.model.load_state_dict(course.best)
    model.cpu().eval()
    return Fitted(tuple(course.curve), course.seconds)


class _Course:
    """The way of a training so far: the MSE of every epoch, the weights of the best, the time taken."""

    def __init__(self, stepper: Stepper) -> None:
        self.stepper = stepper
        self.curve: list[float] = []
        self.best = stepper.model.state_dict()
        self.started = time.perf_counter()
        self.kept_at = 0.0

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.started

    def add(self, mse: float) -> None:
        if not self.curve or mse < min(self.curve):
            self.best = copy.deepcopy(self.stepper.model.state_dict())
        self.curve.append(mse)

    def keep(self, resume_state: ResumeState, last: bool) -> None:
        seconds = self.seconds
        if last or seconds >= self.kept_at + resume_state.every_seconds:
            resume_state.write(self.stepper.state() | {"curve": self.curve, "best": self.best, "seconds": seconds})
            self.kept_at = seconds

    def go_on(self, kept: dict[str, Any]) -> None:
        self.stepper.restore(kept)
        self.curve, self.best = list(kept["curve"]), kept["best"]
        self.started -= kept["seconds"]
        self.kept_at = kept["seconds"]


def _nobody(epoch: int, mse: float) -> None:
    """Where no one wants to hear of epochs."""


def _train_epoch(stepper: Stepper) -> float:
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


def identity(config: TrainConfig, job: Job, data: TrainData) -> dict[str, Any]:
    """All that decides the weights after an epoch, as plain values; the number of epochs does not."""
    code = hashlib.sha256()
    for module in (rfsq_robust.__file__, __file__):
        code.update(Path(module).read_bytes())
    setting = asdict(config)
    del setting["epochs"]
    return setting | asdict(job) | {
        "data": data.sha256,
        "device": data.train.device.type,
        "threads": torch.get_num_threads(),
        "torch": str(torch.__version__),
        "code": code.hexdigest(),
    }  # fmt: skip
