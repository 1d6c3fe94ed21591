"""Plays the test episodes again: their own actions, then those that every codec's tokens decode, each once and for all.

A finished replay is kept in a folder under the hash of everything that decides it, so that neither an interrupted run
nor a second one plays it again.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from workbook.codecs.protocol import Codec
from workbook.common.errors import InputError
from workbook.common.jobs import OnProgress
from workbook.common.paths import OutputFolder
from workbook.data.chunks import join_chunks
from workbook.data.dataset import Dataset
from workbook.data.episodes import take_evenly
from workbook.data.sources.files import one_line
from workbook.evaluation.replay.codecs import played_codecs
from workbook.evaluation.replay.evidence import DIED, NO_STATES, OTHER_LAYOUT
from workbook.evaluation.replay.rows import Outcome, Played, PlayedEpisode, tables
from workbook.evaluation.score import HeldOut, score
from workbook.simulation import scene
from workbook.simulation.kernels import kernels
from workbook.simulation.playback import Playback, Trace, play
from workbook.simulation.workers import Died, run_missing
from workbook.training.runs import load_fitting

SECONDS_A_REPLAY = 300.0  # after which one counts as hung; the longest take about 10


@dataclass(frozen=True)
class ReplayConfig:
    """Parameters of 05_policy_in_the_loop.

    replay_episodes: of the test part, taken in turn from every task, 0 for all; replay_seeds: models of each trained
    codec, the one to deploy among them, 0 for all.
    """

    replay_episodes: int = 0
    replay_seeds: int = 0

    def __post_init__(self) -> None:
        for name in ("replay_episodes", "replay_seeds"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} is {getattr(self, name)}; give a positive number, or 0 for all")


@dataclass(frozen=True, eq=False)
class ReplayStage:
    """values: what is no row; 'not_run' is why nothing could be played, '' where it was. tables: as in `rows`."""

    values: dict[str, Any]
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)


def replay(
    out: OutputFolder,
    dataset: Dataset,
    training: dict[str, Any],
    config: ReplayConfig,
    traces: Path,
    on_progress: OnProgress | None = None,
) -> ReplayStage:
    """Play what the catalogue says is played. What keeps an episode from being played is told, and raises nothing.

    traces: folder of finished replays.
    """
    started = time.monotonic()
    problem = scene.missing_packages() or unplayable(dataset)
    if problem:
        return ReplayStage({"not_run": problem})
    codecs = played_codecs(load_fitting(out, training, dataset), training, config.replay_seeds)
    chosen = _choose_episodes(dataset, config.replay_episodes)
    truth = [Playback(dataset.starts[at], dataset.episodes[at].actions) for at in chosen]
    decoded = {id(codec): _decode(dataset, codec, chosen) for of in codecs for codec in of.codecs}
    replays = _Replays(traces)
    replays.play([*truth, *chain.from_iterable(decoded.values())], on_progress)
    episodes = [
        PlayedEpisode(dataset.episodes[at], replays.outcome(playback), playback.start.final_state_sha256)
        for at, playback in zip(chosen, truth, strict=True)
    ]
    test, places = HeldOut.of(dataset), [dataset.split.test.index(at) for at in chosen]
    played = [
        Played(
            of,
            [list(map(replays.outcome, decoded[id(codec)])) for codec in of.codecs],
            [score(codec, test).iloc[places] for codec in of.codecs],
        )
        for of in codecs
    ]
    values = {
        "not_run": "",
        "versions": scene.versions(),
        "kernels": kernels(),
        "seconds": time.monotonic() - started,
        "newly_played": replays.newly_played,
        "replays": len(replays.outcomes),
        "without_start": len(dataset.split.test) - len(dataset.test_starts),
        "final_states": _final_states(episodes),
    }
    return ReplayStage(values, tables(episodes, played))


def unplayable(dataset: Dataset) -> str:
    """Why no episode of a data set can be played; '' where some can."""
    if not dataset.layout.is_libero:
        return OTHER_LAYOUT
    return "" if dataset.test_starts else NO_STATES


def _choose_episodes(dataset: Dataset, count: int) -> list[int]:
    """Positions of the test episodes to play, task by task, so that few scenes have to be built."""
    at = {id(dataset.episodes[position]): position for position in dataset.test_starts}
    taken = take_evenly([dataset.episodes[position] for position in sorted(dataset.test_starts)], count)
    return [at[id(episode)] for episode in sorted(taken, key=lambda episode: episode.group)]


def _decode(dataset: Dataset, codec: Codec, chosen: Sequence[int]) -> list[Playback]:
    """The chosen test episodes as their tokens decode, chunk after chunk, within what the controller takes."""
    chunks = dataset.held_out_chunks("test")
    joined = join_chunks(chunks, codec.decode(codec.encode(chunks.actions)))
    limit = dataset.layout.limit
    return [Playback(dataset.starts[at], np.clip(joined[dataset.split.test.index(at)], -limit, limit)) for at in chosen]


def _final_states(episodes: Sequence[PlayedEpisode]) -> dict[str, int]:
    """Of how many episodes the recording says in which state it ended, and how many end in it to the last bit."""
    said = [
        str(each.truth.final_state_sha256) == each.final_state_sha256
        for each in episodes
        if isinstance(each.truth, Trace) and each.final_state_sha256
    ]
    return {"recorded": len(said), "equal": sum(said)}


class _Replays:
    """Plays what has not been played yet, and remembers how it went."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for half_written in folder.glob(f".{'[0-9a-f]' * 64}.npz.*"):
            with suppress(FileNotFoundError):
                if half_written.stat().st_mtime < time.time() - SECONDS_A_REPLAY:  # by a process that died
                    half_written.unlink()
        self.folder = folder
        self.outcomes: dict[str, Outcome] = {}
        self.newly_played = 0

    def play(self, wanted: Sequence[Playback], on_progress: OnProgress | None) -> None:
        jobs = [(each, self._path(each.key)) for each in {playback.key: playback for playback in wanted}.values()]
        jobs.sort(key=lambda job: (job[0].start.task_file, job[0].start.state.tobytes()))
        self.newly_played = sum(not _is_played(job) for job in jobs)
        problems = run_missing(_play_job, jobs, _is_played, SECONDS_A_REPLAY, on_progress)
        for (playback, path), problem in zip(jobs, problems, strict=True):
            self.outcomes[playback.key] = Trace.load(path) or (DIED if isinstance(problem, Died) else problem)

    def outcome(self, playback: Playback) -> Outcome:
        """What happened, or why it could not be played: a key, or one sentence."""
        return self.outcomes[playback.key]

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.npz"


def _is_played(job: tuple[Playback, Path]) -> bool:
    return Trace.load(job[1]) is not None


def _play_job(job: tuple[Playback, Path]) -> str:
    """Play and keep the trace; '' or why it could not be played."""
    playback, path = job
    task_file = playback.start.task_file
    try:
        play(scene.scene_of(task_file), playback).save(path)
    except scene.SimulationError as error:
        return str(error)
    except Exception as error:  # whatever the simulator's packages raise costs this replay alone
        return f"{task_file}: cannot be played ({type(error).__name__}: {one_line(error)})"
    return ""
