"""Which recordings are not used, and why: what cannot be actions, copies, and what is asked to be left out."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from workbook.common.errors import InputError
from workbook.data.episodes import Episode, LeftOut
from workbook.data.layout import ActionLayout

ASKED_FOR = ("failed", "no_motion", "short_part")  # reasons to leave an episode out that are no fault of the data
Copy = tuple[str, str]  # where a recording lies that is left out, and where the same one that is kept


def leave_out_unusable(
    episodes: Sequence[Episode], layout: ActionLayout, chunk_len: int
) -> tuple[list[Episode], list[LeftOut]]:
    """What has the layout's width, finite values and the length of a chunk, and what has not."""
    problems = [(episode, _problem(episode, layout, chunk_len)) for episode in episodes]
    return [episode for episode, found in problems if found is None], [found for _, found in problems if found]


def _problem(episode: Episode, layout: ActionLayout, chunk_len: int) -> LeftOut | None:
    shape = episode.actions.shape
    if len(shape) != 2 or shape[1] != layout.dim:
        sentence = (
            f"{episode.place}: actions have shape {shape}, expected (steps, {layout.dim}) for the layout "
            f"'{layout.spec}'; leave this file out, or say what its "
            f"actions are, for example --layout joint:{shape[-1] if len(shape) == 2 else layout.dim}"
        )
        return LeftOut(episode.place, "wrong_width", sentence)
    bad = np.argwhere(~np.isfinite(episode.actions))
    if len(bad):
        step, dimension = bad[0]
        sentence = (
            f"{episode.place}, step {step}, {layout.names[dimension]}: "
            f"the action is {episode.actions[step, dimension]}; fix or remove this episode"
        )
        return LeftOut(episode.place, "not_finite", sentence)
    if shape[0] < chunk_len:
        sentence = (
            f"{episode.place}: {shape[0]} steps are fewer than one chunk of {chunk_len}; "
            "remove this episode or choose a shorter chunk"
        )
        return LeftOut(episode.place, "short_part" if episode.part_of else "too_short", sentence)
    return None


def check_left_out(left_out: Sequence[LeftOut], usable: int, most: float) -> None:
    """Refuse data of which too much cannot be used. usable: episodes that can; most: share that may be left out.

    Raises:
        InputError: says why the first cannot, and counts them.
    """
    faults = [one for one in left_out if one.why not in ASKED_FOR]
    total = len(faults) + usable
    if usable and len(faults) / total <= most:
        return
    if len(faults) == 1 and usable:
        raise InputError(faults[0].sentence)
    if not faults:
        raise InputError(f"{left_out[0].sentence}; nothing is left" if left_out else "the data hold no episode")
    raise InputError(f"{faults[0].sentence} (and so on: {len(faults)} of {total} episodes cannot be used)")


def leave_out_copies(episodes: list[Episode]) -> tuple[list[Episode], tuple[Copy, ...]]:
    """Keep the first of equal recordings, or a held-out episode could be trained on; the others are named."""
    first: dict[bytes, Episode] = {}
    copies = []
    for episode in episodes:
        digest = hashlib.sha256(repr(episode.actions.shape).encode() + episode.actions.tobytes()).digest()
        original = first.setdefault(digest, episode)
        if original is not episode:
            copies.append((episode.place, original.place))
    return list(first.values()), tuple(copies)


def leave_out_emptied(episodes: list[Episode], chunk_len: int) -> tuple[list[Episode], list[LeftOut]]:
    """What still fills a chunk after its no-op steps went, and what does not.

    Raises:
        InputError: nothing does.
    """
    kept = [episode for episode in episodes if len(episode.actions) >= chunk_len]
    emptied = [
        LeftOut(
            episode.place,
            "no_motion",
            f"{episode.place}: {len(episode.actions)} steps that command something are fewer than one chunk of "
            f"{chunk_len}; leave out --drop-noops or choose a shorter chunk",
        )
        for episode in episodes
        if len(episode.actions) < chunk_len
    ]
    if not kept:
        raise InputError(emptied[0].sentence)
    return kept, emptied
