"""One training as it is asked for on the command line: what it reads, what it leaves in a folder, what came of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rfsq_robust import Checkpoint, Conditioning, save_checkpoint
from workbook import provenance
from workbook.codecs.rfsq import RFSQCodec
from workbook.comparison import HeldOut
from workbook.dataset import DataConfig, Dataset, Prepared, prepare_dataset
from workbook.parallel import OnProgress
from workbook.paths import OutputFolder, expand, locked
from workbook.snapshots import SUFFIX, Snapshot
from workbook.training import Job, OnEpoch, TrainConfig, TrainData, TrainedModel, choose_device, identity, train
from workbook.training_log import TrainingLog

# The names that Phase 2 and 3 look for; others go by their conditioning.
STEMS: dict[Conditioning, str] = {"none": "rfsq", "layernorm": "rfsq_robust"}

FOLDER_OPTION = "--models-dir"


@dataclass(frozen=True)
class TrainingOrder:
    """data, data_config: as in `prepare_dataset`; folder: for all that is written; resume: go on from the last epoch
    that is there; stem: begins the names of the files, "" for the name that goes with the conditioning.
    """

    job: Job
    train_config: TrainConfig
    data: str = "sample"
    data_config: DataConfig = field(default_factory=DataConfig)
    device: str = "auto"
    folder: str = "."
    resume: bool = False
    stem: str = ""

    @property
    def name(self) -> str:
        return self.stem or STEMS.get(self.job.conditioning, f"rfsq_robust_{self.job.conditioning}")

    def file(self, ending: str) -> Path:
        return expand(self.folder) / f"{self.name}_{ending}"

    @property
    def checkpoint(self) -> Path:
        return self.file("best.pt")

    @property
    def snapshot(self) -> Path:
        return expand(self.folder) / f"{self.name}{SUFFIX}"


def carry_out(
    order: TrainingOrder,
    on_epoch: OnEpoch | None = None,
    on_begin: Callable[[int], None] | None = None,
    on_fetch: OnProgress | None = None,
) -> dict[str, Any]:
    """Train, and write the checkpoint, the state to go on from, and the logs.

    One thread on the CPU, for such small matrices are not quicker with more, and the weights are then the same to the
    last bit whatever else the machine does.

    on_begin: called with the epochs that were done before; on_epoch: as in `fit`; on_fetch: with the files done and in
    all, while data are fetched.

    Returns:
        What came of it, as plain values. Errors are MSE over the validation episodes, in normalised units squared.

    Raises:
        InputError: bad data or settings, a folder that cannot be written, another training that writes there, a state
            of another training, or divergence.
    """
    device = choose_device(order.device)
    OutputFolder.at(order.folder, FOLDER_OPTION)
    prepared = prepare_dataset(order.data, order.data_config, on_fetch)
    data = TrainData.of(prepared.dataset).to(device)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with locked(expand(order.folder) / f".{order.name}.lock"):
            trained = _train(order, data, on_epoch, on_begin)
            _save(order, prepared, trained)
        return _outcome(order, prepared.dataset, trained, device)
    finally:
        torch.set_num_threads(threads)


def _train(
    order: TrainingOrder, data: TrainData, on_epoch: OnEpoch | None, on_begin: Callable[[int], None] | None
) -> TrainedModel:
    snapshot = Snapshot(order.snapshot, identity(order.train_config, order.job, data))
    snapshot.remove_halves()
    if not order.resume:
        snapshot.path.unlink(missing_ok=True)
    kept = snapshot.read(order.train_config.epochs)  # a state that does not fit is told before a log is begun
    if on_begin:
        on_begin(len(kept["curve"]) if kept else 0)
    with TrainingLog(order.file("log.csv"), expand(order.folder) / "tensorboard" / order.name) as log:

        def tell(epoch: int, mse: float) -> None:
            log.add(epoch, mse)
            if on_epoch:
                on_epoch(epoch, mse)

        return train(order.train_config, order.job, data, tell, snapshot)


def _save(order: TrainingOrder, prepared: Prepared, trained: TrainedModel) -> None:
    normaliser = prepared.dataset.normaliser
    bounds = {"min": torch.from_numpy(normaliser.low), "max": torch.from_numpy(normaliser.high)}
    origin = {
        "seed": order.job.seed,
        "train_config": asdict(order.train_config),
        "data": prepared.origin.name,
        "data_config": asdict(order.data_config),
        "dataset_sha256": prepared.dataset.sha256,
        "normaliser": "of this data set",
        "limit": prepared.dataset.layout.limit.tolist(),
        "code": provenance.git_describe(),
        "torch": str(torch.__version__),
    }
    save_checkpoint(order.checkpoint, Checkpoint(trained.model, trained.epoch, trained.mse, bounds, origin))


def _outcome(order: TrainingOrder, dataset: Dataset, trained: TrainedModel, device: str) -> dict[str, Any]:
    codec = RFSQCodec(order.name, trained.model, dataset.normaliser)
    return {
        "conditioning": order.job.conditioning,
        "seed": order.job.seed,
        "device": device,
        "epochs": len(trained.curve),
        "best_epoch": trained.epoch,
        "validation_mse": trained.mse,
        "validation_mse_tokens": mse_from_tokens(codec, dataset),
        "curve": list(trained.curve),
        "seconds": trained.seconds,
        "file": order.checkpoint.name,
        "bytes": order.checkpoint.stat().st_size,
        "train_episodes": len(dataset.split.train),
        "validation_episodes": len(dataset.split.validation),
        "dataset_sha256": dataset.sha256,
        "provenance": {name: said for name, said in provenance.collect().items() if name != "command"},
    }


def mse_from_tokens(codec: RFSQCodec, dataset: Dataset) -> float:
    """MSE of the validation episodes decoded from tokens alone; layernorm with mean 0 and std 1 assumed."""
    held_out = HeldOut.of(dataset, "validation")
    mse = held_out.measure(codec.decode(codec.encode(held_out.chunks.actions)))["mse"]
    return float(np.average(mse.values, weights=mse.weights))
