"""Errors of predicted chunks that episodes as a whole do not show: of summed commands, and of distributions.

The summed position command of a chunk is where it would take the hand. Its energy score is a proper score of a
distribution (Gneiting and Raftery 2007): the mean distance of draws from the truth, less half of that between two
draws; of a single action it is the plain error. Lower is better of every figure here.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from workbook.common.array import Array
from workbook.data.chunks import Chunks, Normaliser
from workbook.data.layout import POSITION_MM_PER_UNIT, ActionLayout, Kind

SUMMED: dict[str, tuple[Kind, float]] = {"position_mm": ("position", POSITION_MM_PER_UNIT), "joint": ("joint", 1.0)}
SUM_ERRORS = tuple(f"{name}_{unit}" for unit in SUMMED for name in ("sum", "sum_energy"))
LIKELIHOOD = "motion_bits"
LEAST_STD = 1e-3  # of residuals, in half-widths of a dimension; far below any error of a policy


def chunk_errors(chunks: Chunks, layout: ActionLayout, actions: Array, drawn: Array) -> pd.DataFrame:
    """Errors of chunks' summed commands, a row an episode: the mean over its chunks, and their number.

    actions: (N, C, A) decoded; drawn: (M, N, C, A) decoded draws, of which `actions` itself may be the only one. With
    several arms, the mean over them; of what the layout lacks, NaN.
    """
    rows: dict[str, Array] = {"chunks": np.ones(len(actions))}
    truth, point = (_summed(each, chunks, layout) for each in (chunks.actions, actions))
    draws = _summed(drawn, chunks, layout)
    for unit, (kind, scale) in SUMMED.items():
        groups = layout.of_kind(kind)
        rows[f"sum_{unit}"] = scale * _mean([_length(point[:, g] - truth[:, g]) for g in groups], len(actions))
        rows[f"sum_energy_{unit}"] = scale * _mean([_energy(draws[..., g], truth[:, g]) for g in groups], len(actions))
    by_episode = pd.DataFrame(rows).groupby(chunks.episode)
    return by_episode.mean().assign(chunks=by_episode.chunks.sum()).reset_index(drop=True)


def _summed(actions: Array, chunks: Chunks, layout: ActionLayout) -> Array:
    """(..., N, C, A) -> (..., N, A): what the controller, which clips, is told in all, without padded steps."""
    return np.asarray((np.clip(actions, -layout.limit, layout.limit) * chunks.valid[..., None]).sum(axis=-2))


def _length(vectors: Array) -> Array:
    return np.linalg.norm(vectors, axis=-1)


def _mean(figures: Sequence[Array], count: int) -> Array:
    return np.mean(figures, axis=0) if figures else np.full(count, np.nan)


def _energy(draws: Array, truth: Array) -> Array:
    """(M, N, D) draws and (N, D) -> (N,). Two draws are different ones, so that the number of draws adds no bias."""
    apart = [_length(draws[i] - draws[:i]).sum(axis=0) for i in range(1, len(draws))]
    pairs = len(draws) * (len(draws) - 1) / 2
    return np.asarray(_length(draws - truth).mean(axis=0) - sum(apart, np.zeros(len(truth))) / (2 * max(pairs, 1)))


def residual_std(chunks: Chunks, normaliser: Normaliser, actions: Array) -> Array:
    """(A,) of decoded chunks (N, C, A), in half-widths, about zero."""
    residuals = ((actions - chunks.actions) / normaliser.half_width)[chunks.valid]
    return np.maximum(np.sqrt((residuals**2).mean(axis=0)), LEAST_STD)


def motion_bits(chunks: Chunks, layout: ActionLayout, normaliser: Normaliser, actions: Array, std: Array) -> Array:
    """(E,) of an episode: minus log2 of the density of its motion, in bits a step, under a normal distribution around
    decoded chunks (N, C, A).

    A density in normalised units: only differences mean something. std: (A,) of the validation part's residuals, so
    that codecs and a regression are asked the same. A gripper's side is no matter of density, and is left out, as is
    what never moves.
    """
    motion = layout.motion[normaliser.moves[layout.motion]]
    residuals = ((actions - chunks.actions) / normaliser.half_width)[..., motion] / std[motion]
    bits = (0.5 * residuals**2 + np.log(std[motion]) + 0.5 * np.log(2 * np.pi)).sum(axis=-1) / np.log(2)
    rows = pd.DataFrame({"bits": bits[chunks.valid]}).groupby(np.repeat(chunks.episode, chunks.valid.sum(axis=1)))
    return np.asarray(rows.bits.mean() if motion.size else rows.bits.mean() * np.nan)
