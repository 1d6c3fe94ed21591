"""Plays the test episodes again: exactly, then as every codec's tokens decode, each replay once and for all.

A finished replay is kept in a folder under the hash of everything that decides it, so that neither an interrupted run
nor a second one plays it again.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from workbook.codecs.protocol import Codec, entropy_bits
from workbook.common.errors import InputError
from workbook.common.parallel import OnProgress
from workbook.common.paths import OutputFolder
from workbook.data.chunks import join_chunks
from workbook.data.dataset import Dataset
from workbook.data.episodes import take_evenly
from workbook.data.sources.files import one_line
from workbook.evaluation.replay.codecs import Candidate, candidates
from workbook.evaluation.replay.evidence import Played, PlayedEpisode, evidence
from workbook.evaluation.score import HeldOut
from workbook.simulation import scene
from workbook.simulation.kernels import kernels
from workbook.simulation.playback import Playback, Trace, play
from workbook.simulation.workers import Died, run_apart

SECONDS_A_REPLAY = 300.0  # after which one counts as hung; the longest take about 10
NO_STATES = (
    "the recordings do not say in which state of LIBERO's simulator they began, as LIBERO's HDF5 files and the sample "
    "do, or steps of them were left out with --drop-noops"
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
    problem = scene.missing_packages() or unplayable(dataset)
    if problem:
        return {"not_run": problem}
    found = candidates(out, dataset, training, config.replay_seeds or len(training["conditionings"]["scale"]["runs"]))
    chosen = _choose_episodes(dataset, config.replay_episodes)
    exact = [Playback(dataset.starts[at], dataset.episodes[at].actions) for at in chosen]
    decoded = {id(codec): _decode(dataset, codec, chosen) for candidate in found for codec in candidate.codecs}
    replays = _Replays(traces)
    replays.play([*exact, *chain.from_iterable(decoded.values())], on_progress)
    episodes = [
        PlayedEpisode(dataset.episodes[at], replays.outcome(playback), playback.start.final_state_sha256)
        for at, playback in zip(chosen, exact, strict=True)
    ]
    played = [
        _played(candidate, dataset, chosen, [list(map(replays.outcome, decoded[id(c)])) for c in candidate.codecs])
        for candidate in found
    ]
    return {
        "not_run": "",
        "versions": scene.versions(),
        "kernels": kernels(),
        "seconds": time.monotonic() - started,
        "newly_played": replays.newly_played,
        "replays": len(replays.outcomes),
        "without_start": len(dataset.split.test) - len(dataset.starts),
        **evidence(episodes, played),
    }


def unplayable(dataset: Dataset) -> str:
    """Why no episode of a data set can be played, in one sentence; '' where some can."""
    if not dataset.layout.is_libero:
        return OTHER_LAYOUT
    return "" if dataset.starts else NO_STATES


def _choose_episodes(dataset: Dataset, count: int) -> list[int]:
    """Positions of the test episodes to play, task by task, so that few scenes have to be built."""
    at = {id(dataset.episodes[position]): position for position in dataset.starts}
    taken = take_evenly([dataset.episodes[position] for position in sorted(dataset.starts)], count)
    return [at[id(episode)] for episode in sorted(taken, key=lambda episode: episode.group)]


def _decode(dataset: Dataset, codec: Codec, chosen: Sequence[int]) -> list[Playback]:
    """The chosen test episodes as their tokens decode, chunk after chunk, within what the controller takes."""
    chunks = dataset.held_out_chunks("test")
    joined = join_chunks(chunks, codec.decode(codec.encode(chunks.actions)))
    limit = dataset.layout.limit
    return [Playback(dataset.starts[at], np.clip(joined[dataset.split.test.index(at)], -limit, limit)) for at in chosen]


def _played(
    candidate: Candidate, dataset: Dataset, chosen: Sequence[int], outcomes: Sequence[Sequence[Trace | str]]
) -> Played:
    """A candidate's outcomes, with the bits and the errors of the codec to deploy on the same episodes."""
    test = HeldOut.of(dataset)
    codec = candidate.codecs[candidate.chosen]
    tokens = codec.encode(test.chunks.actions)
    places = [dataset.split.test.index(at) for at in chosen]
    errors = {
        name: np.where(metric.weights > 0, metric.values, np.nan)[places]
        for name, metric in test.measure(codec.decode(tokens)).items()
    }
    return Played(candidate, codec.bits(tokens), entropy_bits(tokens, test.chunks.valid), outcomes, errors)


class _Replays:
    """Plays what has not been played yet, and remembers how it went."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for half_written in folder.glob(f".{'[0-9a-f]' * 64}.npz.*"):  # by processes that died
            half_written.unlink(missing_ok=True)
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

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.npz"


def _play_job(job: tuple[Playback, Path]) -> str:
    """Play and keep the trace; '' or why it could not be played."""
    playback, path = job
    task_file = playback.start.task_file
    try:
        play(_scene_of(task_file), playback).save(path)
    except scene.SimulationError as error:
        return str(error)
    except Exception as error:  # whatever the simulator's packages raise costs this replay alone
        return f"{task_file}: cannot be played ({type(error).__name__}: {one_line(error)})"
    return ""


@lru_cache(maxsize=1)
def _scene_of(task_file: str) -> scene.Scene:
    return scene.Scene(task_file)
