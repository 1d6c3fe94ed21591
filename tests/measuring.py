"""Errors of decoded episodes as evaluation estimates them: by way of rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from workbook.common.array import Array
from workbook.common.intervals import Estimate
from workbook.data.chunks import Normaliser, cut_chunks
from workbook.data.episodes import Episode
from workbook.data.layout import ActionLayout
from workbook.evaluation.score import HeldOut, estimate_of

CHUNK_LEN = 8
NO_METRICS = {"part", "task", "episode", "steps", "switches", "switch_steps", "zeros", "seed"}


def rows_of(
    originals: Sequence[Array],
    decodeds: Sequence[Sequence[Array]],
    layout: ActionLayout,
    normaliser: Normaliser,
    variance: Array,
) -> pd.DataFrame:
    """Of E episodes (T, A), decoded by each of S seeds."""
    episodes = [Episode(actions, "put", "a.hdf5", f"demo_{n}") for n, actions in enumerate(originals)]
    chunks = cut_chunks(list(originals), CHUNK_LEN, CHUNK_LEN)
    test = HeldOut("test", chunks, episodes, layout, normaliser, variance)
    cut = [cut_chunks(list(decoded), CHUNK_LEN, CHUNK_LEN).actions for decoded in decodeds]
    return pd.concat([test.rows(actions).assign(seed=seed) for seed, actions in enumerate(cut)], ignore_index=True)


def estimates(
    originals: Sequence[Array],
    decodeds: Sequence[Sequence[Array]],
    layout: ActionLayout,
    normaliser: Normaliser,
    variance: Array | None = None,
) -> dict[str, Estimate]:
    """Of every metric."""
    rows = rows_of(originals, decodeds, layout, normaliser, np.full(layout.dim, 0.25) if variance is None else variance)
    return {name: estimate_of(rows, name) for name in rows if name not in NO_METRICS}
