"""Plays the test episodes again: exactly, then as every codec's tokens decode, each replay once and for all.

A finished replay is kept in a folder under the hash of everything that decides it, so that neither an interrupted run
nor a second one plays it again.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from workbook.chunks import Array, join_chunks
from workbook.codecs.protocol import Codec, entropy_bits
from workbook.comparison import HeldOut
from workbook.dataset import Dataset
from workbook.episodes import Start, take_evenly
from workbook.errors import InputError
from workbook.parallel import OnProgress
from workbook.paths import OutputFolder
from workbook.replay.codecs import Candidate, candidates
from workbook.replay.evidence import Played, PlayedEpisode, evidence
from workbook.simulation import scene
from workbook.simulation.lanes import Died, run_apart
from workbook.simulation.playback import Playback, Trace, play

SECONDS_A_REPLAY = 300.0  # after which one counts as hung; the longest take about 10
NO_STATES = (
    "the recordings do not say in which state of LIBERO's simulator they began; LIBERO's HDF5 files and the sample do"
)
OTHER_LAYOUT = "LIBERO's simulator takes actions of the layout 'libero' alone"


@dataclass(frozen=True)
class ReplayConfig:
    """Parameters of 05_replay.

    replay_episodes: of the test part, taken in turn from every task, 0 for all; replay_seeds: models of each trained
    codec, the one to deploy among them, 0 for all.
    """

    replay_episodes: int = 0
    replay_seeds: int = 0

    def __post_init__(self) -> None:
        for name in ("replay_episodes", "replay_seeds"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} is {getattr(self, name)}; give a positive number, or 0 for all")


def replay(
    out: OutputFolder,
    dataset: Dataset,
    training: dict[str, Any],
    config: ReplayConfig,
    traces: Path,
    on_progress: OnProgress | None = None,
) -> dict[str, Any]:
    """Content of the replay stage; 'not_run' is why nothing could be played, '' where it was.

    traces: folder of finished replays. What keeps a single episode from being played is told in the content, and
    raises nothing.
    """
    started = time.monotonic()
    problem = scene.missing_packages() or _unplayable(dataset)
    if problem:
        return {"not_run": problem}
    found = candidates(out, dataset, training, config.replay_seeds or len(training["conditionings"]["scale"]["runs"]))
    chosen = _choose_episodes(dataset, config.replay_episodes)
    decoded = {id(codec): _decode(dataset, codec) for candidate in found for codec in candidate.codecs}
    replays = _Replays(traces)
    starts = [dataset.starts[position] for position in chosen]
    exact = [dataset.episodes[position].actions for position in chosen]
    wanted = [Playback(start, actions) for start, actions in zip(starts, exact, strict=True)]
    places = [dataset.split.test.index(position) for position in chosen]
    for candidate in found:
        for codec in candidate.codecs:
            wanted += _playbacks(starts, [decoded[id(codec)][place] for place in places])
    replays.play(wanted, on_progress)
    episodes = [
        PlayedEpisode(dataset.episodes[position], replays.outcome(Playback(start, actions)), start.final_state_sha256)
        for position, start, actions in zip(chosen, starts, exact, strict=True)
    ]
    played = [_played(candidate, dataset, decoded, places, starts, replays) for candidate in found]
    replays.forget_others()
    return {
        "not_run": "",
        "versions": scene.versions(),
        "seconds": time.monotonic() - started,
        "newly_played": replays.newly_played,
        "without_start": len(dataset.split.test) - len(dataset.starts),
        "seeds": max(len(candidate.codecs) for candidate in found),
        **evidence(episodes, played),
    }


def _unplayable(dataset: Dataset) -> str:
    if not dataset.layout.is_libero:
        return OTHER_LAYOUT
    return "" if dataset.starts else NO_STATES


def _choose_episodes(dataset: Dataset, count: int) -> list[int]:
    """Positions of the test episodes to play, task by task, so that few scenes have to be built."""
    at = {id(dataset.episodes[position]): position for position in dataset.starts}
    taken = take_evenly([dataset.episodes[position] for position in sorted(dataset.starts)], count)
    return [at[id(episode)] for episode in sorted(taken, key=lambda episode: episode.stratum)]


def _decode(dataset: Dataset, codec: Codec) -> list[Array]:
    """Every test episode as its tokens decode, chunk after chunk, within what the controller takes: (T, 7) each."""
    chunks = dataset.held_out_chunks("test")
    joined = join_chunks(chunks, codec.decode(codec.encode(chunks.actions)))
    return [np.clip(actions, -dataset.layout.limit, dataset.layout.limit) for actions in joined]


def _playbacks(starts: Sequence[Start], actions: Sequence[Array]) -> list[Playback]:
    return [Playback(start, each) for start, each in zip(starts, actions, strict=True)]


def _played(
    candidate: Candidate,
    dataset: Dataset,
    decoded: dict[int, list[Array]],
    places: Sequence[int],
    starts: Sequence[Start],
    replays: _Replays,
) -> Played:
    test = HeldOut.of(dataset)
    chosen = candidate.codecs[candidate.chosen]
    tokens = chosen.encode(test.chunks.actions)
    metrics = test.measure(chosen.decode(tokens))
    errors = {
        name: np.where(metric.weights > 0, metric.values, np.nan)[list(places)] for name, metric in metrics.items()
    }
    outcomes = [
        [replays.outcome(p) for p in _playbacks(starts, [decoded[id(codec)][place] for place in places])]
        for codec in candidate.codecs
    ]
    return Played(candidate, chosen.bits(tokens), entropy_bits(tokens, test.chunks.valid), outcomes, errors)


class _Replays:
    """Plays what has not been played yet, and remembers how it went."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.outcomes: dict[str, Trace | str] = {}
        self.newly_played = 0

    def play(self, wanted: Sequence[Playback], on_progress: OnProgress | None) -> None:
        jobs = []
        for playback in {playback.key: playback for playback in wanted}.values():
            trace = Trace.load(self._path(playback.key))
            if trace is None:
                jobs.append((playback, self._path(playback.key)))
            else:
                self.outcomes[playback.key] = trace
        jobs.sort(key=lambda job: (job[0].start.task_file, job[0].start.state.tobytes()))
        finished, self.newly_played = len(self.outcomes), len(jobs)
        total = finished + len(jobs)

        def report(done: int, _: int) -> None:
            if on_progress:
                on_progress(finished + done, total)

        for (playback, path), problem in zip(jobs, run_apart(_play_job, jobs, SECONDS_A_REPLAY, report), strict=True):
            if isinstance(problem, Died):
                self.outcomes[playback.key] = "the simulator's process died or hung while it was played"
            else:
                self.outcomes[playback.key] = Trace.load(path) or problem

    def outcome(self, playback: Playback) -> Trace | str:
        """What happened, or in one sentence why it could not be played."""
        return self.outcomes[playback.key]

    def forget_others(self) -> None:
        """Remove finished replays of earlier runs that this one had no use for."""
        for path in self.folder.glob("*.npz"):
            if path.stem not in self.outcomes:
                path.unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.npz"


def _play_job(job: tuple[Playback, Path]) -> str:
    """Play and keep the trace; '' or why it could not be played."""
    playback, path = job
    try:
        play(_scene_of(playback.start.task_file), playback).save(path)
    except scene.SimulationError as error:
        return str(error)
    return ""


@lru_cache(maxsize=1)
def _scene_of(task_file: str) -> scene.Scene:
    return scene.Scene(task_file)
