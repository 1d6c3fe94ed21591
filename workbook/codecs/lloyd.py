"""Scalar quantizers of least squared error (Lloyd 1957, published 1982; Max 1960), plain and nested."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from workbook.common.array import Array

ROUNDS = 60  # of Lloyd's algorithm at most; it stops where no sample changes its cell


def lloyd_max(ordered: Array, cells: int) -> Array:
    """Centroids of at most `cells` cells for samples (N,) in ascending order; fewer where cells would be empty."""
    distinct = ordered[np.concatenate([[True], np.diff(ordered) > 0])]
    if len(distinct) <= cells:
        return distinct
    # Between even and equally filled cells, which start too dense and too sparse in the tails.
    quantiles = np.quantile(ordered, (np.arange(cells) + 0.5) / cells)
    centroids = (np.linspace(ordered[0], ordered[-1], cells) + quantiles) / 2
    middle = ordered[len(ordered) // 2]  # sums of what is left are exact enough where samples hardly differ
    sums = np.concatenate([[0.0], np.cumsum(ordered - middle)])
    bounds = np.array([-1])
    for _ in range(ROUNDS):
        inner = np.searchsorted(ordered, (centroids[1:] + centroids[:-1]) / 2)
        if np.array_equal(inner, bounds):
            break
        bounds = inner
        ends = np.concatenate([[0], inner, [len(ordered)]])
        counts = np.diff(ends)
        means = middle + (sums[ends[1:]] - sums[ends[:-1]]) / np.maximum(counts, 1)
        centroids = np.sort(np.where(counts > 0, means, centroids))
    return centroids[np.diff(np.concatenate([[0], inner, [len(ordered)]])) > 0]


def nearest(samples: Array, centroids: Array) -> NDArray[np.int64]:
    """Position of the nearest of ascending centroids (n,) for each sample."""
    return np.searchsorted((centroids[1:] + centroids[:-1]) / 2, samples)


def nested_thresholds(ordered: Array, branches: int, depth: int) -> Array:
    """Thresholds of branches**depth cells, made by splitting each cell `depth` times by Lloyd's algorithm.

    Cell m of the coarser quantizer with branches**j cells is the union of the branches**(depth - j) finest cells from
    m * branches**(depth - j) on, so that what a further code says is which part of the cell. Samples (N,) ascend.
    """
    thresholds = np.zeros(0)
    for _ in range(depth):
        edges = np.concatenate([[-np.inf], thresholds, [np.inf]])
        ends = np.searchsorted(ordered, edges)
        cells = zip(ends[:-1], ends[1:], edges[1:], strict=True)
        parts = [np.append(_split(ordered[start:end], high, branches), high) for start, end, high in cells]
        thresholds = np.concatenate(parts)[:-1]
    return thresholds


def _split(ordered: Array, high: float, branches: int) -> Array:
    """The branches - 1 thresholds within one cell; parts for which there are no samples have no width."""
    found = lloyd_max(ordered, branches) if len(ordered) else ordered
    inner = (found[1:] + found[:-1]) / 2
    return np.concatenate([inner, np.full(branches - 1 - len(inner), high)])
