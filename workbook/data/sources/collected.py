"""Motion out of the samples that the existing pipeline collects for Phase 2: a chunk of actions for every step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

# Steps that are held together where nothing says where an episode begins: the mean length of LIBERO's demonstrations
# is 161; of short files fewer, so that there are enough blocks to hold some out.
STEPS_OF_A_BLOCK = 160
BLOCKS = 10


@dataclass(frozen=True, eq=False)
class Motion:
    """The steps that were played, as far as samples tell.

    pieces: first sample of a piece of motion -> its actions, (T, A); overlap: whether chunks continue one another, or
    else the first action of each is taken; repeated: share of the chunks that repeat one action; block: steps of a
    piece where a task lasts longer, 0 where chunks tell where it ends.
    """

    pieces: dict[int, NDArray[np.float64]]
    overlap: bool
    repeated: float
    block: int


def motion_of(chunks: NDArray[np.float64], tasks: Sequence[str]) -> Motion:
    """Join the chunks of neighbouring samples, one a step: (N, C, A), with the task of each.

    Where most chunks are the one before them, moved on by one step, they are windows of a recording: a piece ends where
    one is not. Otherwise a policy planned anew at every step, or its one action was repeated for the whole chunk: what
    was played is the first action of each. A change of the task begins a new piece.
    """
    repeats = (chunks == chunks[:, :1]).all(axis=(1, 2))
    same_task = np.array([before == after for before, after in pairwise(tasks)], dtype=bool)
    continued = (chunks[:-1, 1:] == chunks[1:, :-1]).all(axis=(1, 2))
    telling = same_task & ~(repeats[:-1] & repeats[1:])
    if chunks.shape[1] > 1 and telling.any() and continued[telling].mean() > 0.5:
        pieces = {
            start: np.concatenate([chunks[start:end, 0], chunks[end - 1, 1:]])
            for start, end in _runs(~(same_task & continued))
        }
        return Motion(pieces, True, float(repeats.mean()), 0)
    block = min(STEPS_OF_A_BLOCK, max(len(chunks) // BLOCKS, chunks.shape[1]))
    pieces = {
        start: chunks[start:end, 0]
        for first, last in _runs(~same_task)
        for start, end in pairwise(_bounds(first, last, block))
    }
    return Motion(pieces, False, float(repeats.mean()), block)


def _runs(breaks: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """First position of each run and the one after its last; breaks: (N - 1,), whether a run ends there."""
    bounds = [0, *(np.flatnonzero(breaks) + 1).tolist(), len(breaks) + 1]
    return list(pairwise(bounds))


def _bounds(first: int, last: int, block: int) -> list[int]:
    """Where blocks begin and the last one ends; that one takes what is left over."""
    count = max((last - first) // block, 1)
    return [*(first + block * number for number in range(count)), last]
