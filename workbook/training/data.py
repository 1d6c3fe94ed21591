"""What is trained on: normalised actions, and which of their steps are real."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from workbook.data.chunks import Chunks
from workbook.data.dataset import Dataset


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

    def changed(self, change: Callable[[Tensor], Tensor]) -> TrainData:
        """Of what `change` makes of the actions."""
        return TrainData(change(self.train), self.train_valid, change(self.validation))

    @property
    def sha256(self) -> str:
        digest = hashlib.sha256()
        for name in self.__dataclass_fields__:
            digest.update(getattr(self, name).cpu().numpy().tobytes())
        return digest.hexdigest()
