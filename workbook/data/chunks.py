"""Chunks of actions, and the normaliser that is fitted on the train episodes alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from workbook.common.array import Array
from workbook.common.errors import InputError


@dataclass(frozen=True, eq=False)
class Chunks:
    """N chunks of C steps.

    actions: (N, C, A) in controller units; valid: (N, C), False where the tail was padded by repeating the last
    action; episode: (N,) position of the episode that a chunk comes from.
    """

    actions: Array
    valid: NDArray[np.bool_]
    episode: NDArray[np.int64]


def check_cut(length: int, stride: int) -> None:
    """Raises InputError for a length or stride below 1, or a stride that would skip steps."""
    if not 1 <= stride <= length:
        raise InputError(f"chunk length {length} and stride {stride} must satisfy 1 <= stride <= length")


def cut_chunks(episodes: Sequence[Array], length: int, stride: int) -> Chunks:
    """Cut each (T, A) episode into chunks that start every `stride` steps and cover all of it.

    Raises:
        InputError: length or stride below 1, or a stride that would skip steps.
    """
    check_cut(length, stride)
    actions, valid, owner = [], [], []
    for number, episode in enumerate(episodes):
        starts = np.arange(0, max(len(episode) - length, 0) + stride, stride)
        steps = starts[:, None] + np.arange(length)
        valid.append(steps < len(episode))
        actions.append(episode[np.minimum(steps, len(episode) - 1)])
        owner.append(np.full(len(starts), number))
    return Chunks(np.concatenate(actions), np.concatenate(valid), np.concatenate(owner))


def join_chunks(chunks: Chunks, actions: Array) -> list[Array]:
    """Inverse of `cut_chunks` with stride = length: (N, C, A) actions -> the (T, A) episodes, padding dropped."""
    return [
        actions[chunks.episode == number][chunks.valid[chunks.episode == number]]
        for number in range(int(chunks.episode.max()) + 1)
    ]


@dataclass(frozen=True, eq=False)
class Normaliser:
    """Min-max to [-1, 1], dimension by dimension; a dimension that never moves is only shifted to 0.

    low, high: (A,) in controller units.
    """

    low: Array
    high: Array

    @staticmethod
    def fit(actions: Array) -> Normaliser:
        """Fit on (T, A) actions; pass train episodes only."""
        return Normaliser(actions.min(axis=0), actions.max(axis=0))

    @property
    def centre(self) -> Array:
        return (self.high + self.low) / 2

    @property
    def moves(self) -> NDArray[np.bool_]:
        return self._half > 0

    @property
    def _half(self) -> Array:
        return self.high / 2 - self.low / 2

    @property
    def half_width(self) -> Array:
        return np.where(self.moves, self._half, 1.0)

    def normalise(self, actions: Array) -> Array:
        return (actions - self.centre) / self.half_width

    def denormalise(self, normalised: Array) -> Array:
        return normalised * self.half_width + self.centre
