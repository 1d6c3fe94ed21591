"""Transform coding at a fixed length: the KLT of the chunk, each coefficient rounded to as many levels as it deserves.

KLT is the Karhunen-Loeve transform, the eigenvectors of the covariance of train chunks (principal components).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from workbook.codecs.lloyd import lloyd_max, nearest
from workbook.codecs.protocol import Tokens
from workbook.common.array import Array
from workbook.data.chunks import Normaliser

LEVELS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64, 96, 128, 192, 256)


@dataclass(frozen=True, eq=False)
class Transform:
    """Orthonormal axes of most variance: mean (D,), axes (D, H), H <= D."""

    mean: Array
    axes: Array

    @staticmethod
    def fit(vectors: Array, most: int) -> Transform:
        """Of (N, D) vectors, the `most` axes of most variance."""
        mean = vectors.mean(axis=0)
        _, axes = np.linalg.eigh((vectors - mean).T @ (vectors - mean))
        return Transform(mean, np.ascontiguousarray(axes[:, ::-1][:, :most]))

    def forward(self, vectors: Array) -> Array:
        return (vectors - self.mean) @ self.axes

    def inverse(self, latents: Array) -> Array:
        return latents @ self.axes.T + self.mean


@dataclass(frozen=True, eq=False)
class KltCodec:
    """centroids: of each coefficient; one that gets a single level is not sent."""

    normaliser: Normaliser
    transform: Transform
    centroids: Sequence[Array]
    shape: tuple[int, int]

    @property
    def name(self) -> str:
        return f"klt{self.bits(Tokens(np.zeros((1, 0), dtype=np.int64))):.0f}"

    @property
    def vocabulary(self) -> int:
        return max(map(len, self.centroids))

    @property
    def levels(self) -> NDArray[np.int64]:
        return np.array([len(c) for c in self.centroids if len(c) > 1], dtype=np.int64)

    def encode(self, chunks: Array) -> Tokens:
        latents = self.transform.forward(self.normaliser.normalise(chunks).reshape(len(chunks), -1))
        codes = [nearest(latents[:, i], c) for i, c in enumerate(self.centroids) if len(c) > 1]
        return Tokens(np.stack(codes, axis=1) if codes else np.zeros((len(chunks), 0), dtype=np.int64))

    def decode(self, tokens: Tokens) -> Array:
        columns = iter(tokens.codes.T)
        alone = np.zeros(len(tokens.codes), dtype=np.int64)
        latents = np.stack([c[next(columns) if len(c) > 1 else alone] for c in self.centroids], axis=1)
        return self.normaliser.denormalise(self.transform.inverse(latents).reshape(-1, *self.shape))

    def bits(self, tokens: Tokens) -> float:
        return float(sum(np.log2(len(c)) for c in self.centroids))


def fit_klt(train: Array, normaliser: Normaliser, rates: Sequence[float]) -> list[KltCodec]:
    """One codec for each rate in bits a chunk, none above it; train chunks (N, C, A) in controller units.

    Levels are given out one step at a time, where a bit takes away most error.
    """
    vectors = normaliser.normalise(train).reshape(len(train), -1)
    transform = Transform.fit(vectors, vectors.shape[1])
    latents = np.sort(transform.forward(vectors), axis=0)
    tables = [[lloyd_max(column, levels) for levels in LEVELS] for column in latents.T]
    errors = np.array([
        [np.mean((column - c[nearest(column, c)]) ** 2) for c in table]
        for column, table in zip(latents.T, tables, strict=True)
    ])  # fmt: skip
    cost = np.array([[np.log2(len(c)) for c in table] for table in tables])
    codecs = []
    chosen = np.zeros(len(tables), dtype=np.int64)
    for rate in sorted(rates):
        chosen = _allocate(errors, cost, chosen, rate)
        centroids = [table[step] for table, step in zip(tables, chosen, strict=True)]
        codecs.append(KltCodec(normaliser, transform, centroids, train.shape[1:]))
    return codecs


def _allocate(errors: Array, cost: Array, chosen: np.ndarray, rate: float) -> np.ndarray:
    """Go on from `chosen`, the step of each row, by the greatest gain for each bit, until the next does not fit."""
    chosen = chosen.copy()
    rows = np.arange(len(chosen))
    while True:
        spent = cost[rows, chosen]
        more_bits = cost - spent[:, None]
        gain = np.where(more_bits > 0, errors[rows, chosen][:, None] - errors, 0) / np.where(
            more_bits > 0, more_bits, 1
        )
        row, step = np.unravel_index(np.argmax(gain), gain.shape)
        if gain[row, step] <= 0 or spent.sum() + more_bits[row, step] > rate:
            return chosen
        chosen[row] = step
