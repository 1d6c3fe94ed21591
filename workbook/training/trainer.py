"""Training of autoencoders, one or several at once; one that was cut off goes on where it stood."""

from __future__ import annotations

import hashlib
import io
import json
import math
import pickle
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import rfsq_robust
from rfsq_robust import ActionRFSQAE, Conditioning
from workbook.common import mish, stacked
from workbook.common.errors import InputError
from workbook.common.paths import replacing
from workbook.training import stack as stacks
from workbook.training.data import TrainData
from workbook.training.stack import RFSQStack, Stack, keep_freed_memory

SUFFIX = ".resume"
KEYS = {"of", "models", "optimizer", "generators", "curve", "best", "seconds"}
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


OnEpoch = Callable[[int, float], None]
OnEpochs = Callable[[int, list[float]], None]


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


class Stepper:
    """A stack of models, their optimizer and one training step of all."""

    def __init__(self, stack: Stack, config: TrainConfig, seeds: Sequence[int], data: TrainData) -> None:
        self.stack = stack.train()
        self.optimizer = torch.optim.AdamW(stack.parameters(), lr=config.learning_rate, fused=True)
        self.batch_size, self.chunks, self.device = config.batch_size, len(data.train), data.train.device
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def state(self) -> dict[str, Any]:
        """All that the next epoch depends on: no other random numbers are drawn than those of the generators."""
        return {
            "models": self.stack.states(),
            "optimizer": self.optimizer.state_dict(),
            "generators": [generator.get_state() for generator in self.generators],
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.stack.restore(state["models"])
        self.optimizer.load_state_dict(state["optimizer"])
        for generator, kept in zip(self.generators, state["generators"], strict=True):
            generator.set_state(kept)

    def batches(self) -> Sequence[Tensor]:
        """Positions of chunks, (S, B) each: every chunk once, for each model in an order of its own."""
        orders = torch.stack([torch.randperm(self.chunks, generator=generator) for generator in self.generators])
        return orders.to(self.device).split(self.batch_size, dim=1)

    def step(self, batch: Tensor) -> None:
        loss = self.stack.loss(batch)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        for parameter in self.stack.parameters():
            if (
                parameter.grad is None
            ):  # of a scale that reaches no output; else it would hang on the others' in a stack
                parameter.grad = torch.zeros_like(parameter)
        self.optimizer.step()

    def epoch(self) -> list[float]:
        """One pass over the train chunks; returns the validation MSE of each model, NaN where it diverged."""
        for batch in self.batches():
            self.step(batch)
        self.stack.eval()
        mses: list[float] = self.stack.validation_mse().tolist()
        self.stack.train()
        return mses


def train(
    config: TrainConfig,
    job: Job,
    data: TrainData,
    on_epoch: OnEpoch | None = None,
    resume_state: ResumeState | None = None,
) -> TrainedModel:
    """Train one model with AdamW and keep the epoch with the least validation MSE.

    on_epoch is called with every epoch (from 1) and its validation MSE; resume_state: as in `fit`.

    Raises:
        InputError: training diverged, or the resume state is of another training.
    """
    told = on_epoch or _nobody
    return train_together(config, [job], data, lambda epoch, mses: told(epoch, *mses), resume_state)[0]


def train_together(
    config: TrainConfig,
    jobs: Sequence[Job],
    data: TrainData,
    on_epoch: OnEpochs | None = None,
    resume_state: ResumeState | None = None,
) -> list[TrainedModel]:
    """Train models in one stack, each as `train` does within rounding; those of one conditioning lie side by side.

    Raises:
        InputError: as `train`.
    """
    models = [build_model(config, data.train.shape[-1], job) for job in jobs]
    seeds, titles = [job.seed for job in jobs], [f"'{job.conditioning}'" for job in jobs]
    fitted = fit(RFSQStack(models, data), config, seeds, data, titles, on_epoch, resume_state)
    trained = []
    for job, model, curve in zip(jobs, models, zip(*fitted.curve, strict=True), strict=True):
        best = int(np.argmin(curve))
        trained.append(TrainedModel(job, model, best + 1, curve[best], curve, fitted.seconds / len(jobs)))
    return trained


@dataclass(frozen=True)
class Fitted:
    """The validation MSE of every epoch and model, and the seconds that they took, in however many sittings."""

    curve: tuple[list[float], ...]
    seconds: float


def fit(
    stack: Stack,
    config: TrainConfig,
    seeds: Sequence[int],
    data: TrainData,
    titles: Sequence[str],
    on_epoch: OnEpochs | None = None,
    resume_state: ResumeState | None = None,
) -> Fitted:
    """Train the models of a stack, in place, and leave each at its best epoch.

    on_epoch is called with every epoch (from 1) and its validation MSEs. resume_state holds where the training stands,
    and is written after an epoch: if it is there, the training goes on from it, and on_epoch hears of the epochs
    that were done before. On the same machine, with as many threads, the weights then are those of an uninterrupted
    one to the last bit.

    Raises:
        InputError: training of a model diverged, or the resume state is of another training.
    """
    keep_freed_memory()
    course = _Course(Stepper(stack, config, seeds, data))
    told = on_epoch or _nobody
    if resume_state and (kept := resume_state.read(config.epochs)):
        course.go_on(kept)
    for epoch, mses in enumerate(course.curve, start=1):
        told(epoch, mses)
    for epoch in range(len(course.curve) + 1, config.epochs + 1):
        mses = course.stepper.epoch()
        for mse, title, seed in zip(mses, titles, seeds, strict=True):
            if not math.isfinite(mse):
                raise InputError(
                    f"training of {title} with seed {seed} diverged in epoch {epoch}; lower the learning rate"
                )
        course.add(mses)
        if resume_state:
            course.keep(resume_state, last=epoch == config.epochs)
        told(epoch, mses)
    stack.load(course.best)
    return Fitted(tuple(course.curve), course.seconds)


class _Course:
    """The way of a training so far: the MSEs of every epoch, the weights of each model's best, the time taken."""

    def __init__(self, stepper: Stepper) -> None:
        self.stepper = stepper
        self.curve: list[list[float]] = []
        self.best: list[dict[str, Tensor]] = stepper.stack.states()
        self.started = time.perf_counter()
        self.kept_at = 0.0

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.started

    def add(self, mses: list[float]) -> None:
        states = self.stepper.stack.states()
        for k, mse in enumerate(mses):
            if all(mse < before[k] for before in self.curve):
                self.best[k] = {name: value.clone() for name, value in states[k].items()}
        self.curve.append(mses)

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


def _nobody(epoch: int, *mses: object) -> None:
    """Where no one wants to hear of epochs."""


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
    for file in (rfsq_robust.__file__, stacked.__file__, mish.__file__, stacks.__file__, __file__):
        code.update(Path(file).read_bytes())
    setting = asdict(config)
    del setting["epochs"]
    return setting | asdict(job) | {
        "data": data.sha256,
        "device": data.train.device.type,
        "threads": torch.get_num_threads(),
        "torch": str(torch.__version__),
        "code": code.hexdigest(),
    }  # fmt: skip
