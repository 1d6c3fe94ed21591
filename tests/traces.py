"""Replays made up by hand: an object that is grasped at step 4, carried, and let go at step 12 of 16."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from workbook.codecs.bins import UniformBins
from workbook.codecs.protocol import Codec
from workbook.common.array import Array
from workbook.data.episodes import Episode
from workbook.evaluation.replay.codecs import EQUAL_RATES, Candidate
from workbook.evaluation.replay.evidence import Outcome, Played, PlayedEpisode
from workbook.evaluation.replay.predictors import PREDICTORS
from workbook.simulation.playback import Trace

STEPS, GRASP, RELEASE = 16, 4, 12
FINAL = "f" * 64
Evidence = dict[str, Any]


def hand_path() -> Array:
    """Down to the object, up again and 10 cm to the side: (T+1, 3) in metres."""
    path = np.zeros((STEPS + 1, 3))
    path[:, 2] = [0.2, 0.15, 0.1, 0.05, *np.linspace(0.0, 0.1, 5), *[0.1] * 8]
    path[8:13, 0] = np.linspace(0, 0.1, 5)
    path[13:, 0] = 0.1
    path[RELEASE:, 2] = 0.2
    return path


def carried(hand: Array, grasped: int = GRASP, let_go: int = RELEASE) -> Array:
    """The object goes with the hand from one step to another, and falls to the ground: (T+1, 1, 3)."""
    path = np.zeros((len(hand), 3))
    path[grasped:let_go] = hand[grasped:let_go] - hand[grasped]
    path[let_go:, :2] = path[let_go - 1, :2]
    return path[:, None]


def trace(objects: Array | None = None, succeeded: bool = True, mechanisms: Array | None = None) -> Trace:
    hand = hand_path()
    turn = np.tile([0.0, 0.0, 0.0, 1.0], (len(hand), 1))
    goal = np.zeros(STEPS, dtype=bool)
    goal[-1] = succeeded
    nothing = np.zeros((len(hand), 0))
    return Trace(
        goal,
        hand,
        turn,
        carried(hand) if objects is None else objects,
        nothing if mechanisms is None else mechanisms,
        np.array(FINAL),
    )


def failed(objects: Array | None = None, mechanisms: Array | None = None) -> Trace:
    return trace(objects, False, mechanisms)


def moved_by(of: Trace, metres: float) -> Trace:
    """The same with the hand aside in y."""
    return replace(of, hand=of.hand + np.array([0.0, metres, 0.0]))


NOT_GRASPED = failed(np.zeros((STEPS + 1, 1, 3)))


def episode(task: str = "put it there", number: int = 0) -> Episode:
    return Episode(np.zeros((STEPS, 7)), task, "made_up.hdf5", f"demo_{number}")


def played_episodes(tasks: Sequence[str], exact: Sequence[Outcome] | None = None) -> list[PlayedEpisode]:
    outcomes = exact or [trace()] * len(tasks)
    return [
        PlayedEpisode(episode(task, number), outcome, FINAL)
        for number, (task, outcome) in enumerate(zip(tasks, outcomes, strict=True))
    ]


KEYS = {
    "naive": ("rfsq_none", 2875.0),
    "layernorm": ("layernorm", 2875.0),
    "layernorm_sent": ("layernorm", 4923.0),
    "scale": ("rfsq_scale", 2875.0),
    "scale_few": ("rfsq_scale", 1078.0),
    "bins16": ("bins", 224.0),
    **{f"klt_rfsq_{rate}": ("klt_rfsq", float(rate)) for rate in EQUAL_RATES},
    **{f"klt_rfsq_fixed_{rate}": ("klt_rfsq_fixed", float(rate)) for rate in EQUAL_RATES},
    **{f"fast_{rate}": ("fast", float(rate)) for rate in EQUAL_RATES},
}


def played(key: str, outcomes: Sequence[Sequence[Outcome]]) -> Played:
    """outcomes: [seed][episode]."""
    family, bits = KEYS[key]
    rate = int(key.rsplit("_", 1)[-1]) if key[-1].isdigit() and "_" in key else None
    codec: Codec = UniformBins(2, None)  # type: ignore[arg-type]  # nothing is encoded here
    errors = {name: np.zeros(len(outcomes[0])) for name in PREDICTORS}
    errors["mse"] = 0.1 + 0.01 * np.arange(len(outcomes[0]))
    return Played(Candidate(key, f"title of {key}, 3 layers", family, [codec], rate=rate), bits, bits, outcomes, errors)


def all_played(episodes: int, **outcomes: Sequence[Outcome]) -> list[Played]:
    """Every codec succeeds everywhere, but for those given, of one seed each."""
    return [played(key, [outcomes.get(key, [trace()] * episodes)]) for key in KEYS]
