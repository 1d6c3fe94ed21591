"""Split by episode, so that no chunk of a held-out episode is ever trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np

from workbook.common.errors import InputError
from workbook.data.episodes import Episode, by_group

FRACTIONS = {"train": 0.6, "validation": 0.2, "test": 0.2}
FEWEST_EPISODES = 4  # the fewest that put one episode or more into every part


@dataclass(frozen=True)
class Split:
    """Positions of the episodes of each part: train fits, validation chooses, test is scored once."""

    train: tuple[int, ...]
    validation: tuple[int, ...]
    test: tuple[int, ...]

    def parts(self) -> dict[str, tuple[int, ...]]:
        return {field.name: getattr(self, field.name) for field in fields(self)}


def split_episodes(episodes: Sequence[Episode], seed: int) -> Split:
    """Split 60 / 20 / 20, each group in these proportions as near as whole episodes allow.

    Episodes in the same order with the same sessions and tasks are split alike, whatever these are called. The parts of
    a recording that was cut count as one episode and stay together.

    Raises:
        InputError: fewer than 4 episodes.
    """
    return Split(**{name: tuple(sorted(dealt)) for name, dealt in _deal(episodes, seed, FRACTIONS).items()})


def split_fold(episodes: Sequence[Episode], seed: int, fold: int, folds: int) -> Split:
    """One of several splits that between them test every episode once: fold `fold` tests, the next one validates.

    Raises:
        InputError: fewer episodes than folds.
    """
    dealt = list(_deal(episodes, seed, {f"{number}": 1 / folds for number in range(folds)}).values())
    train = [position for number in range(2, folds) for position in dealt[(fold + number) % folds]]
    return Split(tuple(sorted(train)), tuple(sorted(dealt[(fold + 1) % folds])), tuple(sorted(dealt[fold])))


def _deal(episodes: Sequence[Episode], seed: int, shares: Mapping[str, float]) -> dict[str, list[int]]:
    """Positions of the episodes that each name gets.

    Episodes are shuffled within their group, groups are laid end to end, and each next episode goes to the part
    that is furthest behind its share. Every run of episodes then holds the shares to within one episode.
    """
    recordings, least = _recordings(episodes), max(FEWEST_EPISODES, len(shares))
    if len(recordings) < least:
        raise InputError(
            f"{len(recordings)} episode(s) cannot be split into train, validation and test; give at least {least}"
        )
    rng = np.random.default_rng(seed)
    groups = [[first for first in group if first in recordings] for group in by_group(episodes).values()]
    firsts: dict[str, list[int]] = {name: [] for name in shares}
    dealt = 0
    for group in (groups[i] for i in rng.permutation(len(groups))):
        for first in rng.permutation(group):
            dealt += 1
            behind = {name: share * dealt - len(firsts[name]) for name, share in shares.items()}
            firsts[max(behind, key=behind.__getitem__)].append(int(first))
    return {name: [i for first in of for i in recordings[first]] for name, of in firsts.items()}


def _recordings(episodes: Sequence[Episode]) -> dict[int, list[int]]:
    """Positions of the episodes of each recording, by the first: one, unless it was cut into parts."""
    parts: dict[tuple[str, str], list[int]] = {}
    for position, episode in enumerate(episodes):
        whole = (episode.source, episode.part_of) if episode.part_of else ("", f"{position}")
        parts.setdefault(whole, []).append(position)
    return {positions[0]: positions for positions in parts.values()}
