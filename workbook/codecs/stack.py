"""A residual stack on the latents of one group of dimensions: cells, digits, and the orders to send them in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from workbook.chunks import Array
from workbook.codecs.klt import Transform
from workbook.codecs.lloyd import nested_thresholds

BRANCHES = 3  # levels of a layer
DEPTH = 6  # layers of a latent at most: 729 cells
MOST_LATENTS = 64  # of a stack
MOST_DIGITS = 144  # of a stack
ORDERS = 4  # in which a stack can send its digits

Codes = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Stack:
    """The latents of one group of dimensions.

    dimensions: of the action; thresholds: (H, 3**DEPTH - 1), of the finest cells; centroids: for each number of layers
    j the values of its cells, (H, 3**j); orders: (1 + ORDERS, digits) latents in the order of their digits, the first
    for chunks in general; gains: (digits,) what each digit of the first takes away from a train chunk, descending.
    """

    dimensions: Codes
    transform: Transform
    thresholds: Array
    centroids: tuple[Array, ...]
    orders: Codes
    gains: Array

    @staticmethod
    def fit(vectors: Array, dimensions: Codes) -> Stack:
        """vectors: (N, D) normalised actions of these dimensions, a chunk in a row."""
        transform = Transform.fit(vectors, MOST_LATENTS)
        latents = transform.forward(vectors)
        thresholds = np.stack([nested_thresholds(np.sort(column), BRANCHES, DEPTH) for column in latents.T])
        centroids = tuple(_centroids(latents, thresholds))
        unordered = Stack(dimensions, transform, thresholds, centroids, np.zeros((1, 0), dtype=np.int64), np.zeros(0))
        errors = unordered.errors(latents)
        orders = _fit_orders(errors)
        # A digit can take away more than the one before it; as it has to follow it, it stands no higher.
        gains = np.minimum.accumulate(-np.diff(after_each_digit(errors, orders[0]).mean(axis=1)))
        return replace(unordered, orders=orders, gains=gains)

    @property
    def width(self) -> int:
        """H, the number of latents."""
        return len(self.thresholds)

    def latents(self, normalised: Array) -> Array:
        """(N, C, A) normalised actions -> (N, H)."""
        return self.transform.forward(normalised[:, :, self.dimensions].reshape(len(normalised), -1))

    def finest(self, latents: Array) -> Codes:
        """(N, H) latents -> the finest cells that they lie in."""
        return _cells(latents, self.thresholds)

    def errors(self, latents: Array) -> Array:
        """Squared error of each latent after each number of layers: (N, H) -> (DEPTH + 1, N, H)."""
        finest = self.finest(latents)
        return np.stack([(self._values(finest // BRANCHES ** (DEPTH - j), j) - latents) ** 2 for j in range(DEPTH + 1)])

    def _values(self, cells: Codes, layers: int) -> Array:
        """(N, H) cells of so many layers -> their centroids."""
        return np.take_along_axis(self.centroids[layers], cells.T, axis=1).T

    def digit(self, finest: Codes, latent: int, layer: int) -> Codes:
        return finest[:, latent] // BRANCHES ** (DEPTH - 1 - layer) % BRANCHES

    def values(self, cells: Codes, layers: Codes) -> Array:
        """Centroids of cells (N, H), of as many layers as stand in layers (N, H)."""
        latents = np.zeros(cells.shape)
        for j in range(DEPTH + 1):
            here = layers == j
            latents[here] = self.centroids[j][np.nonzero(here)[1], cells[here]]
        return latents

    def write(self, actions: Array, latents: Array) -> None:
        """Put decoded (N, H) latents into normalised actions (N, C, A)."""
        shape = (*actions.shape[:2], len(self.dimensions))
        actions[:, :, self.dimensions] = self.transform.inverse(latents).reshape(shape)

    def layers_of(self, order: int) -> Iterator[tuple[int, int]]:
        """(latent, layer) of each digit of an order."""
        seen = np.zeros(self.transform.axes.shape[1], dtype=np.int64)
        for latent in self.orders[order]:
            yield int(latent), int(seen[latent])
            seen[latent] += 1


def _cells(latents: Array, thresholds: Array) -> Codes:
    """(N, H) latents and (H, n) thresholds -> (N, H) cells."""
    return np.stack(
        [np.searchsorted(row, column, side="right") for row, column in zip(thresholds, latents.T, strict=True)], axis=1
    )


def _centroids(latents: Array, thresholds: Array) -> Iterator[Array]:
    """Means of the train latents of each cell, layer by layer; a cell without any takes the value of the one around."""
    around = latents.mean(axis=0)[:, None]
    yield around
    finest = _cells(latents, thresholds).T
    for layers in range(1, DEPTH + 1):
        cells, count = finest // BRANCHES ** (DEPTH - layers), BRANCHES**layers
        around = np.repeat(around, BRANCHES, axis=1)
        for row, (column, cell) in enumerate(zip(latents.T, cells, strict=True)):
            held = np.bincount(cell, minlength=count)
            means = np.bincount(cell, column, minlength=count) / np.maximum(held, 1)
            around[row] = np.where(held > 0, means, around[row])
        yield around.copy()


def _greedy_order(errors: Array, digits: int) -> Codes:
    """Mean errors (DEPTH + 1, H) -> latents in the order in which another layer takes away most."""
    gains = errors[:-1] - errors[1:]
    layer = np.zeros(errors.shape[1], dtype=np.int64)
    order = []
    for _ in range(min(digits, gains.size)):
        next_gain = np.where(layer < DEPTH, gains[np.minimum(layer, DEPTH - 1), np.arange(len(layer))], -np.inf)
        order.append(int(np.argmax(next_gain)))
        layer[order[-1]] += 1
    return np.array(order, dtype=np.int64)


def after_each_digit(errors: Array, order: Codes) -> Array:
    """Squared error of every chunk after 0, 1, 2, ... digits of an order: (DEPTH + 1, N, H) -> (digits + 1, N)."""
    layer = np.zeros(errors.shape[2], dtype=np.int64)
    total = errors[0].sum(axis=1)
    curve = [total]
    for latent in order:
        total = total + errors[layer[latent] + 1, :, latent] - errors[layer[latent], :, latent]
        layer[latent] += 1
        curve.append(total)
    return np.maximum(np.stack(curve), 0)  # sums of differences can end a rounding error below 0


def _fit_orders(errors: Array) -> Codes:
    """The general order, and ORDERS - 1 more for chunks that are unlike in where their energy lies.

    Chunks are grouped by the log energy of their latents, then orders and groups are fitted to each other in turn.
    """
    general = _greedy_order(errors.mean(axis=1), MOST_DIGITS)
    energy = np.log(errors[0] + 1e-4 * errors[0].mean() + 1e-12)
    group = _cluster(energy, ORDERS)
    orders = [general] * ORDERS
    for _ in range(4):
        orders = [_order_of_group(errors, group == number, general) for number in range(ORDERS)]
        floor = 1e-7 * errors.shape[2]  # below it an error is as good as none
        score = np.stack([np.log(after_each_digit(errors, order) + floor).mean(axis=0) for order in orders])
        group = score.argmin(axis=0)
    return np.stack([general, *orders])


def _order_of_group(errors: Array, members: NDArray[np.bool_], general: Codes) -> Codes:
    return _greedy_order(errors[:, members].mean(axis=1), MOST_DIGITS) if members.sum() > ORDERS else general


def _cluster(points: Array, count: int) -> Codes:
    """k-means (N, H) -> group of each point; starts at points spread over the order of their sums, so it is the same
    each time.
    """
    ranked = np.argsort(points.sum(axis=1), kind="stable")
    centres = points[ranked[(np.arange(count) * 2 + 1) * len(points) // (2 * count)]]
    group = np.zeros(len(points), dtype=np.int64)
    for _ in range(20):
        group = ((points**2).sum(axis=1)[:, None] - 2 * points @ centres.T + (centres**2).sum(axis=1)).argmin(axis=1)
        centres = np.stack([
            points[group == number].mean(axis=0) if (group == number).any() else centres[number]
            for number in range(count)
        ])  # fmt: skip
    return group
