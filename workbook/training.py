"""Training of the autoencoder: one model, many models over processes, and the cost of a conditioning."""

from __future__ import annotations

import copy
import math
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from rfsq_robust import ActionRFSQAE, Conditioning
from workbook.dataset import Dataset
from workbook.errors import InputError

VALIDATION_PART = 1024  # steps scored at once

OnEpoch = Callable[[int, float], None]
OnProgress = Callable[[int, int], None]


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


class _Stepper:
    """A model, its optimizer and one training step."""

    def __init__(self, config: TrainConfig, job: Job, data: TrainData) -> None:
        device = data.train.device
        self.data = data
        self.model = build_model(config, data.train.shape[-1], job).to(device).train()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=config.learning_rate, fused=True)
        self.batch_size = config.batch_size
        self.generator = torch.Generator().manual_seed(job.seed)

    def batches(self) -> Iterator[Tensor]:
        order = torch.randperm(len(self.data.train), generator=self.generator)
        yield from order.to(self.data.train.device).split(self.batch_size)

    def step(self, batch: Tensor) -> None:
        actions = self.data.train[batch][self.data.train_valid[batch]]  # padding is left out: (steps, A)
        loss = mse_loss(self.model(actions)[0], actions)
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
    stepper = _Stepper(config, job, data)
    curve: list[float] = []
    best_epoch, best_state = 0, stepper.model.state_dict()
    for epoch in range(1, config.epochs + 1):
        curve.append(_train_epoch(stepper, job, epoch))
        if not best_epoch or curve[-1] < curve[best_epoch - 1]:
            best_epoch, best_state = epoch, copy.deepcopy(stepper.model.state_dict())
        if on_epoch:
            on_epoch(epoch, curve[-1])
    stepper.model.load_state_dict(best_state)
    model = stepper.model.cpu().eval()
    seconds = time.perf_counter() - started
    return TrainedModel(job, model, best_epoch, curve[best_epoch - 1], tuple(curve), seconds)


def _train_epoch(stepper: _Stepper, job: Job, epoch: int) -> float:
    """One pass over the train chunks; returns the validation MSE."""
    try:
        for batch in stepper.batches():
            stepper.step(batch)
        mse = validation_mse(stepper.model, stepper.data)
    except IndexError:  # a latent that is NaN has no grid value
        mse = math.nan
    if not math.isfinite(mse):
        raise InputError(
            f"training of '{job.conditioning}' with seed {job.seed} diverged in epoch {epoch}; lower the learning rate"
        )
    return mse


@torch.no_grad()
def validation_mse(model: ActionRFSQAE, data: TrainData) -> float:
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
    report = on_progress or (lambda done, total: None)
    total = config.epochs * len(jobs)
    workers = min(available_cores(), len(jobs))
    if device == "cuda" or workers == 1:
        moved = data.to(device)
        return _train_in_turn(config, jobs, moved, report)
    context = multiprocessing.get_context("spawn")
    done, stop = context.Value("i", 0), context.Event()
    with ProcessPoolExecutor(workers, context, _start_worker, (config, data, done, stop)) as pool:
        futures = [pool.submit(_train_in_worker, job) for job in jobs]
        try:
            while (state := wait(futures, timeout=0.5, return_when=FIRST_EXCEPTION)).not_done:
                report(done.value, total)
                for future in state.done:
                    future.result()  # raises what a worker raised
            report(done.value, total)
            return [future.result() for future in futures]
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise


def _train_in_turn(config: TrainConfig, jobs: Sequence[Job], data: TrainData, report: OnProgress) -> list[TrainedModel]:
    trained: list[TrainedModel] = []
    total = config.epochs * len(jobs)

    def on_epoch(epoch: int, mse: float) -> None:
        report(len(trained) * config.epochs + epoch, total)

    for job in jobs:
        trained.append(train(config, job, data, on_epoch))
    return trained


def available_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_worker: dict[str, Any] = {}


def _start_worker(config: TrainConfig, data: TrainData, done: Any, stop: Any) -> None:
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides, through `stop`
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    _worker.update(config=config, data=data, done=done, stop=stop)


def _exit_with_parent() -> None:
    """A kernel that is killed must not leave its workers behind."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _train_in_worker(job: Job) -> TrainedModel:
    def on_epoch(epoch: int, mse: float) -> None:
        if _worker["stop"].is_set():
            raise RuntimeError("training was stopped")
        with _worker["done"].get_lock():
            _worker["done"].value += 1

    return train(_worker["config"], job, _worker["data"], on_epoch)


def measure_step_seconds(
    config: TrainConfig, conditionings: Sequence[Conditioning], data: TrainData, rounds: int = 60, steps: int = 4
) -> dict[Conditioning, np.ndarray]:
    """Seconds of one training step of each conditioning, (rounds,) each.

    The conditionings take turns within a round, so that whatever else slows the machine slows them alike; compare
    them round by round.
    """
    steppers = {name: _Stepper(config, Job(name, 0), data) for name in conditionings}
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
