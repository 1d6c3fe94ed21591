"""Replays made up by hand: an object that is grasped at step 4, carried, and let go at step 12 of 16."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from workbook.common.array import Array
from workbook.data.episodes import Episode
from workbook.evaluation.replay.codecs import PlayedCodec
from workbook.evaluation.replay.evidence import Replays
from workbook.evaluation.replay.predictors import PREDICTORS
from workbook.evaluation.replay.rows import Outcome, Played, PlayedEpisode, tables
from workbook.simulation.playback import Trace

STEPS, GRASP, RELEASE = 16, 4, 12
FINAL = "f" * 64


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


def played_episodes(tasks: Sequence[str], truth: Sequence[Outcome] | None = None) -> list[PlayedEpisode]:
    return [
        PlayedEpisode(Episode(np.zeros((STEPS, 7)), task, "made_up.hdf5", f"demo_{number}"), outcome)
        for number, (task, outcome) in enumerate(zip(tasks, truth or [trace()] * len(tasks), strict=True))
    ]


# What it is called here -> codec, setting, bits a chunk.
CODECS = {
    "naive": ("naive", "layers=8", 2875.0),
    "layernorm": ("layernorm", "layers=8", 2875.0),
    "layernorm_sent": ("layernorm_sent", "layers=8", 4923.0),
    "fixed_scale": ("fixed_scale", "layers=8", 2875.0),
    "fixed_scale_few": ("fixed_scale", "layers=3", 1078.0),
    "bins": ("bins", "bins=16", 224.0),
    "fast": ("fast", "rate=80", 82.0),
    "fast_own": ("fast", "scale=10", 116.0),
    "klt_rfsq_fixed": ("klt_rfsq_fixed", "rate=80", 79.0),
    "klt_rfsq_variable": ("klt_rfsq_variable", "rate=80", 81.0),
}


def played(codec: str, setting: str, bits: float, outcomes: Sequence[Sequence[Outcome]], deployed: int = 0) -> Played:
    """outcomes: [seed][episode]. The mse rises from episode to episode, and all other errors are 0."""
    episodes = len(outcomes[0])
    scores = pd.DataFrame({"chunks": [2] * episodes, "bits": bits, "entropy_bits": bits})
    scores = scores.assign(**dict.fromkeys(PREDICTORS, 0.0)).assign(mse=0.1 + 0.01 * np.arange(episodes))
    of = PlayedCodec(codec, setting, [], range(len(outcomes)), deployed)
    return Played(of, outcomes, [scores] * len(outcomes))


def made_replays(
    tasks: Sequence[str],
    truth: Sequence[Outcome] | None = None,
    more: Sequence[Played] = (),
    **outcomes: Sequence[Outcome] | Sequence[Sequence[Outcome]],
) -> Replays:
    """Every codec succeeds everywhere, but for those given: of one seed, or of each. more: of codecs beside these."""
    found = []
    for name, of in CODECS.items():
        given = outcomes.get(name, [trace()] * len(tasks))
        seeds = [given] if isinstance(given[0], Trace | str) else given
        found.append(played(*of, seeds))  # type: ignore[arg-type]
    values = {
        "not_run": "", "versions": {"mujoco": "3.17.0"}, "kernels": "Haswell", "seconds": 60.0, "newly_played": 240,
        "replays": 240, "without_start": 0, "final_states": {"recorded": len(tasks), "equal": len(tasks)},
    }  # fmt: skip
    made = tables(played_episodes(tasks, truth), [*found, *more])
    return Replays(values, made["replays"], made["replay_drift"], made["replay_paths"])
