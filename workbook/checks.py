"""What is refused, whatever source it comes from, because no result on it would mean anything."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from workbook.episodes import Episode
from workbook.errors import InputError
from workbook.layout import ActionLayout


def check_actions(episodes: Sequence[Episode], layout: ActionLayout) -> None:
    """Refuse another width than the layout's, and values that are not finite.

    Raises:
        InputError: names the episode, the step and the dimension.
    """
    for episode in episodes:
        shape = episode.actions.shape
        if len(shape) != 2 or shape[1] != layout.dim:
            raise InputError(
                f"{episode.place}: actions have shape {shape}, expected (steps, {layout.dim}) for the layout "
                f"'{layout.spec}'; leave this file out, or say what its "
                f"actions are, for example --layout joint:{shape[-1] if len(shape) == 2 else layout.dim}"
            )
        bad = np.argwhere(~np.isfinite(episode.actions))
        if len(bad):
            step, dimension = bad[0]
            raise InputError(
                f"{episode.place}, step {step}, {layout.names[dimension]}: "
                f"the action is {episode.actions[step, dimension]}; mend or remove this episode"
            )


def check_lengths(episodes: Sequence[Episode], chunk_len: int, which: str = "") -> None:
    """Refuse an episode that does not fill one chunk. which: says in the message which steps were counted.

    Raises:
        InputError: names the episode and its length.
    """
    for episode in episodes:
        steps = len(episode.actions)
        if steps < chunk_len:
            raise InputError(
                f"{episode.place}: {steps} steps{which} are fewer than one chunk of {chunk_len}; "
                "remove this episode or choose a shorter chunk"
            )
