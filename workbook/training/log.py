"""The log of a training: a CSV file, and the event files that TensorBoard shows."""

from __future__ import annotations

import csv
from pathlib import Path
from types import TracebackType

from torch.utils.tensorboard import SummaryWriter

COLUMNS = ("epoch", "validation_mse", "best_validation_mse")


class TrainingLog:
    """Hears of every epoch of a training, from the first, and writes it down at once.

    A training that goes on tells what was before, so what an earlier process left of either log is replaced.
    """

    def __init__(self, table: Path, events: Path) -> None:
        """table: the CSV file; events: the folder of TensorBoard's files, of this training alone."""
        self.best = float("inf")
        for old in events.glob("events.out.tfevents.*"):
            old.unlink()
        self.file = table.open("w", newline="", encoding="utf8")
        self.table = csv.writer(self.file)
        self.table.writerow(COLUMNS)
        self.events = SummaryWriter(str(events), flush_secs=5)

    def add(self, epoch: int, mse: float) -> None:
        """Add an epoch (from 1) and its validation MSE, in normalised units squared."""
        self.best = min(self.best, mse)
        self.table.writerow((epoch, mse, self.best))
        self.file.flush()
        self.events.add_scalar("validation_mse", mse, epoch)
        self.events.add_scalar("best_validation_mse", self.best, epoch)

    def __enter__(self) -> TrainingLog:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.events.close()
        self.file.close()
