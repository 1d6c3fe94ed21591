"""Whether recordings are of a robot that does something: signs of noise, repetition, rest, and one trajectory copied.

Each threshold stands far from every recording known here: the sample, 50 demonstrations by hand in LIBERO and 5 in
robosuite, whole and episode by episode.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from workbook.common.array import Array
from workbook.common.note import Note, note
from workbook.data.layout import ActionLayout

LONGEST_LAG = 40  # steps, two seconds at 20 Hz
UNCORRELATED = 0.3  # autocorrelation at lag 1 of the dimension with the largest; single recordings have 0.92 and more
EVEN = 0.05  # Kolmogorov's distance from a uniform distribution; single recordings have 0.26 and more
NEARLY_EQUAL = 0.05  # root mean square difference over the std; between recordings of like length 0.42 and more
LIKE_LENGTH = 1.1  # by which the longest of a group may be longer than the shortest
MOST = 0.5  # of the episodes
GUIDES_CHUNK = 8  # steps for which the guide's Phase 2 repeats an action
SHORTEST_TILE = 4  # steps; recordings at a multiple of the control rate repeat an action two or three times
BORDERS_CHANGE = 0.25  # share of the borders between chunks at which tiled actions change; idle steps do not
FEWEST_CHANGES = 8  # to say that all of them stand at borders


def autocorrelation(episodes: Sequence[Array], longest: int = LONGEST_LAG) -> Array:
    """Autocorrelation within episodes at lags 0..longest, pooled: (T, A) each -> (longest + 1, A).

    A dimension that never moves, and a lag that is longer than every episode, have none and are NaN.
    """
    everything = np.concatenate(episodes)
    moves = np.ptp(everything, axis=0) > 0
    mean = everything.mean(axis=0)
    centred = [episode - mean for episode in episodes]
    products = np.zeros((longest + 1, mean.size))
    counts = np.zeros(longest + 1)
    for episode in centred:
        for lag in range(min(longest + 1, len(episode))):
            products[lag] += (episode[lag:] * episode[: len(episode) - lag]).sum(axis=0)
            counts[lag] += len(episode) - lag
    covariance = products / np.maximum(counts, 1)[:, None]
    known = moves & (counts > 0)[:, None]
    return np.where(known, covariance / np.where(moves, covariance[0], 1), np.nan)


def doubts(episodes: Sequence[Array], layout: ActionLayout, chunk_len: int) -> list[Note]:
    """What makes (T, A) episodes no robot motion, the plainest first; empty where nothing does."""
    if max(map(len, episodes)) < 2:
        return []
    motion = [episode[:, layout.motion] for episode in episodes]
    if _still(motion if len(layout.motion) else episodes):
        return [note("still_stream", arm=len(layout.motion) > 0)]
    return [*_noise(motion), *_tiled(episodes, chunk_len), *_copied(episodes)]


def _still(episodes: Sequence[Array]) -> bool:
    return not any(np.ptp(episode, axis=0).any() for episode in episodes)


def _noise(motion: Sequence[Array]) -> Iterator[Note]:
    """Of dimensions that move."""
    everything = np.concatenate(motion)
    moves = np.ptp(everything, axis=0) > 0
    if not moves.any():
        return
    largest = float(np.nanmax(np.abs(autocorrelation(motion, longest=1)[1])))
    distance = max(_distance_from_uniform(values) for values in everything[:, moves].T)
    even = distance < EVEN + 1 / np.sqrt(len(everything))
    if largest < UNCORRELATED:
        yield note("white_noise", largest=largest, even=bool(even))
    elif even:
        yield note("evenly_spread", distance=distance)


def _distance_from_uniform(values: Array) -> float:
    """Kolmogorov's distance of (T,) values from a uniform distribution over their range."""
    share = np.sort((values - values.min()) / np.ptp(values))
    ranks = np.arange(len(share) + 1) / len(share)
    return float(max((ranks[1:] - share).max(), (share - ranks[:-1]).max()))


def _tiled(episodes: Sequence[Array], chunk_len: int) -> Iterator[Note]:
    """Every change of anything stands between two chunks."""
    changes = [np.flatnonzero((episode[1:] != episode[:-1]).any(axis=1)) + 1 for episode in episodes]
    count = sum(map(len, changes))
    for length in sorted({GUIDES_CHUNK, chunk_len}, reverse=True):
        borders = sum((len(episode) - 1) // length for episode in episodes)
        enough = count >= max(FEWEST_CHANGES, BORDERS_CHANGE * borders)
        if length >= SHORTEST_TILE and enough and not any((found % length).any() for found in changes):
            yield note("tiled", length=length)
            return


def _copied(episodes: Sequence[Array]) -> Iterator[Note]:
    """Episodes of like length that hardly differ as far as the shorter goes; equal ones have been left out before."""
    everything = np.concatenate(episodes)
    moves = np.ptp(everything, axis=0) > 0
    std = everything[:, moves].std(axis=0)
    scaled = sorted((episode[:, moves] / std for episode in episodes), key=len)
    near = sum(map(_near_another, _of_like_length(scaled)))
    if near > MOST * len(episodes):
        yield note("copied", near=near, of=len(episodes))


def _of_like_length(episodes: Sequence[Array]) -> Iterator[Array]:
    """Groups of (T, A) episodes, which come shortest first, each cut to the shortest of its group: (E, T * A)."""
    first = 0
    for end in range(1, len(episodes) + 1):
        shortest = len(episodes[first])
        if end == len(episodes) or len(episodes[end]) > LIKE_LENGTH * shortest:
            yield np.stack([episode[:shortest].ravel() for episode in episodes[first:end]])
            first = end


def _near_another(rows: Array) -> int:
    """How many of (E, N) rows are nearly equal to another; such ones are neighbours in any direction."""
    direction = np.random.default_rng(0).normal(size=rows.shape[1])
    rows = rows[np.argsort(rows @ direction)]
    near = np.sqrt(((rows[1:] - rows[:-1]) ** 2).mean(axis=1)) < NEARLY_EQUAL
    return int((np.append(near, False) | np.append(False, near)).sum())
