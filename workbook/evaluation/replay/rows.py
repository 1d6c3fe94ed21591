"""Replays as tidy rows.

replays.parquet: one for each codec, setting, seed and test episode that was asked for; of the ground-truth replay, too,
whose codec is 'ground_truth'.

    deployed          whether it is of the model to deploy
    played, succeeded whether it came to an end, and to the goal: none where it was not played
    not_played        why not, '' where it was
    articulated       the goal is about a drawer, a door or a knob, and nothing is carried
    bits, ..., errors as in `score`, of the decoded actions
    failure           why it failed (`failures`), '' where it did not, or where the ground-truth replay did
    failure_step      of what `failure` names; failure_progress: that as a share of the episode; hand_mm: how far the
                      hand then was from where it was in the ground-truth replay

tables/replay_drift.parquet: how far the hand is from there as episodes go on, medians and 90th percentiles.
tables/replay_paths.parquet: its path seen from above, of each task at most one episode, those that most codecs fail.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from workbook.codecs.catalogue import FEW_LAYERS, Setting, quoted_rate
from workbook.common.array import Array
from workbook.data.episodes import Episode
from workbook.evaluation.replay.codecs import PlayedCodec
from workbook.evaluation.replay.failures import explain, hand_drift
from workbook.evaluation.replay.predictors import PREDICTORS
from workbook.simulation.playback import Trace, turned_apart

GROUND_TRUTH = "ground_truth"
COSTS = ("chunks", "bits", "entropy_bits")
PROGRESS = np.linspace(0, 1, 11)  # of an episode, at which drift is told
EPISODES_SHOWN = 3

Outcome = Trace | str  # what happened, or why it could not be played: a key, or one sentence


@dataclass(frozen=True, eq=False)
class PlayedEpisode:
    """A test episode, its ground-truth replay, and the hash of its recorded end state, '' if unknown."""

    episode: Episode
    truth: Outcome
    final_state_sha256: str = ""

    @property
    def counts(self) -> bool:
        return isinstance(self.truth, Trace) and self.truth.succeeded


@dataclass(frozen=True, eq=False)
class Played:
    """A codec's replays. outcomes: [seed][episode]; scores: for each seed the rows of `score` of the same episodes."""

    codec: PlayedCodec
    outcomes: Sequence[Sequence[Outcome]]
    scores: Sequence[pd.DataFrame]

    @property
    def deployed(self) -> Sequence[Outcome]:
        return self.outcomes[self.codec.deployed]


def all_layers(settings: Sequence[str]) -> str:
    """The setting that stands for a codec: the one of most layers, or the first."""
    return max(settings, key=lambda text: Setting.parse(text).get("layers", 0) or 0)


def tables(episodes: Sequence[PlayedEpisode], played: Sequence[Played]) -> dict[str, pd.DataFrame]:
    """Name -> rows."""
    return {
        "replays": replay_rows(episodes, played),
        "replay_drift": drift_rows(episodes, played),
        "replay_paths": path_rows(episodes, played),
    }


def replay_rows(episodes: Sequence[PlayedEpisode], played: Sequence[Played]) -> pd.DataFrame:
    truth = _rows(episodes, [episode.truth for episode in episodes])
    frames = [truth.assign(codec=GROUND_TRUTH, setting="", seed=0, deployed=True)]
    for one in played:
        of = one.codec
        for place, (seed, outcomes, scores) in enumerate(zip(of.seeds, one.outcomes, one.scores, strict=True)):
            frame = pd.concat([_rows(episodes, outcomes), scores[[*COSTS, *PREDICTORS]].reset_index(drop=True)], axis=1)
            frames.append(frame.assign(codec=of.name, setting=of.setting, seed=seed, deployed=place == of.deployed))
    rows = pd.concat(frames, ignore_index=True)
    keys = ["codec", "setting", "seed", "part", "task", "episode", "deployed"]
    return rows[[*keys, *(column for column in rows if column not in keys)]]


def _rows(episodes: Sequence[PlayedEpisode], outcomes: Sequence[Outcome]) -> pd.DataFrame:
    found = [_row(episode, outcome) for episode, outcome in zip(episodes, outcomes, strict=True)]
    return pd.DataFrame(found).astype({"succeeded": "boolean"})


def _row(episode: PlayedEpisode, outcome: Outcome) -> dict[str, object]:
    truth, ended = episode.truth, isinstance(outcome, Trace)
    row: dict[str, object] = {
        "part": "test",
        "task": episode.episode.task,
        "episode": episode.episode.place,
        "articulated": isinstance(truth, Trace) and truth.objects.shape[1] == 0,
        "played": ended,
        "succeeded": outcome.succeeded if isinstance(outcome, Trace) else None,
        "not_played": "" if ended else outcome,
        "failure": "",
        "failure_step": np.nan,
        "failure_progress": np.nan,
        "hand_mm": np.nan,
    }
    if isinstance(truth, Trace) and truth.succeeded and isinstance(outcome, Trace) and not outcome.succeeded:
        failure = explain(truth, outcome)
        row |= {
            "failure": failure.reason,
            "failure_step": float(failure.step),
            "failure_progress": min(failure.step / len(truth.goal), 1.0),
            "hand_mm": failure.hand_mm,
        }
    return row


def drift_rows(episodes: Sequence[PlayedEpisode], played: Sequence[Played]) -> pd.DataFrame:
    frames = []
    for one in played:
        pairs = [
            (episode.truth, outcome)
            for episode, outcome in zip(episodes, one.deployed, strict=True)
            if episode.counts and isinstance(episode.truth, Trace) and isinstance(outcome, Trace)
        ]
        if pairs:
            frames.append(_drift(pairs).assign(codec=one.codec.name, setting=one.codec.setting))
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame({"codec": [], "setting": []})


def _drift(pairs: Sequence[tuple[Trace, Trace]]) -> pd.DataFrame:
    moved = np.array([_along(1000 * hand_drift(truth, decoded)) for truth, decoded in pairs])
    turned = np.array([_along(_turn_drift(truth, decoded)) for truth, decoded in pairs])
    return pd.DataFrame(
        {
            "progress": PROGRESS,
            "position_mm": np.median(moved, axis=0),
            "position_mm_p90": np.quantile(moved, 0.9, axis=0),
            "rotation_deg": np.median(turned, axis=0),
            "rotation_deg_p90": np.quantile(turned, 0.9, axis=0),
        }
    )


def _turn_drift(truth: Trace, decoded: Trace) -> Array:
    steps = min(len(truth.turn), len(decoded.turn))
    return turned_apart(truth.turn[:steps], decoded.turn[:steps])


def _along(values: Array) -> Array:
    return np.interp(PROGRESS * (len(values) - 1), np.arange(len(values)), values)


def path_rows(episodes: Sequence[PlayedEpisode], played: Sequence[Played]) -> pd.DataFrame:
    shown = _shown(played)
    frames = []
    for at in _hardest(episodes, shown):
        paths = [(GROUND_TRUTH, "", episodes[at].truth)]
        paths += [(one.codec.name, one.codec.setting, one.deployed[at]) for one in shown]
        frames += [
            _seen_from_above(path).assign(task=episodes[at].episode.task, codec=codec, setting=setting)
            for codec, setting, path in paths
            if isinstance(path, Trace)
        ]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame({"task": [], "codec": [], "setting": []})


def shown(keys: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Codecs and settings, of those that were played, whose drift and paths are shown."""
    wanted: dict[str, Callable[[list[str]], str]] = {
        "naive": all_layers,
        "fixed_scale": lambda settings: str(Setting.of(layers=FEW_LAYERS)),
        "bins": lambda settings: str(Setting.of(bins=16)),
        "klt_rfsq_variable": quoted_rate,
        "fast": quoted_rate,
    }
    of = {codec: [setting for name, setting in keys if name == codec] for codec in wanted}
    found = [(codec, choose(of[codec])) for codec, choose in wanted.items() if of[codec]]
    return [key for key in found if key in keys]


def _shown(played: Sequence[Played]) -> list[Played]:
    of = {(one.codec.name, one.codec.setting): one for one in played}
    return [of[key] for key in shown(list(of))]


def _hardest(episodes: Sequence[PlayedEpisode], shown: Sequence[Played]) -> list[int]:
    """Places of episodes, of each task the one that most codecs fail."""

    def failed(at: int) -> int:
        outcomes = [one.deployed[at] for one in shown]
        return sum(isinstance(outcome, Trace) and not outcome.succeeded for outcome in outcomes)

    of_task: dict[str, int] = {}
    for at, episode in enumerate(episodes):
        task = episode.episode.task
        if episode.counts and (task not in of_task or failed(at) > failed(of_task[task])):
            of_task[task] = at
    return sorted(of_task.values(), key=lambda at: (-failed(at), episodes[at].episode.task))[:EPISODES_SHOWN]


def _seen_from_above(trace: Trace) -> pd.DataFrame:
    x, y = np.round(1000 * trace.hand[:, :2], 1).T
    return pd.DataFrame({"step": np.arange(len(x)), "x_mm": x, "y_mm": y, "succeeded": trace.succeeded})
